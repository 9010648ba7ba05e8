//! What a device can be told to do wrong, on the devices that take orders.

use vram_residency::{Fault, FaultOrder, MockCall, ResidencyLie};
use vram_residency_rig::{Machine, StandIn};

use crate::device::Device;

/// CUDA_ERROR_UNKNOWN and CUDA_ERROR_OUT_OF_MEMORY.
const UNKNOWN: u32 = 999;
const OUT_OF_MEMORY: u32 = 2;
/// Kernels of a digest over one chunk: leaves, nodes, result.
const DIGEST: u64 = 3;
/// Kernels of a proof of zeros: count, result.
const ZERO_PROOF: u64 = 2;

/// Misbehaviour for good: the device is not held to what every scenario must leave.
pub(crate) fn kills(how: &str) -> bool {
    how == "die"
}

/// Tells the device to misbehave, on the next call that can meet it, once.
pub(crate) fn order(device: &Device, how: &str) {
    match (&*device.machine, device.stand_in()) {
        (Machine::Mock(config), _) => config.fail(on_mock(how)).unwrap(),
        (_, Some(stand_in)) => on_stand_in(stand_in, how),
        _ => panic!("a GPU takes no orders; the scenario needs the tag @faults"),
    }
}

fn on_mock(how: &str) -> FaultOrder {
    match how {
        "skip a digest" => Fault::DigestSkipped.into(),
        "digest half and say so" => Fault::DigestShort.into(),
        "digest half and claim all" => Fault::DigestShortClaimsFull.into(),
        "repeat an old digest" => Fault::DigestStale.into(),
        "corrupt an upload" => Fault::CopyToDeviceCorrupts { bit: 4321 }.into(),
        "skip a fill" => Fault::FillSkipped.into(),
        "skip a zero proof" => Fault::CountSkipped.into(),
        "say that memory is managed" => Fault::Residency(ResidencyLie::Managed).into(),
        "answer residency with zeros" => Fault::Residency(ResidencyLie::AllZero).into(),
        "run out of memory late" => Fault::Call { call: MockCall::Alloc, code: OUT_OF_MEMORY }.nth(2),
        "say that no memory is free" => Fault::MemoryInfoFree { free: 0 }.into(),
        "refuse to switch the access" => Fault::call(MockCall::Protect).into(),
        "not confirm a switch of access" => Fault::ProtectUnconfirmed.into(),
        "fail a digest" => Fault::call(MockCall::Digest).into(),
        "fail a fill" => Fault::call(MockCall::Fill).into(),
        "fail a readback" => Fault::call(MockCall::CopyToHost).into(),
        "fail a wait" => Fault::call(MockCall::Synchronize).into(),
        "die" => Fault::Sticky.into(),
        other => panic!("no such misbehaviour: {other}"),
    }
}

fn on_stand_in(stand_in: &StandIn, how: &str) {
    match how {
        "skip a digest" => stand_in.quirk("kernel skipped", 1, DIGEST),
        "digest half and say so" => stand_in.quirk("half hashed", 1, 1),
        "digest half and claim all" => stand_in.quirk("half claimed", 1, 1),
        "repeat an old digest" => {
            // What the digest before left stays: neither poison nor zeroed counters overwrite it.
            stand_in.quirk("fill skipped", 1, 2);
            stand_in.quirk("kernel skipped", 1, DIGEST);
        }
        "corrupt an upload" => stand_in.quirk("upload corrupted", 1, 1),
        "skip a fill" => stand_in.quirk("fill skipped", 1, 1),
        "skip a zero proof" => stand_in.quirk("kernel skipped", 1, ZERO_PROOF),
        "say that memory is managed" => stand_in.quirk("managed", 1, 1),
        "answer residency with zeros" => stand_in.quirk("no answer", 1, 1),
        "run out of memory late" => stand_in.order("cuMemCreate", OUT_OF_MEMORY, 2, 1),
        "say that no memory is free" => stand_in.quirk("nothing free", 1, 1),
        "refuse to switch the access" => stand_in.quirk("switch fails", 1, 1),
        "not confirm a switch of access" => stand_in.quirk("switch unconfirmed", 1, 1),
        "fail a digest" => stand_in.order("cuLaunchKernel", UNKNOWN, 1, 1),
        "fail a fill" => stand_in.order("cuMemsetD8Async", UNKNOWN, 1, 1),
        "fail a readback" => stand_in.order("cuMemcpyDtoHAsync_v2", UNKNOWN, 1, 1),
        "fail a wait" => stand_in.quirk("stream wait fails", 1, 1),
        "die" => stand_in.quirk("kernel faults", 1, 1),
        other => panic!("no such misbehaviour: {other}"),
    }
}

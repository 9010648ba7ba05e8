//! What a device can be told to do wrong, on the devices that take orders.

use vram_residency::{Fault, FaultOrder, MockCall, ResidencyLie};

use crate::device::Device;

/// CUDA_ERROR_OUT_OF_MEMORY.
const OUT_OF_MEMORY: u32 = 2;

/// Misbehaviour for good: the device is not held to what every scenario must leave.
pub(crate) fn kills(how: &str) -> bool {
    how == "die"
}

/// Tells the device to misbehave, on the next call that can meet it, once.
pub(crate) fn order(device: &Device, how: &str) {
    let config = device.machine.mock.as_ref().expect("a GPU takes no orders; the scenario needs the tag @faults");
    config.fail(on_mock(how)).unwrap();
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

//! A device that fails, lies or dies.

use cucumber::{given, when};
use vram_residency::{Fault, FaultOrder, MockCall, ResidencyLie};

use crate::world::World;

#[given(regex = r"^the device will (.+)$")]
#[when(regex = r"^the device will (.+)$")]
fn misbehave(world: &mut World, how: String) {
    let order: FaultOrder = match how.as_str() {
        "skip a digest" => Fault::DigestSkipped.into(),
        "digest half and say so" => Fault::DigestShort.into(),
        "digest half and claim all" => Fault::DigestShortClaimsFull.into(),
        "repeat an old digest" => Fault::DigestStale.into(),
        "corrupt an upload" => Fault::CopyToDeviceCorrupts { bit: 4321 }.into(),
        "skip a fill" => Fault::FillSkipped.into(),
        "skip every fill" => Fault::FillSkipped.always(),
        "skip a zero proof" => Fault::CountSkipped.into(),
        "say that memory is managed" => Fault::Residency(ResidencyLie::Managed).into(),
        "answer residency with zeros" => Fault::Residency(ResidencyLie::AllZero).into(),
        "run out of memory late" => Fault::Call { call: MockCall::Alloc, code: 2 }.nth(2),
        "say that no memory is free" => Fault::MemoryInfoFree { free: 0 }.into(),
        "refuse to switch the access" => Fault::call(MockCall::Protect).into(),
        "not confirm a switch of access" => Fault::ProtectUnconfirmed.into(),
        "confirm a switch of access that it does not make" => Fault::ProtectSkipped.into(),
        "change byte 4321 with a switch of access" => Fault::ProtectCorrupts { bit: 8 * 4321 + 2 }.into(),
        "fail a digest" => Fault::call(MockCall::Digest).into(),
        "fail a fill" => Fault::call(MockCall::Fill).into(),
        "fail two synchronisations" => Fault::call(MockCall::Synchronize).times(2),
        "fail a synchronisation" => Fault::call(MockCall::Synchronize).into(),
        "die" => Fault::Sticky.into(),
        other => panic!("no such misbehaviour: {other}"),
    };
    world.dead |= how == "die";
    world.unwipeable |= matches!(how.as_str(), "skip every fill" | "die");
    world.config.fail(order).unwrap();
}

//! Release, shutdown and what they leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cucumber::{then, when};
use vram_residency::{EventKind, QuarantineCause, ShardId};

use crate::world::World;

#[when(expr = "I release {word}")]
fn release(world: &mut World, name: String) {
    world.before_call();
    let (seal, adopted) = (world.seal_of(&name).clone(), world.manager().adopted_vram());
    let released = world.manager().release(&seal);
    if let Some(report) = world.note(released) {
        assert_eq!(&report.shard, seal.id());
        if seal.is_adopted() {
            // All of the engine's bytes were wiped, or none; the manager's own were in any case.
            let given_back = adopted - world.manager().adopted_vram();
            let wiped = given_back - report.left_unwiped;
            assert!(given_back > 0 && (wiped == 0 || wiped == given_back), "{report:?}");
            assert_eq!(world.manager().used_vram(), world.used_before + wiped - report.bytes);
            return;
        }
        assert_eq!(report.left_unwiped, 0);
        assert!(report.bytes >= seal.byte_len());
        assert_eq!(world.manager().used_vram(), world.used_before - report.bytes);
    }
}

#[when(expr = "I release the shard named {word}")]
fn release_by_id(world: &mut World, name: String) {
    world.before_call();
    let released = world.manager().release_by_id(&ShardId::new(name).unwrap());
    world.note(released);
}

#[when(expr = "I shut down within {int} ms")]
fn shut_down(world: &mut World, deadline: u64) {
    world.before_call();
    let report = world.manager().shutdown(Duration::from_millis(deadline));
    let in_flight = world.held.is_some() || world.batch.is_some() || !world.guards.is_empty();
    assert_eq!(report.drained, !in_flight, "{report:?}");
    assert_eq!(report.wiped_bytes + report.residue_bytes + report.busy_bytes, world.used_before, "{report:?}");
    world.report = Some(report);
    world.outcome = Some(Ok(()));
}

#[when("the manager is dropped")]
fn dropped(world: &mut World) {
    world.before_call();
    Arc::into_inner(world.manager.take().expect("a manager")).expect("nobody else holds it");
    world.outcome = Some(Ok(()));
}

#[then("the device has nothing left and freed nothing unwiped")]
fn nothing_left(world: &mut World) {
    let device = world.device();
    assert_eq!(device.live_bytes().unwrap_or(0), 0, "bytes are left");
    device.assert_staging_wiped();
    device.assert_wiped();
    assert!(device.zero_proofs().is_none_or(|proofs| proofs > 0), "zero was proven on the device");
    device.assert_free_again();
    assert!(world.sink.names().contains(&"vram_wiped"), "and the trail says so");
    assert_all_given_back(world);
}

/// What the trail says of one name's memory, in bytes: taken, wiped, given back.
#[derive(Debug, Default)]
struct Said {
    taken: u64,
    wiped: u64,
    given_back: u64,
}

/// By the trail, all memory that was taken was wiped, proven so, and given back, to the byte. A GPU counts none of it for us.
fn assert_all_given_back(world: &World) {
    let mut all: BTreeMap<ShardId, Said> = BTreeMap::new();
    for event in world.sink.events() {
        let Some(shard) = event.kind.shard().cloned() else { continue };
        let said = all.entry(shard).or_default();
        match event.kind {
            EventKind::VramAllocated { bytes, .. } => said.taken += bytes,
            EventKind::VramWiped { bytes, proven, .. } => {
                assert!(proven, "a wipe that is not proven");
                said.wiped += bytes;
            }
            EventKind::VramDeallocated { bytes, .. } => {
                said.given_back += bytes;
                assert!(said.given_back <= said.wiped, "given back before it was wiped: {said:?}");
            }
            _ => {}
        }
    }
    let adopted: Vec<&ShardId> = world.seals.values().filter(|seal| seal.is_adopted()).map(|seal| seal.id()).collect();
    assert!(all.values().any(|said| said.taken > 0), "nothing was ever taken");
    for (shard, said) in &all {
        assert_eq!(said.given_back, said.taken, "{shard}: {said:?}");
        // Of an adopted shard the engine's own memory may have been wiped besides.
        let exactly = said.wiped == said.taken;
        assert!(exactly || said.wiped > said.taken && adopted.contains(&shard), "{shard}: {said:?}");
    }
}

#[then(expr = "its memory is quarantined as residue")]
fn residue(world: &mut World) {
    assert_eq!(world.manager().used_vram(), world.used_before, "its bytes stay used");
    assert!(world.manager().quarantined_vram() > 0);
    world.assert_recount();
    let said = world.sink.events().into_iter().any(|event| match event.kind {
        EventKind::ShardQuarantined { cause, bytes, .. } => {
            cause == QuarantineCause::Residue && bytes == world.manager().quarantined_vram()
        }
        _ => false,
    });
    assert!(said, "the residue is in the trail");
}

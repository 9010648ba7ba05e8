//! Release, shutdown, working memory, and what they leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cucumber::{then, when};
use vram_residency::{EventKind, ManagerState, Purpose, QuarantineCause, ShardId, ShutdownReport};

use crate::engine::address_of;
use crate::world::World;

#[when(regex = r"^I release (\S+)( on the second manager)?$")]
fn release(world: &mut World, name: String, second: String) {
    world.before_call();
    let (seal, manager) = (world.seal_of(&name).clone(), Arc::clone(world.on(&second)));
    let (used, adopted) = (manager.used_vram(), manager.adopted_vram());
    let released = manager.release(&seal);
    if let Some(report) = world.note(released) {
        assert_eq!(&report.shard, seal.id());
        // All of an engine's bytes were wiped, or none; the manager's own were in any case, and are given back.
        let given_back = adopted - manager.adopted_vram();
        let wiped = given_back - report.left_unwiped;
        assert!(wiped == 0 || wiped == given_back, "{report:?}");
        assert_eq!((given_back > 0, manager.used_vram()), (seal.is_adopted(), used + wiped - report.bytes));
    }
}

#[when(expr = "I release the shard named {word}")]
fn release_by_id(world: &mut World, name: String) {
    world.before_call();
    let released = world.manager().release_by_id(&ShardId::new(name).unwrap());
    world.note(released);
}

#[when("the manager is dropped")]
fn dropped(world: &mut World) {
    world.before_call();
    Arc::into_inner(world.manager.take().expect("a manager")).expect("nobody else holds it");
}

#[when(expr = "I shut down within {int} ms")]
fn shut_down(world: &mut World, deadline: u64) {
    world.before_call();
    let report = world.manager().shutdown(Duration::from_millis(deadline));
    assert_eq!(report.drained, world.executions.is_empty(), "{report:?}");
    assert_eq!(report.wiped_bytes + report.residue_bytes + report.busy_bytes, world.used_before, "{report:?}");
    world.report = Some(report);
}

#[when(expr = "a shutdown begins that waits up to {int} ms")]
fn begins(world: &mut World, deadline: u64) {
    world.before_call();
    let (manager, started) = (Arc::clone(world.manager()), Instant::now());
    world.ending = Some(std::thread::spawn(move || manager.shutdown(Duration::from_millis(deadline))));
    while world.manager().state() != ManagerState::Draining {
        assert!(started.elapsed() < Duration::from_secs(30), "the shutdown does not begin");
        std::thread::yield_now();
    }
}

#[when("the shutdown ends")]
fn ends(world: &mut World) {
    world.report = Some(world.ending.take().expect("a shutdown was begun").join().unwrap());
}

/// The report, whose bytes that are left must be those of the ledger.
fn report(world: &World) -> ShutdownReport {
    let report = world.report.clone().expect("there was a shutdown");
    assert_eq!(world.manager().used_vram(), report.busy_bytes + report.residue_bytes, "{report:?}");
    world.assert_recount();
    report
}

#[then("the shutdown was drained and left nothing")]
fn drained(world: &mut World) {
    let report = report(world);
    assert!(report.drained && report.wiped_bytes > 0, "{report:?}");
    assert_eq!((report.busy_bytes, report.residue_bytes), (0, 0), "{report:?}");
}

#[then("the shutdown left what is in use")]
fn left_busy(world: &mut World) {
    let report = report(world);
    assert!(report.wiped_bytes > 0 && report.busy_bytes > 0 && report.residue_bytes == 0, "{report:?}");
}

#[then("nothing was wiped and all of it is counted")]
fn nothing_wiped(world: &mut World) {
    let report = report(world);
    assert!(report.wiped_bytes == 0 && report.residue_bytes > 0 && report.busy_bytes == 0, "{report:?}");
    assert_eq!(world.manager().quarantined_vram(), report.residue_bytes);
    let impossible = |kind| matches!(kind, EventKind::ShardQuarantined { cause: QuarantineCause::WipeImpossible, .. });
    assert!(world.sink.events().into_iter().any(|event| impossible(event.kind)), "the trail says why");
}

#[then("its memory is quarantined as residue")]
fn residue(world: &mut World) {
    assert_eq!(world.manager().used_vram(), world.used_before, "its bytes stay used");
    assert!(world.manager().quarantined_vram() > 0);
    world.assert_recount();
    let said = world.sink.events().into_iter().any(|event| match event.kind {
        EventKind::ShardQuarantined { cause: QuarantineCause::Residue, bytes, .. } => {
            bytes == world.manager().quarantined_vram()
        }
        _ => false,
    });
    assert!(said, "the residue is in the trail");
}

#[then("nothing was sealed and nothing is left of it")]
fn nothing_sealed(world: &mut World) {
    world.error();
    assert_eq!(world.manager().used_vram(), world.used_before, "the ledger is as before");
    assert!(!world.new_events().contains(&"vram_sealed"));
    world.assert_recount();
    world.device().assert_staging_wiped();
}

#[then("the device has nothing left and freed nothing unwiped")]
fn nothing_left(world: &mut World) {
    let device = world.device();
    assert_eq!(device.live_bytes().unwrap_or(0), 0, "bytes are left");
    device.assert_staging_wiped();
    device.assert_wiped();
    device.assert_free_again();
    // By the trail, all memory that was taken was wiped, proven so, and given back, to the byte. A GPU counts none of it for us.
    let mut all: BTreeMap<ShardId, [u64; 3]> = BTreeMap::new();
    for event in world.sink.events() {
        let Some(shard) = event.kind.shard().cloned() else { continue };
        let [taken, wiped, given_back] = all.entry(shard).or_default();
        match event.kind {
            EventKind::VramAllocated { bytes, .. } => *taken += bytes,
            EventKind::VramWiped { bytes, proven, .. } => {
                assert!(proven, "a wipe that is not proven");
                *wiped += bytes;
            }
            EventKind::VramDeallocated { bytes, .. } => {
                *given_back += bytes;
                assert!(given_back <= wiped, "given back before it was wiped");
            }
            _ => {}
        }
    }
    assert!(all.values().any(|[taken, ..]| *taken > 0), "nothing was ever taken");
    assert!(all.values().all(|[taken, wiped, given_back]| taken == wiped && taken == given_back), "{all:?}");
}

#[when(expr = "I allocate {int} bytes of scratch for {word}")]
fn allocate(world: &mut World, bytes: u64, purpose: String) {
    world.before_call();
    assert_eq!(purpose, Purpose::KvCache.as_str());
    let allocated = world.manager().allocate_scratch(Purpose::KvCache, bytes);
    world.scratch = world.note(allocated);
}

#[then(expr = "the scratch is zero, counted and named scratch for {word} in the trail")]
fn zero_and_named(world: &mut World, purpose: String) {
    let scratch = world.scratch.as_ref().expect("the scenario has scratch");
    assert!(world.manager().used_vram() >= scratch.byte_len());
    world.assert_recount();
    let bytes = usize::try_from(scratch.byte_len()).unwrap();
    let found = world.device().machine.peek(world.manager(), address_of(scratch), bytes);
    assert!(!found.is_empty() && found.iter().all(|byte| *byte == 0));
    let events = world.sink.events();
    let name = events.iter().rev().find_map(|event| event.kind.shard()).expect("the trail names the scratch");
    assert!(name.as_str().starts_with(&format!("scratch.{purpose}.")), "{name:?}");
    // It is no shard, whatever it is called.
    assert!(world.manager().release_by_id(name).is_err());
    assert_eq!(world.manager().enforce_vram_only_policy().unwrap().resident_shards, 0);
}

#[when("the scratch is dropped")]
fn drop_scratch(world: &mut World) {
    world.before_call();
    drop(world.scratch.take().expect("the scenario has scratch"));
}

//! A shutdown that waits, and what it says at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cucumber::{then, when};
use vram_residency::ManagerState;

use crate::world::World;

#[when(expr = "a shutdown begins that waits up to {int} ms")]
fn begins(world: &mut World, deadline: u64) {
    world.before_call();
    let manager = Arc::clone(world.manager());
    world.ending = Some(std::thread::spawn(move || manager.shutdown(Duration::from_millis(deadline))));
    let started = Instant::now();
    while world.manager().state() == ManagerState::Ready {
        assert!(started.elapsed() < Duration::from_secs(30), "the shutdown does not begin");
        std::thread::yield_now();
    }
}

#[then("the manager is draining")]
fn draining(world: &mut World) {
    assert_eq!(world.manager().state(), ManagerState::Draining);
}

#[when("the shutdown ends")]
fn ends(world: &mut World) {
    world.report = Some(world.ending.take().expect("a shutdown was begun").join().unwrap());
}

#[then("the shutdown was drained and left nothing")]
fn drained(world: &mut World) {
    let report = world.report.clone().expect("there was a shutdown");
    assert!(report.drained && report.wiped_bytes > 0, "{report:?}");
    assert_eq!((report.busy_bytes, report.residue_bytes, world.manager().used_vram()), (0, 0, 0), "{report:?}");
    world.assert_recount();
}

#[then("the shutdown left what is in use")]
fn left_busy(world: &mut World) {
    let report = world.report.clone().expect("there was a shutdown");
    assert!(report.busy_bytes > 0 && report.residue_bytes == 0, "{report:?}");
    assert_eq!(world.manager().used_vram(), report.busy_bytes);
    world.assert_recount();
}

#[then("the shutdown left residue and wiped the rest")]
fn left_residue(world: &mut World) {
    let report = world.report.clone().expect("there was a shutdown");
    assert!(report.residue_bytes > 0 && report.wiped_bytes > 0 && report.busy_bytes == 0, "{report:?}");
    assert_eq!(
        (world.manager().used_vram(), world.manager().quarantined_vram()),
        (report.residue_bytes, report.residue_bytes)
    );
    world.assert_recount();
}

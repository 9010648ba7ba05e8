//! Capacity.

use cucumber::then;
use vram_residency::VramError;

use crate::making::taken;
use crate::world::World;

#[then("used VRAM is zero")]
fn used_is_zero(world: &mut World) {
    assert_eq!(world.manager().used_vram(), 0);
    assert_eq!(world.manager().quarantined_vram(), 0);
    world.assert_recount();
}

#[then(expr = "used VRAM is {int} bytes and {int} bytes, each in whole units")]
fn used_is(world: &mut World, first: u64, second: u64) {
    assert_eq!(world.manager().used_vram(), taken(world.device().unit, &[first, second]));
    world.assert_recount();
}

#[then(expr = "available VRAM is {int} units less what is used")]
fn available_is(world: &mut World, units: u64) {
    let manager = world.manager();
    assert!(manager.used_vram() > 0);
    assert_eq!(manager.available_vram(), units * world.device().unit - manager.used_vram());
}

#[then("available VRAM is the device less a tenth, or less 4 GiB where that is less")]
fn default_headroom(world: &mut World) {
    let total = world.manager().total_vram();
    assert_eq!(world.manager().available_vram(), total - (total / 10).min(4 << 30));
}

#[then("used VRAM is as before")]
fn used_as_before(world: &mut World) {
    assert_eq!(world.manager().used_vram(), world.used_before);
    world.assert_recount();
}

#[then(expr = "the error says that {int} units were needed and {int} available")]
fn need_and_have(world: &mut World, needed: u64, available: u64) {
    let unit = world.device().unit;
    let (needed, available) = (needed * unit, available * unit);
    match world.error() {
        VramError::OutOfMemory { needed: need, available: have } => assert_eq!((*need, *have), (needed, available)),
        other => panic!("{other:?}"),
    }
    let message = world.error().to_string();
    assert!(message.contains(&needed.to_string()) && message.contains(&available.to_string()), "{message}");
}

#[then("the driver counts the same bytes as the ledger")]
fn driver_counts(world: &mut World) {
    world.assert_recount();
    let info = world.manager().memory_info().unwrap();
    let (taken, used) = (info.total - info.free, world.manager().used_vram());
    match world.device().live_bytes() {
        Some(_) => assert_eq!(taken, used),
        // A GPU's driver takes room for contexts and code, and engines for themselves.
        None => assert!(taken >= used),
    }
}

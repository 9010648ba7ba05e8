//! Capacity.

use cucumber::then;
use vram_residency::VramError;

use crate::world::World;

#[then("used VRAM is zero")]
fn used_is_zero(world: &mut World) {
    assert_eq!(world.manager().used_vram(), 0);
    assert_eq!(world.manager().quarantined_vram(), 0);
    world.assert_recount();
}

#[then(expr = "used VRAM is {int} bytes")]
fn used_is(world: &mut World, bytes: u64) {
    assert_eq!(world.manager().used_vram(), bytes);
    world.assert_recount();
}

#[then(expr = "available VRAM is {int} bytes")]
fn available_is(world: &mut World, bytes: u64) {
    assert_eq!(world.manager().available_vram(), bytes);
}

#[then("used VRAM is as before")]
fn used_as_before(world: &mut World) {
    assert_eq!(world.manager().used_vram(), world.used_before);
    world.assert_recount();
}

#[then(expr = "the error says that {int} bytes were needed and {int} available")]
fn need_and_have(world: &mut World, needed: u64, available: u64) {
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
    assert_eq!(info.total - info.free, world.manager().used_vram());
}

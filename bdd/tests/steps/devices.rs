//! A second manager, on its own device or on the same.

use cucumber::{given, then, when};
use vram_residency::{ManagerState, ShardSource, StopReason};

use crate::making::{spec, taken};
use crate::world::World;

#[given(expr = "the shard {word} is sealed from {word} on the second manager")]
fn sealed_elsewhere(world: &mut World, name: String, weights: String) {
    let before = world.second().used_vram();
    let seal = world.second().seal_model(spec(&name), ShardSource::bytes(world.weights(&weights))).unwrap();
    assert_eq!((seal.digest(), seal.device().uuid), (world.digest_of(&weights), world.second().device_uuid()));
    assert!(world.second().used_vram() > before);
    world.seals.insert(name.clone(), seal);
    world.elsewhere.insert(name);
}

#[when(expr = "I seal {word} from {word} on the second manager")]
fn seal_elsewhere(world: &mut World, name: String, weights: String) {
    world.before_call();
    let sealed = world.second().seal_model(spec(&name), ShardSource::bytes(world.weights(&weights)));
    if let Some(seal) = world.note(sealed) {
        world.seals.insert(name.clone(), seal);
        world.elsewhere.insert(name);
    }
}

#[when(expr = "I execute {word} on the second manager")]
fn execute_elsewhere(world: &mut World, name: String) {
    world.before_call();
    let (mut ran, mut read) = (false, Vec::new());
    let outcome = world.second().try_execute(world.seal_of(&name), |verified| {
        ran = true;
        read = vec![0; usize::try_from(verified.byte_len()).unwrap()];
        verified.read_at(0, &mut read)
    });
    (world.ran, world.read) = (ran, read);
    world.note(outcome);
}

#[when(expr = "I release {word} on the second manager")]
fn release_elsewhere(world: &mut World, name: String) {
    world.before_call();
    let (second, used) = (world.second(), world.second().used_vram());
    let released = second.release(world.seal_of(&name));
    assert_eq!(second.used_vram() < used, released.is_ok());
    world.note(released);
}

#[then(expr = "the second manager counts {int} write-protected shard(s)")]
fn write_protected(world: &mut World, shards: u64) {
    assert_eq!(world.second().enforce_vram_only_policy().unwrap().write_protected_shards, shards);
}

#[then("the second manager is ready")]
fn ready(world: &mut World) {
    assert_eq!(world.second().state(), ManagerState::Ready);
}

#[then("the second manager has stopped for integrity")]
fn stopped(world: &mut World) {
    assert_eq!(world.second().state(), ManagerState::Stopped(StopReason::IntegrityFailure));
}

#[then(expr = "used VRAM of the second manager is {int} bytes and {int} bytes, each in whole units")]
fn used_in_units(world: &mut World, first: u64, second: u64) {
    assert_eq!(world.second().used_vram(), taken(world.device().unit, &[first, second]));
    world.assert_recount();
}

#[then(expr = "used VRAM of the second manager is {int} bytes")]
fn used(world: &mut World, bytes: u64) {
    assert_eq!(world.second().used_vram(), bytes);
    world.assert_recount();
}

//! Managers, weights and shards that a scenario starts from.

use std::sync::Arc;

use cucumber::given;
use vram_residency::{OnIntegrityFailure, Policy, TreeParams, WorkerSecret};

use crate::device::first;
use crate::making::{Setup, builder_of, check_space, noise, spec, taken, usual_secret};
use crate::world::{Second, World};

#[given("a device that cannot map memory read-only")]
fn a_writable_device(world: &mut World) {
    assert!(world.manager.is_none(), "the device comes first");
    world.writable = true;
}

#[given("a manager")]
fn a_manager(world: &mut World) {
    world.build(Setup::default());
}

#[given("a manager that quarantines only the shard")]
fn a_lenient_manager(world: &mut World) {
    world.build(Setup { on_failure: OnIntegrityFailure::QuarantineShard, ..Setup::default() });
}

#[given(expr = "a manager with a quarantine limit of one and a half shards of {int} bytes")]
fn a_limited_manager(world: &mut World, bytes: u64) {
    world.build(Setup::default());
    let limit = taken(world.device().unit, &[bytes, check_space(bytes)]) * 3 / 2;
    world.build(Setup { quarantine_limit: Some(limit), ..Setup::default() });
}

#[given(expr = "a manager that quarantines only the shard, with a quarantine limit of {int} bytes")]
fn a_lenient_limited_manager(world: &mut World, limit: u64) {
    let on_failure = OnIntegrityFailure::QuarantineShard;
    world.build(Setup { on_failure, quarantine_limit: Some(limit), ..Setup::default() });
}

#[given(expr = "a manager on a device of {int} units with {int} units of headroom")]
fn a_small_manager(world: &mut World, units: u64, headroom: u64) {
    world.build(Setup { units: Some(units), headroom: Some(headroom), ..Setup::default() });
    let unit = world.device().unit;
    assert_eq!(world.manager().total_vram(), units * unit);
    assert_eq!(world.manager().available_vram(), (units - headroom) * unit);
}

#[given("a manager with the default headroom")]
fn a_default_manager(world: &mut World) {
    world.build(Setup { headroom: None, ..Setup::default() });
}

#[given(expr = "a manager with blocks of {int} bytes and the salt {string}")]
fn a_salted_manager(world: &mut World, block: u32, salt: String) {
    let params = TreeParams::new(block, salt.as_bytes()).unwrap();
    world.build(Setup { params, ..Setup::default() });
    assert_eq!(world.manager().tree_params().block_size(), block);
}

#[given("a manager whose policy requires expected digests")]
fn an_expecting_manager(world: &mut World) {
    world.build(Setup { policy: Policy::development().require_expected_digest(true), ..Setup::default() });
}

#[given("a manager whose policy requires an audit trail")]
fn an_audited_manager(world: &mut World) {
    world.build(Setup { policy: Setup::audited(), durable_sink: true, ..Setup::default() });
}

#[given("a second manager on the same device")]
fn a_second_manager(world: &mut World) {
    a_second(world, Setup::default(), usual_secret());
}

#[given("a second manager on another device")]
fn a_manager_elsewhere(world: &mut World) {
    a_second(world, Setup { ordinal: 1, ..Setup::default() }, usual_secret());
}

#[given("a second manager of another worker")]
fn a_manager_of_another(world: &mut World) {
    a_second(world, Setup { worker: "worker-2", ..Setup::default() }, usual_secret());
}

#[given("a second manager of another secret")]
fn a_manager_of_another_secret(world: &mut World) {
    a_second(world, Setup::default(), WorkerSecret::from_bytes(&[8; 32]).unwrap());
}

fn a_second(world: &mut World, setup: Setup, secret: WorkerSecret) {
    let device = world.device();
    let ordinal = first() + setup.ordinal;
    let manager = builder_of(secret, device.machine.selector_of(ordinal), device.unit, &setup).build().unwrap();
    let same = manager.device_uuid() == world.manager().device_uuid();
    assert_eq!(same, setup.ordinal == 0, "devices are told apart");
    let machine = device.machine.beside(ordinal);
    let used = world.manager().used_vram();
    world.device.as_mut().unwrap().note_manager(used);
    world.second = Some(Second { machine, manager: Arc::new(manager) });
}

#[given(expr = "weights {word} of {int} units")]
fn weights_in_units(world: &mut World, name: String, units: usize) {
    let unit = usize::try_from(world.device().unit).unwrap();
    weights(world, name, units * unit);
}

#[given(expr = "weights {word} of {int} bytes")]
fn weights(world: &mut World, name: String, bytes: usize) {
    let made = noise(bytes, &name);
    assert_eq!(made.len(), bytes);
    world.weights.insert(name, made);
}

#[given(expr = "weights {word} of {int} bytes that are all {int}")]
fn even_weights(world: &mut World, name: String, bytes: usize, value: u8) {
    let made = vec![value; bytes];
    assert_ne!(made, noise(bytes, &name));
    world.weights.insert(name, made);
}

#[given(expr = "weights {word} that differ from {word} in bit {int} of byte {int}")]
fn other_weights(world: &mut World, name: String, like: String, bit: u8, byte: usize) {
    let mut bytes = world.weights(&like).to_vec();
    bytes[byte] ^= 1 << bit;
    assert_ne!(bytes, world.weights(&like));
    world.weights.insert(name, bytes);
}

#[given(expr = "the shard {word} is sealed from {word}")]
fn a_sealed_shard(world: &mut World, name: String, weights: String) {
    world.seal(&name, spec(&name), &weights);
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
    assert_eq!(world.seal_of(&name).digest(), world.digest_of(&weights));
    assert!(world.manager().used_vram() > world.used_before);
}

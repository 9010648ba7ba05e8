//! Managers, weights, shards and faults that a scenario starts from.

use std::sync::Arc;
use std::time::Duration;

use cucumber::{given, when};
use vram_residency::{OnIntegrityFailure, Policy, WorkerSecret};
use vram_residency_harness::spec;

use crate::device::first;
use crate::faults;
use crate::setup::{Setup, noise};
use crate::world::{Second, World};

#[given("a manager")]
fn a_manager(world: &mut World) {
    world.build(Setup::default());
}

#[given("a manager that quarantines only the shard")]
fn a_lenient_manager(world: &mut World) {
    world.build(Setup { on_failure: OnIntegrityFailure::QuarantineShard, ..Setup::default() });
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

#[given("a manager whose policy requires expected digests")]
fn an_expecting_manager(world: &mut World) {
    world.build(Setup { policy: Policy::development().require_expected_digest(true), ..Setup::default() });
}

#[given("a manager whose policy requires an audit trail")]
fn an_audited_manager(world: &mut World) {
    world.build(Setup::audited());
}

#[given(regex = "^a second manager (on the same device|on another device|of another worker|of another secret)$")]
fn a_second_manager(world: &mut World, kind: String) {
    let setup = match kind.as_str() {
        "on another device" => Setup { ordinal: 1, ..Setup::default() },
        "of another worker" => Setup { worker: "worker-2", ..Setup::default() },
        "of another secret" => Setup { secret: WorkerSecret::from_bytes(&[8; 32]).ok(), ..Setup::default() },
        _ => Setup::default(),
    };
    let (device, ordinal) = (world.device(), first() + setup.ordinal);
    let elsewhere = setup.ordinal != 0;
    let manager = setup.build(device.machine.selector_of(ordinal), device.unit, None).unwrap();
    assert_eq!(manager.device_uuid() != world.manager().device_uuid(), elsewhere, "devices are told apart");
    world.second = Some(Second { machine: device.machine.beside(ordinal), manager: Arc::new(manager) });
}

#[given(expr = "weights {word} of {int} units")]
fn weights(world: &mut World, name: String, units: usize) {
    let unit = usize::try_from(world.device().unit).unwrap();
    let made = noise(units * unit, &name);
    world.weights.insert(name, made);
}

#[given(expr = "weights {word} that differ from {word} in bit {int} of byte {int}")]
fn other_weights(world: &mut World, name: String, like: String, bit: u8, byte: usize) {
    let mut bytes = world.weights(&like);
    bytes[byte] ^= 1 << bit;
    world.weights.insert(name, bytes);
}

#[given(regex = r"^the shard (\S+) is sealed( on the second manager)?(?: for (\d+) ms)?$")]
fn a_shard(world: &mut World, name: String, second: String, age: String) {
    if world.manager.is_none() {
        world.build(Setup::default());
    }
    let spec = match age.parse() {
        Ok(most) => spec(&name).max_age(Duration::from_millis(most)),
        Err(_) => spec(&name),
    };
    world.seal(&name, spec, &second);
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
}

#[given(regex = "^the device will (.+)$")]
#[when(regex = "^the device will (.+)$")]
fn misbehave(world: &mut World, how: String) {
    world.dead |= faults::kills(&how);
    faults::order(world.device(), &how);
}

#[given("the audit sink fails")]
fn sink_fails(world: &mut World) {
    world.sink_fails = true;
    world.sink.failing(true);
}

#[when("the audit sink works again")]
fn sink_works(world: &mut World) {
    world.sink_fails = false;
    world.sink.failing(false);
}

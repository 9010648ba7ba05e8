//! How the last call ended, the manager's state, the policy.

use cucumber::{then, when};
use vram_residency::{
    DeviceKind, DeviceSelector, ManagerState, Policy, StopReason, VramManager, WorkerId, WorkerSecret,
};

use crate::device::first;
use crate::making::Setup;
use crate::world::World;

#[then("it succeeds")]
fn succeeds(world: &mut World) {
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
}

#[then(expr = "it fails with {word}")]
fn fails_with(world: &mut World, code: String) {
    world.assert_code(&code);
}

#[then(expr = "the message contains {string}")]
fn message_contains(world: &mut World, text: String) {
    let message = world.error().to_string();
    assert!(message.contains(&text), "{message:?}");
    assert!(message.len() < 700 && !message.contains('\n') && !message.contains('\0'), "{message:?}");
}

#[then("the message names a wait")]
fn message_names_a_wait(world: &mut World) {
    let message = world.error().to_string();
    // The mock says `synchronize`, a driver names its function: `cuStreamSynchronize`.
    assert!(message.to_lowercase().contains("synchronize"), "{message:?}");
}

#[then("trying again may help")]
fn retriable(world: &mut World) {
    assert!(world.error().is_retriable() && world.error().retry_after().is_some());
}

#[then("trying again is pointless")]
fn not_retriable(world: &mut World) {
    assert!(!world.error().is_retriable() && world.error().retry_after().is_none());
}

#[when("I go on")]
fn go_on(world: &mut World) {
    world.error();
    world.outcome = None;
}

#[then("the manager is ready")]
fn ready(world: &mut World) {
    assert_eq!(world.manager().state(), ManagerState::Ready);
}

#[then(expr = "the manager has stopped for {word}")]
fn stopped(world: &mut World, reason: String) {
    let wanted = match reason.as_str() {
        "integrity" => StopReason::IntegrityFailure,
        "an-untrusted-device" => StopReason::DeviceUntrusted,
        "a-lost-device" => StopReason::DeviceLost,
        "policy" => StopReason::PolicyViolation,
        "shutdown" => StopReason::Shutdown,
        other => panic!("no such reason: {other}"),
    };
    assert_eq!(world.manager().state(), ManagerState::Stopped(wanted));
}

#[when("I build a manager for production on the mock")]
fn production_on_mock(world: &mut World) {
    let built = world.try_build(Setup { policy: Policy::production(), durable_sink: true, ..Setup::default() });
    world.note(built);
}

#[when("I build a manager whose policy wants a stored secret")]
fn stored_secret(world: &mut World) {
    let policy = Policy::development().require_stored_secret(true);
    let built = world.try_build(Setup { policy, ..Setup::default() });
    world.note(built);
}

#[when("I build a manager on a device that is not there")]
fn missing_device(world: &mut World) {
    let built = world.try_build(Setup { ordinal: 9 - first(), ..Setup::default() });
    world.note(built);
}

#[when("I build a manager on the best device there is")]
fn automatic_device(world: &mut World) {
    let built = VramManager::builder(WorkerId::new("worker-1").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Auto)
        .policy(Policy::development())
        .build();
    if let Ok(manager) = &built {
        assert_eq!(manager.device_kind(), DeviceKind::Cuda);
    }
    world.note(built.map(drop));
}

#[then("it is no mock")]
fn no_mock(world: &mut World) {
    // On a machine without CUDA there is no manager; with it there is one on CUDA. Neither is the mock.
    if let Some(Err(error)) = &world.outcome {
        assert_eq!(error.code().as_str(), "DEVICE_UNAVAILABLE", "{error}");
    }
    assert!(world.outcome.is_some());
}

#[when("I ask for the posture")]
fn posture(world: &mut World) {
    world.before_call();
    let posture = world.manager().enforce_vram_only_policy();
    if let Some(posture) = world.note(posture) {
        assert_eq!(posture.device_uuid, world.manager().device_uuid());
        match world.device().machine.uuid() {
            Some(uuid) => assert_eq!((posture.device_kind, *posture.device_uuid.as_bytes()), (DeviceKind::Cuda, uuid)),
            None => assert_eq!(posture.device_kind, DeviceKind::Mock),
        }
        assert_eq!(usize::try_from(posture.resident_shards).unwrap(), world.seals.len());
        assert!(!posture.relaxed.is_empty(), "development says what it relaxes");
    }
}

//! How the last call ended, the manager's state, and the ledger.

use cucumber::{then, when};
use vram_residency::{
    DeviceKind, DeviceSelector, ErrorCategory, EventKind, ManagerState, Policy, QuarantineCause, RefusalReason,
    StopReason, VramError, VramManager, WorkerId, WorkerSecret,
};

use crate::setup::Setup;
use crate::world::World;

#[then("it succeeds")]
pub(crate) fn succeeds(world: &mut World) {
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
}

#[then(expr = "it fails with {word}")]
fn fails_with(world: &mut World, code: String) {
    assert_eq!(world.error().code().as_str(), code, "{}", world.error());
}

#[then(expr = "the message contains {string}")]
fn message_contains(world: &mut World, text: String) {
    let message = world.error().to_string();
    assert!(message.contains(&text), "{message:?}");
    assert!(message.len() < 700 && !message.contains('\n') && !message.contains('\0'), "{message:?}");
}

#[then("the error tells the expected digest and the found one")]
fn both_digests(world: &mut World) {
    match world.error() {
        VramError::DigestMismatch { expected, actual, .. } => assert_ne!(expected, actual),
        other => panic!("{other:?}"),
    }
    let message = world.error().to_string();
    assert_eq!(message.matches("sha256:").count(), 2, "{message}");
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

#[then(regex = "^trying again (may help|is pointless)$")]
fn retriable(world: &mut World, verdict: String) {
    let error = world.error();
    assert_eq!([error.is_retriable(), error.retry_after().is_some()], [verdict == "may help"; 2]);
}

#[then("it is the device's failure and no integrity failure")]
fn of_the_device(world: &mut World) {
    assert_eq!(world.error().category(), ErrorCategory::Device, "{:?}", world.error());
    for event in world.sink.events() {
        let evidence = matches!(event.kind, EventKind::ShardQuarantined { cause: QuarantineCause::Evidence, .. });
        assert!(!evidence && !matches!(event.kind, EventKind::SealVerificationFailed { .. }), "{event:?}");
    }
}

#[then(expr = "it is an integrity failure of {word} that covers byte {int}")]
fn integrity_failure(world: &mut World, name: String, byte: u64) {
    match world.error() {
        VramError::IntegrityFailure { shard, first_bad: Some(range) } => {
            assert_eq!(shard.as_str(), name);
            assert!(range.offset <= byte && byte < range.offset + range.bytes, "{range}");
        }
        other => panic!("not an integrity failure with a place: {other:?}"),
    }
    assert_eq!(world.error().category(), ErrorCategory::Integrity);
    fails_with(world, "SEAL_VERIFICATION_FAILED".to_owned());
}

#[then(expr = "the seal is refused as {word}")]
fn refused_as(world: &mut World, reason: String) {
    match world.error() {
        VramError::SealRefused { reason: found } => assert_eq!(found.as_str(), reason),
        other => panic!("not a refusal: {other:?}"),
    }
    assert!(!world.ran, "the work did not run");
    fails_with(world, "SEAL_VERIFICATION_FAILED".to_owned());
}

#[then(expr = "the trail says refused as {word}")]
fn trail_says(world: &mut World, reason: String) {
    let said = world.sink.events().split_off(world.mark).into_iter().any(|event| match event.kind {
        EventKind::SealRefused { reason: found, .. } => found.as_str() == reason,
        _ => false,
    });
    assert!(said, "no refusal as {reason} in {:?}", world.new_events());
    assert_ne!(reason, RefusalReason::Malformed.as_str(), "what is no seal reaches no manager");
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

#[then(expr = "{word} is quarantined as evidence")]
fn evidence(world: &mut World, name: String) {
    assert!(world.manager().quarantined_vram() >= world.seal_of(&name).byte_len());
    let said = world.sink.events().into_iter().any(|event| match event.kind {
        EventKind::ShardQuarantined { shard, cause, .. } => {
            shard.as_str() == name && cause == QuarantineCause::Evidence
        }
        _ => false,
    });
    assert!(said, "the quarantine is in the trail");
}

#[then(regex = "^used VRAM is (zero|as before)$")]
fn used(world: &mut World, wanted: String) {
    assert_eq!(world.manager().used_vram(), if wanted == "zero" { 0 } else { world.used_before });
    world.assert_recount();
}

#[then("available VRAM is the device less a tenth, or less 4 GiB where that is less")]
fn default_headroom(world: &mut World) {
    let total = world.manager().total_vram();
    assert_eq!(world.manager().available_vram(), total - (total / 10).min(4 << 30));
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

#[when("I build a manager for production on the mock")]
fn production_on_mock(world: &mut World) {
    let built = world.try_build(Setup { policy: Policy::production(), ..Setup::audited() });
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
    assert!(world.outcome.is_some());
    if let Some(Err(_)) = &world.outcome {
        fails_with(world, "DEVICE_UNAVAILABLE".to_owned());
    }
}

#[when("I ask for the posture")]
fn posture(world: &mut World) {
    world.before_call();
    let posture = world.manager().enforce_vram_only_policy();
    if let Some(posture) = world.note(posture) {
        assert_eq!(posture.device_uuid, world.manager().device_uuid());
        let machine = &world.device().machine;
        let kind = if machine.mock.is_some() { DeviceKind::Mock } else { DeviceKind::Cuda };
        assert_eq!((posture.device_kind, *posture.device_uuid.as_bytes()), (kind, machine.raw.uuid()));
        assert_eq!(usize::try_from(posture.resident_shards).unwrap(), world.seals.len());
        assert!(!posture.relaxed.is_empty(), "development says what it relaxes");
    }
}

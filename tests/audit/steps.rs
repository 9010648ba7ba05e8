//! Ordinary steps: their events, once each, in order, with their fields.

use std::time::{Duration, Instant};

use vram_residency::{
    ErrorCode, EventKind, ExecuteOptions, ExecuteOutcome, Origin, Policy, Purpose, Severity, ShardSource,
    VerificationFailure, digest_bytes,
};

use crate::support::{Rig, assert_contiguous, noise, spec, vouching};
use crate::{event_named, events_of};

#[test]
fn every_step_of_an_ordinary_life_leaves_its_event_once() {
    // covers: AUD-1
    let rig = Rig::new();
    assert_eq!(rig.sink.names(), ["manager_started"]);
    let bytes = noise(5000, 1);
    let mut shard = None;
    assert_eq!(events_of(&rig, |rig| shard = Some(rig.seal("one", &bytes))), ["vram_allocated", "vram_sealed"]);
    let shard = shard.unwrap();
    let verify = |rig: &Rig| drop(rig.manager.verify_sealed(&shard).unwrap());
    assert_eq!(events_of(&rig, verify), ["seal_verified"]);
    let run = |rig: &Rig| rig.execute(&shard).0.unwrap();
    assert_eq!(events_of(&rig, run), ["seal_verified", "execute_started", "execute_finished"]);
    let digest = |rig: &Rig| assert_eq!(rig.manager.compute_vram_digest(&shard).unwrap(), shard.digest());
    assert_eq!(events_of(&rig, digest), ["digest_computed"], "a digest without a verdict is no verification");
    let look = |rig: &Rig| drop(rig.manager.enforce_vram_only_policy().unwrap());
    assert_eq!(events_of(&rig, look), ["posture_confirmed"]);
    let scratch = |rig: &Rig| drop(rig.manager.allocate_scratch(Purpose::KvCache, 100).unwrap());
    assert_eq!(events_of(&rig, scratch), ["vram_allocated", "vram_wiped", "vram_deallocated"]);
    let open = |rig: &Rig| assert_eq!(rig.manager.open_seal(&shard.to_bytes()).unwrap().id(), shard.id());
    assert!(events_of(&rig, open).is_empty(), "reading a seal permits nothing");
    let release = |rig: &Rig| drop(rig.manager.release(&shard).unwrap());
    assert_eq!(events_of(&rig, release), ["vram_wiped", "vram_deallocated"]);
    let expecting = |rig: &Rig| {
        let vouched = digest_bytes(rig.manager.tree_params(), &bytes);
        rig.manager
            .seal_model(
                spec("two").expect(vouching::file(rig.manager.tree_params(), vouched)),
                ShardSource::bytes(&bytes),
            )
            .unwrap();
    };
    assert_eq!(events_of(&rig, expecting), ["vram_allocated", "vram_sealed"]);
    let resealed = |rig: &Rig| {
        let vouched = digest_bytes(rig.manager.tree_params(), &bytes);
        let three = rig
            .manager
            .seal_model(
                spec("three").expect(vouching::file(rig.manager.tree_params(), vouched)),
                ShardSource::bytes(&bytes),
            )
            .unwrap();
        rig.manager.reseal(&three).unwrap();
    };
    assert_eq!(events_of(&rig, resealed), ["vram_allocated", "vram_sealed", "seal_verified", "vram_sealed"]);
    let end = |rig: &Rig| assert!(rig.manager.shutdown(Duration::ZERO).drained);
    let wiped = ["vram_wiped", "vram_deallocated", "vram_wiped", "vram_deallocated"];
    assert_eq!(events_of(&rig, end), [&["manager_draining", "manager_stopped"][..], &wiped].concat());
    assert!(events_of(&rig, end).is_empty(), "what has ended does not end again");
    let (_, events) = rig.close();
    assert_contiguous(&events);
}

#[test]
fn dropping_a_manager_leaves_its_events() {
    // covers: AUD-1 SCR-3
    let rig = Rig::new();
    rig.seal("one", &noise(5000, 1));
    let mark = rig.mark();
    let (_, events) = rig.close();
    let names: Vec<_> = events[mark..].iter().map(|event| event.kind.name()).collect();
    assert_eq!(names, ["manager_stopped", "vram_wiped", "vram_deallocated"]);
    assert_contiguous(&events);
}

#[test]
fn events_carry_their_fields() {
    // covers: AUD-1 SEAL-9
    let rig = Rig::new();
    let bytes = noise(70_000, 1);
    let shard = rig.seal("one", &bytes);
    let room = rig.manager.used_vram();
    let (device, uuid) = (rig.manager.device_kind(), rig.manager.device_uuid());
    let EventKind::VramAllocated { bytes: allocated, .. } = event_named(&rig, "vram_allocated").kind else { panic!() };
    assert_eq!(allocated, room);
    let sealed = event_named(&rig, "vram_sealed");
    let EventKind::VramSealed { shard: id, digest, bytes: length, origin, write_protected, duration, .. } = sealed.kind
    else {
        panic!()
    };
    assert_eq!((&id, digest, length, origin), (shard.id(), shard.digest(), 70_000, Origin::Measured));
    assert!(write_protected && duration > Duration::ZERO);
    rig.execute(&shard).0.unwrap();
    let EventKind::SealVerified { digest, bytes: length, check, duration, .. } =
        event_named(&rig, "seal_verified").kind
    else {
        panic!()
    };
    assert_eq!((digest, length, check.as_str()), (shard.digest(), 70_000, "digest"));
    assert!(duration > Duration::ZERO);
    let EventKind::ExecuteFinished { outcome, .. } = event_named(&rig, "execute_finished").kind else { panic!() };
    assert_eq!(outcome, ExecuteOutcome::Finished);
    rig.flip_bit(&shard, 66_000, 4);
    let actual_before = rig.manager.compute_vram_digest(&shard).unwrap();
    assert!(rig.execute(&shard).0.is_err());
    let failed = event_named(&rig, "seal_verification_failed");
    assert_eq!(failed.severity, Severity::Critical);
    let EventKind::SealVerificationFailed { expected, actual, first_bad, reason, .. } = failed.kind else { panic!() };
    assert_eq!((expected, actual), (shard.digest(), Some(actual_before)));
    assert_eq!(reason, VerificationFailure::DigestMismatch);
    assert!(first_bad.is_some_and(|range| (range.offset..range.offset + range.bytes).contains(&66_000)));
    let EventKind::ExecuteRefused { code, .. } = event_named(&rig, "execute_refused").kind else { panic!() };
    assert_eq!(code, ErrorCode::SealVerificationFailed);
    rig.manager.release(&shard).unwrap();
    let EventKind::VramWiped { bytes: wiped, proven, .. } = event_named(&rig, "vram_wiped").kind else { panic!() };
    assert!(proven && wiped == room);
    let EventKind::VramDeallocated { bytes: freed, .. } = event_named(&rig, "vram_deallocated").kind else { panic!() };
    assert_eq!(freed, room);
    let events = rig.sink.events();
    let epoch = events[0].epoch;
    assert_ne!(epoch, [0; 16]);
    for event in &events {
        assert_eq!((event.device_kind, event.device_uuid, event.epoch), (device, uuid, epoch));
        assert_eq!((event.worker.as_str(), event.severity), ("suite", event.kind.severity()));
        let line = event.to_json_line();
        assert!(line.is_ascii() && !line.contains('\n') && line.contains(event.kind.name()), "{line}");
    }
    rig.close_clean();
}

#[test]
fn an_execution_and_a_wipe_say_how_long_they_took() {
    // covers: AUD-1
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    let run = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(20));
    let held = begun.elapsed();
    run.finish().unwrap();
    let EventKind::ExecuteFinished { duration, .. } = event_named(&rig, "execute_finished").kind else { panic!() };
    assert!(duration >= held, "{duration:?} for an execution of at least {held:?}");
    let report = rig.manager.release(&shard).unwrap();
    let EventKind::VramWiped { duration, .. } = event_named(&rig, "vram_wiped").kind else { panic!() };
    assert_eq!(duration, report.duration);
    rig.close_clean();
}

#[test]
fn an_abandoned_execution_says_so() {
    // covers: AUD-1 VER-12
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    drop(rig.manager.begin(&shard, ExecuteOptions::default()).unwrap());
    let finished = event_named(&rig, "execute_finished");
    assert_eq!(finished.severity, Severity::Warning);
    assert!(matches!(finished.kind, EventKind::ExecuteFinished { outcome: ExecuteOutcome::Abandoned, .. }));
    rig.close_clean();
}

#[test]
fn the_start_says_what_is_relaxed() {
    // covers: AUD-1
    let rig = Rig::new();
    let EventKind::ManagerStarted { policy, relaxed, total_bytes, device_name, .. } =
        event_named(&rig, "manager_started").kind
    else {
        panic!()
    };
    assert_eq!((policy.as_str(), total_bytes), ("development", rig.manager.total_vram()));
    assert_eq!(device_name, rig.manager.device_name());
    assert_eq!(relaxed, Policy::development().relaxed());
    assert!(relaxed.iter().any(|row| row.contains("mock")), "{relaxed:?}");
    rig.close_clean();
}

//! The trail: which events each operation and each failure leaves, in which order, and what happens when the trail itself
//! fails.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::{Rig, assert_clean, assert_contiguous, noise, refusals, small, spec};
use vram_residency::{
    Ack, AuditError, AuditEvent, AuditRequirement, AuditSink, ErrorCode, EventKind, ExecuteOptions, ExecuteOutcome,
    Fault, ManagerState, MemorySink, Origin, Policy, RefusalReason, SealedShard, Severity, ShardSource, StopReason,
    VerificationFailure, VramError, digest_bytes,
};

/// The names of the events that `step` leaves.
#[track_caller]
fn events_of(rig: &Rig, step: impl FnOnce(&Rig)) -> Vec<&'static str> {
    let mark = rig.mark();
    step(rig);
    rig.names_since(mark)
}

fn event_named(rig: &Rig, name: &str) -> AuditEvent {
    rig.sink.events().into_iter().rfind(|event| event.kind.name() == name).unwrap_or_else(|| panic!("no {name}"))
}

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
    assert!(events_of(&rig, digest).is_empty(), "a digest without a verdict is no verification");
    let release = |rig: &Rig| drop(rig.manager.release(&shard).unwrap());
    assert_eq!(events_of(&rig, release), ["vram_wiped", "vram_deallocated"]);
    let expecting = |rig: &Rig| {
        let vouched = digest_bytes(rig.manager.tree_params(), &bytes);
        rig.manager.seal_model(spec("two").expect_digest(vouched), ShardSource::bytes(&bytes)).unwrap();
    };
    assert_eq!(events_of(&rig, expecting), ["vram_allocated", "vram_sealed"]);
    let mark = rig.mark();
    let (_, events) = rig.close();
    let names: Vec<_> = events[mark..].iter().map(|event| event.kind.name()).collect();
    assert_eq!(names, ["manager_stopped", "vram_wiped", "vram_deallocated"], "dropping the manager");
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
    let EventKind::SealVerified { digest, bytes: length, coverage, duration, .. } =
        event_named(&rig, "seal_verified").kind
    else {
        panic!()
    };
    assert_eq!((digest, length, coverage.as_str()), (shard.digest(), 70_000, "full"));
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
fn every_failure_path_leaves_its_events() {
    // covers: AUD-1 VER-5 SEAL-4
    let rig = Rig::lenient();
    let bytes = noise(5000, 1);
    let shard = rig.seal("one", &bytes);
    let forged = {
        let mut changed = shard.to_bytes();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        SealedShard::from_bytes(&changed).unwrap()
    };
    let verify_forged = |rig: &Rig| assert!(rig.manager.verify_sealed(&forged).is_err());
    assert_eq!(events_of(&rig, verify_forged), ["seal_refused"]);
    let EventKind::SealRefused { shard: claimed, reason, suppressed, .. } = event_named(&rig, "seal_refused").kind
    else {
        panic!()
    };
    assert_eq!((claimed.as_ref(), reason, suppressed), (Some(shard.id()), RefusalReason::Forged, 0));
    let run_forged = |rig: &Rig| assert!(rig.execute(&forged).0.is_err());
    assert_eq!(events_of(&rig, run_forged), ["seal_refused"]);
    let mismatch = |rig: &Rig| {
        let vouched = digest_bytes(rig.manager.tree_params(), b"something else");
        assert!(rig.manager.seal_model(spec("two").expect_digest(vouched), ShardSource::bytes(&bytes)).is_err());
    };
    let wiped = ["vram_allocated", "seal_verification_failed", "vram_wiped", "vram_deallocated", "vram_seal_failed"];
    assert_eq!(events_of(&rig, mismatch), wiped);
    let unreadable = |rig: &Rig| {
        assert!(rig.manager.seal_model(spec("two"), ShardSource::reader(100, std::io::empty())).is_err());
    };
    assert_eq!(events_of(&rig, unreadable), ["vram_allocated", "vram_wiped", "vram_deallocated", "vram_seal_failed"]);
    let too_large = |rig: &Rig| assert!(rig.try_seal("two", &noise(17 << 20, 1)).is_err());
    assert_eq!(events_of(&rig, too_large), ["vram_allocation_failed", "vram_seal_failed"]);
    let no_residency = |rig: &Rig| {
        rig.config.fail(Fault::Residency(vram_residency::ResidencyLie::AllZero)).unwrap();
        assert!(rig.try_seal("two", &bytes).is_err());
    };
    assert_eq!(events_of(&rig, no_residency), ["vram_allocation_failed", "policy_violation", "vram_seal_failed"]);
    let taken = |rig: &Rig| assert!(rig.try_seal("one", &bytes).is_err());
    assert_eq!(events_of(&rig, taken), ["vram_seal_failed"]);
    // A flip: the failure, the quarantine; and again at each repetition, except for the quarantine.
    rig.flip_bit(&shard, 1, 1);
    let verify = |rig: &Rig| assert!(rig.manager.verify_sealed(&shard).is_err());
    assert_eq!(events_of(&rig, verify), ["seal_verification_failed", "shard_quarantined"]);
    assert_eq!(events_of(&rig, verify), ["seal_verification_failed"]);
    let run = |rig: &Rig| assert!(rig.execute(&shard).0.is_err());
    assert_eq!(events_of(&rig, run), ["seal_verification_failed", "execute_refused"]);
    // Release without a proof.
    let kept = |rig: &Rig| {
        rig.config.fail(Fault::FillSkipped).unwrap();
        assert!(rig.manager.release(&shard).is_err());
    };
    assert_eq!(events_of(&rig, kept), ["shard_quarantined"]);
    let stale = |rig: &Rig| assert!(rig.manager.release(&shard).is_err());
    assert_eq!(events_of(&rig, stale), ["seal_refused"]);
    let EventKind::SealRefused { reason, .. } = event_named(&rig, "seal_refused").kind else { panic!() };
    assert_eq!(reason, RefusalReason::Stale);
    let drained = |rig: &Rig| assert!(rig.manager.shutdown(Duration::ZERO).unwrap().drained);
    assert_eq!(events_of(&rig, drained), ["manager_stopped"]);
    let (_, events) = rig.close();
    assert_contiguous(&events);
}

#[test]
fn an_integrity_failure_stops_and_says_so_once() {
    // covers: AUD-1 VER-5
    let rig = Rig::new();
    let (shard, other) = (rig.seal("one", &noise(5000, 1)), rig.seal("two", &noise(5000, 2)));
    let in_flight = rig.manager.begin(&other, ExecuteOptions::default()).unwrap();
    rig.flip_bit(&shard, 1, 1);
    let run = |rig: &Rig| assert!(rig.execute(&shard).0.is_err());
    let expected = ["seal_verification_failed", "shard_quarantined", "manager_stopped", "execute_refused"];
    assert_eq!(events_of(&rig, run), expected);
    let stopped = event_named(&rig, "manager_stopped");
    assert_eq!(stopped.severity, Severity::Critical);
    let right =
        matches!(stopped.kind, EventKind::ManagerStopped { reason, .. } if reason == StopReason::IntegrityFailure);
    assert!(right);
    assert_eq!(events_of(&rig, run), ["execute_refused"], "a stopped manager does not look again");
    assert_eq!(events_of(&rig, |_| assert!(in_flight.finish().is_err())), ["execute_finished"]);
    let EventKind::ExecuteFinished { outcome, .. } = event_named(&rig, "execute_finished").kind else { panic!() };
    assert_eq!(outcome, ExecuteOutcome::Discarded);
    let (_, events) = rig.close();
    let stops = events.iter().filter(|event| event.kind.name() == "manager_stopped").count();
    assert_eq!(stops, 1, "dropping it later is no second stop");
    assert_contiguous(&events);
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
fn policy_violations_are_critical_events() {
    // covers: AUD-1
    let sink = Arc::new(MemorySink::claiming_durable());
    let refused = support::builder(&small()).policy(Policy::production()).audit(sink.clone()).build().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PolicyViolation);
    assert_eq!(sink.names(), ["policy_violation"], "and no manager_started");
    assert_eq!(sink.events()[0].severity, Severity::Critical);
    let rig = Rig::with(small(), |b| b.policy(Policy::development().require_expected_digest(true)));
    let measured = |rig: &Rig| {
        let error = rig.try_seal("one", &noise(100, 1)).unwrap_err();
        assert!(matches!(error, VramError::PolicyViolation { rule: "expected_digest", .. }), "{error:?}");
    };
    assert_eq!(events_of(&rig, measured), ["policy_violation", "vram_seal_failed"]);
    assert_eq!((rig.manager.used_vram(), rig.manager.state()), (0, ManagerState::Ready));
    rig.close_clean();
}

#[test]
fn refusals_are_limited_and_every_one_is_counted() {
    // covers: SEAL-4 AUD-1
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(100, 1));
    let mut changed = shard.to_bytes();
    *changed.last_mut().unwrap() ^= 1;
    let forged = SealedShard::from_bytes(&changed).unwrap();
    for _ in 0..5000 {
        assert!(rig.manager.verify_sealed(&forged).is_err());
    }
    let (_, events) = rig.close();
    let said = events.iter().filter(|event| event.kind.name() == "seal_refused").count();
    assert!((32..200).contains(&said), "{said} events for 5000 refusals");
    assert_eq!(refusals(&events), 5000);
    assert_contiguous(&events);
}

#[test]
fn executes_of_refused_seals_are_limited_too() {
    // covers: SEAL-4
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(100, 1));
    let mut changed = shard.to_bytes();
    *changed.last_mut().unwrap() ^= 1;
    let forged = SealedShard::from_bytes(&changed).unwrap();
    for _ in 0..5000 {
        assert!(rig.execute(&forged).0.is_err());
    }
    let (_, events) = rig.close();
    assert_eq!(refusals(&events), 5000);
    assert!(
        events.len() < 500,
        "{} events for 5000 refused seals: whoever presents them can flood the trail",
        events.len()
    );
}

/// What is called for each sink that does not take events.
fn without_a_trail(rig: &Rig, break_it: impl FnOnce(), mend_it: impl FnOnce()) {
    let (one, two) = (noise(5000, 1), noise(6000, 2));
    let (shard, other) = (rig.seal("one", &one), rig.seal("two", &two));
    let used = rig.manager.used_vram();
    break_it();
    // Permissive steps are not taken.
    let error = rig.try_seal("three", &one).unwrap_err();
    assert!(matches!(&error, VramError::AuditUnavailable { event: "vram_sealed", .. }), "{error:?}");
    assert_eq!((error.code(), error.is_retriable()), (ErrorCode::AuditUnavailable, true));
    assert_eq!(rig.manager.used_vram(), used, "what was loaded is wiped and given back");
    rig.assert_recount();
    let (outcome, ran) = rig.execute(&shard);
    let error = outcome.unwrap_err();
    assert!(!ran && matches!(&error, VramError::AuditUnavailable { event: "execute_started", .. }), "{error:?}");
    // Protective steps and evidence wait for nobody.
    rig.manager.verify_sealed(&shard).unwrap();
    assert_eq!(rig.manager.compute_vram_digest(&shard).unwrap(), shard.digest());
    rig.manager.release(&other).unwrap();
    assert!(rig.manager.used_vram() < used);
    rig.flip_bit(&shard, 0, 0);
    assert!(matches!(rig.manager.verify_sealed(&shard), Err(VramError::IntegrityFailure { .. })));
    assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
    rig.manager.release(&shard).unwrap();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    rig.assert_recount();
    mend_it();
}

#[test]
fn a_required_trail_that_fails_permits_nothing_and_hinders_no_protection() {
    // covers: AUD-5 VER-5 SCR-1
    let rig = Rig::audited();
    without_a_trail(&rig, || rig.sink.failing(true), || rig.sink.failing(false));
    let (stats, _) = rig.close();
    assert_clean(&stats);
}

#[test]
fn a_failed_event_fails_only_its_own_step() {
    // covers: AUD-5
    let rig = Rig::audited();
    let shard = rig.seal("one", &noise(5000, 1));
    for _ in 0..3 {
        // seal_verified, execute_started
        rig.sink.fail_next(2);
        assert!(matches!(rig.execute(&shard), (Err(VramError::AuditUnavailable { .. }), false)));
        assert!(matches!(rig.execute(&shard), (Ok(()), true)), "the next one is taken again");
    }
    // What does not permit anything may be lost: the check's own event, and the end's.
    rig.sink.fail_next(1);
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    rig.manager.release(&shard).unwrap();
    let (stats, events) = rig.close();
    assert_clean(&stats);
    let gaps = events.windows(2).filter(|pair| pair[1].sequence != pair[0].sequence + 1).count();
    assert!(gaps > 0, "lost events leave gaps in the sequence, which tells");
}

#[test]
fn without_the_requirement_a_failing_sink_hinders_nothing() {
    // covers: AUD-5
    let rig = Rig::new();
    rig.sink.failing(true);
    let shard = rig.seal("one", &noise(5000, 1));
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    rig.manager.release(&shard).unwrap();
    rig.sink.failing(false);
    let (stats, events) = rig.close();
    assert_clean(&stats);
    assert_eq!(events.last().unwrap().sequence, events.len() as u64 + 7, "every event had its number");
}

/// Panics from the `from`th event on.
struct Panics {
    from: u64,
    seen: AtomicU64,
}

impl AuditSink for Panics {
    fn record(&self, _: &AuditEvent) -> Result<Ack, AuditError> {
        let seen = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(seen < self.from, "the sink is broken");
        Ok(Ack::Durable)
    }
}

#[test]
fn a_sink_that_panics_fails_closed_and_breaks_nothing() {
    // covers: AUD-5 ERR-1 SCR-3
    let config = small();
    let panics = Arc::new(Panics { from: 6, seen: AtomicU64::new(0) });
    let beside = Arc::new(MemorySink::default());
    let manager = support::builder(&config)
        .policy(Policy::development().require_audit(AuditRequirement::Durable))
        .audit(panics.clone())
        .audit(beside.clone())
        .build()
        .unwrap();
    let rig = Rig { config, sink: beside, manager: manager.into() };
    // manager_started and twice two events of sealing: from here on it panics.
    without_a_trail(&rig, || {}, || {});
    let (stats, events) = rig.close();
    assert_clean(&stats);
    assert!(panics.seen.load(Ordering::SeqCst) > 10, "it was asked each time");
    assert_contiguous(&events);
    assert!(events.iter().any(|event| event.kind.name() == "shard_quarantined"), "other sinks got everything");
}

#[test]
fn a_sink_that_is_not_durable_does_not_satisfy_a_durable_policy() {
    // covers: AUD-5
    let policy = || Policy::development().require_audit(AuditRequirement::Durable);
    let plain = Arc::new(MemorySink::default());
    let error = support::builder(&small()).policy(policy()).audit(plain).build().unwrap_err();
    assert!(matches!(error, VramError::AuditUnavailable { event: "manager_started", .. }), "{error:?}");
    // The default sink, tracing, is not durable either.
    let error = support::builder(&small()).policy(policy()).build().unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuditUnavailable);
    // One durable sink beside one that is not: enough. A failing one beside a durable one: not.
    let durable = || Arc::new(MemorySink::claiming_durable());
    let plain = Arc::new(MemorySink::default());
    support::builder(&small()).policy(policy()).audit(durable()).audit(plain.clone()).build().unwrap();
    plain.failing(true);
    let error = support::builder(&small()).policy(policy()).audit(durable()).audit(plain).build().unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuditUnavailable);
    let accepting = Policy::development().require_audit(AuditRequirement::Accepted);
    support::builder(&small()).policy(accepting).audit(Arc::new(MemorySink::default())).build().unwrap();
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

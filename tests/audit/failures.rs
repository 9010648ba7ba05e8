//! Steps that fail: their events, with their fields, and the limit on refusals.

use std::sync::Arc;
use std::time::Duration;

use vram_residency::{
    AuditRequirement, ErrorCode, EventKind, ExecuteOptions, ExecuteOutcome, Fault, ManagerState, MemorySink, MockCall,
    Operation, Policy, Purpose, RefusalReason, SealedShard, Severity, ShardId, ShardSource, StopReason,
    VerificationFailure, VramError, digest_bytes,
};

use crate::support::{self, Rig, assert_contiguous, noise, small, spec, vouching};
use crate::{event_named, events_of};

/// The call, the shard and the code that the last event names, which must be of a failed operation.
#[track_caller]
fn failed_operation(rig: &Rig) -> (Operation, Option<String>, ErrorCode) {
    let event = rig.sink.events().pop().unwrap();
    assert_eq!(event.severity, Severity::Warning);
    let EventKind::OperationFailed { operation, shard, code, .. } = event.kind else { panic!("{:?}", event.kind) };
    (operation, shard.map(|shard| shard.to_string()), code)
}

#[test]
fn calls_that_fail_in_no_other_way_leave_an_event_too() {
    // covers: AUD-1 ERR-3
    let rig = Rig::lenient();
    let shard = rig.seal("one", &noise(5000, 1));
    let one = || Some("one".to_owned());
    let failed = ["operation_failed"];
    let launch_fails = || rig.config.fail(Fault::Call { call: MockCall::Digest, code: 77 }).unwrap();
    launch_fails();
    assert_eq!(events_of(&rig, |rig| assert!(rig.manager.verify_sealed(&shard).is_err())), failed);
    assert_eq!(failed_operation(&rig), (Operation::Verify, one(), ErrorCode::CudaError));
    launch_fails();
    assert_eq!(events_of(&rig, |rig| assert!(rig.manager.compute_vram_digest(&shard).is_err())), failed);
    assert_eq!(failed_operation(&rig), (Operation::ComputeDigest, one(), ErrorCode::CudaError));
    let run = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
    assert_eq!(events_of(&rig, |rig| assert!(rig.manager.release(&shard).is_err())), failed);
    assert_eq!(failed_operation(&rig), (Operation::Release, one(), ErrorCode::ShardBusy));
    assert_eq!(events_of(&rig, |rig| assert!(rig.manager.release_by_id(shard.id()).is_err())), failed);
    assert_eq!(failed_operation(&rig), (Operation::Release, one(), ErrorCode::ShardBusy));
    run.finish().unwrap();
    let other = ShardId::new("other").unwrap();
    assert_eq!(events_of(&rig, |rig| assert!(rig.manager.release_by_id(&other).is_err())), failed);
    assert_eq!(failed_operation(&rig), (Operation::Release, Some("other".to_owned()), ErrorCode::InvalidParams));
    let nothing = |rig: &Rig| assert!(rig.manager.allocate_scratch(Purpose::Workspace, 0).is_err());
    assert_eq!(events_of(&rig, nothing), failed);
    assert_eq!(failed_operation(&rig), (Operation::AllocateScratch, None, ErrorCode::InvalidParams));
    rig.config.fail(Fault::Call { call: MockCall::Residency, code: 77 }).unwrap();
    assert_eq!(events_of(&rig, |rig| assert!(rig.manager.enforce_vram_only_policy().is_err())), failed);
    assert_eq!(failed_operation(&rig), (Operation::EnforcePolicy, None, ErrorCode::CudaError));
    rig.manager.shutdown(Duration::ZERO);
    let late = |rig: &Rig| assert!(rig.manager.allocate_scratch(Purpose::Workspace, 1).is_err());
    assert_eq!(events_of(&rig, late), failed);
    assert_eq!(failed_operation(&rig), (Operation::AllocateScratch, None, ErrorCode::ManagerStopped));
    rig.close();
}

#[test]
fn a_check_that_is_not_proven_is_a_failed_check() {
    // covers: AUD-1 VER-11
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    rig.config.fail(Fault::DigestSkipped).unwrap();
    let verify = |rig: &Rig| assert!(rig.manager.verify_sealed(&shard).is_err());
    assert_eq!(events_of(&rig, verify), ["seal_verification_failed", "manager_stopped"]);
    let EventKind::SealVerificationFailed { expected, actual, first_bad, reason, .. } =
        event_named(&rig, "seal_verification_failed").kind
    else {
        panic!()
    };
    assert_eq!((expected, actual, first_bad), (shard.digest(), None, None));
    assert_eq!(reason, VerificationFailure::DeviceUntrusted);
    rig.close();
}

#[test]
fn a_manager_that_is_not_built_says_so() {
    // covers: AUD-1 VER-11
    let sink = Arc::new(MemorySink::default());
    let config = small();
    config.fail(Fault::DigestSkipped).unwrap();
    let refused = support::builder(&config).audit(sink.clone()).build().unwrap_err();
    assert!(matches!(refused, VramError::DeviceUntrusted { .. }), "{refused:?}");
    assert_eq!(sink.names(), ["manager_not_started"]);
    let event = sink.events().remove(0);
    assert_eq!(event.severity, Severity::Critical);
    assert!(matches!(event.kind, EventKind::ManagerNotStarted { code: ErrorCode::DeviceUntrusted, .. }));
    // Where one sink was told of a start that another did not take, it is told that nothing started.
    let failing = Arc::new(MemorySink::default());
    failing.failing(true);
    let told = Arc::new(MemorySink::claiming_durable());
    let policy = Policy::development().require_audit(AuditRequirement::Accepted);
    support::builder(&small()).policy(policy).audit(told.clone()).audit(failing).build().unwrap_err();
    assert_eq!(told.names(), ["manager_started", "manager_not_started"]);
}

#[test]
fn what_is_no_seal_is_refused_with_an_event() {
    // covers: SEAL-4 AUD-1
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    let good = shard.to_bytes();
    let mut longer = good.clone();
    longer.push(0);
    for bad in [&good[..good.len() - 1], &good[1..], &longer, &[], &[0; 4000]] {
        let open = |rig: &Rig| {
            let refused = rig.manager.open_seal(bad).unwrap_err();
            assert!(matches!(refused, VramError::SealRefused { reason: RefusalReason::Malformed }), "{refused:?}");
        };
        assert_eq!(events_of(&rig, open), ["seal_refused"]);
        let EventKind::SealRefused { shard: claimed, reason, .. } = event_named(&rig, "seal_refused").kind else {
            panic!()
        };
        assert_eq!((claimed, reason), (None, RefusalReason::Malformed));
    }
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let open = |rig: &Rig| {
        let refused = rig.manager.open_seal(&forged).unwrap_err();
        assert!(matches!(refused, VramError::SealRefused { reason: RefusalReason::Forged }), "{refused:?}");
    };
    assert_eq!(events_of(&rig, open), ["seal_refused"]);
    rig.manager.verify_sealed(&rig.manager.open_seal(&good).unwrap()).unwrap();
    rig.close_clean();
}

#[test]
fn failed_allocations_and_seals_carry_their_fields() {
    // covers: AUD-1 RES-6
    let rig = Rig::with(small(), |b| b.policy(Policy::development().require_expected_digest(true)));
    let bytes = noise(17 << 20, 1);
    let vouched = digest_bytes(rig.manager.tree_params(), &bytes);
    let available = rig.manager.available_vram();
    let refused = rig
        .manager
        .seal_model(
            spec("large").expect(vouching::file(rig.manager.tree_params(), vouched)),
            ShardSource::bytes(&bytes),
        )
        .unwrap_err();
    let VramError::OutOfMemory { needed, .. } = refused else { panic!("{refused:?}") };
    let EventKind::VramAllocationFailed { shard, bytes: asked, available: had, code, .. } =
        event_named(&rig, "vram_allocation_failed").kind
    else {
        panic!()
    };
    assert_eq!((shard.as_str(), asked, had, code), ("large", needed, available, ErrorCode::VramOom));
    assert!(asked > 17 << 20 && had < asked);
    let EventKind::VramSealFailed { shard, code, .. } = event_named(&rig, "vram_seal_failed").kind else { panic!() };
    assert_eq!((shard.as_str(), code), ("large", ErrorCode::VramOom));
    let VramError::PolicyViolation { rule: told, problem: why } = rig.try_seal("one", &bytes).unwrap_err() else {
        panic!()
    };
    let EventKind::PolicyViolation { rule, problem, .. } = event_named(&rig, "policy_violation").kind else { panic!() };
    assert_eq!((rule, problem.as_str()), (told, why.as_str()));
    let EventKind::VramSealFailed { shard, code, .. } = event_named(&rig, "vram_seal_failed").kind else { panic!() };
    assert_eq!((shard.as_str(), code), ("one", ErrorCode::PolicyViolation));
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
    assert_eq!((claimed, reason, suppressed), (None, RefusalReason::Forged, 0), "what it claims is not repeated");
    let run_forged = |rig: &Rig| assert!(rig.execute(&forged).0.is_err());
    assert_eq!(events_of(&rig, run_forged), ["seal_refused"]);
    let mismatch = |rig: &Rig| {
        let vouched = digest_bytes(rig.manager.tree_params(), b"something else");
        assert!(
            rig.manager
                .seal_model(
                    spec("two").expect(vouching::file(rig.manager.tree_params(), vouched)),
                    ShardSource::bytes(&bytes)
                )
                .is_err()
        );
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
    assert_eq!(event_named(&rig, "seal_verification_failed").severity, Severity::Critical);
    assert_eq!(events_of(&rig, verify), ["seal_verification_failed"]);
    let again = event_named(&rig, "seal_verification_failed");
    assert!(matches!(again.kind, EventKind::SealVerificationFailed { reason: VerificationFailure::Quarantined, .. }));
    assert_eq!(again.severity, Severity::Warning, "nothing new was found");
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
    let drained = |rig: &Rig| assert!(rig.manager.shutdown(Duration::ZERO).drained);
    assert_eq!(events_of(&rig, drained), ["manager_draining", "manager_stopped"]);
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

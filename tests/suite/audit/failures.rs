//! Steps that fail: their events, with their fields.

use super::*;

#[test]
fn calls_that_fail_in_no_other_way_leave_an_event_too() {
    // covers: AUD-1 ERR-3
    let rig = Rig::lenient();
    let manager = &*rig.manager;
    let shard = rig.seal("one", &noise(5000, 1));
    let fails = |call| rig.order(Fault::Call { call, code: 77 });
    let step = |step: &dyn Fn(), operation, named: Option<&str>, code| {
        assert_eq!(rig.events_of(step), ["operation_failed"]);
        let said = said!(rig, EventKind::OperationFailed { operation, shard, code, .. } => (operation, shard, code));
        assert_eq!(*said.last().unwrap(), (operation, named.map(name), code));
        assert_eq!(rig.event("operation_failed").severity, Severity::Warning);
    };
    let (busy, wrong, cuda) = (ErrorCode::ShardBusy, ErrorCode::InvalidParams, ErrorCode::CudaError);
    let scratch = |bytes| drop(manager.allocate_scratch(Purpose::Workspace, bytes).unwrap_err());
    fails(MockCall::Digest);
    step(&|| drop(manager.verify_sealed(&shard).unwrap_err()), Operation::Verify, Some("one"), cuda);
    fails(MockCall::Digest);
    step(&|| drop(manager.compute_vram_digest(&shard).unwrap_err()), Operation::ComputeDigest, Some("one"), cuda);
    let differs = || drop(manager.difference(&shard, ShardSource::bytes(&[1])).unwrap_err());
    step(&differs, Operation::Difference, Some("one"), ErrorCode::ModelLoadFailed);
    let run = rig.begin(&shard);
    step(&|| drop(manager.release(&shard).unwrap_err()), Operation::Release, Some("one"), busy);
    step(&|| drop(manager.release_by_id(shard.id()).unwrap_err()), Operation::Release, Some("one"), busy);
    run.finish().unwrap();
    step(&|| drop(manager.release_by_id(&name("other")).unwrap_err()), Operation::Release, Some("other"), wrong);
    step(&|| scratch(0), Operation::AllocateScratch, None, wrong);
    fails(MockCall::Residency);
    step(&|| drop(manager.enforce_vram_only_policy().unwrap_err()), Operation::EnforcePolicy, None, cuda);
    manager.shutdown(Duration::ZERO);
    step(&|| scratch(1), Operation::AllocateScratch, None, ErrorCode::ManagerStopped);
    rig.close_clean();
}

#[test]
fn a_check_that_is_not_proven_is_a_failed_check_and_a_manager_that_is_not_built_says_so() {
    // covers: AUD-1 VER-11
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    rig.order(Fault::DigestSkipped);
    let verify = || drop(rig.manager.verify_sealed(&shard).unwrap_err());
    assert_eq!(rig.events_of(verify), ["seal_verification_failed", "manager_stopped"]);
    let failed = said!(rig, EventKind::SealVerificationFailed { expected, actual, first_bad, reason, .. } =>
        (expected, actual, first_bad, reason));
    assert_eq!(failed, [(shard.digest(), None, None, VerificationFailure::DeviceUntrusted)]);
    rig.close_clean();

    let policy = ErrorCode::PolicyViolation;
    for (fault, code, event) in [
        (Fault::DigestSkipped, ErrorCode::DeviceUntrusted, "manager_not_started"),
        (Fault::Residency(ResidencyLie::AllZero), policy, "policy_violation"),
    ] {
        let (config, sink) = (small(), Arc::new(MemorySink::default()));
        config.fail(fault).unwrap();
        let refused = builder(&config).audit(sink.clone()).build().unwrap_err();
        assert_eq!((refused.code(), sink.names()), (code, vec![event]));
        assert_eq!(sink.events()[0].severity, Severity::Critical);
    }
    // Where one sink was told of a start that another did not take, it is told that nothing started.
    let (failing, told) = (Arc::new(MemorySink::default()), Arc::new(MemorySink::claiming_durable()));
    failing.failing(true);
    let policy = Policy::development().require_audit(AuditRequirement::Accepted);
    builder(&small()).policy(policy).audit(told.clone()).audit(failing).build().unwrap_err();
    assert_eq!(told.names(), ["manager_started", "manager_not_started"]);
}

#[test]
fn what_is_no_seal_is_refused_with_an_event() {
    // covers: SEAL-4 AUD-1
    let rig = Rig::new();
    let good = rig.seal("one", &noise(5000, 1)).to_bytes();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let (malformed, longer) = (RefusalReason::Malformed, [&good[..], &[0]].concat());
    for (bad, reason) in [
        (&good[..good.len() - 1], malformed),
        (&good[1..], malformed),
        (&longer, malformed),
        (&[], malformed),
        (&[0; 4000], malformed),
        (&forged, RefusalReason::Forged),
    ] {
        let open = || {
            let refused = rig.manager.open_seal(bad);
            assert!(matches!(refused, Err(VramError::SealRefused { reason: why }) if why == reason), "{refused:?}");
        };
        assert_eq!(rig.events_of(open), ["seal_refused"]);
        let said = said!(rig, EventKind::SealRefused { shard, reason, suppressed, .. } => (shard, reason, suppressed));
        assert_eq!(said.last(), Some(&(None, reason, 0)), "what it claims is not repeated");
    }
    rig.manager.verify_sealed(&rig.manager.open_seal(&good).unwrap()).unwrap();
    rig.close_clean();
}

#[test]
fn failed_seals_leave_their_events_with_their_fields() {
    // covers: AUD-1 RES-6 SEAL-1
    // Without poison, memory that was never written is zero, so that giving it back unwiped is not counted.
    let rig = Rig::with(small().poison(false), |builder| builder);
    let (bytes, large) = (noise(5000, 1), noise(17 << 20, 1));
    let _taken = rig.seal("one", &bytes);
    let available = rig.manager.available_vram();
    let allocated = ["vram_allocated", "vram_wiped", "vram_deallocated", "vram_seal_failed"];
    let mismatch = ["vram_allocated", "seal_verification_failed", "vram_wiped", "vram_deallocated", "vram_seal_failed"];
    let lie = || rig.order(Fault::Residency(ResidencyLie::AllZero));
    let another = || rig.vouched("two", b"something else");
    let seal = |spec, source| rig.manager.seal_model(spec, source).unwrap_err();
    type Step<'a> = (&'a dyn Fn() -> VramError, &'a [&'a str], ErrorCode);
    let steps: [Step<'_>; 5] = [
        (&|| seal(another(), ShardSource::bytes(&bytes)), &mismatch, ErrorCode::DigestMismatch),
        (&|| seal(spec("two"), ShardSource::reader(9, std::io::empty())), &allocated, ErrorCode::ModelLoadFailed),
        (&|| seal(spec("one"), ShardSource::bytes(&bytes)), &["vram_seal_failed"], ErrorCode::InvalidParams),
        (
            &|| seal(spec("two"), ShardSource::bytes(&large)),
            &["vram_allocation_failed", "vram_seal_failed"],
            ErrorCode::VramOom,
        ),
        (
            &|| {
                lie();
                seal(spec("two"), ShardSource::bytes(&bytes))
            },
            &["vram_allocation_failed", "policy_violation", "vram_seal_failed"],
            ErrorCode::PolicyViolation,
        ),
    ];
    for (step, wanted, code) in steps {
        let mark = rig.mark();
        assert_eq!((step().code(), rig.names_since(mark).as_slice()), (code, wanted));
        assert_eq!(said!(rig, EventKind::VramSealFailed { code, .. } => code).last(), Some(&code));
    }
    let failed = said!(rig, EventKind::VramAllocationFailed { shard, bytes, available, code, .. } =>
        (shard, bytes, available, code));
    assert_eq!((failed[0].0.as_str(), failed[0].2, failed[0].3), ("two", available, ErrorCode::VramOom));
    assert!(failed[0].1 > 17 << 20);
    rig.close_clean();
}

#[test]
fn every_failed_check_leaves_its_events() {
    // covers: AUD-1 VER-5 SEAL-4 SCR-2
    let rig = Rig::lenient();
    let shard = rig.seal("one", &noise(5000, 1));
    rig.flip_bit(&shard, 1, 1);
    // The failure, the quarantine; and again at each repetition, except for the quarantine.
    let verify = || drop(rig.manager.verify_sealed(&shard).unwrap_err());
    assert_eq!(rig.events_of(verify), ["seal_verification_failed", "shard_quarantined"]);
    assert_eq!(rig.event("seal_verification_failed").severity, Severity::Critical);
    assert_eq!(rig.events_of(verify), ["seal_verification_failed"]);
    assert_eq!(rig.event("seal_verification_failed").severity, Severity::Warning, "nothing new was found");
    let reasons = said!(rig, EventKind::SealVerificationFailed { reason, .. } => reason);
    assert_eq!(reasons, [VerificationFailure::DigestMismatch, VerificationFailure::Quarantined]);
    let run = || drop(rig.execute(&shard).0.unwrap_err());
    assert_eq!(rig.events_of(run), ["seal_verification_failed", "execute_refused"]);
    // Release without a proof, and of what is no longer there.
    rig.order(Fault::FillSkipped);
    let release = || drop(rig.manager.release(&shard).unwrap_err());
    assert_eq!(rig.events_of(release), ["shard_quarantined"]);
    assert_eq!(rig.events_of(release), ["seal_refused"]);
    assert_eq!(said!(rig, EventKind::SealRefused { reason, .. } => reason), [RefusalReason::Stale]);
    let end = || assert!(rig.manager.shutdown(Duration::ZERO).drained);
    assert_eq!(rig.events_of(end), ["manager_draining", "manager_stopped"]);
    rig.close_clean();

    // One that stops the manager says so once.
    let rig = Rig::new();
    let (shard, other) = rig.two();
    let in_flight = rig.begin(&other);
    rig.flip_bit(&shard, 1, 1);
    let run = || drop(rig.execute(&shard).0.unwrap_err());
    let expected = ["seal_verification_failed", "shard_quarantined", "manager_stopped", "execute_refused"];
    assert_eq!(rig.events_of(run), expected);
    assert_eq!(rig.event("manager_stopped").severity, Severity::Critical);
    assert_eq!(said!(rig, EventKind::ManagerStopped { reason, .. } => reason), [StopReason::IntegrityFailure]);
    assert_eq!(rig.events_of(run), ["execute_refused"], "a stopped manager does not look again");
    assert_eq!(rig.events_of(|| drop(in_flight.finish().unwrap_err())), ["execute_finished"]);
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Discarded]);
    let stops = rig.close_clean().iter().filter(|event| event.kind.name() == "manager_stopped").count();
    assert_eq!(stops, 1, "dropping it later is no second stop");
}

#[test]
fn policy_violations_are_critical_events() {
    // covers: AUD-1
    let sink = Arc::new(MemorySink::claiming_durable());
    let refused = builder(&small()).policy(Policy::production()).audit(sink.clone()).build().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PolicyViolation);
    assert_eq!(sink.names(), ["policy_violation"], "and no manager_started");
    assert_eq!(sink.events()[0].severity, Severity::Critical);
    let rig = Rig::of(Policy::development().require_expected_digest(true));
    let measured = || {
        let refused = rig.try_seal("one", &noise(100, 1));
        let Err(VramError::PolicyViolation { rule, problem }) = refused else { panic!("{refused:?}") };
        let said = said!(rig, EventKind::PolicyViolation { rule, problem, .. } => (rule, problem));
        assert_eq!((rule, said), ("expected_digest", vec![(rule, problem)]));
    };
    assert_eq!(rig.events_of(measured), ["policy_violation", "vram_seal_failed"]);
    assert_eq!((rig.manager.used_vram(), rig.manager.state()), (0, ManagerState::Ready));
    rig.close_clean();
}

#[test]
fn what_was_wiped_is_said_also_when_not_all_of_it_was_given_back() {
    // covers: AUD-1 SCR-1 SCR-2
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    let used = rig.manager.used_vram();
    rig.order(Fault::call(MockCall::Free).nth(2)); // the image goes, the check space stays
    let release = || assert_error!(rig.manager.release(&shard), VramError::WipeFailed { .. });
    assert_eq!(rig.events_of(release), ["vram_wiped", "vram_deallocated", "shard_quarantined"]);
    let kept = rig.manager.quarantined_vram();
    assert!(kept > 0 && kept < used);
    assert_eq!(said!(rig, EventKind::VramWiped { bytes, .. } => bytes), [used]);
    assert_eq!(said!(rig, EventKind::VramDeallocated { bytes, .. } => bytes), [used - kept]);
    assert_eq!(said!(rig, EventKind::ShardQuarantined { bytes, .. } => bytes), [kept]);
    rig.close_clean();
}

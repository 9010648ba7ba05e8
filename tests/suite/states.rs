//! The state table: what a manager permits while it is ready, drains, and has stopped; and what comes while something is under way.

use crate::*;

/// Every call that starts new work is refused, and says why.
#[track_caller]
fn assert_no_new_work(rig: &Rig, shard: &SealedShard, state: ManagerState) {
    let (used, manager) = (rig.manager.used_vram(), &*rig.manager);
    let mut ran = false;
    for refused in [
        rig.try_seal("another", &noise(100, 1)).map(drop),
        manager.begin(shard, ExecuteOptions::default()).map(drop),
        manager.execute(shard, |_| ran = true),
        manager.reseal(shard).map(drop),
        manager.allocate_scratch(Purpose::KvCache, 10).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(&error, VramError::ManagerStopped { state: named } if *named == state), "{error:?}");
        assert!(!error.is_retriable());
    }
    assert!(!ran, "the work did not run");
    assert_eq!((manager.used_vram(), manager.state()), (used, state));
}

/// What gives evidence works in every state.
#[track_caller]
fn assert_evidence(rig: &Rig, good: &SealedShard) {
    let verification = rig.manager.verify_sealed(good).unwrap();
    assert_eq!((verification.digest, verification.bytes), (good.digest(), good.byte_len()));
    assert_eq!(rig.manager.compute_vram_digest(good).unwrap(), good.digest());
    assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().device_uuid, rig.manager.device_uuid());
    assert!(rig.manager.memory_info().unwrap().total >= rig.manager.used_vram());
    rig.assert_recount();
}

#[test]
fn an_integrity_failure_stops_all_but_evidence_and_release() {
    // covers: VER-5 ERR-4 SCR-1
    // A failed verify acts like a failed execute.
    for verify in [false, true] {
        let rig = Rig::new();
        let (bad, good) = (rig.seal("bad", &noise(70_000, 1)), rig.seal("good", &noise(2000, 2)));
        assert_evidence(&rig, &good);
        rig.flip_bit(&bad, 65_000, 5);
        let found = || if verify { rig.manager.verify_sealed(&bad).map(drop) } else { rig.execute(&bad).0 };
        assert_eq!(found().unwrap_err().code(), ErrorCode::SealVerificationFailed);
        let state = ManagerState::Stopped(StopReason::IntegrityFailure);
        assert_no_new_work(&rig, &good, state);
        assert_no_new_work(&rig, &bad, state);
        assert_evidence(&rig, &good);
        // The bad one repeats its failure; its digest can still be taken, as evidence, and is not the sealed one.
        let repeated = rig.manager.verify_sealed(&bad);
        assert_error!(repeated, VramError::IntegrityFailure { first_bad: Some(_), .. });
        assert_ne!(rig.manager.compute_vram_digest(&bad).unwrap(), bad.digest());
        let held = rig.manager.quarantined_vram();
        assert!(held >= 70_000 && held < rig.manager.used_vram(), "only the bad one is kept as evidence");
        // Release is permitted, wipes, and does not make the manager ready again.
        assert!(rig.manager.release(&bad).unwrap().bytes >= 70_000);
        rig.manager.release_by_id(good.id()).unwrap();
        assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
        let report = rig.manager.shutdown(Duration::ZERO);
        assert_eq!((report.wiped_bytes, report.residue_bytes), (0, 0));
        assert_eq!(rig.manager.state(), state, "the first reason stays");
        rig.close_clean();
    }
}

#[test]
fn by_choice_only_the_shard_is_out_of_service() {
    // covers: VER-5
    let rig = Rig::lenient();
    let (bad, good) = rig.two();
    rig.flip_bit(&bad, 0, 7);
    for _ in 0..3 {
        assert!(matches!(rig.execute(&bad), (Err(VramError::IntegrityFailure { .. }), false)));
        assert!(matches!(rig.execute(&good), (Ok(()), true)));
    }
    // Flipping it back does not bring it back: a quarantined shard repeats its failure.
    rig.flip_bit(&bad, 0, 7);
    assert!(matches!(rig.execute(&bad), (Err(VramError::IntegrityFailure { .. }), false)));
    let hashed = rig.digests();
    assert_error!(rig.manager.verify_sealed(&bad), VramError::IntegrityFailure { .. });
    assert_eq!(rig.digests(), hashed, "what is known to be bad is not hashed again");
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    // It is counted once, however often it failed: half of what two shards of one size take.
    assert_eq!(rig.manager.quarantined_vram() * 2, rig.manager.used_vram());
    rig.manager.release(&bad).unwrap();
    assert_eq!(rig.manager.quarantined_vram(), 0);
    assert!(matches!(rig.execute(&rig.seal("a", &noise(3000, 1))), (Ok(()), true)));
    rig.close_clean();
}

#[test]
fn results_in_flight_are_discarded_when_another_shard_fails() {
    // covers: VER-5
    for lenient in [false, true] {
        let rig = if lenient { Rig::lenient() } else { Rig::new() };
        let (bad, good) = rig.two();
        let in_flight = rig.begin(&good);
        rig.flip_bit(&bad, 1, 1);
        // Through a closure too: it ran, and its result does not count.
        let inside = rig.manager.execute(&good, |_| rig.execute(&bad).0.unwrap_err().code());
        let finished = in_flight.finish();
        if lenient {
            // The twin: only the changed shard goes.
            assert!(inside.is_ok() && finished.is_ok());
            let in_flight = rig.begin(&good);
            assert!(!rig.manager.shutdown(Duration::from_millis(10)).drained);
            assert_error!(in_flight.finish(), VramError::ManagerStopped { .. });
        } else {
            assert_error!(inside, VramError::ManagerStopped { .. });
            assert_error!(finished, VramError::ManagerStopped { .. });
            assert_eq!(rig.outcomes(), [ExecuteOutcome::Discarded; 2]);
        }
        rig.close_clean();
    }
}

#[test]
fn a_shutdown_is_drained_when_the_last_guard_finishes_in_time() {
    // covers: VER-5 SCR-3 VER-3
    for (deadline, ended) in
        [Duration::from_secs(60), Duration::MAX].into_iter().flat_map(|at| ["finished", "dropped"].map(|it| (at, it)))
    {
        let rig = Rig::writable();
        let busy = noise(40_000, 1);
        let (held, (other, released)) = (rig.seal("held", &busy), rig.two());
        // A guard that is dropped with work of its engine's queued holds the shutdown up until that is done.
        let stream = rig.stream();
        let guard = rig.manager.begin(&held, on(&stream)).unwrap();
        thread::scope(|scope| {
            let shutdown = scope.spawn(|| rig.manager.shutdown(deadline));
            until("the manager drains", || rig.manager.state() == ManagerState::Draining);
            assert_no_new_work(&rig, &other, ManagerState::Draining);
            assert_evidence(&rig, &other);
            rig.manager.release(&released).unwrap();
            assert_error!(rig.manager.release(&held), VramError::ShardBusy { .. });
            let mut out = vec![0; busy.len()];
            guard.read_at(0, &mut out).unwrap();
            assert_eq!(out, busy, "the execution in flight still reads");
            stream.enqueue_write(&held, 0, 40_000, 7).unwrap();
            if ended == "finished" {
                guard.finish().unwrap(); // began before, and counts
            } else {
                drop(guard);
            }
            let report = shutdown.join().unwrap();
            assert!(report.drained && report.wiped_bytes >= 43_000, "{report:?}");
            assert_eq!((report.residue_bytes, report.busy_bytes), (0, 0));
        });
        assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::Shutdown));
        assert_eq!((rig.manager.used_vram(), rig.pending()), (0, 0));
        assert_error!(rig.manager.verify_sealed(&held), VramError::StaleHandle { .. });
        drop(stream);
        rig.close_clean();
    }
}

#[test]
fn a_shutdown_waits_for_a_seal_that_is_under_way_and_what_is_being_sealed_is_not_sealed() {
    // covers: SCR-3 VER-5 SEAL-1
    for (stop, reason) in [
        ("patient", Some(StopReason::Shutdown)),
        ("impatient", Some(StopReason::Shutdown)),
        ("failure", Some(StopReason::IntegrityFailure)),
        ("nothing", None),
    ] {
        let rig = Rig::new();
        let bad = rig.seal("bad", &noise(3000, 1));
        let manager = &*rig.manager;
        let ending = thread::scope(|scope| {
            let mut ending = None;
            let source = reads(|at, room| {
                match stop {
                    "patient" if at == 0 => {
                        ending = Some(scope.spawn(|| manager.shutdown(Duration::from_secs(60))));
                        until("the manager drains", || manager.state() == ManagerState::Draining);
                        thread::sleep(Duration::from_millis(50));
                        let ended = ending.as_ref().is_some_and(|ending| ending.is_finished());
                        assert!(!ended, "weights lie in memory, and it says that it has ended");
                    }
                    "impatient" if at == 0 => {
                        let report = manager.shutdown(Duration::ZERO);
                        assert!(!report.drained && report.busy_bytes == manager.used_vram(), "{report:?}");
                    }
                    "failure" if at == 0 => {
                        rig.flip_bit(&bad, 0, 0);
                        assert!(manager.verify_sealed(&bad).is_err());
                    }
                    _ => {}
                }
                Ok(fill(room, 5000 - at, 0))
            });
            match (manager.seal_model(spec("late"), ShardSource::reader(5000, source)), reason) {
                (Err(VramError::ManagerStopped { state }), Some(reason)) => {
                    let draining = stop == "patient" && state == ManagerState::Draining;
                    assert!(draining || state == ManagerState::Stopped(reason), "{state}");
                }
                (Ok(shard), None) => assert!(rig.execute(&shard).1),
                other => panic!("{other:?}"),
            }
            ending.map(|ending| ending.join().unwrap())
        });
        assert_eq!(ending.is_some(), stop == "patient");
        if let Some(report) = ending {
            assert!(report.drained);
            assert_eq!((report.busy_bytes, report.residue_bytes, manager.used_vram()), (0, 0, 0));
        }
        rig.assert_recount();
        rig.close_clean();
    }
}

/// Executes; at its check's event, and before its work, `meanwhile` has another call find what has changed.
fn overtaken(choice: OnIntegrityFailure, same: bool) -> (Result<(), VramError>, bool, Vec<&'static str>) {
    let bad = Arc::new(Mutex::new(None::<SealedShard>));
    let (shard, finder) = (Arc::clone(&bad), Arc::new(Mutex::new(None)));
    let kept = Arc::clone(&finder);
    let rig = Rig::watched(
        |builder| builder.on_integrity_failure(choice),
        move |manager, event| {
            let Some(shard) = shard.lock().unwrap().take_if(|_| event.kind.name() == "seal_verified") else { return };
            manager.mock_controls().unwrap().flip_bit(&shard, 9, 1).unwrap();
            let other = Arc::clone(manager);
            let finds = thread::spawn(move || drop(other.verify_sealed(&shard).unwrap_err()));
            until("the other check finds the change", || manager.quarantined_vram() > 0);
            let stops = choice == OnIntegrityFailure::Stop;
            until("the manager stops", || !stops || manager.state() != ManagerState::Ready);
            *kept.lock().unwrap() = Some(finds);
        },
    );
    let (one, two) = rig.two();
    *bad.lock().unwrap() = Some(if same { one.clone() } else { two });
    let (outcome, ran) = rig.execute(&one);
    until("the finder was started", || finder.lock().unwrap().is_some());
    finder.lock().unwrap().take().unwrap().join().unwrap();
    until("the sink lets the manager go", || Arc::strong_count(&rig.manager) == 1);
    let names = rig.sink.names();
    assert_clean(&rig.close().0);
    (outcome, ran, names)
}

#[test]
fn no_work_begins_on_a_shard_that_another_call_just_found_changed() {
    // covers: VER-5 VER-1
    let (outcome, ran, names) = overtaken(OnIntegrityFailure::QuarantineShard, true);
    assert!(!ran && matches!(outcome, Err(VramError::IntegrityFailure { .. })), "{outcome:?}");
    assert!(!names.contains(&"execute_started") && names.contains(&"execute_refused"));
    // The twin: another shard's change, where only that one goes.
    assert!(matches!(overtaken(OnIntegrityFailure::QuarantineShard, false), (Ok(()), true, _)));
}

#[test]
fn work_whose_check_passed_just_before_the_manager_stopped_does_not_run() {
    // covers: VER-5 CON-1
    let (outcome, ran, _) = overtaken(OnIntegrityFailure::Stop, false);
    assert!(!ran && matches!(outcome, Err(VramError::ManagerStopped { .. })), "{outcome:?}");
}

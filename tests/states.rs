//! The state table: what a manager permits while it is ready, drains, and has stopped.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use std::time::{Duration, Instant};

use support::{Rig, noise};
use vram_residency::{ErrorCode, ExecuteOptions, ManagerState, SealedShard, StopReason, VramError};

/// Every call that starts new work is refused, and says why.
#[track_caller]
fn assert_no_new_work(rig: &Rig, shard: &SealedShard, state: ManagerState) {
    let used = rig.manager.used_vram();
    let stopped = |error: VramError| {
        assert_eq!(error.code(), ErrorCode::ManagerStopped);
        assert!(matches!(&error, VramError::ManagerStopped { state: named } if *named == state), "{error:?}");
        assert!(!error.is_retriable());
    };
    stopped(rig.try_seal("another", &noise(100, 1)).unwrap_err());
    stopped(rig.manager.begin(shard, ExecuteOptions::default()).map(drop).unwrap_err());
    let (outcome, ran) = rig.execute(shard);
    stopped(outcome.unwrap_err());
    assert!(!ran, "the work did not run");
    assert_eq!(rig.manager.used_vram(), used);
    assert_eq!(rig.manager.state(), state);
}

/// What gives evidence works in every state.
#[track_caller]
fn assert_evidence(rig: &Rig, good: &SealedShard, bytes: &[u8]) {
    let verification = rig.manager.verify_sealed(good).unwrap();
    assert_eq!((verification.digest, verification.bytes), (good.digest(), bytes.len() as u64));
    assert_eq!(rig.manager.compute_vram_digest(good).unwrap(), good.digest());
    assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().device_uuid, rig.manager.device_uuid());
    assert!(rig.manager.memory_info().unwrap().total >= rig.manager.used_vram());
    rig.assert_recount();
}

#[test]
fn ready_permits_everything() {
    // covers: VER-5
    let rig = Rig::new();
    let bytes = noise(3000, 1);
    let shard = rig.seal("one", &bytes);
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    assert_evidence(&rig, &shard, &bytes);
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    rig.manager.begin(&shard, ExecuteOptions::default()).unwrap().finish().unwrap();
    rig.manager.release(&shard).unwrap();
    let again = rig.seal("one", &bytes);
    rig.manager.release_by_id(again.id()).unwrap();
    assert_eq!(rig.manager.used_vram(), 0);
    rig.close_clean();
}

#[test]
fn an_integrity_failure_stops_all_but_evidence_and_release() {
    // covers: VER-5 ERR-4
    let rig = Rig::new();
    let (bytes, others) = (noise(70_000, 1), noise(2000, 2));
    let (bad, good) = (rig.seal("bad", &bytes), rig.seal("good", &others));
    rig.flip_bit(&bad, 65_000, 5);
    let (outcome, ran) = rig.execute(&bad);
    let error = outcome.unwrap_err();
    assert!(!ran && matches!(error, VramError::IntegrityFailure { .. }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::SealVerificationFailed);
    let state = ManagerState::Stopped(StopReason::IntegrityFailure);
    assert_eq!(rig.manager.state(), state);
    assert_no_new_work(&rig, &good, state);
    assert_no_new_work(&rig, &bad, state);
    assert_evidence(&rig, &good, &others);
    // The bad one repeats its failure; its digest can still be taken, as evidence, and is not the sealed one.
    let repeated = rig.manager.verify_sealed(&bad).unwrap_err();
    assert!(matches!(&repeated, VramError::IntegrityFailure { first_bad: Some(range), .. } if range.offset <= 65_000));
    assert_ne!(rig.manager.compute_vram_digest(&bad).unwrap(), bad.digest());
    let held = rig.manager.quarantined_vram();
    assert!(held >= bytes.len() as u64 && held < rig.manager.used_vram(), "only the bad one is kept as evidence");
    // Release is permitted, wipes, and does not make the manager ready again.
    assert!(rig.manager.release(&bad).unwrap().bytes >= bytes.len() as u64);
    rig.manager.release_by_id(good.id()).unwrap();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    assert_eq!(rig.manager.state(), state);
    let report = rig.manager.shutdown(Duration::ZERO);
    assert_eq!((report.wiped_bytes, report.residue_bytes), (0, 0));
    assert_eq!(rig.manager.state(), state, "the first reason stays");
    rig.close_clean();
}

#[test]
fn a_failed_verify_acts_like_a_failed_execute() {
    // covers: VER-5
    let rig = Rig::new();
    let (bad, good) = (rig.seal("bad", &noise(3000, 1)), rig.seal("good", &noise(3000, 2)));
    rig.flip_bit(&bad, 2999, 0);
    assert!(matches!(rig.manager.verify_sealed(&bad), Err(VramError::IntegrityFailure { .. })));
    assert_no_new_work(&rig, &good, ManagerState::Stopped(StopReason::IntegrityFailure));
    rig.close_clean();
}

#[test]
fn by_choice_only_the_shard_is_out_of_service() {
    // covers: VER-5
    let rig = Rig::lenient();
    let (bad, good) = (rig.seal("bad", &noise(3000, 1)), rig.seal("good", &noise(3000, 2)));
    rig.flip_bit(&bad, 0, 7);
    for _ in 0..3 {
        assert!(matches!(rig.execute(&bad), (Err(VramError::IntegrityFailure { .. }), false)));
        assert!(matches!(rig.execute(&good), (Ok(()), true)));
    }
    // Flipping it back does not bring it back: a quarantined shard repeats its failure.
    rig.flip_bit(&bad, 0, 7);
    assert!(matches!(rig.execute(&bad), (Err(VramError::IntegrityFailure { .. }), false)));
    let hashed = rig.digests();
    let verified = rig.manager.verify_sealed(&bad);
    assert!(matches!(verified, Err(VramError::IntegrityFailure { .. })), "{verified:?}");
    assert_eq!(rig.digests(), hashed, "what is known to be bad is not hashed again");
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    // It is counted once, however often it failed: half of what two shards of one size take.
    assert_eq!(rig.manager.quarantined_vram() * 2, rig.manager.used_vram());
    rig.manager.release(&bad).unwrap();
    assert_eq!(rig.manager.quarantined_vram(), 0);
    let fresh = rig.seal("bad", &noise(3000, 1));
    assert!(matches!(rig.execute(&fresh), (Ok(()), true)));
    rig.close_clean();
}

#[test]
fn results_in_flight_are_discarded_when_another_shard_fails() {
    // covers: VER-5
    let rig = Rig::new();
    let (bad, good) = (rig.seal("bad", &noise(3000, 1)), rig.seal("good", &noise(3000, 2)));
    let in_flight = rig.manager.begin(&good, ExecuteOptions::default()).unwrap();
    rig.flip_bit(&bad, 1, 1);
    assert!(rig.execute(&bad).0.is_err());
    let discarded = in_flight.finish().unwrap_err();
    assert!(matches!(discarded, VramError::ManagerStopped { .. }), "{discarded:?}");
    // The same through a closure: it ran, and its result does not count.
    let rig = Rig::new();
    let (bad, good) = (rig.seal("bad", &noise(3000, 1)), rig.seal("good", &noise(3000, 2)));
    rig.flip_bit(&bad, 1, 1);
    let outcome = rig.manager.execute(&good, |_| rig.execute(&bad).0.unwrap_err().code());
    assert_eq!(outcome.unwrap_err().code(), ErrorCode::ManagerStopped);
    rig.close_clean();
}

fn wait_for(rig: &Rig, state: ManagerState) {
    let until = Instant::now() + Duration::from_secs(20);
    let ended = |state| matches!(state, ManagerState::Stopped(_));
    while rig.manager.state() != state && !ended(rig.manager.state()) {
        assert!(Instant::now() < until, "{:?} never came", state);
        std::thread::yield_now();
    }
}

#[test]
fn draining_refuses_new_work_and_lets_the_old_finish() {
    // covers: VER-5 SCR-3 VER-3
    let rig = Rig::new();
    let (busy, idle) = (noise(40_000, 1), noise(500, 2));
    let (held, other) = (rig.seal("held", &busy), rig.seal("other", &idle));
    let released = rig.seal("released", &idle);
    std::thread::scope(|scope| {
        let run = rig.manager.begin(&held, ExecuteOptions::default()).unwrap();
        let shutdown = scope.spawn(|| rig.manager.shutdown(Duration::from_secs(60)));
        wait_for(&rig, ManagerState::Draining);
        assert_no_new_work(&rig, &other, ManagerState::Draining);
        assert_evidence(&rig, &other, &idle);
        rig.manager.release(&released).unwrap();
        assert!(matches!(rig.manager.release(&held), Err(VramError::ShardBusy { .. })));
        let mut out = vec![0; busy.len()];
        run.read_at(0, &mut out).unwrap();
        assert_eq!(out, busy, "the execution in flight still reads");
        run.finish().unwrap();
        let report = shutdown.join().unwrap();
        assert!(report.drained && report.wiped_bytes >= 40_500, "{report:?}");
        assert_eq!((report.residue_bytes, report.busy_bytes), (0, 0));
    });
    assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::Shutdown));
    assert_eq!(rig.manager.used_vram(), 0);
    assert!(matches!(rig.manager.verify_sealed(&held), Err(VramError::StaleHandle { .. })));
    rig.close_clean();
}

#[test]
fn a_shutdown_that_is_not_drained_in_time_says_so_and_discards() {
    // covers: SCR-3 VER-5
    let rig = Rig::new();
    let (held, other) = (rig.seal("held", &noise(40_000, 1)), rig.seal("other", &noise(500, 2)));
    let room = rig.manager.used_vram();
    let run = rig.manager.begin(&held, ExecuteOptions::default()).unwrap();
    let report = rig.manager.shutdown(Duration::from_millis(20));
    assert!(!report.drained && report.busy_bytes >= 40_000, "{report:?}");
    assert!(report.wiped_bytes >= 500);
    assert_eq!(report.wiped_bytes + report.busy_bytes, room, "every byte is accounted for");
    assert_eq!(rig.manager.used_vram(), report.busy_bytes);
    let state = ManagerState::Stopped(StopReason::Shutdown);
    assert_no_new_work(&rig, &held, state);
    assert!(matches!(rig.manager.verify_sealed(&other), Err(VramError::StaleHandle { .. })));
    assert!(matches!(run.finish(), Err(VramError::ManagerStopped { state: named }) if named == state));
    rig.manager.release(&held).unwrap();
    assert_eq!(rig.manager.used_vram(), 0);
    rig.close_clean();
}

#[test]
fn a_second_shutdown_has_nothing_to_do() {
    // covers: SCR-3
    let rig = Rig::new();
    rig.seal("one", &noise(5000, 1));
    assert!(rig.manager.shutdown(Duration::ZERO).wiped_bytes >= 5000);
    let again = rig.manager.shutdown(Duration::from_secs(1));
    assert!(again.drained);
    assert_eq!((again.wiped_bytes, again.residue_bytes, again.busy_bytes), (0, 0, 0));
    rig.close_clean();
}

#[test]
fn a_deadline_beyond_the_clock_waits_as_long_as_it_takes() {
    // covers: SCR-3
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    std::thread::scope(|scope| {
        let run = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
        let shutdown = scope.spawn(|| rig.manager.shutdown(Duration::MAX));
        wait_for(&rig, ManagerState::Draining);
        std::thread::sleep(Duration::from_millis(20));
        let finished = run.finish();
        let report = shutdown.join().unwrap();
        assert!(report.drained && report.busy_bytes == 0, "{report:?}; the execution: {finished:?}");
    });
    rig.close_clean();
}

/// Reads zeros, and calls `then` once on the way.
struct OnTheWay<F>(Option<F>, usize);

impl<F: FnOnce()> std::io::Read for OnTheWay<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some(then) = self.0.take() {
            then();
        }
        let bytes = buffer.len().min(self.1);
        buffer[..bytes].fill(0);
        self.1 -= bytes;
        Ok(bytes)
    }
}

#[test]
fn what_is_being_sealed_when_the_manager_stops_is_not_sealed() {
    // covers: VER-5 SEAL-1
    type Stop = fn(&Rig, &SealedShard);
    let fail: Stop = |rig, bad| {
        rig.flip_bit(bad, 0, 0);
        assert!(rig.manager.verify_sealed(bad).is_err());
    };
    let shut_down: Stop = |rig, _| {
        let report = rig.manager.shutdown(Duration::ZERO);
        assert!(!report.drained && report.busy_bytes == rig.manager.used_vram(), "the seal is under way: {report:?}");
    };
    let nothing: Stop = |_, _| {};
    for (stop, reason) in
        [(fail, Some(StopReason::IntegrityFailure)), (shut_down, Some(StopReason::Shutdown)), (nothing, None)]
    {
        let rig = Rig::new();
        let bad = rig.seal("bad", &noise(3000, 1));
        let used = rig.manager.used_vram();
        let source = OnTheWay(Some(|| stop(&rig, &bad)), 5000);
        let sealed = rig.manager.seal_model(support::spec("late"), vram_residency::ShardSource::reader(5000, source));
        match (sealed, reason) {
            (Err(VramError::ManagerStopped { state }), Some(reason)) => {
                assert_eq!(state, ManagerState::Stopped(reason));
                assert!(rig.manager.used_vram() <= used);
            }
            (Ok(shard), None) => assert!(rig.execute(&shard).1),
            other => panic!("{other:?}"),
        }
        rig.assert_recount();
        rig.close_clean();
    }
}

/// At the first `seal_verified`, holds the trail until the manager has stopped.
#[derive(Default)]
struct StopsMeanwhile {
    manager: std::sync::OnceLock<std::sync::Weak<vram_residency::VramManager>>,
    go: std::sync::OnceLock<std::sync::mpsc::SyncSender<()>>,
}

impl vram_residency::AuditSink for StopsMeanwhile {
    fn record(&self, event: &vram_residency::AuditEvent) -> Result<vram_residency::Ack, vram_residency::AuditError> {
        if event.kind.name() == "seal_verified"
            && let Some(manager) = self.manager.get().and_then(std::sync::Weak::upgrade)
            && let Some(go) = self.go.get()
        {
            let _ = go.try_send(());
            let until = Instant::now() + Duration::from_secs(20);
            while manager.state() == ManagerState::Ready && Instant::now() < until {
                std::thread::yield_now();
            }
        }
        Ok(vram_residency::Ack::Accepted)
    }
}

#[test]
fn work_whose_check_passed_just_before_the_manager_stopped_does_not_run() {
    // covers: VER-5 CON-1
    let (config, sink) = (support::small(), std::sync::Arc::new(StopsMeanwhile::default()));
    let manager = std::sync::Arc::new(support::builder(&config).audit(sink.clone()).build().unwrap());
    let seal = |name: &str| {
        manager.seal_model(support::spec(name), vram_residency::ShardSource::bytes(&noise(3000, 1))).unwrap()
    };
    let (bad, good) = (seal("bad"), seal("good"));
    manager.mock_controls().unwrap().flip_bit(&bad, 9, 1).unwrap();
    let (go, gone) = std::sync::mpsc::sync_channel(1);
    sink.manager.set(std::sync::Arc::downgrade(&manager)).unwrap();
    sink.go.set(go).unwrap();
    std::thread::scope(|scope| {
        let (manager, bad) = (&manager, &bad);
        scope.spawn(move || {
            gone.recv().unwrap();
            assert!(matches!(manager.verify_sealed(bad), Err(VramError::IntegrityFailure { .. })));
        });
        let (outcome, ran) = support::execute(manager, &good);
        assert!(!ran && matches!(outcome, Err(VramError::ManagerStopped { .. })), "{outcome:?}");
    });
    drop(manager);
    support::assert_clean(&config.stats());
}

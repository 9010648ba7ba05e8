//! How a manager ends, and what it keeps out of the pool.

use std::time::{Duration, Instant};

use vram_residency::{
    ErrorCode, ExecuteOptions, Fault, ManagerState, MockCall, Purpose, ShardSource, StopReason, VramError,
};

use crate::assert_error;
use crate::support::{Rig, name, noise, small, spec};

#[test]
fn a_drained_shutdown_wipes_everything_and_says_so() {
    // covers: SCR-3 SCR-1
    let rig = Rig::new();
    let shards: Vec<_> = (0..4).map(|at| rig.seal(&format!("s{at}"), &noise(3000, at))).collect();
    let used = rig.manager.used_vram();
    let started = Instant::now();
    let report = rig.manager.shutdown(Duration::from_secs(60));
    assert!(started.elapsed() < Duration::from_secs(30), "there was nothing to wait for");
    assert_eq!((report.drained, report.wiped_bytes, report.residue_bytes, report.busy_bytes), (true, used, 0, 0));
    assert_eq!((rig.manager.used_vram(), rig.manager.state()), (0, ManagerState::Stopped(StopReason::Shutdown)));
    for shard in &shards {
        assert_error!(rig.manager.execute(shard, |_| ()), VramError::ManagerStopped { .. });
        assert_error!(rig.manager.verify_sealed(shard), VramError::StaleHandle { .. });
        assert_error!(rig.manager.release(shard), VramError::StaleHandle { .. });
        assert_error!(rig.manager.release_by_id(shard.id()), VramError::InvalidParams { .. });
    }
    let again = rig.manager.shutdown(Duration::ZERO);
    assert_eq!((again.drained, again.wiped_bytes, again.residue_bytes, again.busy_bytes), (true, 0, 0, 0));
    assert_eq!(rig.count("manager_stopped"), 1);
    rig.close_clean();
}

#[test]
fn a_shutdown_waits_for_its_deadline_and_leaves_what_is_in_use_to_the_end() {
    // covers: SCR-3 VER-5
    let rig = Rig::new();
    let (a, b) = (rig.seal("a", &noise(3000, 1)), rig.seal("b", &noise(5000, 2)));
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 1000).unwrap();
    let guard = rig.manager.begin(&a, ExecuteOptions::default()).unwrap();
    let (used, started) = (rig.manager.used_vram(), Instant::now());
    let report = rig.manager.shutdown(Duration::from_millis(80));
    assert!(started.elapsed() >= Duration::from_millis(80));
    assert!(!report.drained);
    assert_eq!(report.wiped_bytes + report.busy_bytes, used);
    assert_eq!((report.residue_bytes, rig.manager.used_vram()), (0, report.busy_bytes));
    assert_error!(rig.manager.verify_sealed(&b), VramError::StaleHandle { .. });
    rig.manager.verify_sealed(&a).unwrap(); // still evidence
    assert_error!(rig.manager.release(&a), VramError::ShardBusy { .. });
    assert_error!(guard.finish(), VramError::ManagerStopped { .. });
    rig.manager.release(&a).unwrap();
    drop(scratch);
    assert_eq!(rig.manager.used_vram(), 0);
    rig.close_clean();
}

#[test]
fn a_shutdown_is_drained_when_the_last_guard_finishes_in_time() {
    // covers: SCR-3
    let rig = Rig::new();
    let a = rig.seal("a", &noise(3000, 1));
    let guard = rig.manager.begin(&a, ExecuteOptions::default()).unwrap();
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| rig.manager.shutdown(Duration::from_secs(60)));
        while rig.manager.state() == ManagerState::Ready {
            std::thread::yield_now();
        }
        assert_eq!(rig.manager.state(), ManagerState::Draining);
        assert_error!(rig.manager.begin(&a, ExecuteOptions::default()), VramError::ManagerStopped { .. });
        let sealed = rig.manager.seal_model(spec("b"), ShardSource::bytes(&[1; 10]));
        assert_error!(sealed, VramError::ManagerStopped { state: ManagerState::Draining });
        assert_error!(rig.manager.reseal(&a), VramError::ManagerStopped { .. });
        assert_error!(rig.manager.allocate_scratch(Purpose::KvCache, 10), VramError::ManagerStopped { .. });
        guard.finish().unwrap(); // began before, and counts
        assert!(ending.join().unwrap().drained);
    });
    assert_eq!(rig.manager.used_vram(), 0);
    rig.close_clean();
}

#[test]
fn a_shutdown_that_cannot_wipe_reports_the_residue() {
    // covers: SCR-2 SCR-3
    let rig = Rig::new();
    let _shards = [rig.seal("a", &noise(3000, 1)), rig.seal("b", &noise(3000, 2))];
    let used = rig.manager.used_vram();
    rig.config.fail(Fault::FillSkipped).unwrap();
    let report = rig.manager.shutdown(Duration::ZERO);
    assert_eq!(report.wiped_bytes + report.residue_bytes, used);
    assert_eq!(report.residue_bytes, used / 2);
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (used / 2, used / 2));
    rig.close_clean(); // the end tried again
}

#[test]
fn a_leaked_guard_does_not_keep_the_end_from_wiping() {
    // covers: SCR-3
    let rig = Rig::new();
    let a = rig.seal("a", &noise(3000, 1));
    std::mem::forget(rig.manager.begin(&a, ExecuteOptions::default()).unwrap());
    let report = rig.manager.shutdown(Duration::from_millis(10));
    assert!(!report.drained && report.busy_bytes > 0);
    let Rig { config, manager, .. } = rig;
    drop(manager);
    let stats = config.stats();
    assert_eq!((stats.live_bytes, stats.live_allocations, stats.unwiped_bytes_freed), (0, 0, 0));
}

#[test]
fn a_wipe_that_could_not_be_waited_for_is_no_wipe() {
    // covers: SCR-1 SCR-2
    let mut failed = 0;
    for nth in 1.. {
        let rig = Rig::new();
        let shard = rig.seal("a", &noise(3000, 1));
        rig.config.fail(Fault::call(MockCall::Synchronize).nth(nth)).unwrap();
        let released = rig.manager.release(&shard);
        rig.controls().clear_faults().unwrap();
        // The first wait is for what was enqueued before; whether that failed is its own caller's news.
        let wiped = nth == 1 || nth > 4;
        assert_eq!(released.is_ok(), wiped, "{nth}: {released:?}");
        assert_eq!(rig.manager.quarantined_vram() == 0, wiped);
        failed += u32::from(!wiped);
        rig.close_clean();
        if nth > 4 {
            break;
        }
    }
    assert_eq!(failed, 3, "the image's proof, the check space's proof, and the proof's own bytes");
}

// ---- release by name

#[test]
fn an_operator_releases_by_name() {
    // covers: SCR-1 SCR-4 VER-3
    let rig = Rig::new();
    let a = rig.seal("a", &noise(3000, 1));
    let guard = rig.manager.begin(&a, ExecuteOptions::default()).unwrap();
    assert_error!(rig.manager.release_by_id(&name("a")), VramError::ShardBusy { .. });
    guard.finish().unwrap();
    assert_error!(rig.manager.release_by_id(&name("b")), VramError::InvalidParams { field: "shard id", .. });
    let report = rig.manager.release_by_id(&name("a")).unwrap();
    assert_eq!((report.shard.as_str(), rig.manager.used_vram()), ("a", 0));
    assert_error!(rig.manager.release_by_id(&name("a")), VramError::InvalidParams { .. });
    assert_error!(rig.manager.release(&a), VramError::StaleHandle { .. });
    // The name is free again, and the new shard is the one that goes.
    let again = rig.seal("a", &noise(100, 2));
    assert_error!(rig.manager.verify_sealed(&a), VramError::StaleHandle { .. });
    rig.manager.verify_sealed(&again).unwrap();
    rig.flip(&again, 0);
    assert_error!(rig.manager.verify_sealed(&again), VramError::IntegrityFailure { .. });
    rig.manager.release_by_id(&name("a")).unwrap(); // also when stopped, and quarantined
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    rig.close_clean();
}

// ---- the quarantine

#[test]
fn residue_beyond_the_limit_stops_the_manager() {
    // covers: SCR-2
    let one = {
        let rig = Rig::new();
        rig.seal("a", &noise(3000, 1));
        rig.manager.used_vram()
    };
    for (limit, stops_at) in [(0, 1), (one - 1, 1), (one, 2), (2 * one, 3), (3 * one - 1, 3)] {
        let rig = Rig::with(small(), |b| b.quarantine_limit(limit));
        for failing in 1..=stops_at {
            assert_eq!(rig.manager.state(), ManagerState::Ready, "limit {limit}, before failure {failing}");
            let shard = rig.seal(&format!("s{failing}"), &noise(3000, 1));
            rig.config.fail(Fault::FillSkipped).unwrap();
            assert_error!(rig.manager.release(&shard), VramError::WipeFailed { .. });
            assert_eq!(rig.manager.quarantined_vram(), failing * one);
        }
        assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::DeviceUntrusted), "limit {limit}");
        assert_eq!(rig.sink.names().last().copied(), Some("manager_stopped"));
        let sealed = rig.manager.seal_model(spec("late"), ShardSource::bytes(&[1; 10]));
        assert_error!(sealed, VramError::ManagerStopped { .. });
        rig.close_clean();
    }
}

#[test]
fn evidence_does_not_count_against_the_residue_limit() {
    // covers: SCR-2 VER-5
    let rig = Rig::with(small(), |b| {
        b.quarantine_limit(0).on_integrity_failure(vram_residency::OnIntegrityFailure::QuarantineShard)
    });
    let shard = rig.seal("a", &noise(3000, 1));
    rig.flip(&shard, 0);
    assert_error!(rig.manager.verify_sealed(&shard), VramError::IntegrityFailure { .. });
    assert_eq!(rig.manager.quarantined_vram(), rig.manager.used_vram());
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    rig.manager.release(&shard).unwrap();
    assert_eq!(rig.manager.quarantined_vram(), 0);
    rig.close_clean();
}

#[test]
fn the_limit_of_the_quarantine_is_a_quarter_of_the_device_unless_chosen() {
    // covers: SCR-2
    let rig = Rig::with(small().capacity_bytes(1 << 20), |b| b);
    let stopped = |rig: &Rig| rig.manager.state() != ManagerState::Ready;
    for number in 0.. {
        if stopped(&rig) {
            break;
        }
        let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 30_000 + number).unwrap();
        let stream = rig.controls().engine_stream().unwrap();
        stream.enqueue_scratch_write(&scratch, 1000, 1).unwrap();
        drop(stream);
        rig.config.fail(Fault::FillSkipped).unwrap();
        drop(scratch);
        assert_eq!(stopped(&rig), rig.manager.quarantined_vram() > 1 << 18);
    }
    rig.close_clean();
}

// ---- what the driver says

#[test]
fn memory_info_is_the_drivers_word_and_the_ledger_is_ours() {
    // covers: RES-4 RES-5
    let rig = Rig::with(small().capacity_bytes(1 << 20), |b| b.headroom(10_000));
    let info = rig.manager.memory_info().unwrap();
    assert_eq!((info.free, info.total, rig.manager.total_vram()), (1 << 20, 1 << 20, 1 << 20));
    assert_eq!(rig.manager.available_vram(), (1 << 20) - 10_000);
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 4000).unwrap();
    assert_eq!(rig.manager.memory_info().unwrap().free, (1 << 20) - rig.manager.used_vram());
    // Another manager on the same device takes memory that our ledger does not know.
    let other = Rig::with(rig.config.clone(), |b| b);
    let _theirs = other.seal("theirs", &noise(900_000, 1));
    let info = rig.manager.memory_info().unwrap();
    assert!(info.free < rig.manager.available_vram());
    let refused = rig.manager.allocate_scratch(Purpose::KvCache, 200_000);
    assert!(matches!(refused, Err(VramError::OutOfMemory { available, .. }) if available <= info.free));
    drop(other);
    rig.manager.allocate_scratch(Purpose::KvCache, 200_000).unwrap();
    rig.config.fail(Fault::call(MockCall::MemoryInfo)).unwrap();
    assert_eq!(rig.manager.memory_info().unwrap_err().code(), ErrorCode::CudaError);
    drop(scratch);
    rig.close_clean();
}

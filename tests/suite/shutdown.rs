//! How a manager ends, and what it keeps out of the pool.

use crate::*;

#[test]
fn a_drained_shutdown_wipes_everything_and_says_so() {
    // covers: SCR-3 SCR-1
    let rig = Rig::new();
    let (one, two) = rig.two();
    let (used, started) = (rig.manager.used_vram(), Instant::now());
    for wiped in [used, 0] {
        let report = rig.manager.shutdown(Duration::from_secs(60));
        assert_eq!((report.drained, report.wiped_bytes, report.residue_bytes, report.busy_bytes), (true, wiped, 0, 0));
    }
    assert!(started.elapsed() < Duration::from_secs(30), "there was nothing to wait for");
    assert_eq!((rig.manager.used_vram(), rig.manager.state()), (0, ManagerState::Stopped(StopReason::Shutdown)));
    for shard in [&one, &two] {
        assert_error!(rig.manager.execute(shard, |_| ()), VramError::ManagerStopped { .. });
        assert_error!(rig.manager.verify_sealed(shard), VramError::StaleHandle { .. });
        assert_error!(rig.manager.release(shard), VramError::StaleHandle { .. });
        assert_error!(rig.manager.release_by_id(shard.id()), VramError::InvalidParams { .. });
    }
    assert_eq!(rig.count("manager_stopped"), 1);
    rig.close_clean();
}

#[test]
fn a_shutdown_waits_for_its_deadline_and_leaves_what_is_in_use_to_the_end() {
    // covers: SCR-3 VER-5
    let rig = Rig::new();
    let (a, b) = (rig.seal("a", &noise(3000, 1)), rig.seal("b", &noise(5000, 2)));
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 1000).unwrap();
    let guard = rig.begin(&a);
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
fn a_shutdown_that_cannot_wipe_reports_the_residue() {
    // covers: SCR-2 SCR-3
    let rig = Rig::new();
    let (one, _two) = rig.two();
    let used = rig.manager.used_vram();
    rig.order(Fault::FillSkipped);
    rig.manager.release(&one).unwrap_err();
    // What was not wiped before, and what cannot be wiped now.
    rig.order(Fault::FillSkipped);
    for _ in 0..2 {
        let report = rig.manager.shutdown(Duration::ZERO);
        assert_eq!((report.drained, report.wiped_bytes, report.residue_bytes, report.busy_bytes), (true, 0, used, 0));
        assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (used, used));
    }
    rig.close_clean(); // the end tried again
    // Memory that can never be proven wiped is never freed.
    let rig = Rig::new();
    rig.seal("one", &noise(9000, 1));
    let used = rig.manager.used_vram();
    rig.order(Fault::FillSkipped.always());
    assert_eq!(rig.manager.shutdown(Duration::ZERO).residue_bytes, used);
    let (stats, _) = rig.close();
    assert_eq!((stats.live_bytes, stats.unwiped_bytes_freed), (used, 0), "kept, not freed unwiped");
    assert_eq!((stats.live_streams, stats.live_host_buffers), (0, 0));
}

#[test]
fn a_wipe_that_could_not_be_waited_for_is_no_wipe() {
    // covers: SCR-1 SCR-2
    for nth in 1..=5 {
        let rig = Rig::new();
        let shard = rig.seal("a", &noise(3000, 1));
        rig.order(Fault::call(MockCall::Synchronize).nth(nth));
        let released = rig.manager.release(&shard);
        rig.controls().clear_faults().unwrap();
        // The first wait is for what was enqueued before, whose failure is its own caller's news. Then come the image's proof, the
        // check space's, and the proof's own bytes.
        let wiped = nth == 1 || nth > 4;
        assert_eq!((released.is_ok(), rig.manager.quarantined_vram() == 0), (wiped, wiped), "{nth}: {released:?}");
        rig.close_clean();
    }
}

#[test]
fn an_operator_releases_by_name() {
    // covers: SCR-1 SCR-4 VER-3
    let rig = Rig::new();
    let a = rig.seal("a", &noise(3000, 1));
    let guard = rig.begin(&a);
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
            rig.order(Fault::FillSkipped);
            assert_error!(rig.manager.release(&shard), VramError::WipeFailed { .. });
            assert_eq!(rig.manager.quarantined_vram(), failing * one);
        }
        assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::DeviceUntrusted), "limit {limit}");
        assert_eq!(rig.sink.names().last().copied(), Some("manager_stopped"));
        let sealed = rig.manager.seal_model(spec("late"), ShardSource::bytes(&[1; 10]));
        assert_error!(sealed, VramError::ManagerStopped { .. });
        rig.close_clean();
    }
    // A quarter of the device unless it is chosen.
    let rig = Rig::with(small().capacity_bytes(1 << 20), |b| b);
    while rig.manager.state() == ManagerState::Ready {
        assert!(rig.manager.quarantined_vram() <= 1 << 18);
        let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 30_000).unwrap();
        rig.stream().enqueue_scratch_write(&scratch, 1000, 1).unwrap();
        rig.order(Fault::FillSkipped);
        drop(scratch);
    }
    assert!(rig.manager.quarantined_vram() > 1 << 18);
    rig.close_clean();
    // Evidence does not count against it; memory in which nothing was sealed does.
    let rig = Rig::with(small(), |b| b.quarantine_limit(0).on_integrity_failure(OnIntegrityFailure::QuarantineShard));
    let shard = rig.seal("a", &noise(3000, 1));
    rig.flip(&shard, 0);
    assert_error!(rig.manager.verify_sealed(&shard), VramError::IntegrityFailure { .. });
    assert_eq!((rig.manager.quarantined_vram(), rig.manager.state()), (rig.manager.used_vram(), ManagerState::Ready));
    rig.order(Fault::Residency(ResidencyLie::AllZero));
    rig.order(Fault::call(MockCall::Free));
    rig.try_seal("one", &noise(5000, 1)).unwrap_err();
    assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::DeviceUntrusted));
}

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
    rig.order(Fault::call(MockCall::MemoryInfo));
    assert_eq!(rig.manager.memory_info().unwrap_err().code(), ErrorCode::CudaError);
    drop(scratch);
    rig.close_clean();
}

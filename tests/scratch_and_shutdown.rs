//! Working memory, and how a manager ends: everything is counted, everything is wiped, and nothing is wiped under its user.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod support;

use std::time::{Duration, Instant};

use support::{Rig, assert_clean, name, noise, small, spec};
use vram_residency::{
    ErrorCode, EventKind, ExecuteOptions, Fault, ManagerState, MockCall, Policy, Purpose, QuarantineCause, Scratch,
    ShardSource, StopReason, VramError,
};

/// The make-believe engine's view of working memory.
fn peek(scratch: &Scratch, bytes: usize) -> Vec<u8> {
    // SAFETY: the value lives, and nothing is queued on its memory, which on the mock is host memory.
    let at = unsafe { scratch.device_ptr() }.as_u64() as usize;
    let at: *const u8 = std::ptr::with_exposed_provenance(at);
    // SAFETY: as above, for `bytes` initialised bytes; the slice is copied at once.
    unsafe { std::slice::from_raw_parts(at, bytes) }.to_vec()
}

#[test]
fn scratch_is_zeroed_counted_named_and_wiped() {
    // covers: RES-10 RES-5 AUD-1
    let rig = Rig::new();
    for (purpose, word) in
        [(Purpose::KvCache, "kv_cache"), (Purpose::Activations, "activations"), (Purpose::Workspace, "workspace")]
    {
        for bytes in [1, 255, 256, 257, 100_000] {
            let from = rig.mark();
            let scratch = rig.manager.allocate_scratch(purpose, bytes).unwrap();
            assert_eq!((scratch.purpose(), scratch.byte_len(), purpose.as_str()), (purpose, bytes, word));
            assert_eq!(rig.manager.used_vram(), bytes.next_multiple_of(256) + 256);
            assert_eq!((rig.manager.adopted_vram(), rig.manager.quarantined_vram()), (0, 0));
            rig.assert_recount();
            assert!(peek(&scratch, bytes as usize).iter().all(|byte| *byte == 0), "the mock hands out poison");
            let stream = rig.controls().engine_stream().unwrap();
            stream.enqueue_scratch_write(&scratch, bytes, 0x77).unwrap();
            drop(stream); // finishes its work
            assert!(peek(&scratch, bytes as usize).iter().all(|byte| *byte == 0x77));
            if bytes % 2 == 0 {
                scratch.release().unwrap()
            } else {
                drop(scratch)
            }
            assert_eq!(rig.manager.used_vram(), 0);
            rig.assert_recount();
            assert_eq!(rig.names_since(from), ["vram_allocated", "vram_wiped", "vram_deallocated"]);
            let events = rig.sink.events();
            let shard = events.last().unwrap().kind.shard().unwrap();
            assert!(shard.as_str().starts_with(&format!("scratch.{word}.")), "{shard:?}");
        }
    }
    rig.close_clean();
}

#[test]
fn scratch_is_no_shard() {
    // covers: RES-10
    let rig = Rig::new();
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 1000).unwrap();
    let events = rig.sink.events();
    let id = events.last().unwrap().kind.shard().unwrap().clone();
    assert_error!(rig.manager.release_by_id(&id), VramError::InvalidParams { .. });
    assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().resident_shards, 0);
    // A shard may have the same name: nothing confuses the two.
    let shard = rig.manager.seal_model(vram_residency::ShardSpec::new(id.clone()), ShardSource::bytes(&[1; 500]));
    rig.manager.release(&shard.unwrap()).unwrap();
    assert_eq!(rig.manager.used_vram(), 1024 + 256);
    drop(scratch);
    rig.close_clean();
}

#[test]
fn scratch_that_must_not_be_is_refused_and_leaves_nothing() {
    // covers: RES-10 RES-6 RES-3
    let rig = Rig::with(small().capacity_bytes(100_000).poison(false), |b| b);
    let allocate = |bytes| rig.manager.allocate_scratch(Purpose::Workspace, bytes).map(drop);
    assert_error!(allocate(0), VramError::InvalidParams { field: "scratch length", .. });
    for bytes in [100_000, 99_900, u64::MAX, u64::MAX - 255, 1 << 63] {
        assert_error!(allocate(bytes), VramError::OutOfMemory { .. });
        assert_eq!(rig.manager.used_vram(), 0);
    }
    assert_eq!(rig.count("vram_allocation_failed"), 5);
    allocate(99_000).unwrap();
    let mut failed = 0;
    for nth in 1_u64.. {
        rig.config.fail(Fault::call(MockCall::Any).nth(nth)).unwrap();
        let allocated = rig.manager.allocate_scratch(Purpose::Workspace, 5000);
        rig.controls().clear_faults().unwrap();
        if let Ok(scratch) = allocated {
            scratch.release().unwrap();
            break;
        }
        failed += 1;
        rig.assert_recount();
        assert_eq!(rig.manager.used_vram(), 0, "{nth}");
    }
    println!("{failed} calls of an allocation can fail");
    assert!(failed >= 10, "{failed}");
    rig.manager.shutdown(Duration::ZERO).unwrap();
    assert_error!(allocate(10), VramError::ManagerStopped { .. });
    let Rig { config, manager, .. } = rig;
    drop(manager);
    // What a half-made allocation leaves behind is a proof of zeros, never the caller's bytes.
    let stats = config.stats();
    assert_eq!((stats.live_bytes, stats.live_streams, stats.live_host_buffers), (0, 0, 0));
    assert!(stats.unwiped_bytes_freed <= 32 * failed, "{stats:?}");
}

#[test]
fn the_wipe_waits_for_the_streams_that_used_the_scratch() {
    // covers: RES-10 VER-10 SCR-1
    for by_drop in [true, false] {
        let rig = Rig::new();
        let (one, two) = (rig.controls().engine_stream().unwrap(), rig.controls().engine_stream().unwrap());
        let mut scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
        for stream in [&one, &two] {
            stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
            // SAFETY: both streams are of this device and outlive the scratch.
            unsafe { scratch.used_on(stream.raw()) };
        }
        assert_eq!(rig.pending(), 2);
        if by_drop {
            drop(scratch)
        } else {
            scratch.release().unwrap()
        }
        assert_eq!(rig.pending(), 0);
        drop((one, two));
        rig.close_clean();
    }
    // The twin: a stream that nobody named is not waited for; its write comes too late and is refused by the device.
    let rig = Rig::new();
    let stream = rig.controls().engine_stream().unwrap();
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
    stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
    scratch.release().unwrap();
    assert_eq!(rig.pending(), 1);
    drop(stream);
    rig.close_clean();
}

#[test]
fn scratch_whose_engine_cannot_be_waited_for_is_not_freed() {
    // covers: RES-10 SCR-2 VER-10
    for (failures, freed) in [(1, true), (2, false)] {
        let rig = Rig::new();
        let stream = rig.controls().engine_stream().unwrap();
        let mut scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
        stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
        // SAFETY: the stream is of this device and outlives the scratch.
        unsafe { scratch.used_on(stream.raw()) };
        rig.config.fail(Fault::call(MockCall::Synchronize).times(failures)).unwrap();
        let (released, used) = (scratch.release(), rig.manager.used_vram());
        assert_eq!((released.is_ok(), used == 0, rig.pending() == 0), (freed, freed, freed), "{released:?}");
        assert_eq!(rig.manager.quarantined_vram(), used);
        drop(stream);
        rig.close_clean();
    }
}

#[test]
fn the_end_of_the_manager_wipes_live_scratch_behind_its_engines_work() {
    // covers: RES-10 SCR-3 VER-10
    let rig = Rig::new();
    let mut scratch = rig.manager.allocate_scratch(Purpose::Activations, 5000).unwrap();
    let stream = rig.controls().engine_stream().unwrap();
    stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
    // SAFETY: the stream is of this device and is never destroyed.
    unsafe { scratch.used_on(stream.raw()) };
    std::mem::forget(stream); // the engine outlives the manager
    let Rig { config, sink, manager } = rig;
    drop(manager);
    let stats = config.stats();
    assert_eq!((stats.pending_operations, stats.live_bytes), (0, 0), "wiped under the engine's work");
    assert_eq!(stats.unwiped_bytes_freed, 0);
    let events = sink.names().len();
    drop(scratch); // nothing is left to do
    assert_eq!(sink.names().len(), events);
    assert_eq!(config.stats().live_bytes, 0);
}

#[test]
fn scratch_that_cannot_be_wiped_is_kept_and_tried_again() {
    // covers: SCR-2 RES-10
    for fault in [Fault::FillSkipped, Fault::FillHalf, Fault::CountSkipped, Fault::call(MockCall::Fill)] {
        let rig = Rig::new();
        let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
        let stream = rig.controls().engine_stream().unwrap();
        stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
        drop(stream);
        let used = rig.manager.used_vram();
        rig.config.fail(fault).unwrap();
        assert_error!(scratch.release(), VramError::WipeFailed { .. });
        assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (used, used));
        rig.assert_recount();
        let events = rig.sink.events();
        let quarantined = events.iter().any(|event| {
            matches!(&event.kind, EventKind::ShardQuarantined { cause: QuarantineCause::Residue, bytes, .. } if *bytes == used)
        });
        assert!(quarantined, "{fault:?}");
        rig.close_clean();
    }
}

// ---- shutdown

#[test]
fn a_drained_shutdown_wipes_everything_and_says_so() {
    // covers: SCR-3 SCR-1
    let rig = Rig::new();
    let shards: Vec<_> = (0..4).map(|at| rig.seal(&format!("s{at}"), &noise(3000, at))).collect();
    let used = rig.manager.used_vram();
    let started = Instant::now();
    let report = rig.manager.shutdown(Duration::from_secs(60)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(30), "there was nothing to wait for");
    assert_eq!((report.drained, report.wiped_bytes, report.residue_bytes, report.busy_bytes), (true, used, 0, 0));
    assert_eq!((rig.manager.used_vram(), rig.manager.state()), (0, ManagerState::Stopped(StopReason::Shutdown)));
    for shard in &shards {
        assert_error!(rig.manager.execute(shard, |_| ()), VramError::ManagerStopped { .. });
        assert_error!(rig.manager.verify_sealed(shard), VramError::StaleHandle { .. });
        assert_error!(rig.manager.release(shard), VramError::StaleHandle { .. });
        assert_error!(rig.manager.release_by_id(shard.id()), VramError::InvalidParams { .. });
    }
    let again = rig.manager.shutdown(Duration::ZERO).unwrap();
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
    let report = rig.manager.shutdown(Duration::from_millis(80)).unwrap();
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
        let ending = scope.spawn(|| rig.manager.shutdown(Duration::from_secs(60)).unwrap());
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
    let report = rig.manager.shutdown(Duration::ZERO).unwrap();
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
    let report = rig.manager.shutdown(Duration::from_millis(10)).unwrap();
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

#[test]
fn a_policy_that_wants_vouched_shards_still_gives_scratch() {
    // covers: RES-10
    let rig = Rig::with(small(), |b| b.policy(Policy::development().require_expected_digest(true)));
    rig.manager.allocate_scratch(Purpose::Workspace, 100).unwrap().release().unwrap();
    let config = rig.config.clone();
    rig.close_clean();
    assert_clean(&config.stats());
}

//! Model checking: whole managers on the mock, under a scheduler that chooses which thread goes next at every lock and atomic.
//!
//! Built only with `--cfg vram_model` (`ci/check.sh model`). `VRAM_MODEL_ITERATIONS` sets how many schedules each model sees.
// covers: CON-1 CON-2 RES-3 VER-1 SCR-1

#![cfg(vram_model)]
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

#[path = "model/sharing.rs"]
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::thread;
use vram_residency::{
    AuditSink, DeviceSelector, ManagerState, MemorySink, MockConfig, OnIntegrityFailure, Policy, Purpose, SealedShard,
    ShardId, ShardSource, ShardSpec, TreeParams, VramError, VramManager, WorkerId, WorkerSecret,
};

/// Runs a model under random schedules, half of them with few changes of thread (which find other faults).
fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
    let wanted = std::env::var("VRAM_MODEL_ITERATIONS").map_or(200, |text| text.parse().expect("a number"));
    shuttle::check_random(model.clone(), wanted / 2);
    shuttle::check_pct(model, wanted - wanted / 2, 3);
}

struct Rig {
    config: MockConfig,
    sink: Arc<MemorySink>,
    manager: Arc<VramManager>,
}

/// Bytes of a shard of which two fit the machine, and three do not.
const LARGE: usize = 24_000;

/// A machine of 64 KiB.
fn rig(on_failure: OnIntegrityFailure) -> Rig {
    rig_on(MockConfig::new().capacity_bytes(64 << 10), 0, on_failure, None)
}

fn rig_on(config: MockConfig, headroom: u64, on_failure: OnIntegrityFailure, more: Option<Arc<dyn AuditSink>>) -> Rig {
    let sink = Arc::new(MemorySink::default());
    let builder = VramManager::builder(WorkerId::new("model").unwrap(), WorkerSecret::from_bytes(&[7; 32]).unwrap())
        .device(DeviceSelector::Mock(config.clone()))
        .policy(Policy::development())
        .audit(sink.clone())
        .headroom(headroom)
        .staging(4 << 10)
        .digest_threads(1)
        .tree_params(TreeParams::new(1024, b"").unwrap())
        .on_integrity_failure(on_failure);
    let manager = more.into_iter().fold(builder, |builder, sink| builder.audit(sink)).build().unwrap();
    Rig { config, sink, manager: Arc::new(manager) }
}

impl Rig {
    fn stopping() -> Self {
        rig(OnIntegrityFailure::Stop)
    }

    /// The same job on so many threads, each with its number.
    fn on_threads(&self, threads: usize, job: impl Fn(&VramManager, usize) + Send + Sync + 'static) {
        let job = Arc::new(job);
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                let (manager, job) = (Arc::clone(&self.manager), Arc::clone(&job));
                thread::spawn(move || job(&manager, number))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    fn seal(&self, name: &str) -> SealedShard {
        seal(&self.manager, name, 3000).unwrap()
    }

    /// Drops the manager; the ledger must have been exact, the trail without gaps, and nothing may be left.
    fn close(self) {
        assert_eq!(self.manager.used_vram(), self.config.stats().live_bytes, "the ledger");
        drop(Arc::into_inner(self.manager).expect("every thread has let go"));
        let stats = self.config.stats();
        assert_eq!((stats.live_bytes, stats.unwiped_bytes_freed, stats.live_streams), (0, 0, 0));
        for (event, expected) in self.sink.events().iter().zip(1..) {
            assert_eq!(event.sequence, expected);
        }
    }
}

fn seal(manager: &VramManager, name: &str, bytes: usize) -> Result<SealedShard, VramError> {
    let weights: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    manager.seal_model(ShardSpec::new(ShardId::new(name).unwrap()), ShardSource::bytes(&weights))
}

#[test]
fn a_shard_is_released_once_and_never_under_an_execution() {
    explore(|| {
        let rig = Rig::stopping();
        let shard = Arc::new(rig.seal("a"));
        let (released, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (shared, count) = (Arc::clone(&shard), Arc::clone(&released));
        rig.on_threads(4, move |manager, number| {
            let stale =
                |error: &VramError| matches!(error, VramError::StaleHandle { .. } | VramError::ShardBusy { .. });
            if number < 2 {
                let ended = manager.execute(&shared, |_| {
                    running.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    assert_eq!(count.load(Ordering::SeqCst), 0, "released under an execution");
                    running.fetch_sub(1, Ordering::SeqCst);
                });
                assert!(ended.as_ref().err().is_none_or(stale), "{ended:?}");
            } else {
                match manager.release(&shared) {
                    Ok(_) => {
                        assert_eq!(running.load(Ordering::SeqCst), 0, "wiped under an execution");
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => assert!(stale(&error), "{error:?}"),
                }
            }
        });
        match released.load(Ordering::SeqCst) {
            0 => drop(rig.manager.release(&shard).unwrap()),
            times => assert_eq!(times, 1),
        }
        assert_eq!(rig.manager.used_vram(), 0);
        rig.close();
    });
}

#[test]
fn racing_seals_never_take_more_than_there_is() {
    explore(|| {
        // Room for two shards; three want it.
        let rig = rig(OnIntegrityFailure::Stop);
        let sealed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sealed);
        rig.on_threads(3, move |manager, number| {
            match seal(manager, &format!("s{number}"), LARGE) {
                Ok(shard) => {
                    count.fetch_add(1, Ordering::SeqCst);
                    assert!(manager.used_vram() <= manager.total_vram());
                    manager.execute(&shard, |_| ()).unwrap();
                    std::mem::forget(shard); // a seal owns nothing
                }
                Err(error) => assert!(matches!(error, VramError::OutOfMemory { .. }), "{error:?}"),
            }
        });
        let sealed = sealed.load(Ordering::SeqCst);
        assert!((1..=2).contains(&sealed), "{sealed} shards in room for two");
        rig.close();
    });
}

#[test]
fn headroom_is_kept_whoever_comes_first() {
    explore(|| {
        // The device itself would give to all; 32 KiB of it are ours, which is room for one.
        let rig =
            rig_on(MockConfig::new().capacity_bytes(1 << 20), (1 << 20) - (32 << 10), OnIntegrityFailure::Stop, None);
        rig.on_threads(3, move |manager, _| match manager.allocate_scratch(Purpose::KvCache, LARGE as u64) {
            Ok(scratch) => {
                assert!(manager.used_vram() <= 32 << 10, "overdrawn");
                drop(scratch.release().unwrap());
            }
            Err(error) => {
                assert!(manager.used_vram() <= 32 << 10, "overdrawn");
                assert!(matches!(error, VramError::OutOfMemory { .. }), "{error:?}");
            }
        });
        rig.close();
    });
}

#[test]
fn what_a_shutdown_drained_it_has_wiped() {
    explore(|| {
        let rig = Rig::stopping();
        let shard = Arc::new(rig.seal("a"));
        rig.on_threads(2, move |manager, number| {
            if number == 0 {
                let report = manager.shutdown(Duration::from_secs(3600));
                assert!(report.drained && report.busy_bytes == 0 && report.wiped_bytes > 0, "{report:?}");
            } else if let Err(error) = manager.execute(&shard, |_| ()) {
                let refused = matches!(error, VramError::ManagerStopped { .. } | VramError::StaleHandle { .. });
                assert!(refused, "{error:?}");
            }
        });
        assert_eq!(rig.manager.used_vram(), 0);
        rig.close();
    });
}

#[test]
fn a_name_lives_once_whoever_is_first() {
    explore(|| {
        let rig = Rig::stopping();
        let sealed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sealed);
        rig.on_threads(3, move |manager, _| match seal(manager, "same", 3000) {
            Ok(_) => drop(count.fetch_add(1, Ordering::SeqCst)),
            Err(error) => assert!(matches!(error, VramError::InvalidParams { .. }), "{error:?}"),
        });
        assert_eq!(sealed.load(Ordering::SeqCst), 1);
        rig.close();
    });
}

#[test]
fn after_a_flip_nobody_executes_however_checks_are_shared() {
    explore(|| {
        let rig = Rig::stopping();
        let shard = Arc::new(rig.seal("a"));
        let flipped = Arc::new(AtomicBool::new(false));
        let (shared, flag) = (Arc::clone(&shard), Arc::clone(&flipped));
        rig.on_threads(3, move |manager, number| {
            if number == 0 {
                manager.mock_controls().unwrap().flip_bit(&shared, 77, 1).unwrap();
                flag.store(true, Ordering::SeqCst);
            }
            let before = flag.load(Ordering::SeqCst);
            let ended = manager.execute(&shared, |_| assert!(!before, "it ran on changed bytes"));
            if before {
                let refused =
                    matches!(ended, Err(VramError::IntegrityFailure { .. } | VramError::ManagerStopped { .. }));
                assert!(refused, "{ended:?}");
            }
        });
        let ended = rig.manager.execute(&shard, |_| panic!("it ran on changed bytes"));
        assert!(ended.is_err());
        assert!(matches!(rig.manager.state(), ManagerState::Stopped(_)));
        rig.close();
    });
}

#[test]
fn a_stopped_manager_gives_no_result_out() {
    explore(|| {
        let rig = Rig::stopping();
        let (good, bad) = (Arc::new(rig.seal("good")), Arc::new(rig.seal("bad")));
        rig.manager.mock_controls().unwrap().flip_bit(&bad, 5, 0).unwrap();
        rig.on_threads(3, move |manager, number| {
            if number == 0 {
                assert!(manager.execute(&bad, |_| panic!("it ran on changed bytes")).is_err());
                assert!(matches!(manager.state(), ManagerState::Stopped(_)));
            } else {
                let stopped = matches!(manager.state(), ManagerState::Stopped(_));
                let ended = manager.execute(&good, |_| assert!(!stopped, "it ran on a stopped manager"));
                assert!(matches!(ended, Ok(()) | Err(VramError::ManagerStopped { .. })), "{ended:?}");
                assert!(!(stopped && ended.is_ok()));
            }
        });
        rig.close();
    });
}

#[test]
fn shutdown_leaves_only_what_is_in_use_and_lets_nothing_in() {
    explore(|| {
        let rig = Rig::stopping();
        let shard = Arc::new(rig.seal("a"));
        let done = Arc::new(AtomicBool::new(false));
        rig.on_threads(3, move |manager, number| match number {
            0 => {
                let report = manager.shutdown(Duration::from_secs(3600));
                assert!(report.drained && report.busy_bytes == 0 && report.residue_bytes == 0, "{report:?}");
                done.store(true, Ordering::SeqCst);
            }
            1 => {
                let over = done.load(Ordering::SeqCst);
                let ended = manager.execute(&shard, |_| assert!(!over, "it ran after the shutdown"));
                let refused = |error: &VramError| {
                    matches!(error, VramError::ManagerStopped { .. } | VramError::StaleHandle { .. })
                };
                assert!(ended.as_ref().err().is_none_or(refused), "{ended:?}");
            }
            _ => match seal(manager, "late", 3000) {
                Ok(_) => {}
                Err(error) => assert!(matches!(error, VramError::ManagerStopped { .. }), "{error:?}"),
            },
        });
        assert_eq!(rig.manager.used_vram(), 0, "a shard was sealed past the shutdown, or was left");
        rig.close();
    });
}

#[test]
fn working_memory_and_shards_share_one_ledger() {
    explore(|| {
        let rig = rig(OnIntegrityFailure::QuarantineShard);
        rig.on_threads(3, move |manager, number| {
            if number == 0 {
                match seal(manager, "a", LARGE) {
                    Ok(shard) => drop(manager.release(&shard).unwrap()),
                    Err(error) => assert!(matches!(error, VramError::OutOfMemory { .. }), "{error:?}"),
                }
            } else {
                match manager.allocate_scratch(Purpose::Activations, LARGE as u64) {
                    Ok(scratch) => {
                        assert!(manager.used_vram() >= LARGE as u64);
                        drop(scratch.release().unwrap());
                    }
                    Err(error) => assert!(matches!(error, VramError::OutOfMemory { .. }), "{error:?}"),
                }
            }
        });
        assert_eq!(rig.manager.used_vram(), 0);
        rig.close();
    });
}

#[test]
fn a_quarantined_shard_stays_so_and_others_go_on() {
    explore(|| {
        let rig = rig(OnIntegrityFailure::QuarantineShard);
        let (good, bad) = (Arc::new(rig.seal("good")), Arc::new(rig.seal("bad")));
        rig.manager.mock_controls().unwrap().flip_bit(&bad, 5, 0).unwrap();
        let failed = Arc::new(AtomicU64::new(0));
        let (shared, count) = (Arc::clone(&bad), Arc::clone(&failed));
        rig.on_threads(3, move |manager, number| {
            if number == 0 {
                manager.execute(&good, |_| ()).unwrap();
            } else {
                let error = manager.execute(&shared, |_| panic!("it ran on changed bytes")).unwrap_err();
                assert!(matches!(error, VramError::IntegrityFailure { .. }), "{error:?}");
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!((failed.load(Ordering::SeqCst), rig.manager.state()), (2, ManagerState::Ready));
        let quarantines = rig.sink.names().iter().filter(|name| **name == "shard_quarantined").count();
        assert_eq!(quarantines, 1);
        rig.manager.release(&bad).unwrap();
        rig.close();
    });
}

/// The twin: a ledger that looks before it takes, in two steps. The scheduler must find the order that overdraws it.
#[test]
#[should_panic(expected = "overdrawn")]
fn a_ledger_that_looks_first_and_takes_later_is_found_out() {
    explore(|| {
        let used = Arc::new(AtomicU64::new(0));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let used = Arc::clone(&used);
                thread::spawn(move || {
                    if used.load(Ordering::SeqCst) + 6 <= 10 {
                        used.fetch_add(6, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert!(used.load(Ordering::SeqCst) <= 10, "overdrawn");
    });
}

//! Model checking: whole managers on the mock, under a scheduler that chooses which thread goes next at every lock and atomic.
//!
//! Built only with `--cfg vram_model` (`ci/check.sh model`). `VRAM_MODEL_ITERATIONS` sets how many schedules each model sees.
// covers: CON-1 CON-2 RES-3 VER-1 SCR-1

#![cfg(vram_model)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

#[path = "model/sharing.rs"]
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::thread;
use vram_residency::{
    ManagerState, MockConfig, OnIntegrityFailure, Purpose, SealedShard, ShardSource, VramError, VramManager,
};
use vram_residency_harness::{Rig, noise, spec};

/// Runs a model under random schedules, half of them with few changes of thread (which find other faults).
fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
    let wanted = std::env::var("VRAM_MODEL_ITERATIONS").map_or(200, |text| text.parse().expect("a number"));
    let mut config = shuttle::Config::new();
    config.stack_size = 256 << 10; // a keyed hash without optimisation takes more than the usual 32 KiB
    shuttle::Runner::new(RandomScheduler::new(wanted / 2), config.clone()).run(model.clone());
    shuttle::Runner::new(PctScheduler::new(3, wanted - wanted / 2), config).run(model);
}

/// Bytes of a shard of which two fit the machine, and three do not.
const LARGE: usize = 24_000;

/// A machine of 64 KiB.
fn machine() -> MockConfig {
    MockConfig::new().capacity_bytes(64 << 10)
}

/// A manager that an integrity failure stops.
fn stopping() -> Rig {
    Rig::with(machine(), |builder| builder.staging(4 << 10))
}

/// One that goes on.
fn lenient() -> Rig {
    let choice = OnIntegrityFailure::QuarantineShard;
    Rig::with(machine(), |builder| builder.staging(4 << 10).on_integrity_failure(choice))
}

/// A shard of 3,000 bytes.
fn one(rig: &Rig, name: &str) -> Arc<SealedShard> {
    Arc::new(rig.seal(name, &noise(3000, 1)))
}

fn seal(manager: &VramManager, name: &str, bytes: usize) -> Result<SealedShard, VramError> {
    manager.seal_model(spec(name), ShardSource::bytes(&noise(bytes, 1)))
}

/// The same job on so many threads, each with its number.
fn on_threads(rig: &Rig, threads: usize, job: impl Fn(&VramManager, usize) + Send + Sync + 'static) {
    let job = Arc::new(job);
    let thread = |number| {
        let (manager, job) = (Arc::clone(&rig.manager), Arc::clone(&job));
        thread::spawn(move || job(&manager, number))
    };
    let threads: Vec<_> = (0..threads).map(thread).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn is_stopped(manager: &VramManager) -> bool {
    matches!(manager.state(), ManagerState::Stopped(_))
}

fn is_busy_or_gone(error: &VramError) -> bool {
    matches!(error, VramError::StaleHandle { .. } | VramError::ShardBusy { .. })
}

#[test]
fn a_shard_is_released_once_and_never_under_an_execution() {
    explore(|| {
        let rig = stopping();
        let shard = one(&rig, "a");
        let (released, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (shared, count) = (Arc::clone(&shard), Arc::clone(&released));
        on_threads(&rig, 4, move |manager, number| {
            if number < 2 {
                let ended = manager.execute(&shared, |_| {
                    running.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    assert_eq!(count.load(Ordering::SeqCst), 0, "released under an execution");
                    running.fetch_sub(1, Ordering::SeqCst);
                });
                assert!(ended.as_ref().err().is_none_or(is_busy_or_gone), "{ended:?}");
            } else {
                match manager.release(&shared) {
                    Ok(_) => {
                        assert_eq!(running.load(Ordering::SeqCst), 0, "wiped under an execution");
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => assert!(is_busy_or_gone(&error), "{error:?}"),
                }
            }
        });
        match released.load(Ordering::SeqCst) {
            0 => drop(rig.manager.release(&shard).unwrap()),
            times => assert_eq!(times, 1),
        }
        assert_eq!(rig.manager.used_vram(), 0);
        rig.close_clean();
    });
}

#[test]
fn racing_seals_never_take_more_than_there_is() {
    explore(|| {
        // Room for two shards; three want it.
        let rig = stopping();
        let sealed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sealed);
        on_threads(&rig, 3, move |manager, number| {
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
        rig.close_clean();
    });
}

#[test]
fn headroom_is_kept_whoever_comes_first() {
    explore(|| {
        // The device itself would give to all; 32 KiB of it are ours, which is room for one.
        let machine = machine().capacity_bytes(1 << 20);
        let rig = Rig::with(machine, |builder| builder.staging(4 << 10).headroom((1 << 20) - (32 << 10)));
        on_threads(&rig, 3, move |manager, number| {
            // One looks on: what was reserved too much is given back at once where the driver has no room for it.
            (0..if number == 0 { 20 } else { 0 }).for_each(|_| assert!(manager.used_vram() <= 32 << 10, "overdrawn"));
            match manager.allocate_scratch(Purpose::KvCache, LARGE as u64) {
                Ok(scratch) => drop(scratch.release().unwrap()),
                Err(error) => assert!(matches!(error, VramError::OutOfMemory { .. }), "{error:?}"),
            }
        });
        rig.close_clean();
    });
}

#[test]
fn a_name_lives_once_whoever_is_first() {
    explore(|| {
        let rig = stopping();
        let sealed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sealed);
        on_threads(&rig, 3, move |manager, _| match seal(manager, "same", 3000) {
            Ok(_) => drop(count.fetch_add(1, Ordering::SeqCst)),
            Err(error) => assert!(matches!(error, VramError::InvalidParams { .. }), "{error:?}"),
        });
        assert_eq!(sealed.load(Ordering::SeqCst), 1);
        rig.close_clean();
    });
}

#[test]
fn after_a_flip_nobody_executes_however_checks_are_shared() {
    explore(|| {
        let rig = stopping();
        let shard = one(&rig, "a");
        let flipped = Arc::new(AtomicBool::new(false));
        let (shared, flag) = (Arc::clone(&shard), Arc::clone(&flipped));
        on_threads(&rig, 3, move |manager, number| {
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
        assert!(is_stopped(&rig.manager));
        rig.close_clean();
    });
}

#[test]
fn shutdown_leaves_only_what_is_in_use_and_lets_nothing_in() {
    explore(|| {
        let rig = stopping();
        let shard = one(&rig, "a");
        let done = Arc::new(AtomicBool::new(false));
        on_threads(&rig, 3, move |manager, number| match number {
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
        rig.close_clean();
    });
}

#[test]
fn a_quarantined_shard_stays_so_and_others_go_on() {
    explore(|| {
        let rig = lenient();
        let (good, bad) = (one(&rig, "good"), one(&rig, "bad"));
        rig.flip(&bad, 5);
        let failed = Arc::new(AtomicU64::new(0));
        let (shared, count) = (Arc::clone(&bad), Arc::clone(&failed));
        on_threads(&rig, 3, move |manager, number| {
            if number == 0 {
                manager.execute(&good, |_| ()).unwrap();
            } else {
                let error = manager.execute(&shared, |_| panic!("it ran on changed bytes")).unwrap_err();
                assert!(matches!(error, VramError::IntegrityFailure { .. }), "{error:?}");
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!((failed.load(Ordering::SeqCst), rig.manager.state()), (2, ManagerState::Ready));
        assert_eq!(rig.count("shard_quarantined"), 1);
        rig.manager.release(&bad).unwrap();
        rig.close_clean();
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

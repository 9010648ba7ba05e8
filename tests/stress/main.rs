//! A hundred threads over all operations, with a device that fails at random: no deadlock, an exact ledger, a trail without gaps.
//!
//! `VRAM_RESIDENCY_STRESS_SECONDS` is how long each of the two runs takes (10 when not set). Every thread's choices follow from its
//! number; what the threads make of each other does not.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

#[path = "../support/mod.rs"]
mod support;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{builder, name, noise, small, spec};
use vram_residency::{
    Ack, AuditError, AuditEvent, AuditSink, EventKind, MockConfig, MockStream, OnIntegrityFailure, SealedShard,
    ShardId, ShardSource, VramError, VramManager,
};
use worker::{Worker, stopped};

const THREADS: u64 = 100;

/// Looks at every event as it comes and keeps only what is needed to judge the next.
#[derive(Default)]
struct Judge(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    last: u64,
    running: HashMap<ShardId, i64>,
    counts: HashMap<&'static str, u64>,
    stopped: u64,
    problems: Vec<String>,
}

impl AuditSink for Judge {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        let mut seen = self.0.lock().unwrap();
        if event.sequence != seen.last + 1 {
            let problem = format!("{} after {}", event.sequence, seen.last);
            seen.problems.push(problem);
        }
        seen.last = event.sequence;
        *seen.counts.entry(event.kind.name()).or_default() += 1;
        let change = match &event.kind {
            EventKind::ExecuteStarted { shard, .. } => Some((shard, 1)),
            EventKind::ExecuteFinished { shard, .. } => Some((shard, -1)),
            EventKind::ManagerStopped { .. } => {
                seen.stopped += 1;
                None
            }
            _ => None,
        };
        if let Some((shard, change)) = change {
            let running = seen.running.entry(shard.clone()).or_default();
            *running += change;
            if *running < 0 {
                let problem = format!("{shard} finished before it started");
                seen.problems.push(problem);
            }
        }
        Ok(Ack::Accepted)
    }
}

/// What the threads share.
struct Field {
    manager: Arc<VramManager>,
    config: MockConfig,
    /// Shards that everybody uses, by the seal that was good last.
    common: Vec<Mutex<SealedShard>>,
    ended: AtomicBool,
    done: AtomicU64,
    results: AtomicU64,
    /// Whether changes are made, each of which stops the manager.
    deadly: AtomicBool,
}

/// One manager's life under stress. Gives how many steps were taken.
fn life(choice: OnIntegrityFailure, seed: u64, seconds: Duration) -> (u64, u64) {
    // Where sealed memory cannot be mapped read-only the engines' writes to it are queued; elsewhere they are refused.
    let config = small().capacity_bytes(3 << 20).poison(false).read_only(seed.is_multiple_of(2));
    let judge = Arc::new(Judge::default());
    let built =
        builder(&config).audit(judge.clone()).on_integrity_failure(choice).quarantine_limit(u64::MAX).build().unwrap();
    let manager = Arc::new(built);
    let common: Vec<Mutex<SealedShard>> = (0..4)
        .map(|at| {
            let bytes = noise(3000 + at, at as u64);
            manager.seal_model(spec(&format!("common{at}")), ShardSource::bytes(&bytes)).unwrap().into()
        })
        .collect();
    let deadly = AtomicBool::new(choice == OnIntegrityFailure::QuarantineShard);
    let field = Field {
        manager,
        config,
        common,
        ended: AtomicBool::new(false),
        done: AtomicU64::new(0),
        results: AtomicU64::new(0),
        deadly,
    };
    let streams: Vec<MockStream<'_>> =
        (0..THREADS).map(|_| field.manager.mock_controls().unwrap().engine_stream().unwrap()).collect();
    support::within(seconds + Duration::from_secs(90), || {
        std::thread::scope(|scope| {
            for (id, stream) in (0..THREADS).zip(&streams) {
                let field = &field;
                scope.spawn(move || {
                    let mut worker = Worker::new(field, stream, id, seed);
                    while !field.ended.load(Ordering::Relaxed) {
                        worker.step();
                    }
                    worker.leave();
                });
            }
            let until = Instant::now() + seconds;
            std::thread::sleep(seconds / 2);
            field.deadly.store(true, Ordering::SeqCst);
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            // On a busy machine it takes longer until a change is made and found.
            let latest = Instant::now() + Duration::from_secs(60);
            while choice == OnIntegrityFailure::Stop && !stopped(&field.manager) && Instant::now() < latest {
                std::thread::sleep(Duration::from_millis(5));
            }
            field.ended.store(true, Ordering::SeqCst);
        });
    });
    let manager = &field.manager;
    manager.mock_controls().unwrap().clear_faults().unwrap();
    assert_eq!(stopped(manager), choice == OnIntegrityFailure::Stop, "{}", manager.state());
    let stats = field.config.stats();
    assert_eq!(manager.used_vram(), stats.live_bytes, "the ledger against the driver's count");
    for at in 0..field.common.len() {
        // Engines' work of dropped guards may keep one busy for a few calls more.
        let busy = || matches!(manager.release_by_id(&name(&format!("common{at}"))), Err(VramError::ShardBusy { .. }));
        assert!((0..1_000_000).any(|_| !busy()), "common{at} is pinned for ever");
    }
    // Only residue is left now, and all of it is quarantined.
    assert_eq!(manager.used_vram(), manager.quarantined_vram());
    assert_eq!(manager.used_vram(), field.config.stats().live_bytes);
    drop(streams);
    let Field { manager, config, done, results, .. } = field;
    assert_eq!(Arc::strong_count(&manager), 1);
    drop(manager);
    let stats = config.stats();
    assert_eq!((stats.live_bytes, stats.live_allocations, stats.live_foreign), (0, 0, 0));
    assert_eq!((stats.live_streams, stats.live_events, stats.pending_operations), (0, 0, 0));
    assert_eq!((stats.live_host_buffers, stats.unwiped_host_bytes_freed), (0, 0));
    let seen = judge.0.lock().unwrap();
    assert!(seen.problems.is_empty(), "{:?}", seen.problems);
    assert!(seen.running.values().all(|running| *running == 0), "started and never finished: {:?}", seen.running);
    assert_eq!(seen.stopped, 1);
    println!("{} events: {:?}", seen.last, seen.counts);
    (done.into_inner(), results.into_inner())
}

fn seconds() -> Duration {
    let set = std::env::var("VRAM_RESIDENCY_STRESS_SECONDS").ok();
    Duration::from_secs_f64(set.map_or(10.0, |text| text.parse().expect("VRAM_RESIDENCY_STRESS_SECONDS is a number")))
}

#[test]
fn a_hundred_threads_and_a_failing_device_leave_everything_exact() {
    // covers: CON-1 RES-5 AUD-1
    let (steps, results) = life(OnIntegrityFailure::QuarantineShard, 1, seconds());
    println!("{steps} steps, {results} results");
    assert!(steps > 2000 && results > 200, "it did run: {steps} steps, {results} results");
}

#[test]
fn a_manager_that_stops_under_a_hundred_threads_gives_no_further_result() {
    // covers: CON-1 VER-5
    let until = Instant::now() + seconds();
    let (mut lives, mut steps) = (0, 0);
    while lives == 0 || Instant::now() < until {
        lives += 1;
        steps += life(OnIntegrityFailure::Stop, 100 + lives, Duration::from_millis(500)).0;
    }
    println!("{lives} managers, {steps} steps");
    assert!(steps > 500, "it did run: {steps} steps");
}

//! What must hold of a trail and of a machine after whatever happened.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use vram_residency::{AuditEvent, EventKind, MockStats, ShardId};

/// Nothing lives on the machine, and nothing was freed unwiped.
#[track_caller]
pub fn assert_clean(stats: &MockStats) {
    assert_eq!((stats.live_allocations, stats.live_bytes, stats.live_foreign), (0, 0, 0), "device memory");
    assert_eq!((stats.live_streams, stats.live_events, stats.pending_operations), (0, 0, 0), "streams and events");
    assert_eq!((stats.live_host_buffers, stats.live_host_bytes), (0, 0), "host buffers");
    assert_eq!((stats.unwiped_bytes_freed, stats.unwiped_host_bytes_freed), (0, 0), "unwiped bytes");
    assert_eq!(stats.unmet_faults, 0, "faults that were ordered and met no call");
}

/// Sequence numbers from 1, without gaps.
#[track_caller]
pub fn assert_contiguous(events: &[AuditEvent]) {
    for (event, expected) in events.iter().zip(1..) {
        assert_eq!(event.sequence, expected, "{}", event.kind.name());
    }
}

/// Every `execute_started` has exactly one `execute_finished` behind it.
#[track_caller]
pub fn assert_paired(events: &[AuditEvent]) {
    let mut running = HashMap::<&ShardId, i64>::new();
    for event in events {
        let (shard, change) = match &event.kind {
            EventKind::ExecuteStarted { shard, .. } => (shard, 1),
            EventKind::ExecuteFinished { shard, .. } => (shard, -1),
            _ => continue,
        };
        let left = running.entry(shard).or_default();
        *left += change;
        assert!(*left >= 0, "{shard} finished before it started");
    }
    assert!(running.values().all(|left| *left == 0), "started and never finished: {running:?}");
}

/// How many refusals the trail speaks of.
pub fn refusals(events: &[AuditEvent]) -> u64 {
    let counted = events.iter().map(|event| match &event.kind {
        EventKind::SealRefused { suppressed, .. } => 1 + suppressed,
        _ => 0,
    });
    counted.sum()
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `work` and ends the process, instead of hanging for ever, when it does not end.
pub fn within(limit: Duration, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let (done, ended) = mpsc::channel();
        let worker = scope.spawn(move || {
            work();
            let _ = done.send(());
        });
        if let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(limit) {
            eprintln!("deadlock: the threads did not end within {limit:?}");
            std::process::abort();
        }
        worker.join().unwrap();
    });
}

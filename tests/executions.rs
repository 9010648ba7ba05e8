//! Executions: guards that travel, batches, brackets, engine streams, holding times, and checks that are shared.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use support::{Arena, Rig, adopt, assert_clean, noise, spec};
use vram_residency::{
    Coverage, EventKind, ExecuteOptions, ExecuteOutcome, Execution, Fault, ManagerState, MockCall, MockStream,
    OnIntegrityFailure, OwnedExecution, RawStream, SealedShard, VramError, VramManager,
};

fn options() -> ExecuteOptions {
    ExecuteOptions::default()
}

/// Options for work on an engine's stream.
fn on(stream: &MockStream<'_>) -> ExecuteOptions {
    // SAFETY: the stream is of the manager's own mock device, and every test keeps it until its manager is dropped.
    unsafe { options().on_stream(stream.raw()) }
}

/// How the executions of the trail ended.
fn outcomes(rig: &Rig) -> Vec<ExecuteOutcome> {
    let events = rig.sink.events();
    events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::ExecuteFinished { outcome, .. } => Some(*outcome),
            _ => None,
        })
        .collect()
}

fn count(rig: &Rig, name: &str) -> usize {
    rig.sink.names().iter().filter(|event| **event == name).count()
}

fn pending(rig: &Rig) -> u64 {
    rig.config.stats().pending_operations
}

// ---- guards

#[test]
fn an_owned_guard_travels_between_threads_and_keeps_its_manager() {
    // covers: VER-12 VER-3
    let rig = Rig::new();
    let bytes = noise(50_000, 1);
    let shard = rig.seal("a", &bytes);
    let Rig { config, sink, manager } = rig;
    let (other, sealed) = (Arc::clone(&manager), shard.clone());
    let guard: OwnedExecution =
        std::thread::spawn(move || other.begin_owned(&sealed, options()).unwrap()).join().unwrap();
    assert_error!(manager.release(&shard), VramError::ShardBusy { .. });
    assert!(Arc::ptr_eq(guard.manager(), &manager));
    drop(manager);
    let guard = std::thread::spawn(move || {
        let mut out = vec![0; 100];
        guard.read_at(49_900, &mut out).unwrap();
        assert_eq!(out, bytes[49_900..]);
        assert_eq!(guard.byte_len(), 50_000);
        guard
    });
    let guard = guard.join().unwrap();
    assert!(config.stats().live_bytes > 0, "the guard keeps the manager alive");
    guard.finish().unwrap();
    assert_clean(&config.stats());
    support::assert_paired(&sink.events());
}

#[test]
fn an_owned_guard_of_changed_bytes_does_not_exist() {
    // covers: VER-12 VER-4
    let rig = Rig::lenient();
    let shard = rig.seal("a", &noise(50_000, 1));
    rig.flip(&shard, 31_000);
    let (manager, sealed) = (Arc::clone(&rig.manager), shard.clone());
    let begun = std::thread::spawn(move || manager.begin_owned(&sealed, options()).map(drop)).join().unwrap();
    assert_error!(begun, VramError::IntegrityFailure { .. });
    rig.manager.release(&shard).unwrap(); // no pin was left
    assert_eq!((count(&rig, "execute_started"), count(&rig, "execute_refused")), (0, 1));
    rig.close_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owned_guards_are_held_across_awaits() {
    // covers: VER-12 VER-3
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(5000, 1));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (manager, shard) = (Arc::clone(&rig.manager), shard.clone());
            tokio::spawn(async move {
                let guard =
                    tokio::task::spawn_blocking(move || manager.begin_owned(&shard, options())).await.unwrap().unwrap();
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                tokio::task::spawn_blocking(move || guard.finish()).await.unwrap().unwrap().bytes
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 5000);
    }
    assert_eq!(outcomes(&rig), [ExecuteOutcome::Finished; 8]);
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

#[test]
fn a_pinned_shard_is_busy_until_its_last_guard_is_gone() {
    // covers: VER-3
    let rig = Rig::new();
    let shard = rig.seal("a", &[1; 3000]);
    let first = rig.manager.begin(&shard, options()).unwrap();
    let second = rig.manager.begin_owned(&shard, options()).unwrap();
    for busy in [rig.manager.release(&shard), rig.manager.release_by_id(shard.id())] {
        assert_error!(busy, VramError::ShardBusy { .. });
    }
    first.finish().unwrap();
    assert_error!(rig.manager.release(&shard), VramError::ShardBusy { .. });
    drop(second);
    rig.manager.release(&shard).unwrap();
    assert_eq!(outcomes(&rig), [ExecuteOutcome::Finished, ExecuteOutcome::Abandoned]);
    rig.close_clean();
}

// ---- batches

#[test]
fn a_batch_begins_all_in_order_with_one_launch_each() {
    // covers: VER-7 VER-12
    let rig = Rig::new();
    let shards: Vec<SealedShard> = (0..5).map(|at| rig.seal(&format!("s{at}"), &noise(1000 + at, 7))).collect();
    let order = [3, 0, 4, 1, 2];
    let wanted: Vec<&SealedShard> = order.iter().map(|at| &shards[*at]).collect();
    let digests = rig.digests();
    let guards = rig.manager.begin_all(&wanted, options()).unwrap();
    assert_eq!(rig.digests() - digests, 5);
    for (guard, shard) in guards.iter().zip(&wanted) {
        assert_eq!((&guard.verification().shard, guard.byte_len()), (shard.id(), shard.byte_len()));
        assert_eq!(guard.verification().digest, shard.digest());
    }
    for shard in &shards {
        assert_error!(rig.manager.release(shard), VramError::ShardBusy { .. });
    }
    for guard in guards {
        guard.finish().unwrap();
    }
    shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
    assert!(rig.manager.begin_all(&[], options()).unwrap().is_empty());
    rig.close_clean();
}

#[test]
fn when_one_of_a_batch_fails_none_begins_and_no_pin_stays() {
    // covers: VER-7 VER-5
    for flipped in 0..4 {
        let rig = Rig::lenient();
        let shards: Vec<SealedShard> = (0..4).map(|at| rig.seal(&format!("s{at}"), &noise(3000, at))).collect();
        let wanted: Vec<&SealedShard> = shards.iter().rev().collect();
        rig.flip(&shards[flipped], 2999);
        let error = rig.manager.begin_all(&wanted, options()).unwrap_err();
        assert!(
            matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == shards[flipped].id()),
            "{error}"
        );
        assert_eq!((count(&rig, "execute_started"), count(&rig, "execute_refused")), (0, 4));
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        // The twin: without the changed one, the others begin.
        let others: Vec<&SealedShard> = wanted.into_iter().filter(|shard| shard.id() != shards[flipped].id()).collect();
        for guard in rig.manager.begin_all(&others, options()).unwrap() {
            guard.finish().unwrap();
        }
        shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
        assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
        rig.close_clean();
    }
}

#[test]
fn every_changed_shard_of_a_batch_is_quarantined() {
    // covers: VER-7 VER-5
    let rig = Rig::lenient();
    let shards: Vec<SealedShard> = (0..4).map(|at| rig.seal(&format!("s{at}"), &noise(3000, at))).collect();
    rig.flip(&shards[1], 0);
    rig.flip(&shards[3], 0);
    let error = rig.manager.begin_all(&shards.iter().collect::<Vec<_>>(), options()).unwrap_err();
    assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == shards[1].id()), "{error}");
    assert_eq!(count(&rig, "shard_quarantined"), 2);
    rig.flip(&shards[3], 0); // the bytes are right again, which does not bring the shard back
    assert_error!(rig.manager.execute(&shards[3], |_| ()), VramError::IntegrityFailure { .. });
    rig.manager.execute(&shards[0], |_| ()).unwrap();
    rig.close_clean();
}

#[test]
fn a_batch_with_a_refused_a_stale_or_a_doubled_part_begins_nothing() {
    // covers: VER-7 SEAL-4
    let rig = Rig::new();
    let (a, b) = (rig.seal("a", &[1; 2000]), rig.seal("b", &[2; 2000]));
    let stale = rig.seal("c", &[3; 2000]);
    rig.manager.release(&stale).unwrap();
    let stranger = Rig::new().seal("d", &[4; 2000]);
    let digests = rig.digests();
    let begin = |shards: &[&SealedShard]| rig.manager.begin_all(shards, options()).map(drop);
    assert_error!(begin(&[&a, &b, &a]), VramError::InvalidParams { field: "shards", .. });
    assert_error!(begin(&[&a, &a]), VramError::InvalidParams { field: "shards", .. });
    assert_error!(begin(&[&a, &stale, &b]), VramError::StaleHandle { .. });
    assert_error!(begin(&[&a, &b, &stranger]), VramError::SealRefused { .. });
    assert_eq!((rig.digests(), count(&rig, "execute_started")), (digests, 0));
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    begin(&[&a, &b]).unwrap();
    rig.manager.release(&a).unwrap();
    rig.manager.release(&b).unwrap();
    rig.close_clean();
}

#[test]
fn a_batch_whose_trail_fails_half_way_leaves_no_guard() {
    // covers: VER-7 AUD-5
    let sink = Arc::new(vram_residency::MemorySink::claiming_durable());
    let policy = vram_residency::Policy::development().require_audit(vram_residency::AuditRequirement::Durable);
    let rig = Rig::on(support::small(), sink, |b| b.policy(policy));
    let (a, b) = (rig.seal("a", &[1; 2000]), rig.seal("b", &[2; 2000]));
    rig.sink.failing(true);
    assert_error!(rig.manager.begin_all(&[&a, &b], options()).map(drop), VramError::AuditUnavailable { .. });
    rig.sink.failing(false);
    rig.manager.release(&a).unwrap();
    rig.manager.release(&b).unwrap();
    assert_eq!(count(&rig, "execute_started"), 0);
}

// ---- brackets

#[test]
fn a_bracket_discards_the_result_of_work_over_bytes_that_changed() {
    // covers: VER-6
    for batch in [false, true] {
        let rig = Rig::lenient();
        let (a, b) = (rig.seal("a", &noise(9000, 1)), rig.seal("b", &noise(9000, 2)));
        let begin = |bracket| -> Vec<Execution<'_>> {
            let options = options().bracket(bracket);
            if batch {
                rig.manager.begin_all(&[&a, &b], options).unwrap()
            } else {
                vec![rig.manager.begin(&a, options.clone()).unwrap(), rig.manager.begin(&b, options).unwrap()]
            }
        };
        // The twin: nothing changes.
        let digests = rig.digests();
        begin(true).into_iter().for_each(|guard| drop(guard.finish().unwrap()));
        assert_eq!(rig.digests() - digests, 4, "each was checked before and after");
        let digests = rig.digests();
        begin(false).into_iter().for_each(|guard| drop(guard.finish().unwrap()));
        assert_eq!(rig.digests() - digests, 2, "without a bracket only before");
        // The change.
        let mut guards = begin(true);
        rig.flip(&b, 8999);
        let of_b = guards.pop().unwrap();
        assert_error!(of_b.finish(), VramError::IntegrityFailure { .. });
        guards.pop().unwrap().finish().unwrap();
        let outcomes = outcomes(&rig);
        assert_eq!(outcomes[outcomes.len() - 2..], [ExecuteOutcome::Discarded, ExecuteOutcome::Finished]);
        rig.manager.release(&a).unwrap();
        rig.manager.release(&b).unwrap();
        rig.close_clean();
    }
}

#[test]
fn a_bracket_that_the_device_cannot_make_discards_too() {
    // covers: VER-6 VER-11
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(9000, 1));
    let guard = rig.manager.begin(&shard, options().bracket(true)).unwrap();
    rig.config.fail(Fault::call(MockCall::Digest)).unwrap();
    assert_error!(guard.finish(), VramError::Device(_));
    let guard = rig.manager.begin(&shard, options().bracket(true)).unwrap();
    rig.config.fail(Fault::DigestSkipped).unwrap();
    assert_error!(guard.finish(), VramError::DeviceUntrusted { .. });
    assert_eq!(outcomes(&rig), [ExecuteOutcome::Discarded; 2]);
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

// ---- engine streams

#[test]
fn a_write_that_the_engine_has_queued_is_seen_by_the_check() {
    // covers: VER-10 RES-9
    let rig = Rig::lenient_writable();
    let arena = Arc::new(Arena::new(20_000, 3));
    let all = [arena.region(5, 9000), arena.region(10_001, 5000)];
    for (offset, bytes) in [(0, 1), (8999, 1), (9216, 5000), (9216 + 4999, 1)] {
        let stream = rig.controls().engine_stream().unwrap();
        let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &all);
        let adopted = adopted.unwrap();
        let shard = adopted.shard();
        // The twin: a stream that holds nothing.
        rig.manager.begin(shard, on(&stream)).unwrap().finish().unwrap();
        let before = arena.bytes();
        let mut here = [0];
        rig.controls().peek(shard, offset, &mut here).unwrap();
        stream.enqueue_write(shard, offset, bytes, here[0] ^ 0x10).unwrap();
        assert!(arena.bytes() == before, "the stream is late");
        let others = rig.manager.begin(shard, options()).unwrap();
        assert!(
            arena.bytes() == before && pending(&rig) == 1,
            "a check that does not follow the stream sees old bytes"
        );
        others.finish().unwrap();
        assert_error!(rig.manager.begin(shard, on(&stream)), VramError::IntegrityFailure { .. });
        assert!(arena.bytes() != before);
        assert_eq!(pending(&rig), 0);
        rig.manager.release(shard).unwrap();
        drop(stream);
    }
    let memory = rig.controls().engine_stream().unwrap();
    let shard = rig.seal("owned", &[9; 5000]);
    memory.enqueue_write(&shard, 100, 4000, 9).unwrap();
    // Work that leaves the bytes as they are is found to have left them as they are.
    rig.manager.begin(&shard, on(&memory)).unwrap().finish().unwrap();
    memory.enqueue_write(&shard, 100, 4000, 8).unwrap();
    assert_error!(rig.manager.begin_all(&[&shard], on(&memory)), VramError::IntegrityFailure { .. });
    drop(memory);
    rig.close_clean();
}

#[test]
fn a_batch_follows_the_stream_too() {
    // covers: VER-10 VER-7
    let rig = Rig::lenient_writable();
    let stream = rig.controls().engine_stream().unwrap();
    let shards: Vec<SealedShard> = (0..3).map(|at| rig.seal(&format!("s{at}"), &[at; 3000])).collect();
    let all: Vec<&SealedShard> = shards.iter().collect();
    for guard in rig.manager.begin_all(&all, on(&stream)).unwrap() {
        guard.finish().unwrap();
    }
    stream.enqueue_write(&shards[2], 2999, 1, 0xFF).unwrap();
    let error = rig.manager.begin_all(&all, on(&stream)).unwrap_err();
    assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == shards[2].id()), "{error}");
    drop(stream);
    rig.close_clean();
}

#[test]
fn finish_waits_for_what_the_engine_enqueued() {
    // covers: VER-10
    let rig = Rig::writable();
    let stream = rig.controls().engine_stream().unwrap();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream)).unwrap();
    for _ in 0..20 {
        stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
    }
    assert_eq!(pending(&rig), 20);
    guard.finish().unwrap();
    assert_eq!(pending(&rig), 0);
    rig.manager.release(&shard).unwrap();
    // The twin: a guard that does not know of the stream waits for nothing.
    let shard = rig.seal("b", &[9; 5000]);
    let guard = rig.manager.begin(&shard, options()).unwrap();
    stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
    guard.finish().unwrap();
    assert_eq!(pending(&rig), 1);
    drop(stream);
    rig.close_clean();
}

#[test]
fn a_bracket_sees_what_the_engine_enqueued_during_the_work() {
    // covers: VER-6 VER-10
    let rig = Rig::lenient_writable();
    let stream = rig.controls().engine_stream().unwrap();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream).bracket(true)).unwrap();
    stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
    guard.finish().unwrap();
    let guard = rig.manager.begin(&shard, on(&stream).bracket(true)).unwrap();
    stream.enqueue_write(&shard, 4999, 1, 8).unwrap();
    assert_error!(guard.finish(), VramError::IntegrityFailure { .. });
    assert_eq!(outcomes(&rig), [ExecuteOutcome::Finished, ExecuteOutcome::Discarded]);
    drop(stream);
    rig.close_clean();
}

#[test]
fn a_dropped_guard_keeps_its_shard_until_the_engines_queue_has_run() {
    // covers: VER-10 VER-3
    for owned in [false, true] {
        let rig = Rig::writable();
        let stream = rig.controls().engine_stream().unwrap();
        let shard = rig.seal("a", &[9; 5000]);
        let begin = || {
            if owned {
                drop(rig.manager.begin_owned(&shard, on(&stream)).unwrap());
            } else {
                let guard = rig.manager.begin(&shard, on(&stream)).unwrap();
                stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
                drop(guard);
            }
        };
        begin();
        if owned {
            // Nothing was enqueued: the event has passed at once.
            rig.manager.release(&shard).unwrap();
        } else {
            assert_eq!(pending(&rig), 1, "dropping does not wait");
            let mut busy = 0;
            while let Err(error) = rig.manager.release(&shard) {
                assert!(matches!(error, VramError::ShardBusy { .. }), "{error:?}");
                assert_eq!(pending(&rig), 1, "busy although the queue has run");
                busy += 1;
            }
            assert!(busy >= 10, "{busy}: it was released under the engine's work");
            assert_eq!(pending(&rig), 0);
        }
        assert_eq!(outcomes(&rig), [ExecuteOutcome::Abandoned]);
        drop(stream);
        rig.close_clean();
    }
}

#[test]
fn shutdown_and_the_end_wait_for_the_work_of_dropped_guards() {
    // covers: VER-10 SCR-3
    let rig = Rig::writable();
    let stream = rig.controls().engine_stream().unwrap();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream)).unwrap();
    stream.enqueue_write(&shard, 0, 5000, 7).unwrap();
    drop(guard);
    assert_eq!(pending(&rig), 1);
    let report = rig.manager.shutdown(Duration::from_secs(5)).unwrap();
    assert!(report.drained && report.wiped_bytes >= 5000, "{report:?}");
    assert_eq!((report.busy_bytes, report.residue_bytes, rig.manager.used_vram()), (0, 0, 0));
    assert_eq!(pending(&rig), 0);
    drop(stream);
    rig.close_clean();

    let rig = Rig::writable();
    let stream = rig.controls().engine_stream().unwrap();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream)).unwrap();
    stream.enqueue_write(&shard, 0, 5000, 7).unwrap();
    drop(guard);
    std::mem::forget(stream); // the engine outlives the manager
    let Rig { config, manager, .. } = rig;
    drop(manager);
    let stats = config.stats();
    assert_eq!((stats.pending_operations, stats.live_bytes, stats.unwiped_bytes_freed), (0, 0, 0));
}

#[test]
fn shutdown_does_not_outwait_its_deadline_for_the_work_of_dropped_guards() {
    // covers: VER-10 SCR-3
    let rig = Rig::writable();
    let stream = rig.controls().engine_stream().unwrap();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream)).unwrap();
    stream.enqueue_write(&shard, 0, 5000, 7).unwrap();
    drop(guard);
    let report = rig.manager.shutdown(Duration::ZERO).unwrap();
    assert!(!report.drained && report.busy_bytes >= 5000, "{report:?}");
    assert_eq!((report.wiped_bytes, pending(&rig)), (0, 1), "nothing is wiped under the engine's work");
    // Given time, the next one waits for it.
    let report = rig.manager.shutdown(Duration::from_secs(5)).unwrap();
    assert!(report.drained, "{report:?}");
    drop(stream);
    rig.close_clean();
}

#[test]
fn a_guard_that_is_dropped_while_a_shutdown_waits_lets_it_end() {
    // covers: VER-10 SCR-3
    let rig = Rig::writable();
    let stream = rig.controls().engine_stream().unwrap();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream)).unwrap();
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| rig.manager.shutdown(Duration::from_secs(60)).unwrap());
        while rig.manager.state() == ManagerState::Ready {
            std::thread::yield_now();
        }
        stream.enqueue_write(&shard, 0, 5000, 7).unwrap();
        drop(guard);
        let report = ending.join().unwrap();
        assert!(report.drained && report.busy_bytes == 0, "{report:?}");
    });
    assert_eq!(pending(&rig), 0);
    drop(stream);
    rig.close_clean();
}

/// Enqueues engine work, ends the guard while calls of this kind fail, and asserts that the shard stays until the work is done.
fn a_failing_wait(call: MockCall, times: u64, finish: bool, by_shutdown: bool) {
    let rig = Rig::writable();
    let stream = rig.controls().engine_stream().unwrap();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream)).unwrap();
    stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
    rig.config.fail(Fault::call(call).times(times)).unwrap();
    if finish {
        assert_error!(guard.finish(), VramError::Device(_));
        assert_eq!(outcomes(&rig), [ExecuteOutcome::Discarded]);
    } else {
        drop(guard);
    }
    rig.controls().clear_faults().unwrap();
    if by_shutdown {
        let report = rig.manager.shutdown(Duration::from_secs(5)).unwrap();
        assert!(report.drained, "{report:?}");
        assert_eq!(pending(&rig), 0, "{call:?}: wiped under the engine's work");
    } else {
        let mut busy = 0;
        while let Err(error) = rig.manager.release(&shard) {
            assert!(matches!(error, VramError::ShardBusy { .. }), "{error:?}");
            busy += 1;
            assert!(busy < 10_000, "{call:?}: the shard is pinned for ever");
        }
        assert_eq!(pending(&rig), 0, "{call:?}: released under the engine's work");
    }
    drop(stream);
    rig.close_clean();
}

#[test]
fn a_shard_stays_pinned_also_when_waiting_for_the_engine_failed() {
    // covers: VER-10 VER-3
    for by_shutdown in [false, true] {
        a_failing_wait(MockCall::Event, 1, true, by_shutdown);
        a_failing_wait(MockCall::Event, 3, true, by_shutdown);
        a_failing_wait(MockCall::Synchronize, 1, true, by_shutdown);
        a_failing_wait(MockCall::Event, 1, false, by_shutdown);
        a_failing_wait(MockCall::Event, 2, false, by_shutdown);
    }
}

// ---- holding times

#[test]
fn a_guard_that_is_held_too_long_is_reported_once() {
    // covers: VER-12 AUD-1
    let hold = Duration::from_millis(20);
    for noticed_while_held in [true, false] {
        let rig = Rig::new();
        let (a, b) = (rig.seal("a", &[1; 100]), rig.seal("b", &[1; 100]));
        let guard = rig.manager.begin(&a, options().max_hold(hold)).unwrap();
        std::thread::sleep(hold * 2);
        if noticed_while_held {
            assert_eq!(count(&rig, "execute_overheld"), 0);
            for _ in 0..5 {
                rig.manager.verify_sealed(&b).unwrap();
                assert_eq!(count(&rig, "execute_overheld"), 1);
            }
        }
        guard.finish().unwrap();
        rig.manager.verify_sealed(&b).unwrap();
        let reports: Vec<_> = rig
            .sink
            .events()
            .into_iter()
            .filter_map(|event| match event.kind {
                EventKind::ExecuteOverheld { shard, limit, duration, .. } => Some((shard, limit, duration)),
                _ => None,
            })
            .collect();
        assert_eq!(reports.len(), 1);
        assert_eq!((&reports[0].0, reports[0].1), (a.id(), hold));
        assert!(reports[0].2 > hold);
        rig.close_clean();
    }
}

#[test]
fn a_guard_within_its_time_is_not_reported() {
    // covers: VER-12
    let rig = Rig::new();
    let a = rig.seal("a", &[1; 100]);
    for end in 0..3 {
        let guards = rig.manager.begin_all(&[&a], options().max_hold(Duration::from_secs(3600))).unwrap();
        rig.manager.verify_sealed(&a).unwrap();
        for guard in guards {
            match end {
                0 => drop(guard.finish().unwrap()),
                1 => drop(guard),
                _ => drop(guard.verified().map(|verified| verified.byte_len()).unwrap()),
            }
        }
    }
    rig.manager.verify_sealed(&a).unwrap();
    // Without a limit nothing is ever too long.
    let guard = rig.manager.begin(&a, options()).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    rig.manager.verify_sealed(&a).unwrap();
    guard.finish().unwrap();
    assert_eq!(count(&rig, "execute_overheld"), 0);
    rig.close_clean();
}

#[test]
fn a_dropped_guard_and_two_guards_of_one_shard_are_reported_each_once() {
    // covers: VER-12
    let rig = Rig::new();
    let a = rig.seal("a", &[1; 100]);
    let hold = Duration::from_millis(5);
    let one = rig.manager.begin(&a, options().max_hold(hold)).unwrap();
    let two = rig.manager.begin(&a, options().max_hold(hold)).unwrap();
    std::thread::sleep(hold * 4);
    drop(one);
    assert_eq!(count(&rig, "execute_overheld"), 1);
    rig.manager.verify_sealed(&a).unwrap();
    assert_eq!(count(&rig, "execute_overheld"), 2);
    drop(two);
    assert_eq!(count(&rig, "execute_overheld"), 2);
    rig.close_clean();
}

// ---- shared checks

#[test]
fn a_call_never_uses_a_check_that_began_before_it() {
    // covers: VER-1 CON-1
    let mut met = 0;
    for round in 0..15 {
        let rig = Rig::lenient();
        let shard = rig.seal("slow", &noise(3_000_000, round));
        let returned = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // Whether these find the change depends on when it comes; both answers are right.
                    let _ = rig.manager.verify_sealed(&shard);
                    returned.fetch_add(1, Ordering::SeqCst);
                });
            }
            std::thread::sleep(Duration::from_millis(1 + round));
            rig.flip(&shard, 2_999_999); // waits for a kernel that is running
            if returned.load(Ordering::SeqCst) < 2 {
                met += 1;
            }
            // This call comes after the change, whatever it meets on its way.
            assert_error!(rig.manager.execute(&shard, |_| panic!("ran")), VramError::IntegrityFailure { .. });
        });
        rig.close_clean();
    }
    println!("{met} of 15 calls met a check under way");
    assert!(met > 0, "no call met a check under way");
}

#[test]
fn many_callers_at_once_cost_fewer_launches_than_calls() {
    // covers: VER-1 CON-1
    const CALLERS: usize = 24;
    let rig = Rig::new();
    let shard = rig.seal("slow", &noise(2_000_000, 1));
    let (barrier, before) = (Barrier::new(CALLERS), rig.digests());
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (rig, shard, barrier) = (&rig, &shard, &barrier);
            scope.spawn(move || {
                barrier.wait();
                if caller % 2 == 0 {
                    rig.manager.verify_sealed(shard).map(drop).unwrap();
                } else {
                    rig.manager.begin(shard, options()).unwrap().finish().map(drop).unwrap();
                }
            });
        }
    });
    let launches = rig.digests() - before;
    println!("{launches} launches for {CALLERS} calls");
    assert!((1..CALLERS as u64 / 2).contains(&launches), "{launches}");
    assert_eq!(count(&rig, "seal_verified"), CALLERS, "every call has its own verdict");
    // The twin: one after the other, each has its own.
    let before = rig.digests();
    (0..5).for_each(|_| drop(rig.manager.verify_sealed(&shard).unwrap()));
    assert_eq!(rig.digests() - before, 5);
    rig.close_clean();
}

#[test]
fn a_failed_check_is_not_shared_as_a_good_one() {
    // covers: VER-1 VER-11
    const CALLERS: usize = 12;
    for fault in [Fault::DigestSkipped, Fault::call(MockCall::Digest), Fault::CopyToHostSkipped] {
        let rig = Rig::new();
        let shard = rig.seal("slow", &noise(500_000, 1));
        let (barrier, before) = (Barrier::new(CALLERS), rig.digests());
        rig.config.fail(fault.times(1000)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    barrier.wait();
                    assert!(rig.manager.verify_sealed(&shard).is_err());
                });
            }
        });
        let _ = before;
        rig.controls().clear_faults().unwrap();
        rig.manager.release(&shard).unwrap();
        rig.close_clean();
    }
}

// ---- the end of a manager

/// Begins on one shard, lets another one fail, and gives what became of the first.
fn in_flight(choice: OnIntegrityFailure, stop: impl Fn(&VramManager)) -> (Result<(), VramError>, Vec<ExecuteOutcome>) {
    let rig = Rig::with(support::small(), |b| b.on_integrity_failure(choice));
    let (a, b) = (rig.seal("a", &[1; 3000]), rig.seal("b", &[2; 3000]));
    let guard = rig.manager.begin(&a, options()).unwrap();
    rig.flip(&b, 17);
    assert_error!(rig.manager.verify_sealed(&b), VramError::IntegrityFailure { .. });
    stop(&rig.manager);
    let finished = guard.finish().map(drop);
    let outcomes = outcomes(&rig);
    rig.close_clean();
    (finished, outcomes)
}

#[test]
fn results_in_flight_are_discarded_when_the_manager_stops() {
    // covers: VER-5
    let (finished, outcomes) = in_flight(OnIntegrityFailure::Stop, |_| ());
    assert_error!(finished, VramError::ManagerStopped { .. });
    assert_eq!(outcomes, [ExecuteOutcome::Discarded]);
    let (finished, outcomes) = in_flight(OnIntegrityFailure::QuarantineShard, |manager| {
        assert!(!manager.shutdown(Duration::from_millis(10)).unwrap().drained);
    });
    assert_error!(finished, VramError::ManagerStopped { .. });
    assert_eq!(outcomes, [ExecuteOutcome::Discarded]);
    // The twin: only the changed shard goes.
    let (finished, outcomes) = in_flight(OnIntegrityFailure::QuarantineShard, |_| ());
    finished.unwrap();
    assert_eq!(outcomes, [ExecuteOutcome::Finished]);
}

#[test]
fn a_failed_read_leaves_nothing_on_its_way_to_the_host() {
    // covers: RES-1
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(5000, 1));
    let guard = rig.manager.begin(&shard, options()).unwrap();
    let mut out = [0; 5000];
    rig.config.fail(Fault::call(MockCall::Synchronize)).unwrap();
    assert_error!(guard.read_at(0, &mut out), VramError::Device(_));
    assert_eq!((pending(&rig), out), (0, [0; 5000]));
    guard.read_at(0, &mut out).unwrap();
    assert!(out[..] == noise(5000, 1));
    guard.finish().unwrap();
    rig.close_clean();
}

#[test]
fn options_are_kept_and_a_verified_shard_says_what_it_is() {
    // covers: VER-1
    let all = ExecuteOptions::default().bracket(true).max_hold(Duration::from_secs(9));
    assert_eq!(all.clone().coverage(Coverage::Full), all.coverage(Coverage::Full).bracket(true));
    assert_ne!(ExecuteOptions::default().bracket(true).coverage(Coverage::Full), ExecuteOptions::default());
    assert_eq!(Coverage::Full.as_str(), "full");
    let rig = Rig::new();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
    let verified = guard.verified().unwrap();
    assert_eq!((verified.id(), verified.byte_len()), (shard.id(), 5000));
    assert_eq!((verified.verification().digest, verified.layout().byte_len()), (shard.digest(), 5000));
    assert_eq!(verified.layout().block_size(), 1024);
    let regions = verified.regions();
    assert_eq!((regions.len(), regions[0].offset(), regions[0].byte_len()), (1, 0, 5000));
    assert!(regions[0].tensor().is_none());
    assert!(guard.read_at(0, &mut [0; 5000]).is_ok() && guard.read_at(1, &mut [0; 5000]).is_err());
    assert!(format!("{:?} {:?}", RawStream::new(77), regions[0]).find("77").is_none(), "addresses are not shown");
    guard.finish().unwrap();
    rig.manager.release(&shard).unwrap();
}

//! Guards that are dropped with work under way, and managers that end.

use super::*;

/// Begins on a shard, with work of its engine's queued.
fn with_work<'a>(rig: &'a Rig, stream: &MockStream<'_>) -> (SealedShard, Execution<'a>) {
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(stream)).unwrap();
    stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
    (shard, guard)
}

/// Asks for the release of a shard until it is given: not before the engine's queue has run. Says how often it was busy.
fn release_at_last(rig: &Rig, shard: &SealedShard) -> u32 {
    let mut busy = 0;
    while let Err(error) = rig.manager.release(shard) {
        assert!(matches!(error, VramError::ShardBusy { .. }), "{error:?}");
        busy += 1;
        assert!(busy < 10_000, "the shard is pinned for ever");
    }
    assert_eq!(rig.pending(), 0, "released under the engine's work");
    busy
}

#[test]
fn a_dropped_guard_keeps_its_shard_until_the_engines_queue_has_run() {
    // covers: VER-10 VER-3
    let rig = Rig::writable();
    let stream = rig.stream();
    let (shard, guard) = with_work(&rig, &stream);
    drop(guard);
    assert_eq!(rig.pending(), 1, "dropping does not wait");
    assert!(release_at_last(&rig, &shard) >= 10, "it was released under the engine's work");
    // The twin: nothing was enqueued, so the event has passed at once.
    let shard = rig.seal("b", &[9; 5000]);
    drop(rig.manager.begin_owned(&shard, on(&stream)).unwrap());
    rig.manager.release(&shard).unwrap();
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Abandoned; 2]);
    drop(stream);
    rig.close_clean();
}

#[test]
fn shutdown_and_the_end_wait_for_the_work_of_dropped_guards() {
    // covers: VER-10 SCR-3
    let rig = Rig::writable();
    let stream = rig.stream();
    drop(with_work(&rig, &stream).1);
    // No longer than its deadline.
    let report = rig.manager.shutdown(Duration::ZERO);
    assert!(!report.drained && report.busy_bytes >= 5000, "{report:?}");
    assert_eq!((report.wiped_bytes, rig.pending()), (0, 1), "nothing is wiped under the engine's work");
    let report = rig.manager.shutdown(Duration::from_secs(5));
    assert!(report.drained && report.wiped_bytes >= 5000, "{report:?}");
    assert_eq!((report.busy_bytes, report.residue_bytes, rig.manager.used_vram(), rig.pending()), (0, 0, 0, 0));
    drop(stream);
    rig.close_clean();

    let rig = Rig::writable();
    let stream = rig.stream();
    drop(with_work(&rig, &stream).1);
    std::mem::forget(stream); // the engine outlives the manager
    let (stats, _) = rig.close();
    assert_eq!((stats.pending_operations, stats.live_bytes, stats.unwiped_bytes_freed), (0, 0, 0));
}

#[test]
fn a_shard_stays_pinned_also_when_waiting_for_the_engine_failed() {
    // covers: VER-10 VER-3
    let event = Fault::call(MockCall::Event);
    let finished = [event.times(1), event.times(3), Fault::call(MockCall::Synchronize).times(1)];
    let waits = finished.map(|fault| (fault, true)).into_iter().chain([1, 2].map(|times| (event.times(times), false)));
    for ((fault, finish), by_shutdown) in waits.flat_map(|wait| [(wait, false), (wait, true)]) {
        let rig = Rig::writable();
        let stream = rig.stream();
        let (shard, guard) = with_work(&rig, &stream);
        rig.order(fault);
        if finish {
            assert_error!(guard.finish(), VramError::Device(_));
            assert_eq!(rig.outcomes(), [ExecuteOutcome::Discarded]);
        } else {
            drop(guard);
        }
        rig.controls().clear_faults().unwrap();
        if by_shutdown {
            assert!(rig.manager.shutdown(Duration::from_secs(5)).drained);
            assert_eq!(rig.pending(), 0, "{fault:?}: wiped under the engine's work");
        } else {
            release_at_last(&rig, &shard);
        }
        drop(stream);
        rig.close_clean();
    }
}

#[test]
fn a_result_over_a_shard_that_was_found_changed_is_discarded_though_the_manager_goes_on() {
    // covers: VER-5 VER-12
    let rig = Rig::lenient();
    let (a, b) = rig.two();
    let mut guards = rig.manager.begin_all(&[&a, &b], options()).unwrap();
    rig.flip(&a, 2000);
    assert_error!(rig.manager.verify_sealed(&a), VramError::IntegrityFailure { .. });
    let (of_b, of_a) = (guards.pop().unwrap(), guards.pop().unwrap());
    let found = of_a.finish();
    assert!(
        matches!(&found, Err(VramError::IntegrityFailure { shard, first_bad: Some(range) })
            if shard == a.id() && (range.offset..range.offset + range.bytes).contains(&2000)),
        "{found:?}"
    );
    // The twin: the other shard's result counts.
    of_b.finish().unwrap();
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Discarded, ExecuteOutcome::Finished]);
    // A closure's too.
    let inside = rig.manager.execute(&b, |_| {
        rig.flip(&b, 0);
        rig.manager.verify_sealed(&b).is_err()
    });
    assert_error!(inside, VramError::IntegrityFailure { .. });
    rig.close_clean();
}

#[test]
fn a_shard_is_not_let_go_before_the_trail_says_that_its_execution_ended() {
    // covers: AUD-1 VER-3
    let (told, used) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (tell, keep) = (Arc::clone(&told), Arc::clone(&used));
    // Says how many bytes are used a while after an execution was told to have finished.
    let rig = Rig::watched(
        |builder| builder,
        move |manager, event| {
            if matches!(event.kind, EventKind::ExecuteFinished { .. }) {
                tell.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(200));
                keep.lock().unwrap().push(manager.used_vram());
            }
        },
    );
    let shard = rig.seal("a", &[1; 3000]);
    let (room, guard) = (rig.manager.used_vram(), rig.begin(&shard));
    within(Duration::from_secs(30), || {
        thread::scope(|scope| {
            scope.spawn(|| {
                until("the end is told", || told.load(Ordering::SeqCst));
                while let Err(VramError::ShardBusy { .. }) = rig.manager.release(&shard) {}
            });
            guard.finish().unwrap();
        });
    });
    assert_eq!((used.lock().unwrap().clone(), rig.manager.used_vram()), (vec![room], 0));
}

#[test]
fn a_failed_read_leaves_nothing_on_its_way_to_the_host() {
    // covers: RES-1
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(5000, 1));
    let guard = rig.begin(&shard);
    let mut out = [0; 5000];
    rig.order(Fault::call(MockCall::Synchronize));
    assert_error!(guard.read_at(0, &mut out), VramError::Device(_));
    assert_eq!((rig.pending(), out), (0, [0; 5000]));
    guard.read_at(0, &mut out).unwrap();
    assert!(out[..] == noise(5000, 1));
    guard.finish().unwrap();
    rig.close_clean();
}

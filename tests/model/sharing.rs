//! Engines' memory, engines' streams, batches and seals that are renewed, between threads.
// covers: CON-1 CON-2 RES-9 VER-1

use vram_residency::{Ack, AdoptError, EventKind, ExecuteOptions, Execution};
use vram_residency_harness::{Arena, adopt, hook, on};

use super::*;

#[test]
fn an_engines_memory_is_given_back_once_and_wiped_by_then() {
    explore(|| {
        let rig = stopping();
        let arena = Arc::new(Arena::new(3000, 1));
        let regions = [arena.region(0, 1001), arena.region(1003, 1500)];
        let (adopted, drops) = adopt(&rig.manager, spec("a").wipe_adopted(true), &arena, &regions);
        let (first, beside) = (arena.get(0), [arena.get(1001), arena.get(2503)]);
        let adopted = Arc::new(adopted.unwrap());
        let released = Arc::new(AtomicU64::new(0));
        let (shared, count, cells) = (Arc::clone(&adopted), Arc::clone(&released), Arc::clone(&arena));
        on_threads(&rig, 3, move |manager, number| {
            if number == 0 {
                let ended = manager.execute(shared.shard(), |verified| {
                    let mut byte = [0];
                    verified.read_at(0, &mut byte).unwrap();
                    assert_eq!(byte, [first], "wiped under an execution");
                });
                assert!(ended.as_ref().err().is_none_or(is_busy_or_gone), "{ended:?}");
            } else {
                match manager.release(shared.shard()) {
                    Ok(_) => {
                        count.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(cells.get(0), 0, "given back before it was wiped");
                    }
                    Err(error) => assert!(is_busy_or_gone(&error), "{error:?}"),
                }
            }
        });
        if released.load(Ordering::SeqCst) == 0 {
            rig.manager.release(adopted.shard()).unwrap();
        }
        assert!(released.load(Ordering::SeqCst) <= 1);
        let engine = Arc::into_inner(adopted).unwrap().into_owner().expect("nobody else has it");
        assert_eq!((drops.count(), rig.manager.adopted_vram()), (0, 0));
        assert!(arena.bytes()[..1001].iter().all(|byte| *byte == 0));
        assert_eq!([arena.get(1001), arena.get(2503)], beside);
        drop(engine);
        assert_eq!(drops.count(), 1);
        rig.close_clean();
    });
}

#[test]
fn one_memory_is_adopted_once_whoever_is_first() {
    explore(|| {
        let rig = stopping();
        let arena = Arc::new(Arena::new(3000, 1));
        let taken = Arc::new(AtomicU64::new(0));
        let (count, cells) = (Arc::clone(&taken), Arc::clone(&arena));
        on_threads(&rig, 3, move |manager, number| {
            let (adopted, drops) =
                adopt(manager, spec(&format!("a{number}")), &cells, &[cells.region(number * 100, 1000)]);
            match adopted {
                Ok(adopted) => {
                    assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0, "two shards in one memory");
                    thread::yield_now();
                    count.fetch_sub(1, Ordering::SeqCst);
                    manager.release(adopted.shard()).unwrap();
                    drop(adopted.into_owner().unwrap_or_else(|_| panic!("still owned")));
                }
                Err(AdoptError { error, owner }) => {
                    assert!(matches!(error, VramError::InvalidParams { field: "regions", .. }), "{error:?}");
                    assert_eq!(drops.count(), 0);
                    drop(owner);
                }
            }
            assert_eq!(drops.count(), 1);
        });
        rig.close_clean();
    });
}

#[test]
fn a_dropped_execution_keeps_its_shard_until_the_engines_work_is_done() {
    explore(|| {
        // An engine may write to sealed memory.
        let rig = Rig::with(machine().read_only(false), |builder| builder.staging(4 << 10));
        let shard = one(&rig, "a");
        let (shared, byte) = (Arc::clone(&shard), rig.peek(&shard, 5));
        on_threads(&rig, 2, move |manager, number| {
            if number == 0 {
                let stream = manager.mock_controls().unwrap().engine_stream().unwrap();
                match manager.begin(&shared, on(&stream)) {
                    Ok(run) => {
                        // The byte that is there: work that changes nothing. It fails if the memory goes before it has run.
                        stream.enqueue_write(&shared, 5, 1, byte).unwrap();
                        drop(run);
                        thread::yield_now();
                        stream.synchronize().expect("the memory went under the engine's work");
                    }
                    Err(error) => assert!(is_busy_or_gone(&error), "{error:?}"),
                }
            } else {
                for _ in 0..3 {
                    match manager.release(&shared) {
                        Ok(_) => return,
                        Err(error) => assert!(is_busy_or_gone(&error), "{error:?}"),
                    }
                    thread::yield_now();
                }
            }
        });
        match rig.manager.release(&shard) {
            Ok(_) | Err(VramError::StaleHandle { .. }) => {}
            Err(error) => panic!("pinned for ever: {error:?}"),
        }
        rig.close_clean();
    });
}

#[test]
fn batches_in_any_order_begin_whole_or_not_at_all_and_never_wait_for_each_other() {
    explore(|| {
        let rig = stopping();
        let shards = Arc::new([rig.seal("a", &noise(3000, 1)), rig.seal("b", &noise(3000, 2))]);
        let (released, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (both, gone) = (Arc::clone(&shards), Arc::clone(&released));
        on_threads(&rig, 3, move |manager, number| {
            let [a, b] = &*both;
            if number == 2 {
                match manager.release(a) {
                    Ok(_) => {
                        assert_eq!(running.load(Ordering::SeqCst), 0, "released under a batch");
                        gone.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => assert!(is_busy_or_gone(&error), "{error:?}"),
                }
                return;
            }
            let batch = if number == 0 { [a, b] } else { [b, a] };
            let over = gone.load(Ordering::SeqCst) > 0;
            match manager.begin_all(&batch, ExecuteOptions::default()) {
                Ok(runs) => {
                    assert!(runs.len() == 2 && !over, "a batch began with a shard that was gone");
                    running.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    runs.into_iter().for_each(|run| drop(run.finish().unwrap()));
                }
                Err(error) => assert!(is_busy_or_gone(&error), "{error:?}"),
            }
        });
        rig.manager.execute(&shards[1], |_| ()).expect("a batch that did not begin left nothing pinned or stopped");
        rig.manager.release(&shards[1]).unwrap();
        if released.load(Ordering::SeqCst) == 0 {
            rig.manager.release(&shards[0]).unwrap();
        }
        rig.close_clean();
    });
}

#[test]
fn a_seal_that_was_renewed_executes_no_more_and_the_new_one_does() {
    explore(|| {
        let rig = stopping();
        let old = one(&rig, "a");
        let (renewed, running) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let (shared, new) = (Arc::clone(&old), Arc::clone(&renewed));
        on_threads(&rig, 3, move |manager, number| {
            if number < 2 {
                match manager.reseal(&shared) {
                    Ok(seal) => {
                        assert_eq!(running.load(Ordering::SeqCst), 0, "renewed under an execution");
                        new.lock().unwrap().push(seal);
                    }
                    Err(error) => assert!(is_busy_or_gone(&error), "{error:?}"),
                }
            } else {
                let over = !new.lock().unwrap().is_empty();
                let ended = manager.execute(&shared, |_| {
                    assert!(!over, "it ran under a seal that was renewed");
                    running.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                });
                assert!(ended.as_ref().err().is_none_or(is_busy_or_gone), "{ended:?}");
            }
        });
        let renewed = std::mem::take(&mut *renewed.lock().unwrap());
        assert!(renewed.len() <= 1, "one seal was renewed {} times", renewed.len());
        let (live, stale) = (renewed.first().unwrap_or(&old), renewed.first().map(|_| &old));
        rig.manager.execute(live, |_| ()).unwrap();
        for stale in stale {
            assert!(matches!(rig.manager.execute(stale, |_| ()), Err(VramError::StaleHandle { .. })));
        }
        rig.manager.release(live).unwrap();
        rig.close_clean();
    });
}

#[test]
fn an_execution_that_ends_after_the_stop_gives_no_result() {
    explore(|| {
        let rig = stopping();
        let (good, bad) = (one(&rig, "good"), one(&rig, "bad"));
        rig.flip(&bad, 5);
        on_threads(&rig, 3, move |manager, number| {
            if number == 0 {
                assert!(manager.verify_sealed(&bad).is_err());
                return;
            }
            let over = is_stopped(manager);
            let begun = match number {
                1 => manager.begin(&good, ExecuteOptions::default()),
                _ => manager.begin(&good, ExecuteOptions::default().verify_after(true)),
            };
            match begun {
                Ok(run) => {
                    assert!(!over, "it began after the stop");
                    let stopped = is_stopped(manager);
                    let ended = run.finish();
                    assert!(matches!(ended, Ok(_) | Err(VramError::ManagerStopped { .. })), "{ended:?}");
                    assert!(!(stopped && ended.is_ok()), "a result after the stop");
                }
                Err(error) => assert!(matches!(error, VramError::ManagerStopped { .. }), "{error:?}"),
            }
        });
        rig.close_clean();
    });
}

#[test]
fn a_check_behind_a_stream_is_not_shared_with_one_that_began_before_its_writes() {
    explore(|| {
        // An engine may write to sealed memory.
        let rig = Rig::with(machine().read_only(false), |builder| builder.staging(4 << 10));
        let shard = one(&rig, "a");
        let (byte, other) = (rig.peek(&shard, 5), one(&rig, "b"));
        let stream = rig.stream();
        stream.enqueue_write(&shard, 5, 1, !byte).unwrap();
        let (manager, checked) = (Arc::clone(&rig.manager), Arc::clone(&shard));
        let checks = thread::spawn(move || drop(manager.verify_sealed(&checked)));
        let (manager, options) = (Arc::clone(&rig.manager), on(&stream));
        let runs = thread::spawn(move || drop(manager.begin(&other, options).map(Execution::finish)));
        let begun = rig.manager.begin(&shard, on(&stream)).map(drop);
        assert!(begun.is_err(), "work over bytes that its own stream had changed before");
        checks.join().unwrap();
        runs.join().unwrap();
        drop(stream);
        rig.close_clean();
    });
}

#[test]
fn after_a_flip_no_link_of_a_chain_gives_a_result_however_checks_are_shared() {
    explore(|| {
        let rig = stopping();
        let shard = one(&rig, "a");
        let flipped = Arc::new(AtomicBool::new(false));
        let (shared, flag) = (Arc::clone(&shard), Arc::clone(&flipped));
        on_threads(&rig, 3, move |manager, number| {
            if number == 0 {
                manager.mock_controls().unwrap().flip_bit(&shared, 77, 1).unwrap();
                flag.store(true, Ordering::SeqCst);
                return;
            }
            let stream = manager.mock_controls().unwrap().engine_stream().unwrap();
            let options = if number == 1 { ExecuteOptions::default() } else { on(&stream) };
            let mut before = flag.load(Ordering::SeqCst);
            let mut link = manager.begin(&shared, options);
            for _ in 0..2 {
                match link {
                    Ok(run) => {
                        assert!(!before, "a link over bytes that had changed before its check was asked for");
                        before = flag.load(Ordering::SeqCst);
                        link = run.renew();
                    }
                    Err(error) => {
                        let refused =
                            matches!(error, VramError::IntegrityFailure { .. } | VramError::ManagerStopped { .. });
                        assert!(refused, "{error:?}");
                        return;
                    }
                }
            }
            assert!(!(before && link.is_ok()), "a result over bytes that had changed before its check was asked for");
        });
        rig.close_clean();
    });
}

#[test]
fn events_of_many_threads_come_one_after_the_other_without_gaps() {
    explore(|| {
        // Sees each event as it comes: one after the other, in the order of the numbers, an end only after its start.
        let seen = Arc::new(Mutex::new((0_u64, 0_i64)));
        let strict = Arc::clone(&seen);
        let sink = hook(move |event| {
            let mut seen = strict.try_lock().expect("two events at one time");
            thread::yield_now();
            assert_eq!(event.sequence, seen.0 + 1);
            let change = match &event.kind {
                EventKind::ExecuteStarted { .. } => 1,
                EventKind::ExecuteFinished { .. } => -1,
                _ => 0,
            };
            *seen = (event.sequence, seen.1 + change);
            assert!(seen.1 >= 0, "an end before its start");
            Ok(Ack::Accepted)
        });
        let choice = OnIntegrityFailure::QuarantineShard;
        let rig = Rig::with(machine(), |builder| builder.staging(4 << 10).on_integrity_failure(choice).audit(sink));
        let shard = one(&rig, "a");
        on_threads(&rig, 3, move |manager, number| match number {
            0 => manager.execute(&shard, |_| ()).unwrap(),
            1 => drop(manager.verify_sealed(&shard).unwrap()),
            _ => {
                let own = seal(manager, "own", 2000).unwrap();
                manager.mock_controls().unwrap().flip_bit(&own, 3, 3).unwrap();
                assert!(manager.execute(&own, |_| panic!("it ran on changed bytes")).is_err());
                manager.release(&own).unwrap();
            }
        });
        let events = rig.close_clean();
        assert_eq!(*seen.lock().unwrap(), (events.len() as u64, 0), "both sinks see the same events");
    });
}

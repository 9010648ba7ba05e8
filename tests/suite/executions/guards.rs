//! Guards that travel, pin, and are held too long.

use super::*;

#[test]
fn an_owned_guard_travels_between_threads_and_keeps_its_manager() {
    // covers: VER-12 VER-3
    let rig = Rig::new();
    let bytes = noise(50_000, 1);
    let shard = rig.seal("a", &bytes);
    let Rig { config, sink, manager } = rig;
    let (other, sealed) = (Arc::clone(&manager), shard.clone());
    let guard: OwnedExecution = thread::spawn(move || other.begin_owned(&sealed, options()).unwrap()).join().unwrap();
    assert_error!(manager.release(&shard), VramError::ShardBusy { .. });
    assert!(Arc::ptr_eq(guard.manager(), &manager));
    drop(manager);
    let guard = thread::spawn(move || {
        let mut out = vec![0; 100];
        guard.read_at(49_900, &mut out).unwrap();
        assert_eq!((&out[..], guard.byte_len()), (&bytes[49_900..], 50_000));
        guard
    });
    let guard = guard.join().unwrap();
    assert!(config.stats().live_bytes > 0, "the guard keeps the manager alive");
    guard.finish().unwrap();
    assert_clean(&config.stats());
    assert_paired(&sink.events());
}

#[test]
fn an_owned_guard_of_changed_bytes_does_not_exist() {
    // covers: VER-12 VER-4
    let rig = Rig::lenient();
    let shard = rig.seal("a", &noise(50_000, 1));
    rig.flip(&shard, 31_000);
    let (manager, sealed) = (Arc::clone(&rig.manager), shard.clone());
    let begun = thread::spawn(move || manager.begin_owned(&sealed, options()).map(drop)).join().unwrap();
    assert_error!(begun, VramError::IntegrityFailure { .. });
    rig.manager.release(&shard).unwrap(); // no pin was left
    assert_eq!((rig.count("execute_started"), rig.count("execute_refused")), (0, 1));
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
                let begin = move || manager.begin_owned(&shard, options());
                let guard = tokio::task::spawn_blocking(begin).await.unwrap().unwrap();
                tokio::task::yield_now().await;
                tokio::task::spawn_blocking(move || guard.finish()).await.unwrap().unwrap().bytes
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 5000);
    }
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Finished; 8]);
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

#[test]
fn a_pinned_shard_is_busy_until_its_last_guard_is_gone() {
    // covers: VER-3
    let rig = Rig::new();
    let (shard, other) = rig.two();
    let first = rig.begin(&shard);
    let second = rig.manager.begin_owned(&shard, options()).unwrap();
    for busy in [rig.manager.release(&shard), rig.manager.release_by_id(shard.id())] {
        assert_error!(busy, VramError::ShardBusy { .. });
    }
    first.finish().unwrap();
    assert_error!(rig.manager.release(&shard), VramError::ShardBusy { .. });
    drop(second);
    rig.manager.release(&shard).unwrap();
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Finished, ExecuteOutcome::Abandoned]);
    // A leaked guard stays pinned until the end, which wipes and frees the device's memory all the same.
    std::mem::forget(rig.begin(&other));
    assert_error!(rig.manager.release(&other), VramError::ShardBusy { .. });
    let report = rig.manager.shutdown(Duration::from_millis(10));
    assert!(!report.drained && report.busy_bytes > 0);
    let (stats, _) = rig.close();
    assert_eq!((stats.live_allocations, stats.live_bytes, stats.unwiped_bytes_freed), (0, 0, 0));
}

#[test]
fn a_guard_that_is_held_too_long_is_reported_once() {
    // covers: VER-12 VER-15 AUD-1
    let hold = Duration::from_millis(400);
    let rig = Rig::new();
    let (a, b) = rig.two();
    let limited = || rig.manager.begin(&a, options().max_hold(hold)).unwrap();
    let reported = || said!(rig, EventKind::ExecuteOverheld { shard, limit, duration, .. } => (shard, limit, duration));
    // Within its time, in whichever way it ends; in each step of a chain; and without a limit.
    limited().finish().unwrap();
    drop(limited());
    let (mut run, unlimited, began) = (limited(), rig.begin(&a), Instant::now());
    while began.elapsed() < hold * 2 {
        thread::sleep(hold / 20);
        run = run.renew().unwrap();
    }
    run.finish().unwrap();
    unlimited.finish().unwrap();
    rig.manager.verify_sealed(&b).unwrap();
    assert!(reported().is_empty());
    // Each of two guards once: noticed by another call, at the next step, at its end, or when it is dropped.
    let [one, two, three, four] = [limited(), limited(), limited(), limited()];
    thread::sleep(hold * 2);
    assert!(reported().is_empty());
    drop(one);
    assert_eq!(reported().len(), 1);
    two.renew().unwrap().finish().unwrap();
    three.finish().unwrap();
    let before = reported().len();
    assert!(before >= 3);
    for _ in 0..5 {
        rig.manager.verify_sealed(&b).unwrap();
        assert_eq!(reported().len(), 4);
    }
    drop(four);
    assert_eq!(reported().len(), 4);
    assert!(reported().iter().all(|(shard, limit, held)| shard == a.id() && *limit == hold && *held > hold));
    rig.close_clean();
}

#[test]
fn options_are_kept_and_a_verified_shard_says_what_it_is() {
    // covers: VER-1 VER-2 VAL-3 KEY-3
    let all = ExecuteOptions::default().verify_after(true).max_hold(Duration::from_secs(9));
    assert_eq!(all.clone().check(Check::Digest), all.check(Check::Digest).verify_after(true));
    assert_ne!(ExecuteOptions::default(), options().verify_after(false), "not asked is not asking for less");
    assert_eq!(Check::Digest.as_str(), "digest");
    let rig = Rig::new();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.begin(&shard);
    let verified = guard.verified();
    assert_eq!((verified.id(), verified.byte_len()), (shard.id(), 5000));
    assert_eq!((verified.verification().digest, verified.layout().byte_len()), (shard.digest(), 5000));
    let regions = verified.regions();
    assert_eq!((regions.len(), regions[0].offset(), regions[0].byte_len()), (1, 0, 5000));
    assert!(regions[0].tensor().is_none());
    assert!(guard.read_at(0, &mut [0; 5000]).is_ok() && guard.read_at(1, &mut [0; 5000]).is_err());
    // What is shown is short and names no place.
    assert!(!format!("{:?} {:?}", RawStream::new(77), regions[0]).contains("77"), "addresses are not shown");
    let inside = rig.manager.execute(&shard, |verified| format!("{verified:?}")).unwrap();
    let scratch = rig.manager.allocate_scratch(Purpose::Workspace, 5000).unwrap();
    for shown in [format!("{:?}", rig.manager), format!("{guard:?}"), inside, format!("{scratch:?}")] {
        assert!(shown.contains("suite") && shown.contains("Ready"), "{shown}");
        assert!(shown.len() < 1500 && !shown.contains("0x") && !shown.contains("StreamId"), "{shown}");
    }
    drop((guard, scratch));
    // Every tensor is a region, also an empty one at the end.
    let file = safetensors(&[vec![7; 3], vec![]]);
    let shard = rig.manager.seal_model(spec("b"), ShardSource::safetensors(file.path()).unwrap()).unwrap();
    let guard = rig.begin(&shard);
    let told = |region: &VerifiedRegion<'_>| (region.tensor().unwrap().name.clone(), region.byte_len());
    assert_eq!(guard.regions().iter().map(told).collect::<Vec<_>>(), [("t00000".into(), 3), ("t00001".into(), 0)]);
    guard.finish().unwrap();
    rig.close_clean();
}

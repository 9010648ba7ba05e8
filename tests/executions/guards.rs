//! Guards that travel, pin, and are held too long.

use std::sync::Arc;
use std::time::Duration;

use vram_residency::{
    Check, EventKind, ExecuteOptions, ExecuteOutcome, OwnedExecution, RawStream, ShardSource, VramError,
};

use crate::support::{self, Rig, assert_clean, noise, spec};
use crate::{assert_error, options, outcomes};

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
            assert_eq!(rig.count("execute_overheld"), 0);
            for _ in 0..5 {
                rig.manager.verify_sealed(&b).unwrap();
                assert_eq!(rig.count("execute_overheld"), 1);
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
                _ => drop(guard.verified().byte_len()),
            }
        }
    }
    rig.manager.verify_sealed(&a).unwrap();
    // Without a limit nothing is ever too long.
    let guard = rig.manager.begin(&a, options()).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    rig.manager.verify_sealed(&a).unwrap();
    guard.finish().unwrap();
    assert_eq!(rig.count("execute_overheld"), 0);
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
    assert_eq!(rig.count("execute_overheld"), 1);
    rig.manager.verify_sealed(&a).unwrap();
    assert_eq!(rig.count("execute_overheld"), 2);
    drop(two);
    assert_eq!(rig.count("execute_overheld"), 2);
    rig.close_clean();
}

#[test]
fn options_are_kept_and_a_verified_shard_says_what_it_is() {
    // covers: VER-1
    let all = ExecuteOptions::default().verify_after(true).max_hold(Duration::from_secs(9));
    assert_eq!(all.clone().check(Check::Digest), all.check(Check::Digest).verify_after(true));
    assert_ne!(ExecuteOptions::default().verify_after(true).check(Check::Digest), ExecuteOptions::default());
    assert_eq!(Check::Digest.as_str(), "digest");
    let rig = Rig::new();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
    let verified = guard.verified();
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

#[test]
fn every_tensor_is_a_region_also_an_empty_one_at_the_end() {
    // covers: VER-2 VAL-3
    let header =
        r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[0],"data_offsets":[3,3]}}"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[7; 3]].concat()).unwrap();
    let rig = Rig::new();
    let source = ShardSource::safetensors(&path).unwrap();
    let shard = rig.manager.seal_model(spec("a"), source).unwrap();
    let guard = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
    let names: Vec<_> = guard.regions().iter().map(|region| region.tensor().unwrap().name.clone()).collect();
    assert_eq!((names, guard.regions()[1].byte_len()), (vec!["a".to_owned(), "b".to_owned()], 0));
    guard.finish().unwrap();
    rig.close_clean();
}

//! The owner of adopted memory: held until release, wiped only where it allows that, and foreign code in its drop.

use super::lengths;
use crate::*;

#[test]
fn exactly_the_regions_are_wiped_and_only_where_the_owner_allows_it() {
    // covers: RES-9 SCR-1
    for (wipe, end) in [true, false].into_iter().flat_map(|wipe| (0..4).map(move |end| (wipe, end))) {
        let rig = Rig::new();
        let mut dice = Dice::new(9);
        let lengths = lengths(&mut dice, 50, 1024);
        let total: u64 = lengths.iter().map(|bytes| *bytes as u64).sum();
        let (arena, places) = scatter(&mut dice, &lengths);
        let before = arena.bytes();
        let (adopted, drops) =
            adopt(&rig.manager, spec("engine").wipe_adopted(wipe), &arena, &regions(&arena, &places));
        let adopted = adopted.unwrap();
        assert!(arena.bytes() == before);
        let wiped = rig.manager.used_vram() + if wipe { total } else { 0 };
        let left = if wipe { 0 } else { total };
        match end {
            0 | 1 => {
                let shard = adopted.shard();
                let released = [rig.manager.release(shard), rig.manager.release_by_id(shard.id())];
                let report = released.into_iter().flatten().next().unwrap();
                assert_eq!((report.bytes, report.left_unwiped), (wiped, left));
            }
            2 => assert_eq!(rig.manager.shutdown(Duration::ZERO).wiped_bytes, wiped),
            _ => {}
        }
        rig.close_clean();
        let zeroed = |(at, byte): (usize, &u8)| if wipe && offset(&places, 1024, at).is_some() { 0 } else { *byte };
        assert!(arena.bytes() == before.iter().enumerate().map(zeroed).collect::<Vec<_>>(), "end {end}, wipe {wipe}");
        assert_eq!(drops.count(), 0);
        drop(adopted);
        assert_eq!(drops.count(), 1);
    }
}

#[test]
fn the_owner_lives_until_release_and_is_taken_back_after_it() {
    // covers: RES-9 AUD-1
    let rig = Rig::lenient();
    let arena = Arc::new(Arena::new(5000, 11));
    let mut shard = None;
    let life = rig.events_of(|| {
        let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &[arena.region(3, 4000)]);
        let adopted = adopted.unwrap().into_owner().unwrap_err();
        let run = rig.begin(adopted.shard());
        let adopted = adopted.into_owner().unwrap_err();
        assert_error!(rig.manager.release(adopted.shard()), VramError::ShardBusy { .. });
        let adopted = adopted.into_owner().unwrap_err();
        run.finish().unwrap();
        shard = Some(adopted.shard().clone());
        rig.manager.release(adopted.shard()).unwrap();
        let owner = adopted.into_owner().unwrap();
        assert!(drops.count() == 0 && Arc::ptr_eq(&owner.arena, &arena));
        drop(owner);
        assert_eq!(drops.count(), 1);
    });
    let run = ["vram_allocated", "vram_sealed", "seal_verified", "execute_started"];
    let ended = ["operation_failed", "execute_finished", "vram_wiped", "vram_deallocated"];
    assert_eq!(life, [run, ended].concat());
    let allocated = said!(rig, EventKind::VramAllocated { bytes, .. } => bytes);
    assert!(allocated[0] < 5000, "the engine's bytes were not allocated by us");
    assert_error!(rig.manager.release(&shard.unwrap()), VramError::StaleHandle { .. });
    // However early its handle goes, and also while it is quarantined.
    let weak = Arc::downgrade(&arena);
    let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &[arena.region(3, 4000)]);
    drop(arena);
    let shard = adopted.unwrap().shard().clone();
    rig.manager.execute(&shard, |_| ()).unwrap();
    weak.upgrade().unwrap().flip(4);
    assert_error!(rig.manager.execute(&shard, |_| ()), VramError::IntegrityFailure { .. });
    assert_eq!((drops.count(), weak.strong_count()), (0, 1));
    rig.manager.release(&shard).unwrap();
    assert_eq!((drops.count(), weak.strong_count()), (1, 0));
    rig.close_clean();
}

#[test]
fn a_wipe_that_fails_keeps_the_owner_until_it_succeeds() {
    // covers: SCR-2 RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 12));
    let (adopted, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(true), &arena, &[arena.region(3, 4000)]);
    let adopted = adopted.unwrap();
    let used = rig.manager.used_vram();
    rig.order(Fault::FillSkipped);
    assert_error!(rig.manager.release(adopted.shard()), VramError::WipeFailed { .. });
    let adopted = adopted.into_owner().unwrap_err();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram(), drops.count()), (used, used, 0));
    assert_error!(rig.manager.release(adopted.shard()), VramError::StaleHandle { .. });
    let (error, _owner) = refused(adopt(&rig.manager, spec("again"), &arena, &[arena.region(4002, 10)]).0);
    assert!(!matches!(error, VramError::Internal { .. }), "residue is still somebody's memory: {error:?}");
    rig.close_clean();
    assert!(adopted.into_owner().is_ok(), "the end of the manager tried once more");
    assert!(arena.bytes()[3..4003].iter().all(|byte| *byte == 0));
    // What is not wiped goes back also when the check space cannot be freed, and is no longer counted as sealed.
    let rig = Rig::new();
    let (adopted, drops) = adopt(&rig.manager, spec("one"), &arena, &[arena.region(0, 5000)]);
    rig.order(Fault::call(MockCall::Free));
    assert!(rig.manager.release(adopted.unwrap().shard()).is_err());
    assert_eq!((rig.manager.adopted_vram(), drops.count()), (0, 1), "the engine has it back");
    assert!(rig.manager.quarantined_vram() > 0, "the check space is ours");
    rig.close_clean();
}

#[test]
fn a_manager_that_closes_in_the_middle_of_an_adoption_gives_the_memory_back_untouched() {
    // covers: RES-9 SCR-3
    for fail_the_wipe in [false, true] {
        let closing = Arc::new(Mutex::new(Vec::new()));
        let (threads, once) = (Arc::clone(&closing), AtomicBool::new(true));
        // Closed three times while the trail is told of the seal; none of them waits for the trail, which is busy just now.
        let rig = Rig::watched(
            |builder| builder,
            move |manager, event| {
                if event.kind.name() == "vram_sealed" && once.swap(false, Ordering::SeqCst) {
                    if fail_the_wipe {
                        manager.mock_controls().unwrap().fail_next(Fault::FillSkipped).unwrap();
                    }
                    for _ in 0..3 {
                        let manager = Arc::clone(manager);
                        threads.lock().unwrap().push(thread::spawn(move || manager.shutdown(Duration::ZERO)));
                        thread::sleep(Duration::from_millis(150));
                    }
                }
            },
        );
        let arena = Arc::new(Arena::new(5000, 15));
        let before = arena.bytes();
        let (result, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(true), &arena, &[arena.region(3, 4000)]);
        let (error, owner) = refused(result);
        assert!(matches!(error, VramError::ManagerStopped { .. } | VramError::WipeFailed { .. }), "{error:?}");
        assert!(arena.bytes() == before, "a refused adoption wiped the engine's memory");
        assert_eq!((drops.count(), rig.manager.adopted_vram()), (0, 0));
        drop(owner);
        // The sink runs on the trail's thread, and may outlive the adoption.
        until("every shutdown began", || closing.lock().unwrap().len() == 3);
        closing.lock().unwrap().drain(..).for_each(|thread| assert!(thread.join().is_ok()));
        until("the sink lets the manager go", || Arc::strong_count(&rig.manager) == 1);
        rig.close_clean();
    }
}

#[test]
fn the_device_forgets_an_engines_memory_before_its_owner_goes() {
    // covers: RES-9
    let rig = Rig::new();
    let known = Arc::new(AtomicU64::new(u64::MAX));
    let (seen, config) = (Arc::clone(&known), rig.config.clone());
    let look = move |_: &mut Vec<u8>| seen.store(config.stats().live_foreign, Ordering::SeqCst);
    let adopted = adopt_bytes(&rig.manager, "engine", vec![7; 5000], |bytes| OnDrop(bytes, look));
    let shard = adopted.map_err(|refused| refused.error).unwrap().shard().clone();
    assert_eq!(rig.config.stats().live_foreign, 1);
    assert_eq!(known.load(Ordering::SeqCst), u64::MAX, "the record owns it still");
    rig.manager.release(&shard).unwrap();
    assert_eq!(known.load(Ordering::SeqCst), 0, "work that is queued could still touch it");
}

/// What the manager said to an owner that was just being dropped.
struct Said {
    own: VramError,
    verified: Result<(), VramError>,
    begun: Result<(), VramError>,
    drained: bool,
    /// Device memory of everybody when the drop began.
    live_bytes: u64,
}

#[test]
fn an_owner_may_call_the_manager_from_its_drop() {
    // covers: RES-9 SCR-3
    for (end, elsewhere) in
        ["release", "release_by_id", "shutdown", "drop"].into_iter().flat_map(|end| [(end, false), (end, true)])
    {
        let rig = Rig::new();
        let other = rig.seal("other", &noise(3000, 2));
        let (say, heard) = mpsc::channel();
        let (weak, config) = (Arc::downgrade(&rig.manager), rig.config.clone());
        let call = move || {
            let manager = weak.upgrade()?;
            Some(Said {
                live_bytes: config.stats().live_bytes,
                own: manager.release_by_id(&name("engine")).unwrap_err(),
                verified: manager.verify_sealed(&other).map(drop),
                begun: manager.begin(&other, ExecuteOptions::default()).and_then(Execution::finish).map(drop),
                drained: manager.shutdown(Duration::MAX).drained,
            })
        };
        // Here, or on a thread that it waits for.
        let ask = move |_: &mut Vec<u8>| {
            let said = if elsewhere { thread::scope(|scope| scope.spawn(&call).join().unwrap()) } else { call() };
            say.send(said).unwrap();
        };
        within(Duration::from_secs(60), || {
            let adopted = adopt_bytes(&rig.manager, "engine", noise(5000, 1), |bytes| OnDrop(bytes, ask));
            let shard = adopted.map_err(|refused| refused.error).unwrap().shard().clone();
            match end {
                "release" => drop(rig.manager.release(&shard).unwrap()),
                "release_by_id" => drop(rig.manager.release_by_id(shard.id()).unwrap()),
                "shutdown" => assert!(rig.manager.shutdown(Duration::MAX).drained),
                _ => {}
            }
            rig.close_clean();
        });
        let said = heard.recv().unwrap();
        assert_eq!(said.is_none(), end == "drop", "the manager is gone only at its own end");
        let Some(said) = said else { continue };
        assert!(matches!(said.own, VramError::InvalidParams { field: "shard id", .. }), "{end}: {:?}", said.own);
        assert!(said.drained, "{end}");
        if end == "shutdown" {
            assert_error!(said.verified, VramError::StaleHandle { .. });
            assert_error!(said.begun, VramError::ManagerStopped { .. });
            assert_eq!(said.live_bytes, 0, "everything is wiped before any owner's code runs");
        } else {
            said.verified.and(said.begun).unwrap();
        }
    }
}

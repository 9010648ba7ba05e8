//! The owner of adopted memory: held until release, wiped only where it allows that, told of everything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use vram_residency::{
    Ack, AuditError, AuditEvent, AuditSink, EventKind, ExecuteOptions, Fault, MockConfig, RawRegion, VramError,
    VramManager,
};

use crate::support::{
    self, Arena, Dice, Engine, Rig, adopt, assert_clean, builder, offset, refused, regions, scatter, small, spec,
};
use crate::{assert_error, lengths};

#[test]
fn exactly_the_regions_are_wiped_and_only_where_the_owner_allows_it() {
    // covers: RES-9 SCR-1
    for wipe in [true, false] {
        for end in ["release", "release_by_id", "shutdown", "drop"] {
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
            let check_bytes = rig.manager.used_vram();
            let report = match end {
                "release" => Some(rig.manager.release(adopted.shard()).unwrap()),
                "release_by_id" => Some(rig.manager.release_by_id(adopted.shard().id()).unwrap()),
                "shutdown" => {
                    let report = rig.manager.shutdown(Duration::ZERO);
                    assert_eq!(report.wiped_bytes, check_bytes + if wipe { total } else { 0 });
                    None
                }
                _ => None,
            };
            if let Some(report) = report {
                assert_eq!(report.bytes, check_bytes + if wipe { total } else { 0 });
                assert_eq!(report.left_unwiped, if wipe { 0 } else { total });
            }
            rig.close_clean();
            let expected: Vec<u8> = before
                .iter()
                .enumerate()
                .map(|(at, byte)| if wipe && offset(&places, 1024, at).is_some() { 0 } else { *byte })
                .collect();
            assert!(arena.bytes() == expected, "{end} with wipe_adopted({wipe})");
            assert_eq!(drops.count(), 0);
            drop(adopted);
            assert_eq!(drops.count(), 1);
        }
    }
}

#[test]
fn the_owner_lives_until_release_however_early_its_handle_goes() {
    // covers: RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 10));
    let weak: Weak<Arena> = Arc::downgrade(&arena);
    let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &[arena.region(3, 4000)]);
    drop(arena);
    let shard = adopted.unwrap().shard().clone(); // the handle goes here
    assert_eq!((drops.count(), weak.strong_count()), (0, 1));
    rig.manager.execute(&shard, |_| ()).unwrap();
    weak.upgrade().unwrap().flip(4);
    assert_error!(rig.manager.execute(&shard, |_| ()), VramError::IntegrityFailure { .. });
    assert_eq!(drops.count(), 0, "also while it is quarantined");
    rig.manager.release(&shard).unwrap();
    assert_eq!((drops.count(), weak.strong_count()), (1, 0));
    rig.close_clean();
}

#[test]
fn the_owner_is_taken_back_after_release_and_not_before() {
    // covers: RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 11));
    let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &[arena.region(3, 4000)]);
    let adopted = adopted.unwrap().into_owner().unwrap_err();
    let shard = adopted.shard().clone();
    let run = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
    let adopted = adopted.into_owner().unwrap_err();
    assert_error!(rig.manager.release(&shard), VramError::ShardBusy { .. });
    let adopted = adopted.into_owner().unwrap_err();
    run.finish().unwrap();
    rig.manager.release(&shard).unwrap();
    let owner = adopted.into_owner().unwrap();
    assert_eq!(drops.count(), 0);
    assert!(Arc::ptr_eq(&owner.arena, &arena));
    drop(owner);
    assert_eq!(drops.count(), 1);
    assert_error!(rig.manager.release(&shard), VramError::StaleHandle { .. });
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
    rig.config.fail(Fault::FillSkipped).unwrap();
    assert_error!(rig.manager.release(adopted.shard()), VramError::WipeFailed { .. });
    let adopted = adopted.into_owner().unwrap_err();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram(), drops.count()), (used, used, 0));
    assert_error!(rig.manager.release(adopted.shard()), VramError::StaleHandle { .. });
    let (result, _) = adopt(&rig.manager, spec("again"), &arena, &[arena.region(4002, 10)]);
    let (error, _owner) = refused(result);
    assert!(!matches!(error, VramError::Internal { .. }), "residue is still somebody's memory: {error:?}");
    let Rig { config, manager, .. } = rig;
    drop(manager);
    assert_clean(&config.stats());
    assert!(adopted.into_owner().is_ok(), "the end of the manager tried once more");
    assert!(arena.bytes()[3..4003].iter().all(|byte| *byte == 0));
}

#[test]
fn two_managers_on_two_devices_keep_their_memory_apart() {
    // covers: RES-8 RES-9
    let config = MockConfig::new().capacity_bytes(4 << 20).devices(2);
    let one = Rig::with(config.clone(), |b| b);
    let two = Rig::with(config.clone().ordinal(1), |b| b);
    let (first, second) = (Arc::new(Arena::new(5000, 13)), Arc::new(Arena::new(7000, 14)));
    let (on_one, _) = adopt(&one.manager, spec("engine"), &first, &[first.region(3, 4000)]);
    let (on_two, _) = adopt(&two.manager, spec("engine"), &second, &[second.region(5, 6000)]);
    let (on_one, on_two) = (on_one.unwrap(), on_two.unwrap());
    assert_eq!((one.manager.adopted_vram(), two.manager.adopted_vram()), (4000, 6000));
    assert_error!(one.manager.execute(on_two.shard(), |_| ()), VramError::SealRefused { .. });
    assert_error!(two.manager.release(on_one.shard()), VramError::SealRefused { .. });
    second.flip(2000);
    assert_error!(two.manager.execute(on_two.shard(), |_| ()), VramError::IntegrityFailure { .. });
    one.manager.execute(on_one.shard(), |_| ()).unwrap();
    one.manager.release(on_one.shard()).unwrap();
    two.manager.release(on_two.shard()).unwrap();
    drop((on_one, on_two, one, two));
    assert_clean(&config.stats());
}

/// Runs a piece of code in the middle of the event of one name, once.
struct Trap {
    event: &'static str,
    armed: AtomicBool,
    work: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl AuditSink for Trap {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        if event.kind.name() == self.event
            && self.armed.load(Ordering::SeqCst)
            && let Some(work) = self.work.lock().unwrap().take()
        {
            work();
        }
        Ok(Ack::Accepted)
    }
}

#[test]
fn a_manager_that_closes_in_the_middle_of_an_adoption_gives_the_memory_back_untouched() {
    // covers: RES-9 SCR-3
    for fail_the_wipe in [false, true] {
        let trap = Arc::new(Trap { event: "vram_sealed", armed: AtomicBool::new(false), work: Mutex::default() });
        let config = small();
        let manager: Arc<VramManager> = Arc::new(builder(&config).audit(trap.clone()).build().unwrap());
        let arena = Arc::new(Arena::new(5000, 15));
        let before = arena.bytes();
        let (closing, for_faults) = (Arc::clone(&manager), config.clone());
        let threads = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::clone(&threads);
        *trap.work.lock().unwrap() = Some(Box::new(move || {
            if fail_the_wipe {
                for_faults.fail(Fault::FillSkipped).unwrap();
            }
            // None of them waits for the trail, which is ours just now.
            for _ in 0..3 {
                let closing = Arc::clone(&closing);
                let thread = std::thread::spawn(move || {
                    closing.shutdown(Duration::ZERO);
                });
                started.lock().unwrap().push(thread);
                std::thread::sleep(Duration::from_millis(150));
            }
        }));
        trap.armed.store(true, Ordering::SeqCst);
        support::within(Duration::from_secs(30), || {
            let (result, drops) = adopt(&manager, spec("engine").wipe_adopted(true), &arena, &[arena.region(3, 4000)]);
            let (error, owner) = refused(result);
            assert!(matches!(error, VramError::ManagerStopped { .. } | VramError::WipeFailed { .. }), "{error:?}");
            assert!(arena.bytes() == before, "a refused adoption wiped the engine's memory");
            assert_eq!((drops.count(), manager.adopted_vram()), (0, 0));
            drop::<Engine>(owner);
        });
        drop(trap.work.lock().unwrap().take());
        // The trap runs on the trail's thread, and may have outlived the adoption.
        support::within(Duration::from_secs(30), || {
            while Arc::strong_count(&manager) > 1 {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        threads.lock().unwrap().drain(..).for_each(|thread| thread.join().unwrap());
        drop(manager);
        assert_clean(&config.stats());
    }
}

#[test]
fn events_of_an_adoption_tell_its_whole_life() {
    // covers: AUD-1 RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 16));
    let from = rig.mark();
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &[arena.region(3, 4000)]);
    rig.manager.execute(adopted.as_ref().unwrap().shard(), |_| ()).unwrap();
    rig.manager.release(adopted.unwrap().shard()).unwrap();
    assert_eq!(
        rig.names_since(from),
        [
            "vram_allocated",
            "vram_sealed",
            "seal_verified",
            "execute_started",
            "execute_finished",
            "vram_wiped",
            "vram_deallocated"
        ]
    );
    let events = rig.close_clean();
    let allocated = events.iter().find_map(|event| match &event.kind {
        EventKind::VramAllocated { bytes, .. } => Some(*bytes),
        _ => None,
    });
    assert!(allocated.unwrap() < 4000, "the engine's bytes were not allocated by us");
}

/// An engine's memory that looks, when it goes, whether the device still knows it.
#[derive(Debug)]
struct Watched {
    bytes: Vec<u8>,
    config: vram_residency::MockConfig,
    known: Arc<std::sync::atomic::AtomicU64>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.known.store(self.config.stats().live_foreign, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn the_device_forgets_an_engines_memory_before_its_owner_goes() {
    // covers: RES-9
    let known = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
    let rig = Rig::new();
    let owner = Watched { bytes: vec![7; 5000], config: rig.config.clone(), known: Arc::clone(&known) };
    let regions = [RawRegion::new(owner.bytes.as_ptr() as u64, 5000)];
    // SAFETY: the bytes are the owner's, do not move with it, and nobody writes them.
    let adopted = unsafe { rig.manager.adopt(spec("engine"), owner, &regions) }.unwrap();
    let shard = adopted.shard().clone();
    assert_eq!(rig.config.stats().live_foreign, 1);
    drop(adopted);
    assert_eq!(known.load(std::sync::atomic::Ordering::SeqCst), u64::MAX, "the record owns it still");
    rig.manager.release(&shard).unwrap();
    assert_eq!(known.load(std::sync::atomic::Ordering::SeqCst), 0, "work that is queued could still touch it");
}

//! Adoptions that are refused: the owner comes back, and everything is as it was.

use std::sync::Arc;
use std::time::Duration;

use vram_residency::{
    AuditRequirement, DriverErrorKind, ErrorCode, ExecuteOptions, Fault, ManagerState, MemorySink, MockCall, Origin,
    Policy, RawRegion, ShardSpec, VramError, digest_bytes,
};

use crate::support::{self, Arena, LIES, Rig, adopt, assert_clean, image, refused, small, spec, vouching};

/// Asserts that an adoption is refused and leaves everything as it was: owner, bytes, ledger, driver.
#[track_caller]
fn assert_refused(
    rig: &Rig,
    spec: ShardSpec,
    arena: &Arc<Arena>,
    regions: &[RawRegion],
    judge: impl Fn(&VramError) -> bool,
) {
    let (counts, bytes) = (rig.counts(), arena.bytes());
    let (result, drops) = adopt(&rig.manager, spec, arena, regions);
    let (error, owner) = refused(result);
    assert!(judge(&error), "{error:?}");
    assert_eq!(drops.count(), 0, "the owner came back alive");
    assert!(Arc::ptr_eq(&owner.arena, arena));
    assert!(arena.bytes() == bytes, "the memory is untouched");
    assert_eq!(rig.counts(), counts);
    drop(owner);
    assert_eq!(drops.count(), 1);
}

fn regions_are_refused(error: &VramError) -> bool {
    matches!(error, VramError::InvalidParams { field: "regions", .. })
}

#[test]
fn unusable_regions_are_refused_and_the_owner_comes_back() {
    // covers: RES-9 VAL-2
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 1));
    let one = || arena.region(100, 3000);
    let four = (0..4).find(|at| arena.address(*at).is_multiple_of(4)).unwrap();
    let odd = (1..4).find(|at| !arena.address(*at).is_multiple_of(4)).unwrap();
    let bad: Vec<(&str, Vec<RawRegion>)> = vec![
        ("none; give at least one", vec![]),
        ("number 0 is null", vec![RawRegion::new(0, 100)]),
        ("number 1 is null", vec![one(), RawRegion::new(0, 100)]),
        ("number 0 is empty", vec![arena.region(100, 0)]),
        ("number 1 is empty", vec![one(), arena.region(9000, 0)]),
        ("misaligned for its element type", vec![arena.region(odd, 16).element_bytes(4)]),
        ("not a whole number of elements", vec![arena.region(four, 15).element_bytes(4)]),
        ("elements of 0 bytes", vec![arena.region(four, 16).element_bytes(0)]),
        ("overlap", vec![one(), one()]),
        ("overlap", vec![one(), arena.region(3099, 10)]),
        ("overlap", vec![one(), arena.region(200, 1)]),
        ("overlap", vec![arena.region(9000, 10), one(), arena.region(50, 51)]),
        ("wraps around", vec![RawRegion::new(u64::MAX, 1)]),
        ("wraps around", vec![RawRegion::new(arena.address(0), u64::MAX - 5)]),
        ("number 1 wraps around", vec![one(), RawRegion::new(u64::MAX - 10, 11)]),
    ];
    for (problem, regions) in bad {
        assert_refused(&rig, spec("engine"), &arena, &regions, |error| {
            regions_are_refused(error) && error.to_string().contains(problem)
        });
    }
    // The twins: the nearest that is allowed.
    let good = [
        vec![one(), arena.region(3100, 10), arena.region(99, 1)],
        vec![arena.region(four, 16).element_bytes(4), arena.region(four + 16, 4).element_bytes(2)],
        vec![arena.region(odd, 16).element_bytes(1)],
    ];
    assert_eq!((one().byte_len(), good[1][1].byte_len()), (3000, 4));
    // What is shown of a region holds no address.
    assert_eq!(format!("{:?}", one()), "RawRegion { bytes: 3000, .. }");
    for regions in good {
        let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &regions);
        rig.manager.release(adopted.unwrap().shard()).unwrap();
    }
    rig.close_clean();
}

#[test]
fn memory_of_a_live_shard_is_not_adopted_again() {
    // covers: RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 2));
    let (first, _) = adopt(&rig.manager, spec("first"), &arena, &[arena.region(0, 1000), arena.region(5000, 1000)]);
    let first = first.unwrap();
    let owned = rig.seal("owned", &[7; 3000]);
    let address = {
        let run = rig.manager.begin(&owned, ExecuteOptions::default()).unwrap();
        // SAFETY: the address is handed to an adoption that must refuse it before it is followed.
        let address = unsafe { run.regions()[0].device_ptr() }.as_u64();
        run.finish().unwrap();
        address
    };
    for taken in [
        vec![arena.region(0, 1000)],
        vec![arena.region(999, 1)],
        vec![arena.region(2000, 100), arena.region(5500, 1)],
        vec![arena.region(4000, 5000)],
        vec![RawRegion::new(address, 3000)],
        vec![RawRegion::new(address + 2999, 1)],
        vec![arena.region(2000, 100), RawRegion::new(address + 100, 10)],
    ] {
        assert_refused(&rig, spec("second"), &arena, &taken, regions_are_refused);
    }
    // Nor by another manager on the device, whom the driver refuses.
    let other = support::builder(&rig.config).build().unwrap();
    for taken in [arena.region(999, 1), RawRegion::new(address + 100, 10)] {
        let (error, owner) = refused(adopt(&other, spec("second"), &arena, &[taken]).0);
        assert!(regions_are_refused(&error) && error.to_string().contains("nobody else has adopted"), "{error}");
        drop(owner);
    }
    drop(other);
    rig.manager.execute(first.shard(), |_| ()).unwrap();
    rig.manager.execute(&owned, |_| ()).unwrap();
    // The twin: what lies between is free, and so is all of it after the release.
    let (between, _) = adopt(&rig.manager, spec("between"), &arena, &[arena.region(1000, 4000)]);
    rig.manager.release(between.unwrap().shard()).unwrap();
    rig.manager.release(first.shard()).unwrap();
    let (again, _) = adopt(&rig.manager, spec("again"), &arena, &[arena.region(4000, 5000)]);
    rig.manager.release(again.unwrap().shard()).unwrap();
    drop(first);
    rig.close_clean();
}

#[test]
fn an_adoption_that_must_not_be_is_refused_whole() {
    // covers: RES-9 RES-6 SEAL-1
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 3));
    let all = [arena.region(3, 5000), arena.region(9001, 777)];
    let live = rig.seal("live", &[1; 100]);
    let params = rig.manager.tree_params();
    let other = vouching::regions(params, &all, digest_bytes(params, &support::noise(100, 1)));
    assert_refused(&rig, spec("live"), &arena, &all, |e| {
        matches!(e, VramError::InvalidParams { field: "shard id", .. })
    });
    assert_refused(&rig, spec("engine").expect(other.clone()), &arena, &all, |e| {
        matches!(e, VramError::DigestMismatch { .. })
    });
    assert_refused(&rig, spec("engine").expect(other).wipe_adopted(true), &arena, &all, |e| {
        matches!(e, VramError::DigestMismatch { .. })
    });
    let set = vram_residency::SetId::random().unwrap();
    assert_refused(&rig, spec("engine").part(set, 2, 2), &arena, &all, |e| {
        matches!(e, VramError::InvalidParams { field: "part", .. })
    });
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    // The twin: the right digest.
    let vouched = digest_bytes(rig.manager.tree_params(), &image(&arena, &[(3, 5000), (9001, 777)], 1024));
    let (adopted, _) =
        adopt(&rig.manager, spec("engine").expect(vouching::regions(params, &all, vouched)), &arena, &all);
    let adopted = adopted.unwrap();
    assert_eq!((adopted.shard().origin(), adopted.shard().digest()), (Origin::Expected, vouched));
    rig.manager.release(adopted.shard()).unwrap();
    rig.manager.release(&live).unwrap();
    drop(adopted);
    // A manager that stopped.
    rig.manager.shutdown(Duration::ZERO);
    assert_refused(&rig, spec("engine"), &arena, &all, |e| matches!(e, VramError::ManagerStopped { .. }));
    rig.close_clean();
}

#[test]
fn an_adoption_without_room_without_trail_or_against_the_policy_is_refused() {
    // covers: RES-6 AUD-5
    let arena = Arc::new(Arena::new(600_000, 4));
    let all = [arena.region(0, 600_000)];
    // 586 blocks of 1024 bytes need their hashes' room.
    let rig = Rig::with(small().capacity_bytes(100_000), |b| b);
    let filler = rig.seal("filler", &[1; 90_000]);
    let full = |error: &VramError| matches!(error, VramError::OutOfMemory { .. });
    assert_refused(&rig, spec("engine"), &arena, &all, full);
    rig.manager.release(&filler).unwrap();
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &all);
    rig.manager.release(adopted.unwrap().shard()).unwrap();
    rig.config.fail(Fault::MemoryInfoFree { free: 100 }).unwrap();
    assert_refused(&rig, spec("engine"), &arena, &all, full);
    rig.config.fail(Fault::Call { call: MockCall::Alloc, code: 2 }).unwrap();
    assert_refused(&rig, spec("engine"), &arena, &all, full);
    rig.close_clean();

    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let rig = Rig::on(small(), Arc::new(MemorySink::claiming_durable()), |b| b.policy(policy));
    rig.sink.failing(true);
    assert_refused(&rig, spec("engine"), &arena, &all, |e| matches!(e, VramError::AuditUnavailable { .. }));
    rig.sink.failing(false);
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &all);
    rig.manager.release(adopted.unwrap().shard()).unwrap();
    let Rig { config, manager, .. } = rig;
    drop(manager);
    assert_clean(&config.stats());

    let rig = Rig::with(small(), |b| b.policy(Policy::development().require_expected_digest(true)));
    assert_refused(&rig, spec("engine"), &arena, &all, |e| e.code() == ErrorCode::PolicyViolation);
    rig.close_clean();
}

#[test]
fn whichever_call_of_the_device_fails_the_memory_comes_back_untouched() {
    // covers: RES-9 RES-3 SCR-3
    for (wipe, code) in [(false, 999), (true, 999), (true, 2), (true, 1)] {
        let arena = Arc::new(Arena::new(9000, 6));
        let all = [arena.region(1, 3000), arena.region(4003, 1024), arena.region(6001, 5)];
        // Without poison, memory that was never written is zero, so that giving it back unwiped is not counted.
        let rig = Rig::with(small().poison(false), |b| b);
        let mut failed = 0;
        for nth in 1_u64.. {
            let (counts, bytes) = (rig.counts(), arena.bytes());
            rig.config.fail(Fault::Call { call: MockCall::Any, code }.nth(nth)).unwrap();
            let (result, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(wipe), &arena, &all);
            rig.controls().clear_faults().unwrap();
            match result {
                Ok(adopted) => {
                    assert!(arena.bytes() == bytes);
                    rig.manager.release(adopted.shard()).unwrap();
                    assert_eq!(arena.bytes() == bytes, !wipe);
                    break;
                }
                Err(_) => {
                    failed += 1;
                    let (error, owner) = refused(result);
                    assert!(!matches!(error, VramError::Internal { .. }), "{nth}: {error:?}");
                    assert_eq!((drops.count(), rig.counts(), arena.bytes() == bytes), (0, counts, true), "{nth}");
                    drop(owner);
                    assert_eq!(drops.count(), 1);
                }
            }
        }
        assert!(failed >= 10, "{failed} calls failed");
        println!("{failed} calls of an adoption can fail");
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        rig.close_clean();
    }
}

#[test]
fn a_dead_or_lying_device_gives_the_memory_back_too() {
    // covers: RES-2 RES-9 VER-11
    let arena = Arc::new(Arena::new(9000, 7));
    let all = [arena.region(1, 3000), arena.region(4003, 1024)];
    for lie in LIES {
        for nth in 1..=3 {
            let rig = Rig::with(small().poison(false), |b| b);
            rig.config.fail(Fault::Residency(lie).nth(nth)).unwrap();
            assert_refused(&rig, spec("engine"), &arena, &all, |e| e.code() == ErrorCode::PolicyViolation);
            rig.close_clean();
        }
    }
    for fault in [Fault::DigestSkipped, Fault::DigestShort, Fault::DigestStale, Fault::CopyToHostSkipped] {
        let rig = Rig::new();
        let bytes = arena.bytes();
        rig.config.fail(fault).unwrap();
        let (result, _drops) = adopt(&rig.manager, spec("engine").wipe_adopted(true), &arena, &all);
        let (error, owner) = refused(result);
        assert!(matches!(error, VramError::DeviceUntrusted { .. }), "{error:?}");
        assert!(matches!(rig.manager.state(), ManagerState::Stopped(_)));
        assert!(arena.bytes() == bytes);
        drop(owner);
        rig.close_clean();
    }
    for nth in 1..=12 {
        let rig = Rig::new();
        let bytes = arena.bytes();
        rig.config.fail(Fault::Sticky.nth(nth)).unwrap();
        let (result, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(true), &arena, &all);
        let (error, owner) = refused(result);
        let sticky = |e: &vram_residency::DriverError| e.kind == DriverErrorKind::Sticky;
        assert!(matches!(&error, VramError::Device(e) if sticky(e)), "{nth}: {error:?}");
        assert_eq!((drops.count(), rig.manager.adopted_vram()), (0, 0));
        assert_eq!(rig.config.stats().live_foreign, 0, "{nth}: the driver still knows the engine's memory");
        assert!(arena.bytes() == bytes);
        drop(owner);
    }
}

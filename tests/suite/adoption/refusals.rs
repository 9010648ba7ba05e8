//! Adoptions that are refused: the owner comes back, and everything is as it was.

use crate::*;

/// Asserts that an adoption is refused and leaves everything as it was: owner, bytes, ledger, driver.
#[track_caller]
fn assert_refused(rig: &Rig, spec: ShardSpec, arena: &Arc<Arena>, regions: &[RawRegion], code: ErrorCode, words: &str) {
    let (counts, bytes) = (rig.counts(), arena.bytes());
    let (result, drops) = adopt(&rig.manager, spec, arena, regions);
    let (error, owner) = refused(result);
    assert!(error.code() == code && error.to_string().contains(words), "{words}: {error:?}");
    assert_eq!(drops.count(), 0, "the owner came back alive");
    assert!(Arc::ptr_eq(&owner.arena, arena));
    assert!(arena.bytes() == bytes, "the memory is untouched");
    assert_eq!(rig.counts(), counts);
    drop(owner);
    assert_eq!(drops.count(), 1);
}

#[test]
fn unusable_regions_are_refused_and_the_owner_comes_back() {
    // covers: RES-9 VAL-2
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 1));
    let one = || arena.region(100, 3000);
    let four = (0..4).find(|at| arena.address(*at).is_multiple_of(4)).unwrap();
    let odd = (1..4).find(|at| !arena.address(*at).is_multiple_of(4)).unwrap();
    for (problem, regions) in [
        ("none; give at least one", vec![]),
        ("number 0 is null", vec![RawRegion::new(0, 100)]),
        ("number 1 is null", vec![one(), RawRegion::new(0, 100)]),
        ("number 0 is empty", vec![arena.region(100, 0)]),
        ("number 1 is empty", vec![one(), arena.region(9000, 0)]),
        ("misaligned for its element type", vec![arena.region(odd, 16).element_bytes(4)]),
        ("not a whole number of elements", vec![arena.region(four, 15).element_bytes(4)]),
        ("elements of 0 bytes", vec![arena.region(four, 16).element_bytes(0)]),
        ("overlap", vec![one(), one()]),
        ("overlap", vec![arena.region(9000, 10), one(), arena.region(50, 51)]),
        ("wraps around", vec![RawRegion::new(u64::MAX, 1)]),
        ("wraps around", vec![RawRegion::new(arena.address(0), u64::MAX - 5)]),
        ("number 1 wraps around", vec![one(), RawRegion::new(u64::MAX - 10, 11)]),
    ] {
        assert_refused(&rig, spec("engine"), &arena, &regions, ErrorCode::InvalidParams, problem);
    }
    // The twins: the nearest that is allowed.
    let good = [
        vec![one(), arena.region(3100, 10), arena.region(99, 1)],
        vec![arena.region(four, 16).element_bytes(4), arena.region(four + 16, 4).element_bytes(2)],
        vec![arena.region(odd, 16).element_bytes(1)],
    ];
    assert_eq!((one().byte_len(), good[1][1].byte_len()), (3000, 4));
    assert_eq!(format!("{:?}", one()), "RawRegion { bytes: 3000, .. }", "no address is shown");
    for regions in good {
        let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &regions);
        rig.manager.release(adopted.unwrap().shard()).unwrap();
    }
    rig.close_clean();
}

#[test]
fn an_adoption_that_must_not_be_is_refused_whole() {
    // covers: RES-9 RES-6 SEAL-1
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 3));
    let places = [(3, 5000), (9001, 777)];
    let all = regions(&arena, &places);
    let live = rig.seal("live", &[1; 3000]);
    let vouched = |bytes: &[u8]| {
        let params = rig.manager.tree_params();
        spec("engine").expect(vouching::regions(params, &all, digest_bytes(params, bytes)))
    };
    let refuse = |spec, code, words| assert_refused(&rig, spec, &arena, &all, code, words);
    refuse(spec("live"), ErrorCode::InvalidParams, "shard id");
    refuse(vouched(b"other weights"), ErrorCode::DigestMismatch, "");
    refuse(vouched(b"other weights").wipe_adopted(true), ErrorCode::DigestMismatch, "");
    refuse(spec("engine").part(SetId::random().unwrap(), 2, 2), ErrorCode::InvalidParams, "part");
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    // The twin: the right digest.
    let (adopted, _) = adopt(&rig.manager, vouched(&image(&arena.bytes(), &places, 1024)), &arena, &all);
    let adopted = adopted.unwrap();
    assert_eq!(adopted.shard().origin(), Origin::Expected);
    // Memory of a live shard, the manager's own too, is adopted no second time: not by another manager on the device either.
    // SAFETY: the address is handed to adoptions that must refuse it before it is followed.
    let address = unsafe { rig.begin(&live).regions()[0].device_ptr() }.as_u64();
    let other = Rig::with(rig.config.clone(), |builder| builder);
    for taken in [arena.region(5002, 1), RawRegion::new(address, 3000), RawRegion::new(address + 100, 10)] {
        assert_refused(&rig, spec("second"), &arena, std::slice::from_ref(&taken), ErrorCode::InvalidParams, "regions");
        let words = "nobody else has adopted";
        assert_refused(&other, spec("second"), &arena, &[taken], ErrorCode::InvalidParams, words);
    }
    other.close();
    rig.manager.execute(adopted.shard(), |_| ()).unwrap();
    for shard in [adopted.shard(), &live] {
        rig.manager.release(shard).unwrap();
    }
    drop(adopted);
    rig.manager.shutdown(Duration::ZERO);
    assert_refused(&rig, spec("engine"), &arena, &all, ErrorCode::ManagerStopped, "");
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
    let full = || assert_refused(&rig, spec("engine"), &arena, &all, ErrorCode::VramOom, "");
    full();
    rig.manager.release(&filler).unwrap();
    rig.order(Fault::MemoryInfoFree { free: 100 });
    full();
    rig.order(Fault::Call { call: MockCall::Alloc, code: 2 });
    full();
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &all);
    rig.manager.release(adopted.unwrap().shard()).unwrap();
    rig.close_clean();

    let rig = Rig::audited();
    rig.sink.failing(true);
    assert_refused(&rig, spec("engine"), &arena, &all, ErrorCode::AuditUnavailable, "");
    assert_clean(&rig.close().0);

    let rig = Rig::of(Policy::development().require_expected_digest(true));
    assert_refused(&rig, spec("engine"), &arena, &all, ErrorCode::PolicyViolation, "");
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
        for nth in 1_u64.. {
            let (counts, bytes) = (rig.counts(), arena.bytes());
            rig.order(Fault::Call { call: MockCall::Any, code }.nth(nth));
            let (result, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(wipe), &arena, &all);
            rig.controls().clear_faults().unwrap();
            if let Ok(adopted) = result {
                assert!(arena.bytes() == bytes && nth > 10, "{nth} calls");
                rig.manager.release(adopted.shard()).unwrap();
                assert_eq!(arena.bytes() == bytes, !wipe);
                break;
            }
            let (error, owner) = refused(result);
            assert!(!matches!(error, VramError::Internal { .. }), "{nth}: {error:?}");
            assert_eq!((drops.count(), rig.counts(), arena.bytes() == bytes), (0, counts, true), "{nth}");
            drop(owner);
            assert_eq!(drops.count(), 1);
        }
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        rig.close_clean();
    }
}

#[test]
fn a_dead_or_lying_device_gives_the_memory_back_too() {
    // covers: RES-2 RES-9 VER-11
    let arena = Arc::new(Arena::new(9000, 7));
    let all = [arena.region(1, 3000), arena.region(4003, 1024)];
    for (lie, nth) in LIES.into_iter().flat_map(|lie| (1..=3).map(move |nth| (lie, nth))) {
        let rig = Rig::with(small().poison(false), |b| b);
        rig.order(Fault::Residency(lie).nth(nth));
        assert_refused(&rig, spec("engine"), &arena, &all, ErrorCode::PolicyViolation, "");
        rig.close_clean();
    }
    for fault in [Fault::DigestSkipped, Fault::DigestShort, Fault::DigestStale, Fault::CopyToHostSkipped] {
        let rig = Rig::new();
        rig.order(fault);
        assert_refused(
            &rig,
            spec("engine").wipe_adopted(true),
            &arena,
            &all,
            ErrorCode::DeviceUntrusted,
            "did not prove",
        );
        assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::DeviceUntrusted));
        rig.close_clean();
    }
    for nth in 1..=12 {
        let (rig, bytes) = (Rig::new(), arena.bytes());
        rig.order(Fault::Sticky.nth(nth));
        let (result, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(true), &arena, &all);
        let (error, _owner) = refused(result);
        assert!(matches!(&error, VramError::Device(e) if e.kind == DriverErrorKind::Sticky), "{nth}: {error:?}");
        assert_eq!((drops.count(), rig.manager.adopted_vram()), (0, 0));
        assert_eq!(rig.config.stats().live_foreign, 0, "{nth}: the driver still knows the engine's memory");
        assert!(arena.bytes() == bytes);
    }
}

//! Checks that several calls share, and those that none may.

use super::*;

#[test]
fn a_call_never_uses_a_check_that_began_before_it() {
    // covers: VER-1 CON-1
    let mut met = 0;
    for round in 0..15 {
        let rig = Rig::lenient();
        let shard = rig.seal("slow", &noise(3_000_000, round));
        let returned = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // Whether these find the change depends on when it comes; both answers are right, and no third.
                    match rig.manager.verify_sealed(&shard) {
                        Ok(verification) => assert_eq!(verification.digest, shard.digest()),
                        Err(error) => assert!(matches!(error, VramError::IntegrityFailure { .. }), "{error:?}"),
                    }
                    returned.fetch_add(1, Ordering::SeqCst);
                });
            }
            thread::sleep(Duration::from_millis(1 + round));
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
    // covers: VER-1 VER-15 CON-1
    const CALLERS: usize = 24;
    let rig = Rig::writable();
    let shard = rig.seal("slow", &noise(2_000_000, 1));
    let at_once = |ask: &(dyn Fn(usize) + Sync)| {
        let (barrier, before) = (Barrier::new(CALLERS), rig.digests());
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    ask(caller);
                });
            }
        });
        rig.digests() - before
    };
    let launches = at_once(&|caller| match caller % 3 {
        0 => drop(rig.manager.verify_sealed(&shard).unwrap()),
        1 => drop(rig.begin(&shard).finish().unwrap()),
        // On a stream that holds nothing; the call that closes one execute and opens the next shares as well.
        _ => drop(rig.manager.begin(&shard, on(&rig.stream())).unwrap().renew().unwrap().finish().unwrap()),
    });
    println!("{launches} launches for 32 checks");
    assert!((1..CALLERS as u64).contains(&launches), "{launches}");
    assert_eq!(rig.count("seal_verified"), 32, "every check has its own verdict");
    // The twins: one after the other, each has its own; and whose stream still holds something gets a check behind it.
    let before = rig.digests();
    (0..5).for_each(|_| drop(rig.manager.verify_sealed(&shard).unwrap()));
    assert_eq!(rig.digests() - before, 5);
    at_once(&|caller| {
        let stream = rig.stream();
        stream.enqueue_write(&shard, caller as u64, 1, 0xA5).unwrap();
        let begun = rig.manager.begin(&shard, on(&stream)).map(drop);
        assert_error!(begun, VramError::IntegrityFailure { .. } | VramError::ManagerStopped { .. });
        stream.synchronize().unwrap();
    });
    rig.close_clean();
}

#[test]
fn a_failed_check_is_not_shared_as_a_good_one() {
    // covers: VER-1 VER-11
    type Is = fn(&VramError) -> bool;
    const CALLERS: usize = 12;
    let faults: [(Fault, Is); 3] = [
        (Fault::DigestSkipped, |error| matches!(error, VramError::DeviceUntrusted { .. })),
        (Fault::call(MockCall::Digest), |error| matches!(error, VramError::Device(_))),
        (Fault::CopyToHostSkipped, |error| matches!(error, VramError::DeviceUntrusted { .. })),
    ];
    for (fault, is_its_own) in faults {
        let rig = Rig::new();
        let shard = rig.seal("slow", &noise(500_000, 1));
        let barrier = Barrier::new(CALLERS);
        rig.order(fault.times(1000));
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    barrier.wait();
                    let error = rig.manager.verify_sealed(&shard).unwrap_err();
                    assert!(is_its_own(&error), "{error:?}");
                });
            }
        });
        rig.controls().clear_faults().unwrap();
        rig.manager.release(&shard).unwrap();
        rig.close_clean();
    }
}

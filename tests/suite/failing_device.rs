//! A device whose calls fail, one after the other, or that dies: no call panics, nothing is verified wrongly, and the ledger
//! is exact afterwards.

use crate::*;

const LOST: ManagerState = ManagerState::Stopped(StopReason::DeviceLost);

const CALLS: [MockCall; 14] = [
    MockCall::Alloc,
    MockCall::Free,
    MockCall::CopyToDevice,
    MockCall::CopyToHost,
    MockCall::Fill,
    MockCall::Digest,
    MockCall::CountNonzero,
    MockCall::Synchronize,
    MockCall::MemoryInfo,
    MockCall::Residency,
    MockCall::Stream,
    MockCall::Event,
    MockCall::Protect,
    MockCall::HostAlloc,
];

/// What the fault is to hit.
#[derive(Clone, Copy, Debug)]
enum During {
    Seal,
    Execute,
    Release,
}

const OPERATIONS: [During; 3] = [During::Seal, During::Execute, During::Release];

/// Runs one operation and says whether it succeeded.
fn run(rig: &Rig, shard: &SealedShard, bytes: &[u8], during: During) -> Result<(), VramError> {
    match during {
        During::Seal => rig.try_seal("new", bytes).map(|shard| {
            assert_eq!(shard.digest(), digest_bytes(rig.manager.tree_params(), bytes), "sealed what was given");
        }),
        During::Execute => rig.manager.try_execute(shard, |verified| {
            let mut out = vec![0; bytes.len()];
            verified.read_at(0, &mut out)?;
            assert_eq!(out, bytes, "verified bytes are the sealed ones");
            Ok::<_, VramError>(())
        }),
        During::Release => rig.manager.release(shard).map(drop),
    }
}

/// What did not hold; collected, so that one run shows all of it.
#[derive(Default)]
struct Violations(Vec<String>);

impl Violations {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(self.0.is_empty(), "{} violations:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// One manager, one fault, one operation; then everything that must hold whatever happened. Says whether it failed.
fn nth_call(fault: FaultOrder, during: During, violations: &mut Violations) -> bool {
    // Without poison only what was written counts as unwiped when it is freed.
    let rig = Rig::with(small().poison(false), |b| b.on_integrity_failure(OnIntegrityFailure::QuarantineShard));
    let bytes = noise(70_000, 4);
    let (earlier, shard) = (rig.seal("earlier", &noise(3000, 5)), rig.seal("shard", &bytes));
    rig.order(fault);
    let outcome = run(&rig, &shard, &bytes, during);
    let what = format!("{fault:?} during {during:?}: {outcome:?}");
    let (used, live) = (rig.manager.used_vram(), rig.config.stats().live_bytes);
    violations.unless(used == live, || format!("the ledger has {used}, the driver {live}: {what}"));
    assert!(!matches!(outcome, Err(VramError::IntegrityFailure { .. })), "{what}");
    if rig.controls().clear_faults().is_err() {
        let state = rig.manager.state();
        violations.unless(state == LOST, || format!("the device is dead, the manager {state}: {what}"));
        let (executed, ran) = rig.execute(&earlier);
        assert!(!ran && executed.is_err(), "{what}");
        assert!(rig.manager.verify_sealed(&earlier).is_err(), "nothing verifies on a dead device: {what}");
        assert_eq!(rig.manager.state(), LOST, "{what}");
        let (stats, _) = rig.close();
        assert_eq!(stats.unwiped_bytes_freed, 0, "{what}");
        return outcome.is_err();
    }
    // A transient failure is nobody's verdict about memory.
    assert_eq!(rig.manager.state(), ManagerState::Ready, "{what}");
    assert!(matches!(rig.execute(&earlier), (Ok(()), true)), "{what}");
    let allocated = !rig.sink.names().contains(&"vram_allocation_failed");
    let (stats, _) = rig.close();
    assert_eq!((stats.live_streams, stats.live_events, stats.live_host_buffers), (0, 0, 0), "{what}");
    let left = stats.live_bytes;
    violations.unless(left == 0, || format!("{left} bytes are left when the manager is gone: {what}"));
    if allocated {
        assert_eq!(stats.unwiped_bytes_freed, 0, "{what}");
    }
    outcome.is_err()
}

#[test]
fn the_nth_call_of_any_kind_may_fail() {
    // covers: RES-6 SEAL-1 SCR-2 ERR-1
    let mut violations = Violations::default();
    let mut failed = std::collections::BTreeMap::new();
    for call in CALLS {
        if matches!(call, MockCall::Free) {
            continue; // below: it is no failure of the operation
        }
        for during in OPERATIONS {
            for nth in 1..=40 {
                let error = nth_call(Fault::call(call).nth(nth), during, &mut violations);
                *failed.entry(format!("{call:?} during {during:?}")).or_insert(0) += u32::from(error);
            }
        }
    }
    violations.assert_none();
    // The faults did hit: sealing uses almost every call, a check and a wipe their own.
    for (key, least) in [
        ("Alloc during Seal", 2),
        ("Residency during Seal", 2),
        ("CopyToDevice during Seal", 1),
        ("Digest during Seal", 1),
        ("HostAlloc during Seal", 2),
        ("MemoryInfo during Seal", 1),
        ("Digest during Execute", 1),
        ("CopyToHost during Execute", 2),
        ("Fill during Release", 2),
        ("CountNonzero during Release", 2),
    ] {
        assert!(failed.get(key).is_some_and(|count| *count >= least), "{key}: {failed:?}");
    }
}

#[test]
fn memory_that_cannot_be_freed_stays_counted() {
    // covers: RES-5 SCR-2
    let mut violations = Violations::default();
    for during in OPERATIONS {
        for nth in 1..=3 {
            nth_call(Fault::call(MockCall::Free).nth(nth), during, &mut violations);
        }
    }
    violations.assert_none();
}

#[test]
fn a_device_that_dies_at_any_call_stops_the_manager() {
    // covers: SCR-3 VER-5
    let (mut died, mut violations) = (0, Violations::default());
    for during in OPERATIONS {
        for nth in 1..=40 {
            died += u32::from(nth_call(Fault::Sticky.nth(nth), during, &mut violations));
        }
    }
    assert!(died >= 20, "{died}");
    violations.assert_none();
}

#[test]
fn wipe_impossible_is_said_so() {
    // covers: SCR-3
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(9000, 1));
    let used = rig.manager.used_vram();
    rig.order(Fault::Sticky);
    assert!(matches!(rig.execute(&shard), (Err(VramError::Device(_)), false)));
    assert_eq!(rig.manager.state(), LOST);
    assert_error!(rig.manager.release(&shard), VramError::WipeFailed { source: Some(_), .. });
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (used, used));
    let kept = said!(rig, EventKind::ShardQuarantined { bytes, cause, .. } => (bytes, cause));
    assert_eq!((kept, rig.count("manager_stopped")), (vec![(used, QuarantineCause::WipeImpossible)], 1));
    let (stats, _) = rig.close();
    assert_eq!((stats.live_bytes, stats.unwiped_bytes_freed), (used, 0));
}

#[test]
fn a_lost_device_is_noticed_where_a_check_would_follow_a_stream() {
    // covers: ERR-3 VER-10
    for after_a_dropped_one in [false, true] {
        let rig = Rig::new();
        let shard = rig.seal("one", &noise(5000, 1));
        let stream = rig.stream();
        if after_a_dropped_one {
            drop(rig.manager.begin(&shard, on(&stream)).unwrap());
        }
        rig.order(Fault::Sticky);
        // Whether its event or that of the dropped one is asked first.
        match rig.manager.begin(&shard, on(&stream)).map(drop) {
            Err(VramError::ManagerStopped { .. }) => assert!(after_a_dropped_one),
            Err(VramError::Device(_)) => assert!(!after_a_dropped_one),
            other => panic!("{other:?}"),
        }
        assert_eq!((rig.manager.state(), rig.event("manager_stopped").severity), (LOST, Severity::Critical));
    }
    // Asking how much is free is enough.
    let rig = Rig::new();
    rig.order(Fault::Sticky);
    assert!(rig.manager.memory_info().is_err());
    assert_eq!(rig.manager.state(), LOST);
}

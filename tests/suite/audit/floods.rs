//! Whoever makes many calls that come to nothing: events are rare, counts exact, and no name is said that was not authenticated.

use std::collections::HashMap;

use super::*;

/// Calls of each kind.
const MANY: u64 = 1000;

/// So many calls were counted of each kind of limited event, by few events, and there are no others.
#[track_caller]
fn assert_rare(events: &[AuditEvent], expected: &[(&str, u64)]) {
    let mut tally: HashMap<_, (u64, u64)> = HashMap::new();
    for event in events {
        if let EventKind::SealRefused { suppressed, .. }
        | EventKind::SealVerificationFailed { suppressed, .. }
        | EventKind::ExecuteRefused { suppressed, .. }
        | EventKind::VramSealFailed { suppressed, .. }
        | EventKind::OperationFailed { suppressed, .. }
        | EventKind::PolicyViolation { suppressed, .. }
        | EventKind::VramAllocationFailed { suppressed, .. } = &event.kind
        {
            let (said, calls) = tally.entry(event.kind.name()).or_default();
            (*said, *calls) = (*said + 1, *calls + 1 + suppressed);
        }
    }
    assert_eq!(tally.len(), expected.len(), "{tally:?}");
    for (name, calls) in expected {
        let (said, counted) = tally[name];
        assert_eq!(counted, *calls, "{name}");
        assert!(said < 200, "{said} events of {name}");
    }
    assert!(events.iter().all(|event| !event.to_json_line().contains("payroll")), "a forged seal's claim is said");
}

/// A well-formed seal of somebody else's, with a name that he chose.
fn foreign() -> SealedShard {
    Rig::new().seal("payroll-model", &noise(100, 1))
}

#[test]
fn forged_seals_are_limited_counted_and_not_named_by_any_call_in_every_state() {
    // covers: SEAL-4 AUD-1
    let forged = foreign();
    type Call = fn(&Rig, &SealedShard) -> bool;
    let calls: [Call; 8] = [
        |rig, seal| rig.manager.begin(seal, ExecuteOptions::default()).is_err(),
        |rig, seal| rig.manager.verify_sealed(seal).is_err(),
        |rig, seal| rig.manager.compute_vram_digest(seal).is_err(),
        |rig, seal| rig.manager.difference(seal, ShardSource::reader(100, never())).is_err(),
        |rig, seal| rig.manager.release(seal).is_err(),
        |rig, seal| rig.manager.reseal(seal).is_err(),
        |rig, seal| rig.manager.open_seal(&seal.to_bytes()).is_err(),
        |rig, seal| SealedSet::check(&[(&*rig.manager, seal)]).is_err(),
    ];
    for (stopped, call) in calls.into_iter().flat_map(|call| [(false, call), (true, call)]) {
        let rig = Rig::new();
        if stopped {
            rig.manager.shutdown(Duration::ZERO);
        }
        (0..MANY / 2).for_each(|_| assert!(call(&rig, &forged)));
        assert_rare(&rig.close_clean(), &[("seal_refused", MANY / 2)]);
    }
}

#[test]
fn what_is_authentic_and_refused_all_the_same_is_limited_too() {
    // covers: SEAL-4 AUD-1 DIG-6
    let rig = Rig::of(Policy::development().require_verify_after(true));
    let manager = &*rig.manager;
    let shard = rig.seal("one", &noise(100, 1));
    let refuse = |call: &dyn Fn() -> Result<(), VramError>| (0..MANY).for_each(|_| drop(call().unwrap_err()));
    let begin = |options| manager.begin(&shard, options).map(drop);
    refuse(&|| begin(ExecuteOptions::default().verify_after(false)));
    refuse(&|| manager.allocate_scratch(Purpose::KvCache, 1 << 40).map(drop));
    let wrong = || spec("wrong").expect(Expectation::Sha256([7; 32]));
    refuse(&|| manager.seal_model(wrong(), ShardSource::bytes(&[1; 10])).map(drop));
    // What is found first is always said.
    rig.flip(&shard, 5);
    let mark = rig.mark();
    assert!(manager.execute(&shard, |_| ()).is_err());
    let found = ["seal_verification_failed", "shard_quarantined", "manager_stopped"];
    assert!(found.iter().all(|name| rig.names_since(mark).contains(name)));
    refuse(&|| begin(ExecuteOptions::default()));
    refuse(&|| manager.reseal(&shard).map(drop));
    refuse(&|| manager.release_by_id(&name("another")).map(drop));
    let expected = [
        ("policy_violation", MANY),
        ("vram_allocation_failed", MANY),
        ("seal_verification_failed", MANY + 1),
        ("vram_seal_failed", 2 * MANY),
        ("execute_refused", 2 * MANY + 1),
        ("operation_failed", MANY),
    ];
    assert_rare(&rig.close_clean(), &expected);
}

#[test]
fn a_batch_that_is_refused_leaves_one_event() {
    // covers: SEAL-4 AUD-1 VER-7
    let rig = Rig::new();
    let (shard, other, forged) = (rig.seal("one", &[1; 100]), rig.seal("two", &[2; 100]), foreign());
    let batch = |first: &[&SealedShard], rest: &SealedShard| {
        let seals: Vec<_> = first.iter().copied().chain(std::iter::repeat_n(rest, 1000)).collect();
        rig.events_of(|| drop(rig.manager.begin_all(&seals, ExecuteOptions::default()).map(drop).unwrap_err()))
    };
    assert_eq!(batch(&[], &forged), ["seal_refused"]);
    assert_eq!(batch(&[&shard, &shard], &forged), ["seal_refused"]);
    assert_eq!(batch(&[&other], &shard), ["execute_refused"]);
    rig.flip(&other, 1);
    let mark = rig.mark();
    assert!(rig.manager.begin_all(&[&shard, &other], ExecuteOptions::default()).is_err());
    assert_eq!(rig.names_since(mark).iter().filter(|name| **name == "execute_refused").count(), 1);
    let refused = said!(rig, EventKind::ExecuteRefused { shard, .. } => shard);
    assert_eq!(refused.last(), Some(other.id()));
    assert_eq!(batch(&[&shard], &other), ["execute_refused"], "stopped");
    rig.close_clean();
}

#[test]
fn a_quarantined_seal_that_is_presented_again_pages_nobody() {
    // covers: SEAL-4 AUD-1 VER-5
    let rig = Rig::lenient();
    let (shard, good) = rig.two();
    rig.flip(&shard, 1);
    assert!(rig.execute(&shard).0.is_err());
    let mark = rig.mark();
    for _ in 0..MANY {
        assert!(rig.execute(&shard).0.is_err());
        assert!(rig.manager.verify_sealed(&shard).is_err());
        assert!(rig.manager.reseal(&shard).is_err());
    }
    // A new find among all that is said at once, and is critical.
    rig.flip(&good, 1);
    let before = rig.mark();
    assert!(rig.manager.verify_sealed(&good).is_err());
    let found = &rig.sink.events()[before];
    assert_eq!((found.severity, found.kind.shard()), (Severity::Critical, Some(good.id())));
    let events = rig.close_clean().split_off(mark);
    let critical = events.iter().filter(|event| event.severity == Severity::Critical);
    assert_eq!(critical.count(), 2, "seal_verification_failed and shard_quarantined of the second shard, no more");
    let first = events.iter().find(|event| event.kind.name() == "seal_verification_failed").unwrap();
    let EventKind::SealVerificationFailed { reason, suppressed, .. } = first.kind else { panic!() };
    assert_eq!((reason, suppressed), (VerificationFailure::Quarantined, 0), "the first repetition is said");
    let expected = [("seal_verification_failed", 3 * MANY + 1), ("execute_refused", MANY), ("vram_seal_failed", MANY)];
    assert_rare(&events, &expected);
}

#[test]
fn counts_survive_what_a_sink_does_not_take() {
    // covers: SEAL-4 AUD-1 AUD-5
    let (poor, forged) = (Arc::new(MemorySink::default()), foreign());
    let rig = Rig::with(small(), |builder| builder.audit(poor.clone()));
    let refused = |count: u64| (0..count).for_each(|_| assert!(rig.manager.verify_sealed(&forged).is_err()));
    refused(1000);
    thread::sleep(Duration::from_millis(150));
    poor.fail_next(1);
    refused(1); // speaks of nearly all of them, to one sink only
    rig.manager.release(&rig.seal("one", &[1; 100])).unwrap();
    for events in [rig.close_clean(), poor.events()] {
        assert_rare(&events, &[("seal_refused", 1001)]);
    }
}

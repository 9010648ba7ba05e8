//! Whoever makes many calls that come to nothing: events are rare, counts exact, and no name is said that was not authenticated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use vram_residency::{
    AuditEvent, EventKind, ExecuteOptions, Expectation, MemorySink, Policy, Purpose, SealedSet, SealedShard, Severity,
    ShardSource, VerificationFailure, VramError,
};

use crate::support::{self, Rig, assert_contiguous, noise, small, spec};

/// Calls of each kind.
const MANY: u64 = 3000;

/// What the limited events of each kind say: how many events, and how many calls.
fn tally(events: &[AuditEvent]) -> HashMap<&'static str, (u64, u64)> {
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
    tally
}

/// So many calls were counted of each kind, by few events, and there are no others.
#[track_caller]
fn assert_rare(events: &[AuditEvent], expected: &[(&str, u64)]) {
    let tally = tally(events);
    assert_eq!(tally.len(), expected.len(), "{tally:?}");
    for (name, calls) in expected {
        let (said, counted) = tally[name];
        assert_eq!(counted, *calls, "{name}");
        assert!(said < 300, "{said} events of {name}");
    }
}

fn begin(rig: &Rig, shard: &SealedShard) {
    assert!(rig.manager.begin(shard, ExecuteOptions::default()).is_err());
}

/// A well-formed seal of somebody else's, with a name that he chose.
fn foreign() -> SealedShard {
    Rig::new().seal("payroll-model", &noise(100, 1))
}

#[test]
fn forged_seals_are_limited_counted_and_not_named_in_every_state() {
    // covers: SEAL-4 AUD-1
    let forged = foreign();
    type Call = fn(&Rig, &SealedShard) -> bool;
    let calls: [Call; 7] = [
        |rig, seal| rig.manager.begin(seal, ExecuteOptions::default()).is_err(),
        |rig, seal| rig.manager.verify_sealed(seal).is_err(),
        |rig, seal| rig.manager.compute_vram_digest(seal).is_err(),
        |rig, seal| rig.manager.release(seal).is_err(),
        |rig, seal| rig.manager.reseal(seal).is_err(),
        |rig, seal| rig.manager.open_seal(&seal.to_bytes()).is_err(),
        |rig, seal| SealedSet::check(&[(&*rig.manager, seal)]).is_err(),
    ];
    let stopped = |rig: &Rig| assert!(rig.manager.shutdown(Duration::ZERO).drained);
    let states: [fn(&Rig); 2] = [|_| {}, stopped];
    for reach in states {
        for call in calls {
            let rig = Rig::new();
            reach(&rig);
            (0..MANY / 6).for_each(|_| assert!(call(&rig, &forged)));
            let (_, events) = rig.close();
            assert_rare(&events, &[("seal_refused", MANY / 6)]);
            assert!(
                events.iter().all(|event| !event.to_json_line().contains("payroll")),
                "a forged seal's claim is said"
            );
            assert_contiguous(&events);
        }
    }
}

#[test]
fn authentic_seals_on_a_stopped_manager_are_limited_too() {
    // covers: SEAL-4 AUD-1
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(100, 1));
    rig.manager.shutdown(Duration::ZERO);
    for _ in 0..MANY {
        begin(&rig, &shard);
        assert!(matches!(rig.manager.reseal(&shard), Err(VramError::ManagerStopped { .. })));
        assert!(rig.manager.release_by_id(shard.id()).is_err());
    }
    let (_, events) = rig.close();
    assert_rare(&events, &[("execute_refused", MANY), ("vram_seal_failed", MANY), ("operation_failed", MANY)]);
}

#[test]
fn what_is_not_expected_not_allowed_or_too_large_is_limited_too() {
    // covers: AUD-1 DIG-6
    let policy = Policy::development().require_verify_after(true);
    let rig = Rig::with(small(), |builder| builder.policy(policy));
    let shard = rig.seal("one", &noise(100, 1));
    let wrong = Expectation::Sha256([7; 32]);
    for _ in 0..MANY {
        let sealed = rig.manager.seal_model(spec("wrong").expect(wrong.clone()), ShardSource::bytes(&[1; 10]));
        assert!(matches!(sealed, Err(VramError::DigestMismatch { .. })));
        let less = rig.manager.begin(&shard, ExecuteOptions::default().verify_after(false));
        assert!(matches!(less, Err(VramError::PolicyViolation { .. })));
        assert!(matches!(rig.manager.allocate_scratch(Purpose::KvCache, 1 << 40), Err(VramError::OutOfMemory { .. })));
    }
    rig.flip(&shard, 5);
    assert!(rig.manager.execute(&shard, |_| ()).is_err());
    let (_, events) = rig.close();
    let found = |event: &&AuditEvent| {
        let name = event.kind.name();
        event.kind.shard() == Some(shard.id()) && ["seal_verification_failed", "shard_quarantined"].contains(&name)
    };
    assert_eq!(events.iter().filter(found).count(), 2, "what is found first is always said");
    let others: Vec<_> = events.iter().filter(|event| !found(event)).cloned().collect();
    let tally = tally(&others);
    for name in ["seal_verification_failed", "policy_violation", "vram_allocation_failed"] {
        assert!(tally[name].0 < 300 && tally[name].1 == MANY, "{name}: {:?}", tally[name]);
    }
    let critical = others.iter().filter(|event| event.severity == Severity::Critical).count();
    assert!(critical < 600, "{critical}");
}

#[test]
fn a_batch_that_is_refused_leaves_one_event() {
    // covers: SEAL-4 AUD-1 VER-7
    let rig = Rig::new();
    let (shard, other, forged) = (rig.seal("one", &[1; 100]), rig.seal("two", &[2; 100]), foreign());
    let batch = |first: &[&SealedShard], rest: &SealedShard| {
        let mark = rig.mark();
        let seals: Vec<_> = first.iter().copied().chain(std::iter::repeat_n(rest, 1000)).collect();
        assert!(rig.manager.begin_all(&seals, ExecuteOptions::default()).is_err());
        rig.names_since(mark)
    };
    assert_eq!(batch(&[], &forged), ["seal_refused"]);
    assert_eq!(batch(&[&shard, &shard], &forged), ["seal_refused"]);
    assert_eq!(batch(&[&other], &shard), ["execute_refused"]);
    rig.flip(&other, 1);
    let mark = rig.mark();
    assert!(rig.manager.begin_all(&[&shard, &other], ExecuteOptions::default()).is_err());
    assert_eq!(rig.names_since(mark).iter().filter(|name| **name == "execute_refused").count(), 1);
    let refused = rig.sink.events().pop().unwrap().kind;
    assert!(matches!(&refused, EventKind::ExecuteRefused { shard, .. } if shard == other.id()), "{refused:?}");
    assert_eq!(batch(&[&shard], &other), ["execute_refused"], "stopped");
    let events = rig.close_clean();
    assert!(events.iter().all(|event| !event.to_json_line().contains("payroll")));
}

#[test]
fn a_quarantined_seal_that_is_presented_again_pages_nobody() {
    // covers: SEAL-4 AUD-1 VER-5
    let rig = Rig::lenient();
    let (shard, good) = (rig.seal("one", &noise(5000, 1)), rig.seal("two", &noise(5000, 2)));
    rig.flip(&shard, 1);
    begin(&rig, &shard);
    let mark = rig.mark();
    for _ in 0..MANY {
        begin(&rig, &shard);
        assert!(rig.manager.verify_sealed(&shard).is_err());
        assert!(rig.manager.reseal(&shard).is_err());
    }
    // A new find among all that is said at once, and is critical.
    rig.flip(&good, 1);
    let before = rig.mark();
    assert!(rig.manager.verify_sealed(&good).is_err());
    let found = rig.sink.events().split_off(before);
    assert_eq!(found[0].severity, Severity::Critical);
    assert!(matches!(&found[0].kind, EventKind::SealVerificationFailed { shard, .. } if shard == good.id()));
    let (_, events) = rig.close();
    let critical = events[mark..].iter().filter(|event| event.severity == Severity::Critical);
    assert_eq!(critical.count(), 2, "seal_verification_failed and shard_quarantined of the second shard, no more");
    let first = events[mark..].iter().find(|event| event.kind.name() == "seal_verification_failed").unwrap();
    let EventKind::SealVerificationFailed { reason, suppressed, .. } = first.kind else { panic!() };
    assert_eq!((reason, suppressed), (VerificationFailure::Quarantined, 0), "the first repetition is said");
    let expected = [("seal_verification_failed", 3 * MANY + 1), ("execute_refused", MANY), ("vram_seal_failed", MANY)];
    assert_rare(&events[mark..], &expected);
}

#[test]
fn counts_survive_what_a_sink_does_not_take() {
    // covers: SEAL-4 AUD-1 AUD-5
    let (config, forged) = (small(), foreign());
    let (poor, good) = (Arc::new(MemorySink::default()), Arc::new(MemorySink::default()));
    let manager = support::builder(&config).audit(poor.clone()).audit(good.clone()).build().unwrap();
    let shard = manager.seal_model(spec("one"), ShardSource::bytes(&[1; 100])).unwrap();
    let refused = |count: u64| (0..count).for_each(|_| assert!(manager.verify_sealed(&forged).is_err()));
    refused(1000);
    std::thread::sleep(Duration::from_millis(150));
    poor.fail_next(1);
    refused(1); // speaks of nearly all of them, to one sink only
    manager.release(&shard).unwrap();
    drop(manager);
    for sink in [poor, good.clone()] {
        assert_rare(&sink.events(), &[("seal_refused", 1001)]);
    }
    assert_contiguous(&good.events());
}

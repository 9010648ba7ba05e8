//! Several shards in one batch, and checks after the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vram_residency::{
    Ack, AuditError, AuditEvent, AuditRequirement, AuditSink, EventKind, ExecuteOutcome, Execution, Fault,
    ManagerState, MemorySink, MockCall, Policy, SealedShard, ShardSource, VramError,
};

use crate::support::{self, Rig, noise};
use crate::{assert_error, options, outcomes};

#[test]
fn a_batch_begins_all_in_order_with_one_launch_each() {
    // covers: VER-7 VER-12
    let rig = Rig::new();
    let shards: Vec<SealedShard> = (0..5).map(|at| rig.seal(&format!("s{at}"), &noise(1000 + at, 7))).collect();
    let order = [3, 0, 4, 1, 2];
    let wanted: Vec<&SealedShard> = order.iter().map(|at| &shards[*at]).collect();
    let digests = rig.digests();
    let guards = rig.manager.begin_all(&wanted, options()).unwrap();
    assert_eq!(rig.digests() - digests, 5);
    for (guard, shard) in guards.iter().zip(&wanted) {
        assert_eq!((&guard.verification().shard, guard.byte_len()), (shard.id(), shard.byte_len()));
        assert_eq!(guard.verification().digest, shard.digest());
    }
    for shard in &shards {
        assert_error!(rig.manager.release(shard), VramError::ShardBusy { .. });
    }
    for guard in guards {
        guard.finish().unwrap();
    }
    shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
    assert!(rig.manager.begin_all(&[], options()).unwrap().is_empty());
    rig.close_clean();
}

#[test]
fn when_one_of_a_batch_fails_none_begins_and_no_pin_stays() {
    // covers: VER-7 VER-5
    for flipped in 0..4 {
        let rig = Rig::lenient();
        let shards: Vec<SealedShard> = (0..4).map(|at| rig.seal(&format!("s{at}"), &noise(3000, at))).collect();
        let wanted: Vec<&SealedShard> = shards.iter().rev().collect();
        rig.flip(&shards[flipped], 2999);
        let error = rig.manager.begin_all(&wanted, options()).unwrap_err();
        assert!(
            matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == shards[flipped].id()),
            "{error}"
        );
        assert_eq!((rig.count("execute_started"), rig.count("execute_refused")), (0, 1));
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        // The twin: without the changed one, the others begin.
        let others: Vec<&SealedShard> = wanted.into_iter().filter(|shard| shard.id() != shards[flipped].id()).collect();
        for guard in rig.manager.begin_all(&others, options()).unwrap() {
            guard.finish().unwrap();
        }
        shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
        assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
        rig.close_clean();
    }
}

#[test]
fn when_one_check_of_a_batch_is_not_proven_none_begins() {
    // covers: VER-7 VER-11
    for fault in [Fault::call(MockCall::Digest), Fault::DigestSkipped] {
        for nth in 1..=3 {
            let rig = Rig::new();
            let shards: Vec<SealedShard> = (0..3).map(|at| rig.seal(&format!("s{at}"), &noise(3000, at))).collect();
            let wanted: Vec<&SealedShard> = shards.iter().collect();
            rig.order(fault.nth(nth));
            let error = rig.manager.begin_all(&wanted, options()).unwrap_err();
            assert!(matches!(error, VramError::Device(_) | VramError::DeviceUntrusted { .. }), "{nth}: {error:?}");
            assert_eq!((rig.count("execute_started"), rig.count("execute_refused")), (0, 1));
            shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
            rig.close_clean();
        }
    }
}

#[test]
fn every_changed_shard_of_a_batch_is_quarantined() {
    // covers: VER-7 VER-5
    let rig = Rig::lenient();
    let shards: Vec<SealedShard> = (0..4).map(|at| rig.seal(&format!("s{at}"), &noise(3000, at))).collect();
    rig.flip(&shards[1], 0);
    rig.flip(&shards[3], 0);
    let error = rig.manager.begin_all(&shards.iter().collect::<Vec<_>>(), options()).unwrap_err();
    assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == shards[1].id()), "{error}");
    assert_eq!(rig.count("shard_quarantined"), 2);
    rig.flip(&shards[3], 0); // the bytes are right again, which does not bring the shard back
    assert_error!(rig.manager.execute(&shards[3], |_| ()), VramError::IntegrityFailure { .. });
    rig.manager.execute(&shards[0], |_| ()).unwrap();
    rig.close_clean();
}

#[test]
fn a_batch_with_a_refused_a_stale_or_a_doubled_part_begins_nothing() {
    // covers: VER-7 SEAL-4
    let rig = Rig::new();
    let (a, b) = (rig.seal("a", &[1; 2000]), rig.seal("b", &[2; 2000]));
    let stale = rig.seal("c", &[3; 2000]);
    rig.manager.release(&stale).unwrap();
    let stranger = Rig::new().seal("d", &[4; 2000]);
    let digests = rig.digests();
    let begin = |shards: &[&SealedShard]| rig.manager.begin_all(shards, options()).map(drop);
    assert_error!(begin(&[&a, &b, &a]), VramError::InvalidParams { field: "shards", .. });
    assert_error!(begin(&[&a, &a]), VramError::InvalidParams { field: "shards", .. });
    assert_error!(begin(&[&a, &stale, &b]), VramError::StaleHandle { .. });
    assert_error!(begin(&[&a, &b, &stranger]), VramError::SealRefused { .. });
    assert_eq!((rig.digests(), rig.count("execute_started")), (digests, 0));
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    begin(&[&a, &b]).unwrap();
    rig.manager.release(&a).unwrap();
    rig.manager.release(&b).unwrap();
    rig.close_clean();
}

/// Durable by its own word, and refuses the second `execute_started`.
#[derive(Default)]
struct RefusesTheSecond {
    kept: MemorySink,
    started: AtomicU64,
}

impl AuditSink for RefusesTheSecond {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        let starts = matches!(event.kind, EventKind::ExecuteStarted { .. });
        if starts && self.started.fetch_add(1, Ordering::SeqCst) == 1 {
            return Err(AuditError { problem: "the disk is full".to_owned(), source: None });
        }
        self.kept.record(event).map(|_| Ack::Durable)
    }
}

#[test]
fn a_batch_whose_trail_fails_half_way_leaves_no_guard() {
    // covers: VER-7 AUD-5
    let (config, sink) = (support::small(), Arc::new(RefusesTheSecond::default()));
    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let manager = support::builder(&config).policy(policy).audit(sink.clone()).build().unwrap();
    let seal = |name: &str| manager.seal_model(support::spec(name), ShardSource::bytes(&[1; 2000])).unwrap();
    let shards = [seal("a"), seal("b"), seal("c")];
    let wanted: Vec<&SealedShard> = shards.iter().collect();
    let mark = sink.kept.names().len();
    assert_error!(manager.begin_all(&wanted, options()).map(drop), VramError::AuditUnavailable { .. });
    let said: Vec<_> = sink.kept.events().split_off(mark);
    let of = |name: &str| -> Vec<&EventKind> {
        said.iter().map(|event| &event.kind).filter(|kind| kind.name() == name).collect()
    };
    // The first began, was told of, and was given up; of the others no beginning is in the trail.
    let ([EventKind::ExecuteStarted { shard: began, .. }], [EventKind::ExecuteFinished { shard: ended, outcome, .. }]) =
        (&of("execute_started")[..], &of("execute_finished")[..])
    else {
        panic!("{said:?}")
    };
    assert_eq!((began, ended, *outcome), (shards[0].id(), shards[0].id(), ExecuteOutcome::Abandoned));
    assert_eq!(of("execute_refused").len(), 1, "the batch was refused");
    // No pin stays: the twin begins and ends, and each is released.
    assert_eq!(manager.state(), ManagerState::Ready);
    for guard in manager.begin_all(&wanted, options()).unwrap() {
        guard.finish().unwrap();
    }
    shards.iter().for_each(|shard| drop(manager.release(shard).unwrap()));
    assert_eq!(manager.used_vram(), 0);
    drop(manager);
    support::assert_clean(&config.stats());
    support::assert_paired(&sink.kept.events());
}

#[test]
fn a_bracket_discards_the_result_of_work_over_bytes_that_changed() {
    // covers: VER-6
    for batch in [false, true] {
        let rig = Rig::lenient();
        let (a, b) = (rig.seal("a", &noise(9000, 1)), rig.seal("b", &noise(9000, 2)));
        let begin = |bracket| -> Vec<Execution<'_>> {
            let options = options().verify_after(bracket);
            if batch {
                rig.manager.begin_all(&[&a, &b], options).unwrap()
            } else {
                vec![rig.manager.begin(&a, options.clone()).unwrap(), rig.manager.begin(&b, options).unwrap()]
            }
        };
        // The twin: nothing changes.
        let digests = rig.digests();
        begin(true).into_iter().for_each(|guard| drop(guard.finish().unwrap()));
        assert_eq!(rig.digests() - digests, 4, "each was checked before and after");
        let digests = rig.digests();
        begin(false).into_iter().for_each(|guard| drop(guard.finish().unwrap()));
        assert_eq!(rig.digests() - digests, 2, "without a bracket only before");
        // The change.
        let mut guards = begin(true);
        rig.flip(&b, 8999);
        let of_b = guards.pop().unwrap();
        assert_error!(of_b.finish(), VramError::IntegrityFailure { .. });
        guards.pop().unwrap().finish().unwrap();
        let outcomes = outcomes(&rig);
        assert_eq!(outcomes[outcomes.len() - 2..], [ExecuteOutcome::Discarded, ExecuteOutcome::Finished]);
        rig.manager.release(&a).unwrap();
        rig.manager.release(&b).unwrap();
        rig.close_clean();
    }
}

#[test]
fn a_bracket_that_the_device_cannot_make_discards_too() {
    // covers: VER-6 VER-11
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(9000, 1));
    let guard = rig.manager.begin(&shard, options().verify_after(true)).unwrap();
    rig.config.fail(Fault::call(MockCall::Digest)).unwrap();
    assert_error!(guard.finish(), VramError::Device(_));
    let guard = rig.manager.begin(&shard, options().verify_after(true)).unwrap();
    rig.config.fail(Fault::DigestSkipped).unwrap();
    assert_error!(guard.finish(), VramError::DeviceUntrusted { .. });
    assert_eq!(outcomes(&rig), [ExecuteOutcome::Discarded; 2]);
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

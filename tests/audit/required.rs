//! What happens when the trail itself fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vram_residency::{
    Ack, AuditError, AuditEvent, AuditRequirement, AuditSink, ErrorCode, ManagerState, MemorySink, Policy, StopReason,
    VramError,
};

use crate::support::{self, Rig, assert_clean, assert_contiguous, noise, small};

/// What is called for each sink that does not take events.
fn without_a_trail(rig: &Rig, break_it: impl FnOnce(), mend_it: impl FnOnce()) {
    let (one, two) = (noise(5000, 1), noise(6000, 2));
    let (shard, other) = (rig.seal("one", &one), rig.seal("two", &two));
    let used = rig.manager.used_vram();
    break_it();
    // Permissive steps are not taken.
    let error = rig.try_seal("three", &one).unwrap_err();
    assert!(matches!(&error, VramError::AuditUnavailable { event: "vram_sealed", .. }), "{error:?}");
    assert_eq!((error.code(), error.is_retriable()), (ErrorCode::AuditUnavailable, true));
    assert_eq!(rig.manager.used_vram(), used, "what was loaded is wiped and given back");
    rig.assert_recount();
    let (outcome, ran) = rig.execute(&shard);
    let error = outcome.unwrap_err();
    assert!(!ran && matches!(&error, VramError::AuditUnavailable { event: "execute_started", .. }), "{error:?}");
    // Protective steps and evidence wait for nobody.
    rig.manager.verify_sealed(&shard).unwrap();
    assert_eq!(rig.manager.compute_vram_digest(&shard).unwrap(), shard.digest());
    rig.manager.release(&other).unwrap();
    assert!(rig.manager.used_vram() < used);
    rig.flip_bit(&shard, 0, 0);
    assert!(matches!(rig.manager.verify_sealed(&shard), Err(VramError::IntegrityFailure { .. })));
    assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
    rig.manager.release(&shard).unwrap();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    rig.assert_recount();
    mend_it();
}

#[test]
fn a_required_trail_that_fails_permits_nothing_and_hinders_no_protection() {
    // covers: AUD-5 VER-5 SCR-1
    let rig = Rig::audited();
    without_a_trail(&rig, || rig.sink.failing(true), || rig.sink.failing(false));
    let (stats, _) = rig.close();
    assert_clean(&stats);
}

#[test]
fn a_failed_event_fails_only_its_own_step() {
    // covers: AUD-5
    let rig = Rig::audited();
    let shard = rig.seal("one", &noise(5000, 1));
    for _ in 0..3 {
        // seal_verified, execute_started
        rig.sink.fail_next(2);
        assert!(matches!(rig.execute(&shard), (Err(VramError::AuditUnavailable { .. }), false)));
        assert!(matches!(rig.execute(&shard), (Ok(()), true)), "the next one is taken again");
    }
    // What does not permit anything may be lost: the check's own event, and the end's.
    rig.sink.fail_next(1);
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    rig.manager.release(&shard).unwrap();
    let (stats, events) = rig.close();
    assert_clean(&stats);
    let gaps = events.windows(2).filter(|pair| pair[1].sequence != pair[0].sequence + 1).count();
    assert!(gaps > 0, "lost events leave gaps in the sequence, which tells");
}

#[test]
fn without_the_requirement_a_failing_sink_hinders_nothing() {
    // covers: AUD-5
    let rig = Rig::new();
    rig.sink.failing(true);
    let shard = rig.seal("one", &noise(5000, 1));
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    rig.manager.release(&shard).unwrap();
    rig.sink.failing(false);
    let (stats, events) = rig.close();
    assert_clean(&stats);
    assert_eq!(events.last().unwrap().sequence, events.len() as u64 + 7, "every event had its number");
}

/// Panics from the `from`th event on.
struct Panics {
    from: u64,
    seen: AtomicU64,
}

impl AuditSink for Panics {
    fn record(&self, _: &AuditEvent) -> Result<Ack, AuditError> {
        let seen = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(seen < self.from, "the sink is broken");
        Ok(Ack::Durable)
    }
}

#[test]
fn a_sink_that_panics_fails_closed_and_breaks_nothing() {
    // covers: AUD-5 ERR-1 SCR-3
    let config = small();
    let panics = Arc::new(Panics { from: 6, seen: AtomicU64::new(0) });
    let beside = Arc::new(MemorySink::default());
    let manager = support::builder(&config)
        .policy(Policy::development().require_audit(AuditRequirement::Durable))
        .audit(panics.clone())
        .audit(beside.clone())
        .build()
        .unwrap();
    let rig = Rig { config, sink: beside, manager: manager.into() };
    // manager_started and twice two events of sealing: from here on it panics.
    without_a_trail(&rig, || {}, || {});
    let (stats, events) = rig.close();
    assert_clean(&stats);
    assert!(panics.seen.load(Ordering::SeqCst) > 10, "it was asked each time");
    assert_contiguous(&events);
    assert!(events.iter().any(|event| event.kind.name() == "shard_quarantined"), "other sinks got everything");
}

#[test]
fn a_sink_that_is_not_durable_does_not_satisfy_a_durable_policy() {
    // covers: AUD-5
    let policy = || Policy::development().require_audit(AuditRequirement::Durable);
    let plain = Arc::new(MemorySink::default());
    let error = support::builder(&small()).policy(policy()).audit(plain).build().unwrap_err();
    assert!(matches!(error, VramError::AuditUnavailable { event: "manager_started", .. }), "{error:?}");
    // The default sink, tracing, is not durable either.
    let error = support::builder(&small()).policy(policy()).build().unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuditUnavailable);
    // One durable sink beside one that is not: enough. A failing one beside a durable one: not.
    let durable = || Arc::new(MemorySink::claiming_durable());
    let plain = Arc::new(MemorySink::default());
    support::builder(&small()).policy(policy()).audit(durable()).audit(plain.clone()).build().unwrap();
    plain.failing(true);
    let error = support::builder(&small()).policy(policy()).audit(durable()).audit(plain).build().unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuditUnavailable);
    let accepting = Policy::development().require_audit(AuditRequirement::Accepted);
    support::builder(&small()).policy(accepting).audit(Arc::new(MemorySink::default())).build().unwrap();
}

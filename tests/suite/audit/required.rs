//! What happens when the trail itself fails.

use super::*;

/// What is called for each sink that does not take events.
fn without_a_trail(rig: &Rig, break_it: impl FnOnce()) {
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
    assert!(!ran);
    assert_error!(outcome, VramError::AuditUnavailable { event: "execute_started", .. });
    // Protective steps and evidence wait for nobody.
    rig.manager.verify_sealed(&shard).unwrap();
    assert_eq!(rig.manager.compute_vram_digest(&shard).unwrap(), shard.digest());
    rig.manager.release(&other).unwrap();
    assert!(rig.manager.used_vram() < used);
    rig.flip_bit(&shard, 0, 0);
    assert_error!(rig.manager.verify_sealed(&shard), VramError::IntegrityFailure { .. });
    assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
    rig.manager.release(&shard).unwrap();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    rig.assert_recount();
}

#[test]
fn a_required_trail_that_fails_permits_nothing_and_hinders_no_protection() {
    // covers: AUD-5 VER-5 SCR-1
    let rig = Rig::audited();
    without_a_trail(&rig, || rig.sink.failing(true));
    assert_clean(&rig.close().0);
}

#[test]
fn a_sink_that_panics_fails_closed_and_breaks_nothing() {
    // covers: AUD-5 ERR-1 SCR-3
    let seen = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&seen);
    // manager_started and twice two events of sealing: from here on it panics.
    let panics = hook(move |_| {
        assert!(counted.fetch_add(1, Ordering::SeqCst) < 5, "the sink is broken");
        Ok(Ack::Durable)
    });
    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let rig = Rig::with(small(), |builder| builder.policy(policy).audit(panics));
    without_a_trail(&rig, || {});
    let (stats, events) = rig.close();
    assert_clean(&stats);
    assert_contiguous(&events);
    assert!(seen.load(Ordering::SeqCst) > 10, "it was asked each time");
    assert!(events.iter().any(|event| event.kind.name() == "shard_quarantined"), "other sinks got everything");
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
    let (stats, events) = rig.close();
    assert_clean(&stats);
    let gap = |pair: &[AuditEvent]| pair[1].sequence != pair[0].sequence + 1;
    assert!(events.windows(2).any(gap), "lost events leave gaps in the sequence, which tells");
    // Without the requirement a failing sink hinders nothing.
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

#[test]
fn the_sink_of_a_manager_that_was_given_none_is_not_durable() {
    // covers: AUD-5
    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let refused = builder(&small()).policy(policy).build();
    assert_error!(refused, VramError::AuditUnavailable { event: "manager_started", .. });
}

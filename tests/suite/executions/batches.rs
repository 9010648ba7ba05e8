//! Several shards in one batch, and checks after the work.

use super::*;

/// So many shards.
fn several(rig: &Rig, count: u64) -> Vec<SealedShard> {
    (0..count).map(|at| rig.seal(&format!("s{at}"), &noise(3000 + at as usize, at))).collect()
}

#[test]
fn a_batch_begins_all_in_order_with_one_launch_each() {
    // covers: VER-7 VER-12
    let rig = Rig::new();
    let shards = several(&rig, 5);
    let wanted: Vec<&SealedShard> = [3, 0, 4, 1, 2].map(|at| &shards[at]).into();
    let digests = rig.digests();
    let guards = rig.manager.begin_all(&wanted, options()).unwrap();
    assert_eq!(rig.digests() - digests, 5);
    for (guard, shard) in guards.iter().zip(&wanted) {
        assert_eq!((&guard.verification().shard, guard.byte_len()), (shard.id(), shard.byte_len()));
        assert_eq!(guard.verification().digest, shard.digest());
        assert_error!(rig.manager.release(shard), VramError::ShardBusy { .. });
    }
    guards.into_iter().for_each(|guard| drop(guard.finish().unwrap()));
    shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
    assert!(rig.manager.begin_all(&[], options()).unwrap().is_empty());
    rig.close_clean();
}

#[test]
fn when_one_check_of_a_batch_is_not_proven_none_begins() {
    // covers: VER-7 VER-11
    let faults = [Fault::call(MockCall::Digest), Fault::DigestSkipped];
    for (fault, nth) in faults.into_iter().flat_map(|fault| (1..=3).map(move |nth| (fault, nth))) {
        let rig = Rig::new();
        let shards = several(&rig, 3);
        rig.order(fault.nth(nth));
        let error = rig.manager.begin_all(&shards.iter().collect::<Vec<_>>(), options()).unwrap_err();
        assert!(matches!(error, VramError::Device(_) | VramError::DeviceUntrusted { .. }), "{nth}: {error:?}");
        assert_eq!((rig.count("execute_started"), rig.count("execute_refused")), (0, 1));
        shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
        rig.close_clean();
    }
}

#[test]
fn every_changed_shard_of_a_batch_is_quarantined_none_begins_and_no_pin_stays() {
    // covers: VER-7 VER-5
    let rig = Rig::lenient();
    let shards = several(&rig, 4);
    rig.flip(&shards[1], 0);
    rig.flip(&shards[3], 0);
    let error = rig.manager.begin_all(&shards.iter().collect::<Vec<_>>(), options()).unwrap_err();
    assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == shards[1].id()), "{error}");
    let counted = ["shard_quarantined", "execute_started", "execute_refused"].map(|name| rig.count(name));
    assert_eq!(counted, [2, 0, 1]);
    rig.flip(&shards[3], 0); // the bytes are right again, which does not bring the shard back
    assert_error!(rig.manager.execute(&shards[3], |_| ()), VramError::IntegrityFailure { .. });
    // The twin: the others begin.
    for guard in rig.manager.begin_all(&[&shards[2], &shards[0]], options()).unwrap() {
        guard.finish().unwrap();
    }
    shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    rig.close_clean();
}

#[test]
fn a_batch_with_a_refused_a_stale_or_a_doubled_part_begins_nothing() {
    // covers: VER-7 SEAL-4
    let rig = Rig::new();
    let (a, b) = rig.two();
    let stale = rig.seal("c", &[3; 2000]);
    rig.manager.release(&stale).unwrap();
    let stranger = Rig::new().seal("d", &[4; 2000]);
    let digests = rig.digests();
    let begin = |shards: &[&SealedShard]| rig.manager.begin_all(shards, options()).map(drop);
    assert_error!(begin(&[&a, &b, &a]), VramError::InvalidParams { field: "shards", .. });
    assert_error!(begin(&[&a, &stale, &b]), VramError::StaleHandle { .. });
    assert_error!(begin(&[&a, &b, &stranger]), VramError::SealRefused { .. });
    assert_eq!((rig.digests(), rig.count("execute_started")), (digests, 0));
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    begin(&[&a, &b]).unwrap();
    rig.manager.release(&a).unwrap();
    rig.manager.release(&b).unwrap();
    rig.close_clean();
}

#[test]
fn a_batch_whose_trail_fails_half_way_leaves_no_guard() {
    // covers: VER-7 AUD-5
    let started = AtomicU64::new(0);
    // Refuses the second beginning.
    let refuses = hook(move |event| {
        let starts = matches!(event.kind, EventKind::ExecuteStarted { .. });
        if starts && started.fetch_add(1, Ordering::SeqCst) == 1 {
            return Err(AuditError { problem: "the disk is full".to_owned(), source: None });
        }
        Ok(Ack::Durable)
    });
    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let rig = Rig::with(small(), |builder| builder.policy(policy).audit(refuses));
    let shards = several(&rig, 3);
    let wanted: Vec<&SealedShard> = shards.iter().collect();
    assert_error!(rig.manager.begin_all(&wanted, options()).map(drop), VramError::AuditUnavailable { .. });
    // The first began, was told of, and was given up; the second was told to some, and taken back.
    let ended = said!(rig, EventKind::ExecuteFinished { shard, outcome, .. } => (shard, outcome));
    assert!(ended.contains(&(shards[0].id().clone(), ExecuteOutcome::Abandoned)), "{ended:?}");
    assert_eq!(rig.count("execute_refused"), 1, "the batch was refused");
    // No pin stays: the twin begins and ends, and each is released.
    for guard in rig.manager.begin_all(&wanted, options()).unwrap() {
        guard.finish().unwrap();
    }
    shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
    assert_clean(&rig.close().0);
}

#[test]
fn a_bracket_discards_the_result_of_work_over_bytes_that_changed() {
    // covers: VER-6
    for batch in [false, true] {
        let rig = Rig::lenient();
        let (a, b) = rig.two();
        let begin = |bracket| -> Vec<Execution<'_>> {
            let options = options().verify_after(bracket);
            if batch {
                rig.manager.begin_all(&[&a, &b], options).unwrap()
            } else {
                vec![rig.manager.begin(&a, options.clone()).unwrap(), rig.manager.begin(&b, options).unwrap()]
            }
        };
        // The twins: nothing changes; checked before and after, and without a bracket only before.
        for (bracket, checks) in [(true, 4), (false, 2)] {
            let digests = rig.digests();
            begin(bracket).into_iter().for_each(|guard| drop(guard.finish().unwrap()));
            assert_eq!(rig.digests() - digests, checks);
        }
        let mut guards = begin(true);
        rig.flip(&b, 2999);
        let of_b = guards.pop().unwrap();
        assert_error!(of_b.finish(), VramError::IntegrityFailure { .. });
        guards.pop().unwrap().finish().unwrap();
        assert_eq!(rig.outcomes()[4..], [ExecuteOutcome::Discarded, ExecuteOutcome::Finished]);
        rig.manager.release(&a).unwrap();
        rig.manager.release(&b).unwrap();
        rig.close_clean();
    }
}

#[test]
fn a_closing_check_that_the_device_cannot_make_or_prove_discards_too() {
    // covers: VER-6 VER-15 VER-11
    for (fault, renew) in
        [Fault::call(MockCall::Digest), Fault::DigestSkipped].into_iter().flat_map(|it| [(it, false), (it, true)])
    {
        let rig = Rig::new();
        let shard = rig.seal("a", &noise(9000, 1));
        let guard = rig.manager.begin(&shard, options().verify_after(true)).unwrap().renew().unwrap();
        rig.order(fault);
        let ended = if renew { guard.renew().map(drop) } else { guard.finish().map(drop) };
        assert_error!(ended, VramError::Device(_) | VramError::DeviceUntrusted { .. });
        assert_eq!(rig.outcomes(), [ExecuteOutcome::Finished, ExecuteOutcome::Discarded]);
        rig.manager.release(&shard).unwrap();
        rig.close_clean();
    }
}

//! Freshness: a seal that is too old executes no more until the shard has been verified and sealed anew.
// covers: SEAL-7

use crate::*;

const AGE: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3600);

fn seal_for(rig: &Rig, most: Duration) -> SealedShard {
    rig.manager.seal_model(spec("a").max_age(most), ShardSource::bytes(&noise(5000, 1))).unwrap()
}

fn begin(rig: &Rig, shard: &SealedShard) -> Result<(), VramError> {
    rig.manager.begin(shard, ExecuteOptions::default()).map(|guard| drop(guard.finish().unwrap()))
}

#[test]
fn an_expired_seal_executes_no_more_but_verifies_and_releases() {
    // covers: SEAL-7 VER-15
    let rig = Rig::new();
    let (shard, other) = (seal_for(&rig, AGE), rig.seal("b", &noise(5000, 2)));
    // What began in time may end when it likes; a chain may not go on.
    let (guard, chain) = (rig.begin(&shard), rig.begin(&shard).renew().unwrap());
    thread::sleep(AGE);
    guard.finish().unwrap();
    let (options, mark) = (ExecuteOptions::default, rig.mark());
    for refused in [
        chain.renew().map(drop),
        begin(&rig, &shard),
        rig.manager.begin_all(&[&other, &shard], options()).map(drop),
        rig.manager.begin_owned(&shard, options()).map(drop),
        rig.manager.execute(&shard, |_| panic!("ran")),
    ] {
        assert_error!(refused, VramError::SealRefused { reason: RefusalReason::Expired });
    }
    let said = said!(rig, EventKind::SealRefused { reason, .. } => reason);
    assert_eq!((said, rig.names_since(mark).contains(&"execute_started")), (vec![RefusalReason::Expired; 5], false));
    assert_eq!(rig.outcomes().last(), Some(&ExecuteOutcome::Discarded));
    rig.manager.verify_sealed(&shard).unwrap();
    assert_eq!(rig.manager.compute_vram_digest(&shard).unwrap(), shard.digest());
    begin(&rig, &other).unwrap();
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

#[test]
fn a_seal_within_its_age_executes() {
    // covers: SEAL-7
    let rig = Rig::new();
    let shard = seal_for(&rig, LONG);
    begin(&rig, &shard).unwrap();
    rig.manager.release(&shard).unwrap();
    let ageless = rig.seal("a", &noise(5000, 1));
    thread::sleep(AGE);
    begin(&rig, &ageless).unwrap();
    rig.close_clean();
}

#[test]
fn sealing_anew_makes_the_old_seal_stale_and_the_age_fresh() {
    // covers: SEAL-7 SEAL-4 VER-3
    let rig = Rig::new();
    let mut shard = seal_for(&rig, AGE);
    let (used, digest) = (rig.manager.used_vram(), shard.digest());
    for _ in 0..3 {
        thread::sleep(AGE);
        assert_error!(begin(&rig, &shard), VramError::SealRefused { reason: RefusalReason::Expired });
        let (from, launches) = (rig.mark(), rig.digests());
        let renewed = rig.manager.reseal(&shard).unwrap();
        assert_eq!(rig.digests() - launches, 1, "it was verified in full");
        assert_eq!(rig.names_since(from), ["seal_verified", "vram_sealed"]);
        begin(&rig, &renewed).unwrap();
        assert_eq!((renewed.digest(), renewed.id(), renewed.byte_len()), (digest, shard.id(), shard.byte_len()));
        assert_eq!((renewed.layout_digest(), renewed.origin()), (shard.layout_digest(), shard.origin()));
        assert!(renewed.sealed_at() > shard.sealed_at() && renewed.to_bytes() != shard.to_bytes());
        for stale in [
            begin(&rig, &shard),
            rig.manager.verify_sealed(&shard).map(drop),
            rig.manager.release(&shard).map(drop),
            rig.manager.reseal(&shard).map(drop),
            rig.manager.compute_vram_digest(&shard).map(drop),
        ] {
            assert_error!(stale, VramError::StaleHandle { .. });
        }
        assert_eq!(rig.manager.used_vram(), used, "nothing was allocated");
        shard = renewed;
    }
    // Not while it is in use, and no such seal is announced.
    shard = rig.manager.reseal(&shard).unwrap();
    let (guard, from) = (rig.begin(&shard), rig.mark());
    assert_error!(rig.manager.reseal(&shard), VramError::ShardBusy { .. });
    assert!(!rig.names_since(from).contains(&"vram_sealed"));
    guard.finish().unwrap();
    rig.manager.release(&shard).unwrap();
    assert_error!(rig.manager.reseal(&shard), VramError::StaleHandle { .. });
    rig.close_clean();
}

#[test]
fn no_check_of_before_counts_after_a_shard_was_sealed_anew() {
    // covers: SEAL-7 VER-1
    for checks in 0..20 {
        let rig = Rig::new();
        let mut shard = seal_for(&rig, LONG);
        (0..checks).for_each(|_| drop(rig.manager.verify_sealed(&shard).unwrap()));
        for _ in 0..=checks % 3 {
            shard = rig.manager.reseal(&shard).unwrap();
        }
        let launches = rig.digests();
        begin(&rig, &shard).unwrap();
        assert_eq!(rig.digests() - launches, 1, "after {checks} checks");
        shard = rig.manager.reseal(&shard).unwrap();
        rig.flip(&shard, 77);
        assert_error!(rig.manager.execute(&shard, |_| panic!("ran")), VramError::IntegrityFailure { .. });
        rig.close_clean();
    }
}

#[test]
fn a_shard_that_has_changed_is_not_sealed_anew() {
    // covers: SEAL-7 VER-5
    let rig = Rig::lenient();
    let shard = seal_for(&rig, LONG);
    rig.flip(&shard, 4999);
    assert_error!(rig.manager.reseal(&shard), VramError::IntegrityFailure { .. });
    assert_eq!((rig.manager.state(), rig.count("vram_sealed")), (ManagerState::Ready, 1));
    rig.flip(&shard, 4999); // right again, which does not help
    assert_error!(rig.manager.reseal(&shard), VramError::IntegrityFailure { .. });
    rig.manager.release(&shard).unwrap();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    rig.close_clean();
}

#[test]
fn a_reseal_that_fails_leaves_the_old_seal_good() {
    // covers: SEAL-7 AUD-5 VER-11
    let rig = Rig::audited();
    let shard = seal_for(&rig, LONG);
    rig.sink.failing(true);
    assert_error!(rig.manager.reseal(&shard), VramError::AuditUnavailable { .. });
    rig.sink.failing(false);
    begin(&rig, &shard).unwrap();
    for call in [MockCall::Digest, MockCall::Fill, MockCall::CopyToHost, MockCall::Synchronize] {
        rig.order(Fault::call(call));
        assert_error!(rig.manager.reseal(&shard), VramError::Device(_));
        begin(&rig, &shard).unwrap();
    }
    begin(&rig, &rig.manager.reseal(&shard).unwrap()).unwrap();
}

#[test]
fn adopted_memory_is_sealed_anew_where_it_lies() {
    // covers: SEAL-7 RES-9
    let rig = Rig::lenient();
    let arena = Arc::new(Arena::new(9000, 3));
    let (adopted, drops) = adopt(&rig.manager, spec("engine").max_age(AGE), &arena, &[arena.region(7, 8000)]);
    let adopted = adopted.unwrap();
    thread::sleep(AGE);
    assert_error!(begin(&rig, adopted.shard()), VramError::SealRefused { reason: RefusalReason::Expired });
    let renewed = rig.manager.reseal(adopted.shard()).unwrap();
    assert!(renewed.is_adopted());
    assert_eq!((rig.manager.adopted_vram(), drops.count()), (8000, 0));
    // The memory still belongs to the shard.
    let (again, _) = adopt(&rig.manager, spec("again"), &arena, &[arena.region(100, 10)]);
    assert_error!(again.map_err(|refused| refused.error), VramError::InvalidParams { field: "regions", .. });
    assert_error!(rig.manager.release(adopted.shard()), VramError::StaleHandle { .. });
    let adopted = adopted.into_owner().unwrap_err();
    rig.manager.release(&renewed).unwrap();
    assert!(adopted.into_owner().is_ok());
    rig.close_clean();
}

#[test]
fn a_shard_that_fails_between_check_and_seal_stays_in_quarantine() {
    // covers: SEAL-7 VER-5 CON-1
    let shard = Arc::new(Mutex::new(None::<SealedShard>));
    let other = Arc::clone(&shard);
    // When the check of a reseal has passed, the bytes change, and somebody else finds it before the seal is made.
    let meanwhile = move |manager: &Arc<VramManager>, event: &AuditEvent| {
        let Some(shard) = other.lock().unwrap().take_if(|_| event.kind.name() == "seal_verified") else { return };
        manager.mock_controls().unwrap().flip_bit(&shard, 4000, 1).unwrap();
        let finder = Arc::clone(manager);
        thread::spawn(move || drop(finder.verify_sealed(&shard).unwrap_err()));
        until("the other check finds the change", || manager.quarantined_vram() > 0);
    };
    let rig = Rig::watched(|builder| builder, meanwhile);
    let sealed = seal_for(&rig, LONG);
    *shard.lock().unwrap() = Some(sealed.clone());
    assert_error!(rig.manager.reseal(&sealed), VramError::IntegrityFailure { .. } | VramError::ShardBusy { .. });
    until("nobody else has the manager", || Arc::strong_count(&rig.manager) == 1);
    rig.manager.release(&sealed).unwrap();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    rig.close_clean();
}

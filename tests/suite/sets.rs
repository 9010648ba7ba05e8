//! Sets: a model of several shards is whole, in order and of one version, or it is refused.
// covers: SEAL-8

use crate::*;

fn seal(rig: &Rig, spec: ShardSpec, bytes: usize) -> SealedShard {
    rig.manager.seal_model(spec, ShardSource::bytes(&noise(bytes, bytes as u64))).unwrap()
}

fn version(text: &str) -> ModelRef {
    ModelRef::new(text).unwrap()
}

/// Asserts that the set is refused for a reason that says `words`.
#[track_caller]
fn assert_refused(parts: &[(&VramManager, &SealedShard)], words: &str) {
    match SealedSet::check(parts) {
        Err(VramError::InvalidParams { field: "set", problem }) => assert!(problem.contains(words), "{problem}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whole_sets_on_one_device_and_on_several_are_whole() {
    // covers: SEAL-8 RES-8 RES-9
    let config = MockConfig::new().devices(3).capacity_bytes(4 << 20);
    let rigs: Vec<Rig> = (0..3).map(|ordinal| Rig::with(config.clone().ordinal(ordinal), |b| b)).collect();
    let arena = Arc::new(Arena::new(5100, 1));
    for spread in [1, 2, 3] {
        let set = SetId::random().unwrap();
        let mut held: Vec<(usize, SealedShard)> = Vec::new();
        for index in 0..6 {
            let rig = index % spread;
            let spec = spec(&format!("part-{index}")).model_ref(version("m-v1")).part(set, index as u32, 6);
            let shard = if index == 5 {
                // Adopted parts belong to sets too.
                let (adopted, _) = adopt(&rigs[rig].manager, spec, &arena, &[arena.region(0, 5100)]);
                adopted.unwrap().shard().clone()
            } else {
                seal(&rigs[rig], spec, 100 + index * 1000)
            };
            held.push((rig, shard));
        }
        let parts: Vec<_> = held.iter().map(|(rig, shard)| (&*rigs[*rig].manager, shard)).collect();
        let found = SealedSet::check(&parts).unwrap();
        assert_eq!((found.set, found.model_ref), (set, Some(version("m-v1"))));
        let names: Vec<ShardId> = (0..6).map(|index| name(&format!("part-{index}"))).collect();
        assert_eq!((found.parts, found.bytes), (names, (0..6).map(|index| 100 + index * 1000).sum()));
        // The twins: any one part left out, any two exchanged.
        for one in 0..5 {
            let (mut without, mut swapped) = (parts.clone(), parts.clone());
            without.remove(one);
            assert_refused(&without, "incomplete");
            swapped.swap(one, 5);
            assert_refused(&swapped, "out of order");
        }
        held.iter().for_each(|(rig, shard)| drop(rigs[*rig].manager.release(shard).unwrap()));
    }
    drop(rigs);
    assert_clean(&config.stats());
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    // covers: SEAL-8
    let rig = Rig::new();
    let manager = &*rig.manager;
    let (set, other) = (SetId::random().unwrap(), SetId::random().unwrap());
    let part = |name: &str, set, index, count, model: Option<&str>| {
        let spec = spec(name).part(set, index, count);
        seal(&rig, if let Some(model) = model { spec.model_ref(version(model)) } else { spec }, 300)
    };
    let zero = part("zero", set, 0, 3, Some("v1"));
    let one = part("one", set, 1, 3, Some("v1"));
    let two = part("two", set, 2, 3, Some("v1"));
    let one_again = part("one-again", set, 1, 3, Some("v1"));
    let one_foreign = part("one-foreign", other, 1, 3, Some("v1"));
    let one_newer = part("one-newer", set, 1, 3, Some("v2"));
    let one_unversioned = part("one-unversioned", set, 1, 3, None);
    let one_of_two = part("one-of-two", set, 1, 2, Some("v1"));
    let alone = seal(&rig, spec("alone"), 300);
    let of = |parts: &[&SealedShard]| parts.iter().map(|part| (manager, (*part).clone())).collect::<Vec<_>>();
    for (parts, words) in [
        (&[][..], "empty"),
        (&[&zero, &zero, &two], "twice"),
        (&[&zero, &one_foreign, &two], "another set"),
        (&[&zero, &one_newer, &two], "another model or version"),
        (&[&zero, &one_unversioned, &two], "another model or version"),
        (&[&zero, &one_of_two, &two], "parts"),
        (&[&zero, &alone, &two], "stranger"),
        (&[&alone, &one, &two], "sealed alone"),
        (&[&zero, &one, &one_again], "twice"),
        (&[&zero, &one, &two, &one_again], "twice"),
        (&[&zero, &one], "incomplete"),
        (&[&one, &two], "out of order"),
        (&[&two, &one, &zero], "out of order"),
    ] {
        assert_refused(&of(parts).iter().map(|(manager, part)| (*manager, part)).collect::<Vec<_>>(), words);
    }
    for middle in [&one, &one_again] {
        SealedSet::check(&[(manager, &zero), (manager, middle), (manager, &two)]).unwrap();
    }
}

#[test]
fn parts_that_are_not_live_or_not_here_are_refused() {
    // covers: SEAL-8 SEAL-4 VER-12
    let config = MockConfig::new().devices(2).capacity_bytes(4 << 20);
    let rig = Rig::with(config.clone(), |b| b.on_integrity_failure(OnIntegrityFailure::QuarantineShard));
    let there = Rig::with(config.ordinal(1), |b| b);
    let set = SetId::random().unwrap();
    let zero = seal(&rig, spec("zero").part(set, 0, 2), 300);
    let one = seal(&rig, spec("one").part(set, 1, 2), 300);
    let elsewhere = seal(&there, spec("one").part(set, 1, 2), 300);
    let with = |manager: &VramManager, second: &SealedShard| {
        SealedSet::check(&[(&*rig.manager, &zero), (manager, second)]).map(drop)
    };
    let digests = rig.digests();
    with(&rig.manager, &one).unwrap();
    with(&there.manager, &elsewhere).unwrap();
    let claims = with(&rig.manager, &elsewhere);
    assert_error!(claims, VramError::SealRefused { reason: RefusalReason::ClaimsOtherDevice });
    assert_error!(with(&rig.manager, &forged(&one)), VramError::SealRefused { .. });
    // No bytes are read, so a changed part is found by its own check.
    rig.flip(&one, 299);
    with(&rig.manager, &one).unwrap();
    assert_eq!(rig.digests(), digests, "no kernel ran");
    assert_error!(rig.manager.execute(&one, |_| ()), VramError::IntegrityFailure { .. });
    rig.manager.release(&one).unwrap();
    // Stale: sealed anew, then released; and by a shutdown.
    let one = seal(&rig, spec("one").part(set, 1, 2), 300);
    let renewed = rig.manager.reseal(&one).unwrap();
    assert_error!(with(&rig.manager, &one), VramError::StaleHandle { .. });
    with(&rig.manager, &renewed).unwrap();
    rig.manager.release(&renewed).unwrap();
    assert_error!(with(&rig.manager, &renewed), VramError::StaleHandle { .. });
    let one = seal(&rig, spec("one").part(set, 1, 2), 300);
    rig.manager.shutdown(Duration::ZERO);
    assert_error!(with(&rig.manager, &one), VramError::StaleHandle { .. });
}

/// The same seal with its last bit flipped.
fn forged(seal: &SealedShard) -> SealedShard {
    let mut bytes = seal.to_bytes();
    *bytes.last_mut().unwrap() ^= 1;
    SealedShard::from_bytes(&bytes).unwrap()
}

#[test]
fn a_part_that_no_execution_may_use_is_refused_and_named() {
    // covers: SEAL-8 SEAL-7 VER-5
    let rig = Rig::lenient();
    let manager = &*rig.manager;
    let set = SetId::random().unwrap();
    let zero = seal(&rig, spec("zero").part(set, 0, 3), 300);
    let expired = seal(&rig, spec("one").part(set, 1, 3).max_age(Duration::ZERO), 300);
    let bad = seal(&rig, spec("two").part(set, 2, 3), 300);
    thread::sleep(Duration::from_millis(1));
    assert_refused(&[(manager, &zero), (manager, &expired), (manager, &bad)], "expired: shard one ");
    manager.release(&expired).unwrap();
    let fresh = seal(&rig, spec("one").part(set, 1, 3).max_age(Duration::from_secs(3600)), 300);
    SealedSet::check(&[(manager, &zero), (manager, &fresh), (manager, &bad)]).unwrap();
    rig.flip(&bad, 17);
    assert_error!(manager.verify_sealed(&bad), VramError::IntegrityFailure { .. });
    let error = SealedSet::check(&[(manager, &zero), (manager, &fresh), (manager, &bad)]).unwrap_err();
    assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == bad.id()), "{error:?}");
    rig.close_clean();
    // On a stopped manager a set is refused for what stopped it if that is a part.
    let (rig, other) = (Rig::new(), Rig::new());
    let (one, two) = (&*rig.manager, &*other.manager);
    let zero = seal(&rig, spec("zero").part(set, 0, 2), 300);
    let bad = seal(&rig, spec("bad").part(set, 1, 2), 300);
    let elsewhere = seal(&other, spec("elsewhere").part(set, 1, 2), 300);
    rig.flip(&bad, 0);
    assert_error!(one.verify_sealed(&bad), VramError::IntegrityFailure { .. });
    assert_error!(SealedSet::check(&[(one, &zero), (one, &bad)]), VramError::IntegrityFailure { .. });
    assert_error!(SealedSet::check(&[(one, &zero), (two, &elsewhere)]), VramError::ManagerStopped { .. });
    rig.close_clean();
    other.close_clean();
}

#[test]
fn a_part_beyond_its_set_is_not_sealed() {
    // covers: SEAL-8 VAL-2
    let rig = Rig::new();
    let set = SetId::random().unwrap();
    let counts = rig.counts();
    for (index, count) in [(0, 0), (1, 1), (2, 2), (7, 3), (u32::MAX, u32::MAX), (u32::MAX, 0)] {
        let spec = spec("part").part(set, index, count);
        let error = rig.manager.seal_model(spec, ShardSource::bytes(&[1; 100])).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidParams, "{index} of {count}: {error}");
        assert!(error.to_string().contains("part"), "{error}");
    }
    assert_eq!(rig.counts(), counts);
    for (index, count) in [(0, 1), (1, 2), (u32::MAX - 1, u32::MAX)] {
        let shard = seal(&rig, spec("part").part(set, index, count), 100);
        assert_eq!(shard.part(), Some((set, index, count)));
        rig.manager.release(&shard).unwrap();
    }
    rig.close_clean();
}

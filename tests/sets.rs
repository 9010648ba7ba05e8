//! Sets: a model of several shards is whole, in order and of one version, or it is refused.
// covers: SEAL-8

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Arena, Rig, adopt, name, noise, spec};
use vram_residency::{
    ErrorCode, MockConfig, ModelRef, RefusalReason, SealedSet, SealedShard, SetId, ShardSource, ShardSpec, VramError,
    VramManager,
};

fn seal(rig: &Rig, spec: ShardSpec, bytes: usize) -> SealedShard {
    rig.manager.seal_model(spec, ShardSource::bytes(&noise(bytes, bytes as u64))).unwrap()
}

fn version(text: &str) -> ModelRef {
    ModelRef::new(text).unwrap()
}

type Parts<'a> = Vec<(&'a VramManager, &'a SealedShard)>;

/// Asserts that the set is refused for a reason that says `words`.
#[track_caller]
fn assert_refused(parts: &Parts<'_>, words: &str) {
    match SealedSet::check(parts) {
        Err(VramError::InvalidParams { field: "set", problem }) => assert!(problem.contains(words), "{problem}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whole_sets_on_one_device_and_on_several_are_whole() {
    // covers: SEAL-8 RES-8
    let config = MockConfig::new().devices(3).capacity_bytes(4 << 20);
    let rigs: Vec<Rig> = (0..3).map(|ordinal| Rig::with(config.clone().ordinal(ordinal), |b| b)).collect();
    for spread in [1, 2, 3] {
        let set = SetId::random().unwrap();
        let held: Vec<(usize, SealedShard)> = (0..6)
            .map(|index| {
                let rig = index % spread;
                let spec = spec(&format!("part-{index}")).model_ref(version("m-v1")).part(set, index as u32, 6);
                (rig, seal(&rigs[rig], spec, 100 + index * 1000))
            })
            .collect();
        let parts: Parts<'_> = held.iter().map(|(rig, shard)| (&*rigs[*rig].manager, shard)).collect();
        let found = SealedSet::check(&parts).unwrap();
        assert_eq!((found.set, found.model_ref), (set, Some(version("m-v1"))));
        let names: Vec<String> = (0..6).map(|index| format!("part-{index}")).collect();
        assert_eq!(found.parts.iter().map(|part| part.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(found.bytes, (0..6).map(|index| 100 + index * 1000).sum::<u64>());
        // The twins: any one part left out, any two exchanged.
        for left_out in 0..6 {
            let mut parts = parts.clone();
            parts.remove(left_out);
            assert_refused(&parts, "incomplete");
        }
        for one in 0..5 {
            let mut parts = parts.clone();
            parts.swap(one, 5);
            assert_refused(&parts, "out of order");
        }
        held.iter().for_each(|(rig, shard)| drop(rigs[*rig].manager.release(shard).unwrap()));
    }
    drop(rigs);
    support::assert_clean(&config.stats());
}

#[test]
fn a_set_reads_no_bytes_so_a_changed_part_is_found_by_its_own_check() {
    // covers: SEAL-8 VER-12
    let rig = Rig::lenient();
    let set = SetId::random().unwrap();
    let a = seal(&rig, spec("a").part(set, 0, 2), 5000);
    let b = seal(&rig, spec("b").part(set, 1, 2), 5000);
    rig.flip(&b, 4999);
    let digests = rig.digests();
    SealedSet::check(&[(&*rig.manager, &a), (&*rig.manager, &b)]).unwrap();
    assert_eq!(rig.digests(), digests, "no kernel ran");
    assert_error!(rig.manager.execute(&b, |_| ()), VramError::IntegrityFailure { .. });
    rig.manager.execute(&a, |_| ()).unwrap();
    rig.close_clean();
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
    let with = |middle| -> Parts<'_> { vec![(manager, &zero), (manager, middle), (manager, &two)] };
    SealedSet::check(&with(&one)).unwrap();
    SealedSet::check(&with(&one_again)).unwrap();
    assert_refused(&vec![], "empty");
    assert_refused(&with(&zero), "twice");
    assert_refused(&with(&one_foreign), "another set");
    assert_refused(&with(&one_newer), "another model or version");
    assert_refused(&with(&one_unversioned), "another model or version");
    assert_refused(&with(&one_of_two), "parts");
    assert_refused(&with(&alone), "stranger");
    assert_refused(&vec![(manager, &alone), (manager, &one), (manager, &two)], "sealed alone");
    assert_refused(&vec![(manager, &zero), (manager, &one), (manager, &one_again)], "twice");
    assert_refused(&vec![(manager, &zero), (manager, &one), (manager, &two), (manager, &one_again)], "twice");
    assert_refused(&vec![(manager, &zero), (manager, &one)], "incomplete");
    assert_refused(&vec![(manager, &one), (manager, &two)], "out of order");
    assert_refused(&vec![(manager, &two), (manager, &one), (manager, &zero)], "out of order");
}

#[test]
fn parts_that_are_not_live_or_not_here_are_refused() {
    // covers: SEAL-8 SEAL-4
    let config = MockConfig::new().devices(2).capacity_bytes(4 << 20);
    let rig = Rig::with(config.clone(), |b| b);
    let there = Rig::with(config.ordinal(1), |b| b);
    let set = SetId::random().unwrap();
    let zero = seal(&rig, spec("zero").part(set, 0, 2), 300);
    let one = seal(&rig, spec("one").part(set, 1, 2), 300);
    let elsewhere = seal(&there, spec("one").part(set, 1, 2), 300);
    SealedSet::check(&[(&*rig.manager, &zero), (&*rig.manager, &one)]).unwrap();
    SealedSet::check(&[(&*rig.manager, &zero), (&*there.manager, &elsewhere)]).unwrap();
    // With the wrong manager.
    let refused = SealedSet::check(&[(&*rig.manager, &zero), (&*rig.manager, &elsewhere)]);
    assert_error!(refused, VramError::SealRefused { reason: RefusalReason::ClaimsOtherDevice });
    // Forged: every byte of the part changed in turn.
    let bytes = one.to_bytes();
    let mut opened = 0;
    for at in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        if let Ok(forged) = SealedShard::from_bytes(&forged) {
            opened += 1;
            assert_error!(
                SealedSet::check(&[(&*rig.manager, &zero), (&*rig.manager, &forged)]),
                VramError::SealRefused { .. }
            );
        }
    }
    assert!(opened > 100, "{opened}");
    // Stale: sealed anew, then released.
    let renewed = rig.manager.reseal(&one).unwrap();
    assert_error!(SealedSet::check(&[(&*rig.manager, &zero), (&*rig.manager, &one)]), VramError::StaleHandle { .. });
    SealedSet::check(&[(&*rig.manager, &zero), (&*rig.manager, &renewed)]).unwrap();
    rig.manager.release(&renewed).unwrap();
    assert_error!(
        SealedSet::check(&[(&*rig.manager, &zero), (&*rig.manager, &renewed)]),
        VramError::StaleHandle { .. }
    );
    // Released by a shutdown.
    let one = seal(&rig, spec("one").part(set, 1, 2), 300);
    rig.manager.shutdown(Duration::ZERO);
    assert_error!(SealedSet::check(&[(&*rig.manager, &zero), (&*rig.manager, &one)]), VramError::StaleHandle { .. });
}

#[test]
fn a_part_that_no_execution_may_use_is_refused_and_named() {
    // covers: SEAL-8 SEAL-7 VER-5
    let rig = Rig::lenient();
    let manager = &*rig.manager;
    let set = SetId::random().unwrap();
    let [zero, one, two] = ["zero", "one", "two"].map(name);
    let zero = seal(&rig, ShardSpec::new(zero).part(set, 0, 3), 300);
    let expired = seal(&rig, ShardSpec::new(one.clone()).part(set, 1, 3).max_age(Duration::ZERO), 300);
    let bad = seal(&rig, ShardSpec::new(two.clone()).part(set, 2, 3), 300);
    std::thread::sleep(Duration::from_millis(1));
    assert_refused(&vec![(manager, &zero), (manager, &expired), (manager, &bad)], "expired: shard one ");
    manager.release(&expired).unwrap();
    let fresh = seal(&rig, ShardSpec::new(one).part(set, 1, 3).max_age(Duration::from_secs(3600)), 300);
    SealedSet::check(&[(manager, &zero), (manager, &fresh), (manager, &bad)]).unwrap();

    rig.flip(&bad, 17);
    assert_error!(manager.verify_sealed(&bad), VramError::IntegrityFailure { .. });
    let error = SealedSet::check(&[(manager, &zero), (manager, &fresh), (manager, &bad)]).unwrap_err();
    assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if *shard == two), "{error:?}");
    manager.release(&bad).unwrap();
    let good = seal(&rig, ShardSpec::new(two).part(set, 2, 3), 300);
    SealedSet::check(&[(manager, &zero), (manager, &fresh), (manager, &good)]).unwrap();
    rig.close_clean();
}

#[test]
fn a_set_on_a_stopped_manager_is_refused_for_what_stopped_it_if_that_is_a_part() {
    // covers: SEAL-8 VER-5
    let (rig, other) = (Rig::new(), Rig::new());
    let (one, two) = (&*rig.manager, &*other.manager);
    let set = SetId::random().unwrap();
    let zero = seal(&rig, spec("zero").part(set, 0, 2), 300);
    let bad = seal(&rig, spec("bad").part(set, 1, 2), 300);
    let elsewhere = seal(&other, spec("elsewhere").part(set, 1, 2), 300);
    SealedSet::check(&[(one, &zero), (two, &elsewhere)]).unwrap();
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

#[test]
fn adopted_parts_belong_to_sets_too() {
    // covers: SEAL-8 RES-9
    let rig = Rig::new();
    let set = SetId::random().unwrap();
    let arena = Arc::new(Arena::new(5000, 1));
    let zero = seal(&rig, spec("zero").part(set, 0, 2), 300);
    let (one, _) = adopt(&rig.manager, spec("one").part(set, 1, 2), &arena, &[arena.region(1, 4000)]);
    let one = one.unwrap();
    let found = SealedSet::check(&[(&*rig.manager, &zero), (&*rig.manager, one.shard())]).unwrap();
    assert_eq!(found.bytes, 4300);
    let alone = Arc::new(Arena::new(5000, 1));
    let (stranger, _) = adopt(&rig.manager, spec("stranger"), &alone, &[alone.region(1, 4000)]);
    let stranger = stranger.unwrap();
    assert_refused(&vec![(&*rig.manager, &zero), (&*rig.manager, stranger.shard())], "stranger");
    drop((one, stranger));
    rig.close_clean();
}

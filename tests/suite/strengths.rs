//! Checks of parts: what they find, what they say, and what a policy makes of them.

use crate::*;

/// Bytes of a subtree with blocks of 1024 bytes.
const SUBTREE: u64 = 32 << 10;

/// A manager with small subtrees, whose integrity failures stop nobody, and a shard of so many bytes.
fn shard(bytes: usize, choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder) -> (Rig, SealedShard) {
    let lenient = OnIntegrityFailure::QuarantineShard;
    let rig = Rig::with(small(), |builder| choose(builder.tree_params(block(1024)).on_integrity_failure(lenient)));
    let shard = rig.seal("a", &noise(bytes, 1));
    (rig, shard)
}

fn asking(check: Check) -> ExecuteOptions {
    ExecuteOptions::default().check(check).verify_after(false)
}

fn check(rig: &Rig, shard: &SealedShard, check: Check) -> Result<VerifyReport, VramError> {
    rig.manager.begin(shard, asking(check)).map(|guard| guard.finish().unwrap())
}

#[test]
fn a_random_fault_is_found_with_the_probability_that_is_documented() {
    // covers: VER-8
    const TRIALS: u64 = 400;
    for (flips, sample, missed) in [(1, 4, 12.0 / 16.0), (3, 4, 12.0 * 11.0 * 10.0 / (16.0 * 15.0 * 14.0))] {
        let mut dice = Dice::new(7);
        let (rig, sealed) = shard(SUBTREE as usize * 16, |builder| builder);
        let mut shard = sealed;
        let mut found = 0_u64;
        for _ in 0..TRIALS {
            let mut subtrees: Vec<u64> = (0..16).collect();
            dice.shuffle(&mut subtrees);
            let flipped: Vec<u64> = subtrees.iter().take(flips).map(|at| at * SUBTREE + dice.below(SUBTREE)).collect();
            flipped.iter().for_each(|byte| rig.flip(&shard, *byte));
            match check(&rig, &shard, Check::Sample(sample)) {
                Ok(report) => {
                    assert_eq!((report.check, report.subtrees, report.of), (Check::Sample(4), 4, 16));
                    flipped.iter().for_each(|byte| rig.flip(&shard, *byte));
                }
                Err(VramError::IntegrityFailure { first_bad: Some(range), .. }) => {
                    found += 1;
                    assert!(flipped.iter().any(|byte| (range.offset..range.offset + range.bytes).contains(byte)));
                    rig.manager.release(&shard).unwrap();
                    shard = rig.seal("a", &noise(SUBTREE as usize * 16, 1));
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        // Binomial: six standard deviations of the share are at most 6 · 0.5 / √400.
        let share = found as f64 / TRIALS as f64;
        assert!((share - (1.0 - missed)).abs() < 0.15, "{flips} flips: {share} of the trials, not {}", 1.0 - missed);
        rig.close_clean();
    }
}

#[test]
fn every_byte_is_looked_at_within_a_rotation() {
    // covers: VER-8 VER-4
    // Two regions, odd ends, and a last subtree of a single block.
    for bytes in [1, 1024, SUBTREE as usize, 5 * SUBTREE as usize + 1, 9 * SUBTREE as usize + 5000] {
        let (rig, shard) = shard(bytes, |builder| builder.check(Check::Rotating(4)));
        let of = (bytes as u64).div_ceil(SUBTREE);
        for round in 0..3 {
            let reports: Vec<VerifyReport> = (0..4).map(|_| rig.begin(&shard).finish().unwrap()).collect();
            assert!(reports.iter().map(|report| report.subtrees).sum::<u64>() >= of, "{bytes} bytes, round {round}");
            assert!(reports.iter().all(|report| report.of == of && report.bytes == bytes as u64));
        }
        rig.flip(&shard, bytes as u64 - 1);
        let found = (0..4).find_map(|_| check(&rig, &shard, Check::Rotating(4)).err());
        assert_error!(found.map_or(Ok(()), Err), VramError::IntegrityFailure { first_bad: Some(_), .. });
        rig.manager.release(&shard).unwrap();
        rig.close_clean();
    }
}

#[test]
fn parts_of_scattered_memory_are_those_of_its_image() {
    // covers: VER-8 DIG-3
    let rig = Rig::with(small(), |builder| builder.tree_params(block(1024)));
    let mut dice = Dice::new(3);
    let lengths: Vec<usize> = (0..90).map(|at| 1 + 37 * at % 4000).collect();
    let (arena, places) = scatter(&mut dice, &lengths);
    let adopted = adopt(&rig.manager, spec("a"), &arena, &regions(&arena, &places)).0.unwrap();
    for sample in 1..10 {
        let report = check(&rig, adopted.shard(), Check::Sample(sample)).unwrap();
        assert!(report.of > 5 && report.subtrees == report.of.min(sample.into()), "{report:?}");
    }
    for n in 1..12 {
        (0..n).for_each(|_| drop(check(&rig, adopted.shard(), Check::Rotating(n)).unwrap()));
    }
    let last = places.last().unwrap();
    arena.flip(last.0 + last.1 - 1);
    assert!((0..6).any(|_| check(&rig, adopted.shard(), Check::Rotating(6)).is_err()));
}

#[test]
fn what_a_check_looked_at_is_said_everywhere() {
    // covers: VER-8
    let (rig, shard) = shard(4 * SUBTREE as usize, |builder| builder);
    let expected = [
        (Check::Sample(3), Check::Sample(3), 3),
        (Check::Sample(4), Check::Digest, 4), // all of them, in full
        (Check::Rotating(2), Check::Rotating(2), 2),
        (Check::Digest, Check::Digest, 4),
    ];
    for (asked, had, subtrees) in expected {
        let report = check(&rig, &shard, asked).unwrap();
        assert_eq!((report.check, report.subtrees, report.of), (had, subtrees, 4));
    }
    let said = said!(rig, EventKind::SealVerified { check, subtrees, of, bytes, .. } => (check, subtrees, of, bytes));
    let whole = |(_, had, subtrees): (Check, Check, u64)| (had, subtrees, 4, subtrees * SUBTREE);
    assert_eq!(said, expected.map(whole));
    // The end looks at all bytes; the report tells of the weaker of both.
    let guard = rig.manager.begin(&shard, asking(Check::Sample(1)).verify_after(true)).unwrap();
    assert_eq!(guard.finish().unwrap().check, Check::Sample(1));
    let chain = rig.manager.begin(&shard, asking(Check::Sample(1))).unwrap().renew().unwrap();
    assert_eq!(chain.verification().check, Check::Digest, "which also opened the next link");
    drop(chain);
    rig.close_clean();
}

#[test]
fn what_a_sample_missed_does_not_leave() {
    // covers: VER-8 VER-6
    let (rig, shard) = shard(8 * SUBTREE as usize, |builder| builder);
    rig.flip(&shard, 8 * SUBTREE - 1);
    // The first quarter is looked at first; a part that closed the execute would be the second.
    let guard = rig.manager.begin(&shard, asking(Check::Rotating(4)).verify_after(true)).unwrap();
    assert_error!(guard.finish(), VramError::IntegrityFailure { .. });
    rig.close_clean();
}

#[test]
fn a_policy_bounds_how_weak_and_how_old_checks_are() {
    // covers: VER-8
    let policy = || Policy::development().weakest_check(Check::Rotating(8));
    let (rig, sealed) = shard(8 * SUBTREE as usize, |builder| builder.policy(policy()));
    for (weak, strong) in [(Check::Sample(8), Check::Digest), (Check::Rotating(9), Check::Rotating(8))] {
        assert_error!(check(&rig, &sealed, weak), VramError::PolicyViolation { rule: "weakest_check", .. });
        check(&rig, &sealed, strong).unwrap();
    }
    assert_eq!(rig.count("policy_violation"), 2);
    rig.close_clean();
    for zero in [Check::Sample(0), Check::Rotating(0)] {
        let (rig, sealed) = shard(1, |builder| builder);
        assert_error!(check(&rig, &sealed, zero), VramError::InvalidParams { field: "check", .. });
        rig.close_clean();
        let refused = builder(&small()).check(zero).build();
        assert_error!(refused, VramError::InvalidParams { field: "check", .. });
    }
    let weak = builder(&small()).policy(policy()).check(Check::Sample(8)).build();
    assert_error!(weak, VramError::PolicyViolation { rule: "weakest_check", .. });

    let most = Duration::from_millis(300);
    let policy = Policy::development().full_check_within(Some(most));
    let (rig, sealed) = shard(8 * SUBTREE as usize, |builder| builder.policy(policy).check(Check::Sample(1)));
    let began = Instant::now();
    rig.begin(&sealed).finish().unwrap();
    thread::sleep(most);
    let old = rig.begin(&sealed).finish().unwrap();
    assert_eq!((old.check, old.subtrees), (Check::Digest, 8));
    let (fresh, now) = (rig.begin(&sealed).finish().unwrap(), began.elapsed());
    assert!(fresh.check == Check::Sample(1) || now > 2 * most, "{fresh:?}");
    rig.close_clean();
}

#[test]
fn a_part_that_could_not_be_looked_at_is_still_the_next() {
    // covers: VER-8
    let (rig, shard) = shard(2 * SUBTREE as usize, |builder| builder);
    rig.order(Fault::call(MockCall::Digest));
    assert_error!(check(&rig, &shard, Check::Rotating(2)), VramError::Device(_));
    rig.flip(&shard, 0);
    assert_error!(check(&rig, &shard, Check::Rotating(2)), VramError::IntegrityFailure { .. });
    rig.close_clean();
}

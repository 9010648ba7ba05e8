//! Keyed checks: enrolled beside a digest, read between digests.
// covers: VER-13 DIG-7

use crate::*;

fn rig(choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder) -> Rig {
    let lenient = OnIntegrityFailure::QuarantineShard;
    Rig::with(small(), |builder| choose(builder.check(Check::Keyed).on_integrity_failure(lenient)))
}

fn check(rig: &Rig, shard: &SealedShard) -> Result<VerifyReport, VramError> {
    let options = ExecuteOptions::default().verify_after(false);
    rig.manager.begin(shard, options).map(|guard| guard.finish().unwrap())
}

#[test]
fn a_digest_comes_first_and_keyed_checks_follow() {
    let rig = rig(|builder| builder);
    // One level, two, three; a last block that is short.
    for (number, bytes) in [1, 4096, 4097, 1 << 20, (1 << 20) + 5].into_iter().enumerate() {
        let shard = rig.seal(&format!("s{number}"), &noise(bytes, 1));
        let launched = rig.digests();
        let strengths: Vec<Check> = (0..4).map(|_| check(&rig, &shard).unwrap().check).collect();
        assert_eq!(strengths, [Check::Digest, Check::Keyed, Check::Keyed, Check::Keyed], "{bytes} bytes");
        assert_eq!(rig.digests() - launched, 1);
        // Sealing anew begins anew.
        let renewed = rig.manager.reseal(&shard).unwrap();
        assert_eq!(check(&rig, &renewed).unwrap().check, Check::Digest);
        assert_eq!(check(&rig, &renewed).unwrap().check, Check::Keyed);
        rig.manager.release(&renewed).unwrap();
    }
    rig.close_clean();
}

#[test]
fn every_byte_of_a_small_shard_is_looked_at() {
    // covers: VER-4 VER-5
    let rig = rig(|builder| builder);
    let mut suspects = 0;
    // Of one level, and of two.
    let all = (0..300).map(|byte| (300, byte));
    for (bytes, byte) in all.chain((0..5000).step_by(7).chain([4095, 4096, 4999]).map(|byte| (5000, byte))) {
        let shard = rig.seal("a", &noise(bytes, 1));
        check(&rig, &shard).unwrap();
        for _ in 0..byte % 3 {
            assert_eq!(check(&rig, &shard).unwrap().check, Check::Keyed);
        }
        rig.flip_bit(&shard, byte, (byte % 8) as u8);
        let found = check(&rig, &shard);
        let Err(VramError::IntegrityFailure { first_bad: Some(range), .. }) = found else { panic!("{found:?}") };
        assert!((range.offset..range.offset + range.bytes).contains(&byte));
        suspects += byte % 3;
        rig.manager.release(&shard).unwrap();
    }
    let said = said!(rig, EventKind::SealVerificationFailed { reason, actual: Some(_), weaker_checks, .. } =>
        (reason, weaker_checks));
    assert!(said.iter().all(|(reason, _)| *reason == VerificationFailure::KeyedMismatch), "{said:?}");
    assert_eq!(said.iter().map(|(_, weaker)| weaker).sum::<u64>(), suspects);
    rig.close_clean();
}

#[test]
fn what_changes_while_it_is_enrolled_never_becomes_the_reference() {
    let shard_bytes = noise(9000, 1);
    // Before each copy, fill, launch and wait of the enrolling check.
    for step in 1..40 {
        let rig = rig(|builder| builder);
        let shard = rig.seal("a", &shard_bytes);
        rig.controls().flip_bit_later(&shard, 8000, 3, step).unwrap();
        let enrolled = check(&rig, &shard);
        eprintln!(
            "step {step}: {:?} pending {} byte {:?}",
            enrolled.as_ref().map(|r| r.check),
            rig.pending(),
            rig.peek(&shard, 8000)
        );
        if rig.config.stats().unmet_faults > 0 {
            assert!(step > 8 && enrolled.unwrap().check == Check::Digest, "{step} steps are few");
            rig.controls().clear_faults().unwrap();
            return;
        }
        assert!(enrolled.is_err() || check(&rig, &shard).is_err(), "a change at step {step} became the reference");
    }
    panic!("an enrolment has more steps");
}

#[test]
fn a_digest_is_due_in_time_and_finds_what_was_made_to_measure() {
    let most = Duration::from_millis(200);
    let policy = Policy::development().full_check_within(Some(most));
    let rig = rig(|builder| builder.policy(policy));
    let shard = rig.seal("a", &noise(9000, 1));
    let began = Instant::now();
    let mut strengths = Vec::new();
    while began.elapsed() < 4 * most {
        strengths.push(check(&rig, &shard).unwrap().check);
        thread::sleep(Duration::from_millis(10));
    }
    let digests = strengths.iter().filter(|check| **check == Check::Digest).count();
    assert!((2..=5).contains(&digests) && strengths.contains(&Check::Keyed), "{strengths:?}");
    rig.close_clean();
}

#[test]
fn a_keyed_hash_that_did_not_run_is_no_check() {
    for fault in [Fault::KeyedSkipped, Fault::call(MockCall::Keyed)] {
        let rig = rig(|builder| builder);
        let shard = rig.seal("a", &noise(9000, 1));
        check(&rig, &shard).unwrap();
        rig.flip(&shard, 8999);
        rig.order(fault);
        assert_error!(check(&rig, &shard), VramError::DeviceUntrusted { .. } | VramError::Device(_));
        rig.close();
    }
}

#[test]
fn a_device_that_hashes_wrongly_under_a_key_is_refused_from_the_start() {
    // covers: VER-11
    for nth in [1, 2] {
        let config = small();
        config.fail(Fault::KeyedSkipped.nth(nth)).unwrap();
        assert_error!(builder(&config).build(), VramError::DeviceUntrusted { operation: "keyed hash" });
    }
}

#[test]
fn keyed_checks_are_shared_in_a_batch_and_close_what_they_opened() {
    // covers: VER-6 VER-7
    let rig = rig(|builder| builder);
    let (a, b) = rig.two();
    let options = || ExecuteOptions::default().verify_after(true);
    for expected in [Check::Digest, Check::Keyed] {
        let guards = rig.manager.begin_all(&[&a, &b], options()).unwrap();
        assert!(guards.iter().all(|guard| guard.verification().check == expected));
        let closed = Execution::finish_all(guards).unwrap();
        assert!(closed.iter().all(|report| report.check == Check::Keyed));
    }
    let guards = rig.manager.begin_all(&[&a, &b], options()).unwrap();
    rig.flip(&b, 5);
    assert_error!(Execution::finish_all(guards), VramError::IntegrityFailure { .. });
    rig.close();
}

#[test]
fn executes_that_close_together_are_each_closed_as_strongly_as_they_were_promised() {
    // covers: VER-15
    let rig = rig(|builder| builder);
    let (a, b) = rig.two();
    [&a, &b].iter().for_each(|shard| drop(check(&rig, shard).unwrap())); // enrolled
    for asked in [[Check::Keyed, Check::Digest], [Check::Digest, Check::Keyed]] {
        let begin =
            |shard, check| rig.manager.begin(shard, ExecuteOptions::default().check(check).verify_after(true)).unwrap();
        let guards = vec![begin(&a, asked[0]), begin(&b, asked[1])];
        let closed = Execution::finish_all(guards).unwrap();
        assert_eq!(closed.iter().map(|report| report.check).collect::<Vec<_>>(), asked);
    }
    rig.close_clean();
}

//! Chains of executes: each check closes one and opens the next, and no result leaves but between two good ones.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[test]
fn a_chain_pays_one_check_a_link() {
    // covers: VER-15
    const STEPS: usize = 1000;
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(2000, 1));
    // Also when its last step is checked after the work.
    for (owned, after) in [(false, false), (true, false), (false, true)] {
        let (mark, digests) = (rig.mark(), rig.digests());
        let options = options().verify_after(after);
        if owned {
            let run = rig.manager.begin_owned(&shard, options).unwrap();
            let run = (0..STEPS).fold(run, |run, _| run.renew().unwrap());
            assert!(Arc::ptr_eq(run.manager(), &rig.manager));
            run.finish().unwrap();
        } else {
            let run = rig.manager.begin(&shard, options).unwrap();
            (0..STEPS).fold(run, |run, _| run.renew().unwrap()).finish().unwrap();
        }
        assert_eq!(rig.digests() - digests, STEPS as u64 + 1 + u64::from(after));
        let mut counts = HashMap::new();
        rig.names_since(mark).into_iter().for_each(|name| *counts.entry(name).or_insert(0_usize) += 1);
        let run = ["execute_started", "execute_finished"].map(|name| (name, STEPS + 1));
        assert_eq!(counts, HashMap::from([run[0], run[1], ("seal_verified", STEPS + 1 + usize::from(after))]));
    }
    // Nothing was left pinned.
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

/// Where in a step the bit changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Before the step's work reads anything.
    Before,
    /// When the work has read everything.
    After,
    /// Changed at one step, and back as it was before the next check: what no check can see.
    Undone,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..crate::properties::thousand() })]

    /// Whatever step a bit changes at: the results of the steps before it left, and none of a later one does.
    #[test]
    fn a_change_at_any_step_holds_back_that_step_and_all_behind_it(
        (batch, on_a_stream, lenient, verify_after) in any::<(bool, bool, bool, bool)>(),
        when in prop_oneof![Just(When::Before), Just(When::After), Just(When::Undone)],
        (steps, at, byte) in (1_usize..8, any::<prop::sample::Index>(), 0_u64..3000),
    ) {
        // covers: VER-15 VER-4 ASR-2
        let rig = if lenient { Rig::lenient() } else { Rig::new() };
        let (shard, other) = rig.two();
        let (stream, changes_at) = (rig.stream(), at.index(steps));
        let options = if on_a_stream { on(&stream) } else { options() };
        let wanted = if batch { vec![&other, &shard] } else { vec![&shard] };
        let mut runs = rig.manager.begin_all(&wanted, options.verify_after(verify_after)).unwrap();
        let mut left = Vec::new();
        let change = |step, now| {
            if step == changes_at && now {
                rig.flip(&shard, byte);
                if when == When::Undone {
                    rig.flip(&shard, byte);
                }
            }
        };
        let ended = (|| {
            for step in 0..steps {
                change(step, when == When::Before);
                runs.iter().try_for_each(|run| run.read_at(0, &mut [0; 3000]))?;
                change(step, when != When::Before);
                runs = Execution::renew_all(std::mem::take(&mut runs))?;
                left.push(step);
            }
            Execution::finish_all(runs).map(drop)
        })();
        if when == When::Undone {
            prop_assert!(ended.is_ok() && left.len() == steps, "{:?}", ended);
        } else {
            let refused = matches!(&ended, Err(VramError::IntegrityFailure { shard: of, .. }) if of == shard.id());
            prop_assert!(refused, "{:?}", ended);
            prop_assert_eq!(&left, &(0..changes_at).collect::<Vec<_>>());
            let discarded = rig.outcomes().iter().filter(|outcome| **outcome == ExecuteOutcome::Discarded).count();
            prop_assert_eq!((discarded, rig.count("seal_verification_failed")), (wanted.len(), 1));
        }
        drop(stream);
        // No pin stays.
        rig.manager.release(&shard).unwrap();
        rig.manager.release(&other).unwrap();
        rig.close_clean();
    }
}

#[test]
fn a_policy_that_demands_it_checks_after_the_work_and_takes_no_less() {
    // covers: VER-15
    let rig = Rig::with(small(), |builder| builder.policy(Policy::development().require_verify_after(true)));
    let shard = rig.seal("a", &noise(2000, 1));
    let digests = rig.digests();
    rig.manager.execute(&shard, |_| ()).unwrap();
    rig.begin(&shard).finish().unwrap();
    assert_eq!(rig.digests() - digests, 4, "each before and after");
    let less = || options().verify_after(false);
    let error = rig.manager.begin(&shard, less()).unwrap_err();
    assert_eq!((error.code(), rig.count("policy_violation")), (ErrorCode::PolicyViolation, 1));
    assert_error!(rig.manager.begin_owned(&shard, less()), VramError::PolicyViolation { .. });
    assert_error!(rig.manager.begin_all(&[&shard], less()), VramError::PolicyViolation { .. });
    assert_eq!(rig.digests() - digests, 4, "nothing was begun");
    // What `execute` gives is held back by the closing check.
    let changed = rig.manager.execute(&shard, |_| rig.flip(&shard, 5));
    assert_error!(changed, VramError::IntegrityFailure { .. });
    rig.close_clean();
    // The twin.
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(2000, 1));
    rig.manager.begin(&shard, less()).unwrap().finish().unwrap();
    assert!(Policy::production().relaxed().is_empty());
    assert_eq!(Policy::production().require_verify_after(false).relaxed().len(), 1);
    rig.close_clean();
}

#[test]
fn parts_that_are_finished_together_leave_together_also_from_two_managers() {
    // covers: VER-15 VER-7
    let (one, two) = (Rig::new(), Rig::lenient());
    let ((a, b), c) = (one.two(), two.seal("c", &noise(3000, 3)));
    let begin = || {
        let options = || options().verify_after(true);
        let mut runs = one.manager.begin_all(&[&a, &b], options()).unwrap();
        runs.push(two.manager.begin(&c, options()).unwrap());
        runs
    };
    let found = Execution::finish_all(begin()).unwrap();
    assert_eq!(found.iter().map(|found| &found.shard).collect::<Vec<_>>(), [a.id(), b.id(), c.id()]);
    assert!(Execution::finish_all(Vec::new()).unwrap().is_empty());
    let runs = Execution::renew_all(begin()).unwrap();
    two.flip(&c, 2999);
    assert_error!(Execution::finish_all(runs), VramError::IntegrityFailure { .. });
    let finished = [ExecuteOutcome::Finished; 4];
    let discarded = [ExecuteOutcome::Discarded; 2];
    assert_eq!(one.outcomes(), [&finished[..], &discarded[..]].concat());
    assert_eq!(two.outcomes(), [ExecuteOutcome::Finished, ExecuteOutcome::Finished, ExecuteOutcome::Discarded]);
    one.close_clean();
    two.close_clean();
}

#[test]
fn a_chain_under_way_goes_on_while_the_manager_drains_until_its_deadline() {
    // covers: VER-15 VER-5
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(3000, 1));
    let mut run = rig.begin(&shard);
    thread::scope(|scope| {
        let draining = scope.spawn(|| rig.manager.shutdown(Duration::from_secs(60)));
        while rig.count("manager_draining") == 0 {
            thread::yield_now();
        }
        assert_error!(rig.manager.begin(&shard, options()), VramError::ManagerStopped { .. });
        for _ in 0..3 {
            run = run.renew().unwrap();
        }
        run.finish().unwrap();
        assert!(draining.join().unwrap().drained);
    });
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Finished; 4]);
    rig.close_clean();
    // The twin: the deadline comes first.
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(3000, 1));
    let run = rig.begin(&shard);
    assert!(!rig.manager.shutdown(Duration::ZERO).drained);
    assert_error!(run.renew(), VramError::ManagerStopped { .. });
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Discarded]);
    rig.close_clean();
}

#[test]
fn a_step_that_the_trail_does_not_take_does_not_begin() {
    // covers: VER-15 AUD-5
    let rig = Rig::audited();
    let (a, b) = rig.two();
    let runs = Execution::renew_all(rig.manager.begin_all(&[&a, &b], options()).unwrap()).unwrap();
    rig.sink.failing(true);
    assert_error!(Execution::renew_all(runs).map(drop), VramError::AuditUnavailable { .. });
    // No pin stays.
    rig.manager.release(&a).unwrap();
    rig.manager.release(&b).unwrap();
    assert_eq!(rig.manager.used_vram(), 0);
}

#[test]
fn a_renewal_waits_for_the_engines_work_and_sees_it() {
    // covers: VER-15 VER-10
    let rig = Rig::lenient_writable();
    let stream = rig.stream();
    let shard = rig.seal("a", &[9; 5000]);
    let mut run = rig.manager.begin(&shard, on(&stream)).unwrap();
    for _ in 0..5 {
        stream.enqueue_write(&shard, 0, 5000, 9).unwrap(); // the bytes that are there
        run = run.renew().unwrap();
        assert_eq!(rig.pending(), 0);
    }
    stream.enqueue_write(&shard, 4999, 1, 8).unwrap();
    assert_error!(run.renew(), VramError::IntegrityFailure { .. });
    // The twin: a chain that knows no stream does not see what has not run yet.
    let shard = rig.seal("b", &[9; 5000]);
    let run = rig.begin(&shard);
    stream.enqueue_write(&shard, 4999, 1, 8).unwrap();
    let run = run.renew().unwrap();
    stream.synchronize().unwrap();
    assert_error!(run.renew(), VramError::IntegrityFailure { .. });
    drop(stream);
    rig.close_clean();
}

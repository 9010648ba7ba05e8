//! The patrol: what nobody executes is looked at all the same, within its bound.
// covers: VER-9

use crate::*;

fn patrolled(bound: Duration) -> Rig {
    let lenient = OnIntegrityFailure::QuarantineShard;
    Rig::with(small(), |builder| builder.patrol(bound).on_integrity_failure(lenient))
}

#[test]
fn on_a_quiet_manager_a_flip_is_found_within_the_bound() {
    let bound = Duration::from_secs(2);
    let rig = patrolled(bound);
    for (number, (bytes, flipped)) in
        [(1, 0), (3_000_000, 2_999_999), (3_000_000, 7), (40_000, 39_999)].into_iter().enumerate()
    {
        let shard = rig.seal(&format!("s{number}"), &noise(bytes, 1));
        // At any time of a round.
        thread::sleep(bound / 7 * number as u32);
        rig.flip(&shard, flipped);
        let began = Instant::now();
        until("the patrol finds it", || rig.count("shard_quarantined") > number);
        let slack = bound; // of a machine that does other things, too
        assert!(began.elapsed() < bound + slack, "{:?}", began.elapsed());
        let EventKind::SealVerificationFailed { shard: said, reason, first_bad: Some(range), .. } =
            rig.event("seal_verification_failed").kind
        else {
            panic!("no place")
        };
        assert_eq!((&said, reason), (shard.id(), VerificationFailure::DigestMismatch));
        assert!((range.offset..range.offset + range.bytes).contains(&flipped));
        assert_error!(rig.manager.begin(&shard, ExecuteOptions::default()), VramError::IntegrityFailure { .. });
        // For a moment the shard is held, while it is told of.
        until("it can be released", || rig.manager.release(&shard).is_ok());
    }
    rig.close_clean();
}

#[test]
fn rounds_come_to_an_end_and_nothing_is_refused_for_them() {
    let bound = Duration::from_millis(300);
    let rig = patrolled(bound);
    let shard = rig.seal("a", &noise(2_000_000, 1));
    until("two rounds", || rig.count("patrol_completed") >= 2);
    let rounds = said!(rig, EventKind::PatrolCompleted { duration, .. } => duration);
    assert!(rounds.iter().all(|round| *round >= bound / 6), "spread out, not all at once: {rounds:?}");
    assert_eq!(rig.count("seal_verified"), 0);
    for _ in 0..50 {
        let other = rig.seal("b", &noise(100_000, 2));
        rig.begin(&other).finish().unwrap();
        rig.manager.release(&other).unwrap();
    }
    rig.begin(&shard).finish().unwrap();
    rig.close_clean();
}

#[test]
fn what_executes_in_full_is_left_alone() {
    let rig = patrolled(Duration::from_secs(60));
    let shard = rig.seal("a", &noise(2_000_000, 1));
    let launched = rig.digests();
    for _ in 0..20 {
        rig.begin(&shard).finish().unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((rig.digests() - launched, rig.count("patrol_completed")), (20, 0));
    rig.close_clean();
}

#[test]
fn a_bound_that_cannot_be_kept_is_said_once() {
    let rig = patrolled(Duration::from_millis(1));
    let shard = rig.seal("a", &noise(6_000_000, 1));
    until("it is late", || rig.count("patrol_late") > 0);
    thread::sleep(Duration::from_millis(200));
    let said = said!(rig, EventKind::PatrolLate { shard, limit, duration, .. } => (shard, limit, duration > limit));
    assert_eq!(said, [(shard.id().clone(), Duration::from_millis(1), true)]);
    rig.close_clean();
}

#[test]
fn a_patrol_without_time_is_refused_and_a_stopped_one_looks_no_more() {
    assert_error!(builder(&small()).patrol(Duration::ZERO).build(), VramError::Config { setting: "patrol", .. });
    let rig = Rig::with(small(), |builder| builder.patrol(Duration::from_millis(50)));
    let (shard, _other) = (rig.seal("a", &noise(9000, 1)), rig.seal("b", &noise(9000, 2)));
    rig.flip(&shard, 1);
    until("the patrol stops the manager", || {
        rig.manager.state() == ManagerState::Stopped(StopReason::IntegrityFailure)
    });
    let launched = rig.digests();
    thread::sleep(Duration::from_millis(200));
    assert!(rig.digests() - launched <= 1, "the one under way");
    rig.close();
}

#[test]
fn a_part_that_was_not_looked_at_stops_the_manager() {
    let rig = Rig::with(small(), |builder| builder.patrol(Duration::from_millis(90)));
    let _shard = rig.seal("a", &noise(2_000_000, 1));
    rig.order(Fault::DigestSkipped);
    until("it is noticed", || rig.manager.state() == ManagerState::Stopped(StopReason::DeviceUntrusted));
    rig.close();
}

#[test]
fn what_the_patrol_found_can_be_released_at_once() {
    let sealed = Arc::new(Mutex::new(None));
    let (taken, answers) = (Arc::clone(&sealed), Arc::new(Mutex::new(Vec::new())));
    let told = Arc::clone(&answers);
    let rig = Rig::watched(
        |builder| builder.patrol(Duration::from_millis(50)),
        move |manager, event| {
            if event.kind.name() == "shard_quarantined" {
                let shard: SealedShard = taken.lock().unwrap().take().unwrap();
                told.lock().unwrap().push(manager.release(&shard).map(drop));
            }
        },
    );
    let shard = rig.seal("a", &noise(9000, 1));
    *sealed.lock().unwrap() = Some(shard.clone());
    rig.flip(&shard, 1);
    until("it is told of", || !answers.lock().unwrap().is_empty());
    answers.lock().unwrap().remove(0).unwrap();
    rig.close_clean();
}

//! Ordinary steps: their events, once each, in order, with their fields.

use super::*;

#[test]
fn every_step_of_an_ordinary_life_leaves_its_event_once() {
    // covers: AUD-1
    let rig = Rig::new();
    let manager = &*rig.manager;
    assert_eq!(rig.sink.names(), ["manager_started"]);
    let bytes = noise(5000, 1);
    let mut shard = None;
    assert_eq!(rig.events_of(|| shard = Some(rig.seal("one", &bytes))), ["vram_allocated", "vram_sealed"]);
    let shard = shard.unwrap();
    let opened = || assert_eq!(manager.open_seal(&shard.to_bytes()).unwrap().id(), shard.id());
    assert!(rig.events_of(opened).is_empty(), "reading a seal permits nothing");
    let (run, sealed) = (["seal_verified", "execute_started"], ["vram_allocated", "vram_sealed"]);
    let finished = [&run[..], &["execute_finished"]].concat();
    let gone = ["vram_wiped", "vram_deallocated"];
    let steps: [(&dyn Fn(), Vec<&str>); 10] = [
        (&|| drop(manager.verify_sealed(&shard).unwrap()), vec!["seal_verified"]),
        (&|| rig.execute(&shard).0.unwrap(), finished.clone()),
        // Given up.
        (&|| drop(rig.begin(&shard)), finished),
        // A digest without a verdict is no verification.
        (&|| assert_eq!(manager.compute_vram_digest(&shard).unwrap(), shard.digest()), vec!["digest_computed"]),
        (
            &|| drop(manager.difference(&shard, ShardSource::reader(shard.byte_len(), never())).unwrap()),
            vec!["difference_found"],
        ),
        (&|| drop(manager.enforce_vram_only_policy().unwrap()), vec!["posture_confirmed"]),
        (&|| drop(manager.allocate_scratch(Purpose::KvCache, 100).unwrap()), [&["vram_allocated"][..], &gone].concat()),
        (&|| drop(manager.release(&shard).unwrap()), gone.to_vec()),
        (
            &|| drop(manager.seal_model(rig.vouched("two", &bytes), ShardSource::bytes(&bytes)).unwrap()),
            sealed.to_vec(),
        ),
        (
            &|| drop(manager.reseal(&rig.seal("three", &bytes)).unwrap()),
            [&sealed[..], &["seal_verified", "vram_sealed"]].concat(),
        ),
    ];
    for (step, wanted) in steps {
        assert_eq!(rig.events_of(step), wanted);
    }
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Finished, ExecuteOutcome::Abandoned]);
    assert_eq!(rig.event("execute_finished").severity, Severity::Warning);
    let end = || assert!(manager.shutdown(Duration::ZERO).drained);
    assert_eq!(rig.events_of(end), [&["manager_draining", "manager_stopped"][..], &gone, &gone].concat());
    assert!(rig.events_of(end).is_empty(), "what has ended does not end again");
    rig.close_clean();
    // A manager that is dropped.
    let rig = Rig::new();
    rig.seal("one", &bytes);
    let mark = rig.mark();
    let names: Vec<_> = rig.close_clean()[mark..].iter().map(|event| event.kind.name()).collect();
    assert_eq!(names, ["manager_stopped", "vram_wiped", "vram_deallocated"]);
}

#[test]
fn events_carry_their_fields() {
    // covers: AUD-1 SEAL-9
    let rig = Rig::new();
    let EventKind::ManagerStarted { policy, relaxed, total_bytes, device_name, .. } = rig.event("manager_started").kind
    else {
        panic!()
    };
    assert_eq!((policy.as_str(), total_bytes), ("development", rig.manager.total_vram()));
    assert_eq!(device_name, rig.manager.device_name());
    assert_eq!(relaxed, Policy::development().relaxed());
    assert!(relaxed.iter().any(|row| row.contains("mock")), "{relaxed:?}");

    let shard = rig.seal("one", &noise(70_000, 1));
    let (room, digest) = (rig.manager.used_vram(), shard.digest());
    assert_eq!(said!(rig, EventKind::VramAllocated { bytes, .. } => bytes), [room]);
    let sealed = said!(rig, EventKind::VramSealed { shard, digest, bytes, origin, write_protected, duration, .. } =>
        ((shard, digest, bytes, origin, write_protected), duration));
    assert_eq!(sealed[0].0, (shard.id().clone(), digest, 70_000, Origin::Measured, true));
    let run = rig.begin(&shard);
    let begun = Instant::now();
    thread::sleep(Duration::from_millis(20));
    let held = begun.elapsed();
    run.finish().unwrap();
    let verified = said!(rig, EventKind::SealVerified { digest, bytes, check, duration, .. } =>
        ((digest, bytes, check), duration));
    assert_eq!(verified[0].0, (digest, 70_000, Check::Digest));
    assert!(sealed[0].1 > Duration::ZERO && verified[0].1 > Duration::ZERO);
    let took = said!(rig, EventKind::ExecuteFinished { duration, .. } => duration);
    assert!(took[0] >= held, "{took:?} for an execution of at least {held:?}");

    rig.flip_bit(&shard, 66_000, 4);
    let found = rig.manager.compute_vram_digest(&shard).unwrap();
    assert!(rig.execute(&shard).0.is_err());
    let failed = said!(rig, EventKind::SealVerificationFailed { expected, actual, first_bad, reason, .. } =>
        ((expected, actual, reason), first_bad.unwrap()));
    assert_eq!(failed[0].0, (digest, Some(found), VerificationFailure::DigestMismatch));
    assert!((failed[0].1.offset..failed[0].1.offset + failed[0].1.bytes).contains(&66_000));
    assert_eq!(said!(rig, EventKind::ExecuteRefused { code, .. } => code), [ErrorCode::SealVerificationFailed]);
    let report = rig.manager.release(&shard).unwrap();
    let wiped = said!(rig, EventKind::VramWiped { bytes, proven, duration, .. } => (bytes, proven, duration));
    assert_eq!(wiped, [(room, true, report.duration)]);
    assert_eq!(said!(rig, EventKind::VramDeallocated { bytes, .. } => bytes), [room]);
    let events = rig.sink.events();
    let (epoch, device) = (events[0].epoch, (rig.manager.device_kind(), rig.manager.device_uuid()));
    assert_ne!(epoch, [0; 16]);
    for event in &events {
        assert_eq!(((event.device_kind, event.device_uuid), event.epoch), (device, epoch));
        assert_eq!((event.worker.as_str(), event.severity), ("suite", event.kind.severity()));
        let line = event.to_json_line();
        assert!(line.is_ascii() && !line.contains('\n') && line.contains(event.kind.name()), "{line}");
    }
    rig.close_clean();
}

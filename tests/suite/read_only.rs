//! Sealed memory is mapped read-only where the device can, and never counted on: every wipe makes it writable first.
// covers: DEV-5

use crate::*;

/// The driver's number for what it does not offer.
const NOT_SUPPORTED: u32 = 801;
/// The mock's number for a write to read-only memory.
const READ_ONLY: u32 = 740;
const BYTES: usize = 70_000;

/// What the seals of the trail said, in order.
fn protected(rig: &Rig) -> Vec<bool> {
    said!(rig, EventKind::VramSealed { write_protected, .. } => write_protected)
}

fn causes(rig: &Rig) -> Vec<QuarantineCause> {
    said!(rig, EventKind::ShardQuarantined { cause, .. } => cause)
}

fn switches(rig: &Rig) -> u64 {
    rig.config.stats().runs(MockCall::Protect)
}

fn execute(rig: &Rig, shard: &SealedShard) -> Result<(), VramError> {
    rig.manager.execute(shard, |_| ())
}

/// Whether the driver lets an engine write to the first byte of the shard. What it is given is what is there.
fn is_writable(rig: &Rig, shard: &SealedShard) -> bool {
    match rig.stream().enqueue_write(shard, 0, 1, rig.peek(shard, 0)) {
        Ok(()) => true,
        Err(VramError::Device(error)) if error.code == READ_ONLY => false,
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_stray_write_is_stopped_by_the_device_or_found_by_the_next_check() {
    // covers: DEV-5 VER-10
    let bytes = noise(BYTES, 1);
    let rig = Rig::new();
    let shard = rig.seal("a", &bytes);
    assert_eq!(protected(&rig), [true]);
    for (offset, length) in [(0, 1), (0, 70_000), (69_999, 1)] {
        let error = rig.stream().enqueue_write(&shard, offset, length, 7).unwrap_err();
        let VramError::Device(error) = error else { panic!("{error:?}") };
        assert_eq!((error.code, error.kind), (READ_ONLY, DriverErrorKind::InvalidValue));
    }
    let mut now = vec![0; BYTES];
    rig.controls().peek(&shard, 0, &mut now).unwrap();
    assert!(now == bytes, "not a byte of it");
    execute(&rig, &shard).unwrap();
    // Working memory is nobody's weights.
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
    rig.stream().enqueue_scratch_write(&scratch, 5000, 7).unwrap();
    scratch.release().unwrap();
    // It stops stray writes through that address, no more.
    rig.flip(&shard, 40_000);
    assert_error!(execute(&rig, &shard), VramError::IntegrityFailure { .. });
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
    // Where read-only is refused.
    let rig = Rig::writable();
    let shard = rig.seal("a", &bytes);
    execute(&rig, &shard).unwrap();
    rig.stream().enqueue_write(&shard, 69_999, 1, bytes[69_999] ^ 1).unwrap();
    let found = execute(&rig, &shard);
    assert!(matches!(&found, Err(VramError::IntegrityFailure { first_bad: Some(range), .. })
        if (range.offset..range.offset + range.bytes).contains(&69_999)));
    rig.manager.release(&shard).unwrap();
    assert_eq!(
        (protected(&rig), switches(&rig)),
        (vec![false], 1),
        "what was refused is made writable again all the same"
    );
    rig.close_clean();
}

#[test]
fn the_event_says_what_the_driver_said_and_a_switch_is_looked_behind() {
    // covers: DEV-5 AUD-1 SEAL-7
    let not_offered = Fault::Call { call: MockCall::Protect, code: NOT_SUPPORTED };
    for (fault, said, writable, digests) in [
        (None, true, false, 1),
        (Some(Fault::ProtectUnconfirmed), false, false, 1),
        (Some(Fault::ProtectSkipped), true, true, 1), // a driver that lies is believed: it is trusted
        (Some(not_offered), false, true, 1),
    ] {
        let rig = Rig::new();
        let before = rig.digests();
        if let Some(fault) = fault {
            rig.order(fault);
        }
        let shard = rig.seal("a", &noise(BYTES, 1));
        assert_eq!((protected(&rig), rig.digests() - before), (vec![said], digests), "{fault:?}");
        assert_eq!(is_writable(&rig, &shard), writable, "{fault:?}");
        let posture = rig.manager.enforce_vram_only_policy().unwrap();
        assert_eq!((posture.resident_shards, posture.write_protected_shards), (1, u64::from(said)));
        // Sealing anew keeps the mapping, and says so.
        let (renewed, switched) = (rig.manager.reseal(&shard).unwrap(), switches(&rig));
        assert_eq!((protected(&rig), is_writable(&rig, &renewed)), (vec![said, said], writable));
        execute(&rig, &renewed).unwrap();
        rig.manager.release(&renewed).unwrap();
        assert!(switches(&rig) <= switched + 1 && rig.manager.used_vram() == 0);
        rig.close_clean();
    }
}

#[test]
fn a_switch_that_fails_fails_the_seal_and_leaves_nothing() {
    // covers: DEV-5 SEAL-1 RES-6 SCR-2
    for code in [2, 999, 12_345] {
        let rig = Rig::new();
        let other = rig.seal("other", &noise(3000, 2));
        let (counts, before) = (rig.counts(), rig.digests());
        rig.order(Fault::Call { call: MockCall::Protect, code });
        let from = rig.mark();
        let refused = rig.try_seal("a", &noise(BYTES, 1));
        let Err(VramError::Device(error)) = refused else { panic!("{refused:?}") };
        assert_eq!((error.code, error.operation), (code, "cuMemSetAccess"));
        assert_eq!((rig.counts(), rig.digests() - before), (counts, 0));
        assert_eq!(rig.names_since(from), ["vram_allocated", "vram_wiped", "vram_deallocated", "vram_seal_failed"]);
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        execute(&rig, &other).unwrap();
        rig.seal("a", &noise(BYTES, 1));
        rig.close_clean();
    }
    // What cannot be made writable again is residue.
    let rig = Rig::new();
    rig.order(Fault::call(MockCall::Protect).times(2));
    assert_error!(rig.try_seal("a", &noise(BYTES, 1)), VramError::Device(_));
    assert_eq!(causes(&rig), [QuarantineCause::Residue]);
    assert_eq!(rig.manager.used_vram(), rig.manager.quarantined_vram());
    rig.assert_recount();
    rig.close_clean();
}

#[test]
fn bytes_that_change_with_the_switch_are_never_signed() {
    // covers: DEV-5 SEAL-1
    let bytes = noise(BYTES, 1);
    let sealed = digest_bytes(&block(1024), &bytes);
    let seal = |rig: &Rig, vouched: bool| {
        let spec = if vouched { rig.vouched("a", &bytes) } else { spec("a") };
        rig.manager.seal_model(spec, ShardSource::bytes(&bytes))
    };
    for (at, vouched) in [(0, false), (40_000, true), (69_999, false)] {
        let rig = Rig::new();
        let (counts, from) = (rig.counts(), rig.mark());
        rig.order(Fault::ProtectCorrupts { bit: at * 8 + 3 });
        let refused = seal(&rig, vouched);
        let Err(VramError::DigestMismatch { expected, actual, .. }) = refused else { panic!("{refused:?}") };
        assert!(expected == sealed && actual != expected);
        assert_eq!(rig.counts(), counts);
        let names =
            ["vram_allocated", "seal_verification_failed", "vram_wiped", "vram_deallocated", "vram_seal_failed"];
        assert_eq!(rig.names_since(from), names);
        let said = said!(rig, EventKind::SealVerificationFailed { reason, expected, actual, .. } =>
            (reason, expected, actual));
        assert_eq!(said, [(VerificationFailure::NotExpected, sealed, Some(actual))]);
        assert_eq!(rig.manager.state(), ManagerState::Ready, "the bytes were never resident under a seal");
        rig.close_clean();
    }
    // The twin: a bit behind the image, in memory that is the shard's and not its image.
    let rig = Rig::new();
    rig.order(Fault::ProtectCorrupts { bit: BYTES as u64 * 8 });
    execute(&rig, &seal(&rig, true).unwrap()).unwrap();
    rig.close_clean();
    // A digest that the device cannot show to have made is no digest either.
    for fault in [Fault::DigestSkipped, Fault::DigestShort, Fault::DigestStale] {
        let rig = Rig::new();
        rig.order(fault);
        let counts = rig.counts();
        assert_error!(seal(&rig, true), VramError::DeviceUntrusted { .. });
        assert_eq!(rig.counts(), counts);
        rig.close_clean();
    }
}

#[test]
fn every_wipe_makes_the_memory_writable_first() {
    // covers: DEV-5 SCR-1 SCR-3
    type End = fn(&Rig, &SealedShard);
    let ends: [(&str, End); 4] = [
        ("release", |rig, shard| drop(rig.manager.release(shard).unwrap())),
        ("release_by_id", |rig, shard| drop(rig.manager.release_by_id(shard.id()).unwrap())),
        ("shutdown", |rig, _| assert!(rig.manager.shutdown(Duration::from_secs(5)).drained)),
        ("drop", |_, _| ()),
    ];
    for ((end, act), quarantined) in ends.into_iter().flat_map(|end| [(end, false), (end, true)]) {
        let rig = Rig::lenient();
        let shard = rig.seal("a", &noise(BYTES, 1));
        if quarantined {
            rig.flip(&shard, 5);
            assert!(execute(&rig, &shard).is_err());
        }
        assert_eq!(switches(&rig), 1);
        act(&rig, &shard);
        let config = rig.config.clone();
        rig.close_clean();
        assert_eq!(config.stats().runs(MockCall::Protect), 2, "{end}");
    }
    // A seal that is refused after the switch, by its trail.
    let rig = Rig::audited();
    let counts = rig.counts();
    rig.sink.failing(true);
    assert_error!(rig.try_seal("a", &noise(BYTES, 1)), VramError::AuditUnavailable { .. });
    assert_eq!((rig.counts(), switches(&rig)), (counts, 2));
    assert_eq!(rig.config.stats().unwiped_bytes_freed, 0);
}

#[test]
fn memory_that_cannot_be_made_writable_is_residue_until_it_can() {
    // covers: DEV-5 SCR-2
    let not_offered = Fault::Call { call: MockCall::Protect, code: NOT_SUPPORTED };
    for (fault, operation) in [
        (Fault::call(MockCall::Protect), "cuMemSetAccess"),
        (not_offered, "cuMemSetAccess"),
        (Fault::ProtectSkipped, "cuMemsetD8Async"), // confirmed, and not so: the device stops the wipe
    ] {
        let rig = Rig::new();
        let (shard, other) = (rig.seal("a", &noise(BYTES, 1)), rig.seal("b", &noise(BYTES, 2)));
        let (counts, fills) = (rig.counts(), rig.config.stats().runs(MockCall::Fill));
        rig.order(fault);
        let Err(VramError::WipeFailed { source: Some(error), bytes, .. }) = rig.manager.release(&shard) else {
            panic!("{fault:?}: a release without a wipe")
        };
        assert_eq!(error.operation, operation);
        assert_eq!(rig.config.stats().runs(MockCall::Fill), fills, "not a byte was touched");
        assert_eq!((rig.counts().live_bytes, rig.counts().used), (counts.live_bytes, counts.used));
        assert_eq!((rig.manager.quarantined_vram(), causes(&rig)), (bytes, vec![QuarantineCause::Residue]));
        execute(&rig, &other).unwrap();
        rig.close_clean(); // the end of the manager tries once more, from the switch on
    }
    // A switch back that the driver cannot confirm is one: the proof of zero judges.
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(BYTES, 1));
    rig.order(Fault::ProtectUnconfirmed);
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
    // While the switch fails for good, nothing is freed.
    let rig = Rig::new();
    rig.seal("a", &noise(BYTES, 1));
    let used = rig.manager.used_vram();
    rig.order(Fault::call(MockCall::Protect).always());
    let report = rig.manager.shutdown(Duration::from_secs(5));
    assert_eq!((report.residue_bytes, report.wiped_bytes), (used, 0));
    let (stats, _) = rig.close();
    assert_eq!((stats.live_bytes, stats.unwiped_bytes_freed), (used, 0));
}

#[test]
fn an_engines_memory_is_never_switched() {
    // covers: DEV-5 RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 3));
    for wipe in [false, true] {
        let before = rig.digests();
        let (adopted, _drops) =
            adopt(&rig.manager, spec("engine").wipe_adopted(wipe), &arena, &[arena.region(7, 9000)]);
        assert_eq!(rig.digests() - before, 1);
        let renewed = rig.manager.reseal(adopted.unwrap().shard()).unwrap();
        assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().write_protected_shards, 0);
        rig.manager.release(&renewed).unwrap();
    }
    assert_eq!((protected(&rig), switches(&rig)), (vec![false; 4], 0));
    rig.close_clean();
}

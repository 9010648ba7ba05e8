//! Sealed memory is mapped read-only where the device can, and never counted on: every wipe makes it writable first.
// covers: DEV-5

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Arena, Rig, adopt, noise, small, spec, vouching};
use vram_residency::{
    AuditRequirement, BadRange, Digest, DriverErrorKind, EventKind, Fault, ManagerState, MemorySink, MockCall, Policy,
    Purpose, QuarantineCause, SealedShard, ShardSource, VerificationFailure, VramError,
};

/// The driver's number for what it does not offer.
const NOT_SUPPORTED: u32 = 801;
/// The mock's number for a write to read-only memory.
const READ_ONLY: u32 = 740;
const BYTES: usize = 70_000;

/// How a shard comes to its end.
type End = fn(&Rig, &SealedShard);

/// What the seals of the trail said, in order.
fn protected(rig: &Rig) -> Vec<bool> {
    let said = |kind| match kind {
        EventKind::VramSealed { write_protected, .. } => Some(write_protected),
        _ => None,
    };
    rig.sink.events().into_iter().filter_map(|event| said(event.kind)).collect()
}

fn causes(rig: &Rig) -> Vec<QuarantineCause> {
    let said = |kind| match kind {
        EventKind::ShardQuarantined { cause, .. } => Some(cause),
        _ => None,
    };
    rig.sink.events().into_iter().filter_map(|event| said(event.kind)).collect()
}

fn switches(rig: &Rig) -> u64 {
    rig.config.stats().runs(MockCall::Protect)
}

fn execute(rig: &Rig, shard: &SealedShard) -> Result<(), VramError> {
    rig.manager.execute(shard, |_| ())
}

/// Whether the driver lets an engine write to the first byte of the shard. What it is given is what is there.
fn is_writable(rig: &Rig, shard: &SealedShard) -> bool {
    let (stream, mut first) = (rig.controls().engine_stream().unwrap(), [0]);
    rig.controls().peek(shard, 0, &mut first).unwrap();
    match stream.enqueue_write(shard, 0, 1, first[0]) {
        Ok(()) => true,
        Err(VramError::Device(error)) if error.code == READ_ONLY => false,
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_stray_write_to_a_sealed_shard_is_stopped_by_the_device_and_reported() {
    // covers: DEV-5 VER-10
    let rig = Rig::new();
    let bytes = noise(BYTES, 1);
    let shard = rig.seal("a", &bytes);
    assert_eq!(protected(&rig), [true]);
    let stream = rig.controls().engine_stream().unwrap();
    for (offset, length) in [(0, 1), (0, 70_000), (69_999, 1)] {
        let error = stream.enqueue_write(&shard, offset, length, 7).unwrap_err();
        assert_eq!(error.code().as_str(), "CUDA_ERROR");
        let VramError::Device(error) = error else { panic!("{error:?}") };
        assert_eq!((error.code, error.kind), (READ_ONLY, DriverErrorKind::InvalidValue));
    }
    drop(stream);
    let mut now = vec![0; BYTES];
    rig.controls().peek(&shard, 0, &mut now).unwrap();
    assert!(now == bytes, "not a byte of it");
    execute(&rig, &shard).unwrap();
    // Working memory is nobody's weights.
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
    let stream = rig.controls().engine_stream().unwrap();
    stream.enqueue_scratch_write(&scratch, 5000, 7).unwrap();
    drop(stream);
    scratch.release().unwrap();
    // It stops stray writes through that address, no more.
    rig.flip(&shard, 40_000);
    assert!(matches!(execute(&rig, &shard), Err(VramError::IntegrityFailure { .. })));
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

#[test]
fn where_read_only_is_refused_the_next_check_finds_the_stray_write() {
    // covers: DEV-5 VER-10
    let rig = Rig::writable();
    let shard = rig.seal("a", &noise(BYTES, 1));
    assert_eq!(protected(&rig), [false]);
    execute(&rig, &shard).unwrap();
    let stream = rig.controls().engine_stream().unwrap();
    let mut last = [0];
    rig.controls().peek(&shard, 69_999, &mut last).unwrap();
    stream.enqueue_write(&shard, 69_999, 1, last[0] ^ 1).unwrap();
    drop(stream);
    let Err(VramError::IntegrityFailure { first_bad: Some(BadRange { offset, bytes, .. }), .. }) =
        execute(&rig, &shard)
    else {
        panic!("the write was not found")
    };
    assert!((offset..offset + bytes).contains(&69_999));
    rig.manager.release(&shard).unwrap();
    assert_eq!(switches(&rig), 1, "what was refused is made writable again all the same");
    rig.close_clean();
}

#[test]
fn the_event_says_what_the_driver_said_and_a_switch_is_looked_behind() {
    // covers: DEV-5 AUD-1
    let not_offered = Fault::Call { call: MockCall::Protect, code: NOT_SUPPORTED };
    for (fault, said, writable, digests) in [
        (None, true, false, 2),
        (Some(Fault::ProtectUnconfirmed), false, false, 2),
        (Some(Fault::ProtectSkipped), true, true, 2), // a driver that lies is believed: it is trusted
        (Some(not_offered), false, true, 2),
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
        execute(&rig, &shard).unwrap();
        rig.manager.release(&shard).unwrap();
        assert_eq!(rig.manager.used_vram(), 0);
        rig.close_clean();
    }
}

#[test]
fn a_switch_that_fails_fails_the_seal_and_leaves_nothing() {
    // covers: DEV-5 SEAL-1 RES-6
    for code in [2, 999, 12_345] {
        let rig = Rig::new();
        let other = rig.seal("other", &noise(3000, 2));
        let (counts, before) = (rig.counts(), rig.digests());
        rig.order(Fault::Call { call: MockCall::Protect, code });
        let from = rig.mark();
        let refused = rig.manager.seal_model(spec("a"), ShardSource::bytes(&noise(BYTES, 1)));
        let Err(VramError::Device(error)) = refused else { panic!("{refused:?}") };
        assert_eq!((error.code, error.operation), (code, "cuMemSetAccess"));
        assert_eq!((rig.counts(), rig.digests() - before), (counts, 1));
        assert_eq!(rig.names_since(from), ["vram_allocated", "vram_wiped", "vram_deallocated", "vram_seal_failed"]);
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        execute(&rig, &other).unwrap();
        rig.seal("a", &noise(BYTES, 1));
        rig.close_clean();
    }
}

#[test]
fn bytes_that_change_with_the_switch_are_never_signed() {
    // covers: DEV-5 SEAL-1
    let bytes = noise(BYTES, 1);
    let expected = vram_residency::digest_bytes(Rig::new().manager.tree_params(), &bytes);
    let seal = |rig: &Rig, vouched: bool| {
        let spec =
            if vouched { spec("a").expect(vouching::file(rig.manager.tree_params(), expected)) } else { spec("a") };
        rig.manager.seal_model(spec, ShardSource::bytes(&bytes))
    };
    for (at, vouched) in [(0, false), (40_000, true), (69_999, false)] {
        let rig = Rig::new();
        let (counts, from) = (rig.counts(), rig.mark());
        rig.order(Fault::ProtectCorrupts { bit: at * 8 + 3 });
        let Err(VramError::DigestMismatch { expected: first, actual, .. }) = seal(&rig, vouched) else {
            panic!("a seal over changed bytes")
        };
        assert!(first == expected && actual != expected);
        assert_eq!(rig.counts(), counts);
        let names = rig.names_since(from);
        let failed =
            ["vram_allocated", "seal_verification_failed", "vram_wiped", "vram_deallocated", "vram_seal_failed"];
        assert_eq!(names, failed);
        let said = rig.sink.events().into_iter().find_map(|event| match event.kind {
            EventKind::SealVerificationFailed { reason, expected, actual, first_bad, .. } => {
                Some((reason, expected, actual, first_bad.unwrap()))
            }
            _ => None,
        });
        let (reason, told, found, bad): (_, Digest, _, _) = said.unwrap();
        assert_eq!((reason, told, found), (VerificationFailure::DigestMismatch, expected, Some(actual)));
        assert!((bad.offset..bad.offset + bad.bytes).contains(&at), "{bad}");
        assert_eq!(rig.manager.state(), ManagerState::Ready, "the bytes were never resident under a seal");
        rig.close_clean();
    }
    // The twin: a bit behind the image, in memory that is the shard's and not its image.
    let rig = Rig::new();
    rig.order(Fault::ProtectCorrupts { bit: BYTES as u64 * 8 });
    let shard = seal(&rig, true).unwrap();
    execute(&rig, &shard).unwrap();
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
    // A second digest that the device cannot show to have made is no digest either.
    for fault in [Fault::DigestSkipped, Fault::DigestShort, Fault::DigestStale] {
        let rig = Rig::new();
        rig.order(fault.nth(2));
        let counts = rig.counts();
        assert_error!(seal(&rig, true), VramError::DeviceUntrusted { .. });
        assert_eq!(rig.counts(), counts);
        rig.close_clean();
    }
}

#[test]
fn every_wipe_makes_the_memory_writable_first() {
    // covers: DEV-5 SCR-1 SCR-3
    let ends: [(&str, End); 4] = [
        ("release", |rig, shard| drop(rig.manager.release(shard).unwrap())),
        ("release_by_id", |rig, shard| drop(rig.manager.release_by_id(shard.id()).unwrap())),
        ("shutdown", |rig, _| assert!(rig.manager.shutdown(Duration::from_secs(5)).drained)),
        ("drop", |_, _| ()),
    ];
    for (end, act) in ends {
        for quarantined in [false, true] {
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
    }
    // A seal that is refused after the switch, by its trail.
    let sink = Arc::new(MemorySink::claiming_durable());
    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let rig = Rig::on(small(), sink, |builder| builder.policy(policy));
    let counts = rig.counts();
    rig.sink.failing(true);
    let refused = rig.manager.seal_model(spec("a"), ShardSource::bytes(&noise(BYTES, 1)));
    assert_eq!(refused.unwrap_err().code().as_str(), "AUDIT_UNAVAILABLE");
    assert_eq!((rig.counts(), switches(&rig)), (counts, 2));
    rig.sink.failing(false);
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
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        execute(&rig, &other).unwrap();
        assert_error!(rig.manager.release(&shard), VramError::StaleHandle { .. });
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
    let Rig { config, manager, .. } = rig;
    let report = manager.shutdown(Duration::from_secs(5));
    assert_eq!((report.residue_bytes, report.wiped_bytes), (used, 0));
    drop(manager);
    assert_eq!((config.stats().live_bytes, config.stats().unwiped_bytes_freed), (used, 0));
}

#[test]
fn a_seal_that_fails_and_cannot_be_made_writable_leaves_residue() {
    // covers: DEV-5 SCR-2 SCR-3
    let rig = Rig::new();
    rig.order(Fault::call(MockCall::Protect).times(2));
    let error = rig.manager.seal_model(spec("a"), ShardSource::bytes(&noise(BYTES, 1))).unwrap_err();
    assert!(matches!(&error, VramError::Device(error) if error.operation == "cuMemSetAccess"), "{error:?}");
    assert_eq!(causes(&rig), [QuarantineCause::Residue]);
    assert_eq!(rig.manager.used_vram(), rig.manager.quarantined_vram());
    rig.assert_recount();
    rig.close_clean();
}

#[test]
fn sealing_anew_keeps_the_mapping_and_says_so() {
    // covers: DEV-5 SEAL-7
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(BYTES, 1));
    let renewed = rig.manager.reseal(&shard).unwrap();
    assert_eq!((protected(&rig), switches(&rig)), (vec![true, true], 1));
    assert!(!is_writable(&rig, &renewed));
    assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().write_protected_shards, 1);
    rig.manager.release(&renewed).unwrap();
    assert_eq!(switches(&rig), 2);
    rig.close_clean();

    let rig = Rig::new();
    rig.order(Fault::ProtectUnconfirmed);
    let shard = rig.seal("a", &noise(BYTES, 1));
    let renewed = rig.manager.reseal(&shard).unwrap();
    assert_eq!(protected(&rig), [false, false]);
    rig.manager.release(&renewed).unwrap();
    rig.close_clean();
}

#[test]
fn an_engines_memory_is_never_switched() {
    // covers: DEV-5 RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 3));
    for wipe in [false, true] {
        let before = rig.digests();
        let spec = spec("engine").wipe_adopted(wipe);
        let (adopted, _drops) = adopt(&rig.manager, spec, &arena, &[arena.region(7, 9000)]);
        let adopted = adopted.unwrap();
        assert_eq!((switches(&rig), rig.digests() - before), (0, 1));
        assert_eq!(protected(&rig).last(), Some(&false));
        assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().write_protected_shards, 0);
        rig.manager.reseal(adopted.shard()).map(|renewed| rig.manager.release(&renewed).unwrap()).unwrap();
        assert_eq!(protected(&rig).last(), Some(&false));
        assert_eq!(switches(&rig), 0);
    }
    rig.close_clean();
}

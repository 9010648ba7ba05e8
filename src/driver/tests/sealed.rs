//! Read-only mappings of sealed memory, over the driver on the mock.
// covers: DEV-5

use std::time::{Duration, Instant};

use super::life::{find, manager_telling, seal, weights};
use super::*;
use crate::audit::{EventKind, MemorySink, QuarantineCause};
use crate::error::{ManagerState, StopReason, VramError};
use crate::id::ShardId;
use crate::manager::VramManager;
use crate::spec::{ExecuteOptions, ShardSpec};
use crate::types::{RawRegion, RawStream};

/// Reading; reading and writing: what a mapping allows.
const READ: u32 = 1;
const WRITE: u32 = 3;

/// A manager and its trail.
fn told(fake: &Fake) -> (VramManager, Arc<MemorySink>) {
    let sink = Arc::new(MemorySink::default());
    (manager_telling(fake, Arc::<MemorySink>::clone(&sink)).unwrap(), sink)
}

/// What the events of the trail said, once `count` of them have; they arrive on a thread of the manager.
fn heard<T>(sink: &MemorySink, count: usize, said: impl Fn(EventKind) -> Option<T>) -> Vec<T> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let heard: Vec<T> = sink.events().into_iter().filter_map(|event| said(event.kind)).collect();
        if heard.len() >= count || Instant::now() > until {
            return heard;
        }
        std::thread::yield_now();
    }
}

/// What `count` seals of the trail said.
fn protected(sink: &MemorySink, count: usize) -> Vec<bool> {
    heard(sink, count, |kind| match kind {
        EventKind::VramSealed { write_protected, .. } => Some(write_protected),
        _ => None,
    })
}

/// How memory was quarantined, `count` times.
fn causes(sink: &MemorySink, count: usize) -> Vec<QuarantineCause> {
    heard(sink, count, |kind| match kind {
        EventKind::ShardQuarantined { cause, .. } => Some(cause),
        _ => None,
    })
}

/// The calls since the last time of which `wanted` names one, without repetitions in a row.
fn calls(fake: &Fake, wanted: &[&'static str]) -> Vec<&'static str> {
    fake.set(Setting::Traced, 1);
    let name = |called| wanted.iter().find(|name| number(name) == called).copied();
    let mut calls: Vec<_> = fake.machine.trace().into_iter().filter_map(name).collect();
    calls.dedup();
    calls
}

/// The image's and the check space's mapping of every shard: what they allow, images first.
fn accesses(fake: &Fake) -> Vec<u32> {
    let mut all: Vec<u32> = fake.mappings().into_iter().map(|(ptr, _)| fake.access(ptr)).collect();
    all.sort_unstable();
    all
}

#[test]
fn images_are_read_only_in_granules_of_their_own_and_the_check_space_is_not() {
    // covers: DEV-5 RES-2
    let fake = Fake::new();
    let (manager, sink) = told(&fake);
    let before = accesses(&fake).len();
    for shards in 1..=3 {
        seal(&manager, &format!("model-{shards}")).unwrap();
        let mappings = fake.mappings();
        // An image of a few hundred KiB takes one granule, its check space another, and nobody else lies in either.
        assert_eq!(mappings.len() - before, 2 * shards);
        for (at, (ptr, bytes)) in mappings.iter().enumerate() {
            assert!(ptr.is_multiple_of(GRANULE) && *bytes > 0 && bytes.is_multiple_of(GRANULE));
            assert!(mappings.iter().skip(at + 1).all(|(other, _)| ptr + bytes <= *other));
        }
        assert_eq!(accesses(&fake).iter().filter(|access| **access == READ).count(), shards);
        assert_eq!(fake.access(find(&fake)), READ);
    }
    assert_eq!(protected(&sink, 3), [true; 3]);
    assert_eq!(manager.enforce_vram_only_policy().unwrap().write_protected_shards, 3);
    drop(manager);
    assert_eq!(fake.get("unwiped"), 0);
    clean(&fake);
}

#[test]
fn the_switch_lies_before_the_digest_and_the_way_back_before_the_wipe() {
    // covers: DEV-5 SEAL-1 SCR-1
    let steps = ["cuMemCreate", "cuMemSetAccess", "cuMemGetAccess", "cuMemcpyHtoDAsync_v2", "cuLaunchKernel"];
    let fake = Fake::new();
    let (manager, _) = told(&fake);
    calls(&fake, &[]);
    let shard = seal(&manager, "model-a").unwrap();
    let sealing = calls(&fake, &steps);
    let allocated = sealing.iter().rposition(|call| *call == "cuMemCreate").unwrap();
    assert_eq!(
        sealing[allocated..],
        [
            ["cuMemCreate", "cuMemSetAccess", "cuLaunchKernel"].as_slice(), // writable, proven zero
            &["cuMemcpyHtoDAsync_v2"],                                      // the upload
            &["cuMemSetAccess", "cuMemGetAccess"],                          // switched, and asked
            &["cuMemcpyHtoDAsync_v2", "cuLaunchKernel"],                    // a table; the digest that is signed
        ]
        .concat()
    );

    manager.execute(&shard, |_| ()).unwrap();
    assert!(!calls(&fake, &steps).contains(&"cuMemSetAccess"), "a check switches nothing");
    manager.release(&shard).unwrap();
    let release = calls(&fake, &["cuMemSetAccess", "cuMemGetAccess", "cuMemsetD8Async", "cuMemUnmap"]);
    assert_eq!(release, ["cuMemSetAccess", "cuMemGetAccess", "cuMemsetD8Async", "cuMemUnmap"]);
    assert_eq!(fake.get("unwiped"), 0);
    drop(manager);
    clean(&fake);
}

#[test]
fn what_the_driver_does_not_confirm_is_not_claimed() {
    // covers: DEV-5 AUD-1
    let refusing = |code| {
        let fake = Fake::new();
        fake.set(Setting::RefuseReadOnly, code);
        fake
    };
    let unconfirmed = Fake::new();
    unconfirmed.always(Kind::Unconfirmed, PROTECT, 0, 0);
    let unasked = Fake::new();
    unasked.order("cuMemGetAccess", 801, 1, 2);
    let cases = [
        (refusing(801), WRITE),
        (refusing(1), WRITE),
        (unconfirmed, READ),
        (Fake::without("cuMemGetAccess"), READ),
        (unasked, READ),
    ];
    for (fake, access) in cases {
        let (manager, sink) = told(&fake);
        let shard = seal(&manager, "model-a").unwrap();
        assert_eq!((protected(&sink, 1), fake.access(find(&fake))), (vec![false], access));
        assert_eq!(manager.enforce_vram_only_policy().unwrap().write_protected_shards, 0);
        manager.execute(&shard, |_| ()).unwrap();
        let renewed = manager.reseal(&shard).unwrap();
        assert_eq!(protected(&sink, 2), [false, false]);
        manager.release(&renewed).unwrap();
        assert_eq!((manager.used_vram(), fake.get("unwiped")), (0, 0));
        drop(manager);
        clean(&fake);
    }
}

#[test]
fn a_switch_that_fails_at_any_step_leaves_nothing() {
    // covers: DEV-5 RES-6
    let fake = Fake::new();
    let (manager, sink) = told(&fake);
    // The driver refuses; the driver does not say; a digest on either side does not start, or is not waited for.
    let third = [("cuMemSetAccess", 12_345, 3), ("cuMemSetAccess", 999, 3), ("cuMemGetAccess", 12_345, 1)];
    let any = (1..=40).flat_map(|nth| {
        ["cuLaunchKernel", "cuStreamSynchronize", "cuMemsetD8Async", "cuMemcpyDtoHAsync_v2"]
            .map(|call| (call, 12_345, nth))
    });
    let mut failed = 0;
    for (call, code, nth) in third.into_iter().chain(any) {
        fake.order(call, code, nth, 1);
        match seal(&manager, "model-a") {
            Ok(shard) => drop(manager.release(&shard)),
            Err(VramError::Device(error)) => {
                assert_eq!((error.operation, error.code), (call, code));
                failed += 1;
            }
            Err(error) => panic!("{call} {nth}: {error:?}"),
        }
        fake.tell_the_truth();
        let (used, kept) = (manager.used_vram(), manager.quarantined_vram());
        assert_eq!(used, kept, "{call} {nth}: what is not free is residue");
    }
    assert!(failed > 20, "{failed}");
    assert!(causes(&sink, 1).iter().all(|cause| *cause == QuarantineCause::Residue));
    assert_eq!(manager.state(), ManagerState::Ready);
    drop(manager);
    clean(&fake);
}

#[test]
fn bytes_that_change_with_the_switch_are_never_signed() {
    // covers: DEV-5 SEAL-1
    let fake = Fake::new();
    let (manager, sink) = told(&fake);
    fake.always(Kind::Corrupt, PROTECT, 0, 8 * 299_999);
    let error = seal(&manager, "model-a").unwrap_err();
    assert!(matches!(&error, VramError::DigestMismatch { expected, actual, .. } if expected != actual), "{error:?}");
    assert_eq!((protected(&sink, 0), manager.used_vram(), fake.get("unwiped")), (vec![], 0, 0));
    assert_eq!(manager.state(), ManagerState::Ready);
    fake.tell_the_truth();
    seal(&manager, "model-a").unwrap();
    drop(manager);
    clean(&fake);
}

#[test]
fn memory_that_does_not_become_writable_is_not_touched_and_kept() {
    // covers: DEV-5 SCR-2
    // Refusals that mean "not offered" for read-only memory mean a failure here.
    for code in [1, 801, 999, 12_345] {
        let fake = Fake::new();
        let (manager, sink) = told(&fake);
        let shard = seal(&manager, "model-a").unwrap();
        let (used, place) = (manager.used_vram(), find(&fake));
        calls(&fake, &[]);
        fake.order("cuMemSetAccess", code, 1, 1);
        let error = manager.release(&shard).unwrap_err();
        let VramError::WipeFailed { source: Some(error), bytes, .. } = error else { panic!("{error:?}") };
        assert_eq!((error.operation, error.code, bytes), ("cuMemSetAccess", code, used));
        assert_eq!(calls(&fake, &["cuMemSetAccess", "cuMemsetD8Async", "cuMemUnmap"]), ["cuMemSetAccess"]);
        assert_eq!((fake.access(place), fake.peek(place, 64)), (READ, weights()[..64].to_vec()));
        assert_eq!((manager.used_vram(), manager.quarantined_vram()), (used, used));
        assert_eq!((causes(&sink, 1), manager.state()), (vec![QuarantineCause::Residue], ManagerState::Ready));
        drop(manager); // tries once more
        assert_eq!(fake.get("unwiped"), 0);
        clean(&fake);
    }
}

#[test]
fn a_stray_write_costs_the_context_and_never_a_byte() {
    // covers: DEV-5 SCR-3 VER-5
    let fake = Fake::new();
    let (manager, sink) = told(&fake);
    let shard = seal(&manager, "model-a").unwrap();
    let (place, engine) = (find(&fake), fake.engine_stream());
    fake.engine_fill(engine, place, 64, 7);
    // SAFETY: the mock's stream lives as long as the mock.
    #[allow(unsafe_code, reason = "naming an engine's stream is a promise that only the engine can make")]
    let options = unsafe { ExecuteOptions::default().on_stream(RawStream::new(engine)) };
    let mut ran = false;
    let error = manager.begin(&shard, options).map(|guard| ran = guard.finish().is_ok()).unwrap_err();
    assert!(matches!(&error, VramError::Device(DriverError { code: 700, .. })), "{error:?}");
    assert!(!ran);
    assert_eq!(manager.state(), ManagerState::Stopped(StopReason::DeviceLost));
    assert_eq!(fake.peek(place, 64), weights()[..64]);
    assert!(matches!(manager.release(&shard), Err(VramError::WipeFailed { source: Some(_), .. })));
    assert_eq!(causes(&sink, 1), [QuarantineCause::WipeImpossible]);
    drop(manager);
    assert_eq!(fake.get("violations"), 0);

    // The twin: where read-only is refused the same write goes through, and the check finds it.
    let fake = Fake::new();
    fake.set(Setting::RefuseReadOnly, 801);
    let (manager, _) = told(&fake);
    let shard = seal(&manager, "model-a").unwrap();
    let engine = fake.engine_stream();
    fake.engine_fill(engine, find(&fake) + 100, 64, 7);
    // SAFETY: as above.
    #[allow(unsafe_code, reason = "naming an engine's stream is a promise that only the engine can make")]
    let options = unsafe { ExecuteOptions::default().on_stream(RawStream::new(engine)) };
    assert!(matches!(manager.begin(&shard, options), Err(VramError::IntegrityFailure { .. })));
    manager.release(&shard).unwrap();
    assert_eq!(fake.get("unwiped"), 0);
}

#[test]
#[allow(unsafe_code, reason = "adopting memory is a promise that only its engine can make")]
fn an_engines_memory_is_never_switched() {
    // covers: DEV-5 RES-9
    let fake = Fake::new();
    let (manager, sink) = told(&fake);
    let ptr = fake.engine_alloc(100_000);
    let before = fake.calls("cuMemSetAccess");
    let spec = ShardSpec::new(ShardId::new("adopted").unwrap()).wipe_adopted(true);
    // SAFETY: the mock's memory lives until it is freed below, after the release, and nobody else writes it.
    let adopted = unsafe { manager.adopt(spec, (), &[RawRegion::new(ptr, 100_000)]) }.unwrap();
    manager.execute(adopted.shard(), |_| ()).unwrap();
    manager.release(adopted.shard()).unwrap();
    assert_eq!(fake.calls("cuMemSetAccess") - before, 1, "the check space was mapped");
    assert_eq!(protected(&sink, 1), [false]);
    fake.engine_free(ptr);
    drop(manager);
    clean(&fake);
}

//! An engine's memory under seal: digested where it lies, given back on every failure, wiped only where its owner allows that.
// covers: RES-9 DIG-3

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use support::{
    Arena, Dice, Engine, Rig, adopt, assert_clean, block, builder, image, offset, refused, regions, scatter, small,
    spec,
};
use vram_residency::{
    Ack, AuditError, AuditEvent, AuditRequirement, AuditSink, DriverErrorKind, ErrorCode, EventKind, ExecuteOptions,
    Fault, ManagerState, MemorySink, MockCall, MockConfig, Origin, Policy, RawRegion, ResidencyLie, ShardSource,
    ShardSpec, TreeParams, VramError, VramManager, digest_bytes,
};

/// Lengths around the edges of blocks and bytes, and many between.
fn lengths(dice: &mut Dice, count: usize, block: usize) -> Vec<usize> {
    let edges = [1, 2, 7, block - 1, block, block + 1, 2 * block, 3 * block + 1];
    (0..count)
        .map(|_| if dice.below(2) == 0 { edges[dice.below(8) as usize] } else { 1 + dice.below(3000) as usize })
        .collect()
}

/// A safetensors file that holds these tensors, in this order.
fn safetensors(tensors: &[Vec<u8>]) -> tempfile::NamedTempFile {
    let mut at = 0;
    let entries: Vec<String> = tensors
        .iter()
        .enumerate()
        .map(|(index, bytes)| {
            let (from, to) = (at, at + bytes.len());
            at = to;
            format!(r#""t{index:05}":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#, bytes.len())
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    tensors.iter().for_each(|tensor| file.write_all(tensor).unwrap());
    file.flush().unwrap();
    file
}

#[test]
fn hundreds_of_regions_of_any_alignment_have_the_digest_of_their_image_and_of_their_file() {
    // covers: RES-9 DIG-3 DIG-1
    for (seed, params) in [block(1024), block(4096), TreeParams::new(2048, b"some salt").unwrap()].iter().enumerate() {
        let rig = Rig::with(small(), |b| b.tree_params(params.clone()));
        let mut dice = Dice::new(seed as u64);
        let block = params.block_size() as usize;
        let lengths = lengths(&mut dice, 700, block);
        let (arena, places) = scatter(&mut dice, &lengths);
        let image = image(&arena, &places, block);
        let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &regions(&arena, &places));
        let adopted = adopted.unwrap();
        let shard = adopted.shard();
        assert_eq!((shard.digest(), shard.byte_len()), (digest_bytes(params, &image), image.len() as u64));
        assert!(shard.is_adopted() && shard.origin() == Origin::Measured);
        assert_eq!(rig.manager.compute_vram_digest(shard).unwrap(), shard.digest());

        let tensors: Vec<Vec<u8>> =
            places.iter().map(|(at, bytes)| (*at..at + bytes).map(|at| arena.get(at)).collect()).collect();
        let file = safetensors(&tensors);
        let from_file = rig.manager.seal_model(spec("file"), ShardSource::safetensors(file.path()).unwrap()).unwrap();
        assert_eq!(from_file.digest(), shard.digest());
        assert!(!from_file.is_adopted(), "the flag is signed: one seal has it and the other has not");
        assert_ne!(from_file.to_bytes(), shard.to_bytes());

        // The twin: one byte of one tensor is another.
        let mut other = tensors;
        *other[350].last_mut().unwrap() ^= 1;
        let file = safetensors(&other);
        let from_other = rig.manager.seal_model(spec("other"), ShardSource::safetensors(file.path()).unwrap()).unwrap();
        assert_ne!(from_other.digest(), shard.digest());

        let adopted_bytes: u64 = lengths.iter().map(|bytes| *bytes as u64).sum();
        assert_eq!(rig.manager.adopted_vram(), adopted_bytes, "regions are counted, padding is not");
        assert_eq!(rig.config.stats().live_foreign, 700);
        rig.assert_recount();
        rig.manager.release(shard).unwrap();
        assert_eq!((rig.manager.adopted_vram(), drops.count()), (0, 0));
        drop(adopted);
        assert_eq!(drops.count(), 1);
        rig.close_clean();
    }
}

#[test]
fn a_flip_anywhere_is_found_and_named_and_what_lies_beside_does_not_matter() {
    // covers: RES-9 VER-4 DIG-4
    let rig = Rig::lenient();
    let mut dice = Dice::new(5);
    let lengths = lengths(&mut dice, 40, 1024);
    let (arena, places) = scatter(&mut dice, &lengths);
    let all = regions(&arena, &places);
    let before = arena.bytes();
    for (number, (at, bytes)) in places.iter().copied().enumerate() {
        for position in [at, at + bytes - 1, at + bytes / 2] {
            let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &all);
            let adopted = adopted.unwrap();
            arena.flip(position);
            let error = rig.manager.execute(adopted.shard(), |_| panic!("the work ran")).unwrap_err();
            let VramError::IntegrityFailure { first_bad: Some(found), .. } = error else { panic!("{error:?}") };
            let offset = offset(&places, 1024, position).unwrap();
            assert!((found.offset..found.offset + found.bytes).contains(&offset), "{found:?} {offset}");
            // The first region of the first bad subtree: 32 blocks of 1024 bytes, so it may come before the flipped one.
            let named = found.tensor.unwrap();
            let named: usize = named.strip_prefix("region ").unwrap().parse().unwrap();
            assert!(named <= number, "{named} {number}");
            arena.flip(position);
            rig.manager.release(adopted.shard()).unwrap();
            assert!(adopted.into_owner().is_ok());
        }
    }
    // The twin: every byte that is in no region changes, and nothing is found.
    let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &all);
    let adopted = adopted.unwrap();
    let outside: Vec<usize> = (0..arena.len()).filter(|at| offset(&places, 1024, *at).is_none()).collect();
    assert!(outside.len() > 100);
    outside.iter().for_each(|at| arena.flip(*at));
    rig.manager.execute(adopted.shard(), |_| ()).unwrap();
    outside.iter().for_each(|at| arena.flip(*at));
    assert_eq!(arena.bytes(), before);
    rig.manager.release(adopted.shard()).unwrap();
    drop(adopted);
    rig.close_clean();
}

#[test]
fn reads_cross_virtual_padding_and_see_zeros_there() {
    // covers: RES-9 DIG-3
    let rig = Rig::new();
    let mut dice = Dice::new(8);
    let lengths = lengths(&mut dice, 60, 1024);
    let (arena, places) = scatter(&mut dice, &lengths);
    let image = image(&arena, &places, 1024);
    let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &regions(&arena, &places));
    let adopted = adopted.unwrap();
    let run = rig.manager.begin(adopted.shard(), ExecuteOptions::default()).unwrap();
    let mut all = vec![0xAA; image.len()];
    run.read_at(0, &mut all).unwrap();
    assert!(all == image);
    for _ in 0..500 {
        let from = dice.below(image.len() as u64) as usize;
        let to = from + dice.below((image.len() - from) as u64 + 1) as usize;
        let mut out = vec![0xAA; to - from];
        run.read_at(from as u64, &mut out).unwrap();
        assert!(out == image[from..to], "{from}..{to}");
    }
    let mut byte = [0];
    assert_error!(run.read_at(image.len() as u64, &mut byte), VramError::InvalidParams { field: "offset", .. });
    assert_error!(run.read_at(u64::MAX, &mut byte), VramError::InvalidParams { field: "offset", .. });
    let found = run.regions();
    assert_eq!(found.len(), 60);
    for (region, (at, bytes)) in found.iter().zip(&places) {
        assert_eq!((region.byte_len(), region.offset()), (*bytes as u64, offset(&places, 1024, *at).unwrap()));
        let tensor = region.tensor().unwrap();
        assert_eq!((tensor.bytes, tensor.offset), (region.byte_len(), region.offset()));
        // SAFETY: the address is compared, never followed.
        assert_eq!(unsafe { region.device_ptr() }.as_u64(), arena.address(*at), "where it lies, not a copy");
    }
    run.finish().unwrap();
    rig.manager.release(adopted.shard()).unwrap();
    drop(adopted);
    rig.close_clean();
}

/// Asserts that an adoption is refused and leaves everything as it was: owner, bytes, ledger, driver.
#[track_caller]
fn assert_refused(
    rig: &Rig,
    spec: ShardSpec,
    arena: &Arc<Arena>,
    regions: &[RawRegion],
    judge: impl Fn(&VramError) -> bool,
) {
    let (counts, bytes) = (rig.counts(), arena.bytes());
    let (result, drops) = adopt(&rig.manager, spec, arena, regions);
    let (error, owner) = refused(result);
    assert!(judge(&error), "{error:?}");
    assert_eq!(drops.count(), 0, "the owner came back alive");
    assert!(Arc::ptr_eq(&owner.arena, arena));
    assert!(arena.bytes() == bytes, "the memory is untouched");
    assert_eq!(rig.counts(), counts);
    drop(owner);
    assert_eq!(drops.count(), 1);
}

fn regions_are_refused(error: &VramError) -> bool {
    matches!(error, VramError::InvalidParams { field: "regions", .. })
}

#[test]
fn unusable_regions_are_refused_and_the_owner_comes_back() {
    // covers: RES-9 VAL-2
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 1));
    let one = arena.region(100, 3000);
    let four = (0..4).find(|at| arena.address(*at).is_multiple_of(4)).unwrap();
    let odd = (1..4).find(|at| !arena.address(*at).is_multiple_of(4)).unwrap();
    let bad: Vec<(&str, Vec<RawRegion>)> = vec![
        ("none at all", vec![]),
        ("null", vec![RawRegion::new(0, 100)]),
        ("null among good ones", vec![one, RawRegion::new(0, 100)]),
        ("empty", vec![arena.region(100, 0)]),
        ("empty among good ones", vec![one, arena.region(9000, 0)]),
        ("misaligned address", vec![arena.region(odd, 16).element_bytes(4)]),
        ("misaligned length", vec![arena.region(four, 15).element_bytes(4)]),
        ("elements of no bytes", vec![arena.region(four, 16).element_bytes(0)]),
        ("the same twice", vec![one, one]),
        ("overlapping by one byte", vec![one, arena.region(3099, 10)]),
        ("one inside another", vec![one, arena.region(200, 1)]),
        ("overlapping in any order", vec![arena.region(9000, 10), one, arena.region(50, 51)]),
        ("wrapping", vec![RawRegion::new(u64::MAX, 1)]),
        ("wrapping far", vec![RawRegion::new(arena.address(0), u64::MAX - 5)]),
        ("wrapping among good ones", vec![one, RawRegion::new(u64::MAX - 10, 11)]),
    ];
    for (what, regions) in bad {
        println!("{what}");
        assert_refused(&rig, spec("engine"), &arena, &regions, regions_are_refused);
    }
    // The twins: the nearest that is allowed.
    let good = [
        vec![one, arena.region(3100, 10), arena.region(99, 1)],
        vec![arena.region(four, 16).element_bytes(4), arena.region(four + 16, 4).element_bytes(2)],
        vec![arena.region(odd, 16).element_bytes(1)],
    ];
    for regions in good {
        let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &regions);
        rig.manager.release(adopted.unwrap().shard()).unwrap();
    }
    rig.close_clean();
}

#[test]
fn memory_of_a_live_shard_is_not_adopted_again() {
    // covers: RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 2));
    let (first, _) = adopt(&rig.manager, spec("first"), &arena, &[arena.region(0, 1000), arena.region(5000, 1000)]);
    let first = first.unwrap();
    let owned = rig.seal("owned", &[7; 3000]);
    let address = {
        let run = rig.manager.begin(&owned, ExecuteOptions::default()).unwrap();
        // SAFETY: the address is handed to an adoption that must refuse it before it is followed.
        let address = unsafe { run.regions()[0].device_ptr() }.as_u64();
        run.finish().unwrap();
        address
    };
    for taken in [
        vec![arena.region(0, 1000)],
        vec![arena.region(999, 1)],
        vec![arena.region(2000, 100), arena.region(5500, 1)],
        vec![arena.region(4000, 5000)],
        vec![RawRegion::new(address, 3000)],
        vec![RawRegion::new(address + 2999, 1)],
        vec![arena.region(2000, 100), RawRegion::new(address + 100, 10)],
    ] {
        assert_refused(&rig, spec("second"), &arena, &taken, regions_are_refused);
    }
    rig.manager.execute(first.shard(), |_| ()).unwrap();
    rig.manager.execute(&owned, |_| ()).unwrap();
    // The twin: what lies between is free, and so is all of it after the release.
    let (between, _) = adopt(&rig.manager, spec("between"), &arena, &[arena.region(1000, 4000)]);
    rig.manager.release(between.unwrap().shard()).unwrap();
    rig.manager.release(first.shard()).unwrap();
    let (again, _) = adopt(&rig.manager, spec("again"), &arena, &[arena.region(4000, 5000)]);
    rig.manager.release(again.unwrap().shard()).unwrap();
    drop(first);
    rig.close_clean();
}

#[test]
fn an_adoption_that_must_not_be_is_refused_whole() {
    // covers: RES-9 RES-6 SEAL-1
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 3));
    let all = [arena.region(3, 5000), arena.region(9001, 777)];
    let live = rig.seal("live", &[1; 100]);
    let digest = |seed: u64| digest_bytes(rig.manager.tree_params(), &support::noise(100, seed));
    assert_refused(&rig, spec("live"), &arena, &all, |e| {
        matches!(e, VramError::InvalidParams { field: "shard id", .. })
    });
    assert_refused(&rig, spec("engine").expect_digest(digest(1)), &arena, &all, |e| {
        matches!(e, VramError::DigestMismatch { .. })
    });
    assert_refused(&rig, spec("engine").expect_digest(digest(1)).wipe_adopted(true), &arena, &all, |e| {
        matches!(e, VramError::DigestMismatch { .. })
    });
    let set = vram_residency::SetId::random().unwrap();
    assert_refused(&rig, spec("engine").part(set, 2, 2), &arena, &all, |e| {
        matches!(e, VramError::InvalidParams { field: "part", .. })
    });
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    // The twin: the right digest.
    let vouched = digest_bytes(rig.manager.tree_params(), &image(&arena, &[(3, 5000), (9001, 777)], 1024));
    let (adopted, _) = adopt(&rig.manager, spec("engine").expect_digest(vouched), &arena, &all);
    let adopted = adopted.unwrap();
    assert_eq!((adopted.shard().origin(), adopted.shard().digest()), (Origin::Expected, vouched));
    rig.manager.release(adopted.shard()).unwrap();
    rig.manager.release(&live).unwrap();
    drop(adopted);
    // A manager that stopped.
    rig.manager.shutdown(Duration::ZERO).unwrap();
    assert_refused(&rig, spec("engine"), &arena, &all, |e| matches!(e, VramError::ManagerStopped { .. }));
    rig.close_clean();
}

#[test]
fn an_adoption_without_room_without_trail_or_against_the_policy_is_refused() {
    // covers: RES-6 AUD-5
    let arena = Arc::new(Arena::new(600_000, 4));
    let all = [arena.region(0, 600_000)];
    // 586 blocks of 1024 bytes need their hashes' room.
    let rig = Rig::with(small().capacity_bytes(100_000), |b| b);
    let filler = rig.seal("filler", &[1; 90_000]);
    let full = |error: &VramError| matches!(error, VramError::OutOfMemory { .. });
    assert_refused(&rig, spec("engine"), &arena, &all, full);
    rig.manager.release(&filler).unwrap();
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &all);
    rig.manager.release(adopted.unwrap().shard()).unwrap();
    rig.config.fail(Fault::MemoryInfoFree { free: 100 }).unwrap();
    assert_refused(&rig, spec("engine"), &arena, &all, full);
    rig.config.fail(Fault::Call { call: MockCall::Alloc, code: 2 }).unwrap();
    assert_refused(&rig, spec("engine"), &arena, &all, full);
    rig.close_clean();

    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let rig = Rig::on(small(), Arc::new(MemorySink::claiming_durable()), |b| b.policy(policy));
    rig.sink.failing(true);
    assert_refused(&rig, spec("engine"), &arena, &all, |e| matches!(e, VramError::AuditUnavailable { .. }));
    rig.sink.failing(false);
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &all);
    rig.manager.release(adopted.unwrap().shard()).unwrap();
    let Rig { config, manager, .. } = rig;
    drop(manager);
    assert_clean(&config.stats());

    let rig = Rig::with(small(), |b| b.policy(Policy::development().require_expected_digest(true)));
    assert_refused(&rig, spec("engine"), &arena, &all, |e| e.code() == ErrorCode::PolicyViolation);
    rig.close_clean();
}

#[test]
fn whichever_call_of_the_device_fails_the_memory_comes_back_untouched() {
    // covers: RES-9 RES-3 SCR-3
    for (wipe, code) in [(false, 999), (true, 999), (true, 2), (true, 1)] {
        let arena = Arc::new(Arena::new(9000, 6));
        let all = [arena.region(1, 3000), arena.region(4003, 1024), arena.region(6001, 5)];
        // Without poison, memory that was never written is zero, so that giving it back unwiped is not counted.
        let rig = Rig::with(small().poison(false), |b| b);
        let mut failed = 0;
        for nth in 1_u64.. {
            let (counts, bytes) = (rig.counts(), arena.bytes());
            rig.config.fail(Fault::Call { call: MockCall::Any, code }.nth(nth)).unwrap();
            let (result, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(wipe), &arena, &all);
            rig.controls().clear_faults().unwrap();
            match result {
                Ok(adopted) => {
                    assert!(arena.bytes() == bytes);
                    rig.manager.release(adopted.shard()).unwrap();
                    assert_eq!(arena.bytes() == bytes, !wipe);
                    break;
                }
                Err(_) => {
                    failed += 1;
                    let (error, owner) = refused(result);
                    assert!(!matches!(error, VramError::Internal { .. }), "{nth}: {error:?}");
                    assert_eq!((drops.count(), rig.counts(), arena.bytes() == bytes), (0, counts, true), "{nth}");
                    drop(owner);
                    assert_eq!(drops.count(), 1);
                }
            }
        }
        assert!(failed >= 10, "{failed} calls failed");
        println!("{failed} calls of an adoption can fail");
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        rig.close_clean();
    }
}

#[test]
fn a_dead_or_lying_device_gives_the_memory_back_too() {
    // covers: RES-2 RES-9 VER-11
    let arena = Arc::new(Arena::new(9000, 7));
    let all = [arena.region(1, 3000), arena.region(4003, 1024)];
    let lies = [
        ResidencyLie::Host,
        ResidencyLie::Managed,
        ResidencyLie::HostMapped,
        ResidencyLie::Exportable,
        ResidencyLie::WrongOrdinal,
        ResidencyLie::AllZero,
        ResidencyLie::ShortRange,
    ];
    for lie in lies {
        for nth in 1..=3 {
            let rig = Rig::with(small().poison(false), |b| b);
            rig.config.fail(Fault::Residency(lie).nth(nth)).unwrap();
            assert_refused(&rig, spec("engine"), &arena, &all, |e| e.code() == ErrorCode::PolicyViolation);
            rig.close_clean();
        }
    }
    for fault in [Fault::DigestSkipped, Fault::DigestShort, Fault::DigestStale, Fault::CopyToHostSkipped] {
        let rig = Rig::new();
        let bytes = arena.bytes();
        rig.config.fail(fault).unwrap();
        let (result, _drops) = adopt(&rig.manager, spec("engine").wipe_adopted(true), &arena, &all);
        let (error, owner) = refused(result);
        assert!(matches!(error, VramError::DeviceUntrusted { .. }), "{error:?}");
        assert!(matches!(rig.manager.state(), ManagerState::Stopped(_)));
        assert!(arena.bytes() == bytes);
        drop(owner);
        rig.close_clean();
    }
    for nth in 1..=12 {
        let rig = Rig::new();
        let bytes = arena.bytes();
        rig.config.fail(Fault::Sticky.nth(nth)).unwrap();
        let (result, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(true), &arena, &all);
        let (error, owner) = refused(result);
        let sticky = |e: &vram_residency::DriverError| e.kind == DriverErrorKind::Sticky;
        assert!(matches!(&error, VramError::Device(e) if sticky(e)), "{nth}: {error:?}");
        assert_eq!((drops.count(), rig.manager.adopted_vram()), (0, 0));
        assert_eq!(rig.config.stats().live_foreign, 0, "{nth}: the driver still knows the engine's memory");
        assert!(arena.bytes() == bytes);
        drop(owner);
    }
}

#[test]
fn exactly_the_regions_are_wiped_and_only_where_the_owner_allows_it() {
    // covers: RES-9 SCR-1
    for wipe in [true, false] {
        for end in ["release", "release_by_id", "shutdown", "drop"] {
            let rig = Rig::new();
            let mut dice = Dice::new(9);
            let lengths = lengths(&mut dice, 50, 1024);
            let total: u64 = lengths.iter().map(|bytes| *bytes as u64).sum();
            let (arena, places) = scatter(&mut dice, &lengths);
            let before = arena.bytes();
            let (adopted, drops) =
                adopt(&rig.manager, spec("engine").wipe_adopted(wipe), &arena, &regions(&arena, &places));
            let adopted = adopted.unwrap();
            assert!(arena.bytes() == before);
            let check_bytes = rig.manager.used_vram();
            let report = match end {
                "release" => Some(rig.manager.release(adopted.shard()).unwrap()),
                "release_by_id" => Some(rig.manager.release_by_id(adopted.shard().id()).unwrap()),
                "shutdown" => {
                    let report = rig.manager.shutdown(Duration::ZERO).unwrap();
                    assert_eq!(report.wiped_bytes, check_bytes + if wipe { total } else { 0 });
                    None
                }
                _ => None,
            };
            if let Some(report) = report {
                assert_eq!(report.bytes, check_bytes + if wipe { total } else { 0 });
                assert_eq!(report.left_unwiped, if wipe { 0 } else { total });
            }
            rig.close_clean();
            let expected: Vec<u8> = before
                .iter()
                .enumerate()
                .map(|(at, byte)| if wipe && offset(&places, 1024, at).is_some() { 0 } else { *byte })
                .collect();
            assert!(arena.bytes() == expected, "{end} with wipe_adopted({wipe})");
            assert_eq!(drops.count(), 0);
            drop(adopted);
            assert_eq!(drops.count(), 1);
        }
    }
}

#[test]
fn the_owner_lives_until_release_however_early_its_handle_goes() {
    // covers: RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 10));
    let weak: Weak<Arena> = Arc::downgrade(&arena);
    let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &[arena.region(3, 4000)]);
    drop(arena);
    let shard = adopted.unwrap().shard().clone(); // the handle goes here
    assert_eq!((drops.count(), weak.strong_count()), (0, 1));
    rig.manager.execute(&shard, |_| ()).unwrap();
    weak.upgrade().unwrap().flip(4);
    assert_error!(rig.manager.execute(&shard, |_| ()), VramError::IntegrityFailure { .. });
    assert_eq!(drops.count(), 0, "also while it is quarantined");
    rig.manager.release(&shard).unwrap();
    assert_eq!((drops.count(), weak.strong_count()), (1, 0));
    rig.close_clean();
}

#[test]
fn the_owner_is_taken_back_after_release_and_not_before() {
    // covers: RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 11));
    let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &[arena.region(3, 4000)]);
    let adopted = adopted.unwrap().into_owner().unwrap_err();
    let shard = adopted.shard().clone();
    let run = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
    let adopted = adopted.into_owner().unwrap_err();
    assert_error!(rig.manager.release(&shard), VramError::ShardBusy { .. });
    let adopted = adopted.into_owner().unwrap_err();
    run.finish().unwrap();
    rig.manager.release(&shard).unwrap();
    let owner = adopted.into_owner().unwrap();
    assert_eq!(drops.count(), 0);
    assert!(Arc::ptr_eq(&owner.arena, &arena));
    drop(owner);
    assert_eq!(drops.count(), 1);
    assert_error!(rig.manager.release(&shard), VramError::StaleHandle { .. });
    rig.close_clean();
}

#[test]
fn a_wipe_that_fails_keeps_the_owner_until_it_succeeds() {
    // covers: SCR-2 RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 12));
    let (adopted, drops) = adopt(&rig.manager, spec("engine").wipe_adopted(true), &arena, &[arena.region(3, 4000)]);
    let adopted = adopted.unwrap();
    let used = rig.manager.used_vram();
    rig.config.fail(Fault::FillSkipped).unwrap();
    assert_error!(rig.manager.release(adopted.shard()), VramError::WipeFailed { .. });
    let adopted = adopted.into_owner().unwrap_err();
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram(), drops.count()), (used, used, 0));
    assert_error!(rig.manager.release(adopted.shard()), VramError::StaleHandle { .. });
    let (result, _) = adopt(&rig.manager, spec("again"), &arena, &[arena.region(4002, 10)]);
    let (error, _owner) = refused(result);
    assert!(!matches!(error, VramError::Internal { .. }), "residue is still somebody's memory: {error:?}");
    let Rig { config, manager, .. } = rig;
    drop(manager);
    assert_clean(&config.stats());
    assert!(adopted.into_owner().is_ok(), "the end of the manager tried once more");
    assert!(arena.bytes()[3..4003].iter().all(|byte| *byte == 0));
}

#[test]
fn two_managers_on_two_devices_keep_their_memory_apart() {
    // covers: RES-8 RES-9
    let config = MockConfig::new().capacity_bytes(4 << 20).devices(2);
    let one = Rig::with(config.clone(), |b| b);
    let two = Rig::with(config.clone().ordinal(1), |b| b);
    let (first, second) = (Arc::new(Arena::new(5000, 13)), Arc::new(Arena::new(7000, 14)));
    let (on_one, _) = adopt(&one.manager, spec("engine"), &first, &[first.region(3, 4000)]);
    let (on_two, _) = adopt(&two.manager, spec("engine"), &second, &[second.region(5, 6000)]);
    let (on_one, on_two) = (on_one.unwrap(), on_two.unwrap());
    assert_eq!((one.manager.adopted_vram(), two.manager.adopted_vram()), (4000, 6000));
    assert_error!(one.manager.execute(on_two.shard(), |_| ()), VramError::SealRefused { .. });
    assert_error!(two.manager.release(on_one.shard()), VramError::SealRefused { .. });
    second.flip(2000);
    assert_error!(two.manager.execute(on_two.shard(), |_| ()), VramError::IntegrityFailure { .. });
    one.manager.execute(on_one.shard(), |_| ()).unwrap();
    one.manager.release(on_one.shard()).unwrap();
    two.manager.release(on_two.shard()).unwrap();
    drop((on_one, on_two, one, two));
    assert_clean(&config.stats());
}

/// Runs a piece of code in the middle of the event of one name, once.
struct Trap {
    event: &'static str,
    armed: AtomicBool,
    work: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl AuditSink for Trap {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        if event.kind.name() == self.event
            && self.armed.load(Ordering::SeqCst)
            && let Some(work) = self.work.lock().unwrap().take()
        {
            work();
        }
        Ok(Ack::Accepted)
    }
}

#[test]
fn a_manager_that_closes_in_the_middle_of_an_adoption_gives_the_memory_back_untouched() {
    // covers: RES-9 SCR-3
    for fail_the_wipe in [false, true] {
        let trap = Arc::new(Trap { event: "vram_sealed", armed: AtomicBool::new(false), work: Mutex::default() });
        let config = small();
        let manager: Arc<VramManager> = Arc::new(builder(&config).audit(trap.clone()).build().unwrap());
        let arena = Arc::new(Arena::new(5000, 15));
        let before = arena.bytes();
        let (closing, for_faults) = (Arc::clone(&manager), config.clone());
        let threads = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::clone(&threads);
        *trap.work.lock().unwrap() = Some(Box::new(move || {
            // The first of the two waits for the trail, which is ours just now; the second goes on and closes the table.
            for _ in 0..2 {
                let closing = Arc::clone(&closing);
                let thread = std::thread::spawn(move || drop(closing.shutdown(Duration::from_secs(5))));
                started.lock().unwrap().push(thread);
                std::thread::sleep(Duration::from_millis(150));
            }
            if fail_the_wipe {
                for_faults.fail(Fault::FillSkipped).unwrap();
            }
        }));
        trap.armed.store(true, Ordering::SeqCst);
        support::within(Duration::from_secs(30), || {
            let (result, drops) = adopt(&manager, spec("engine").wipe_adopted(true), &arena, &[arena.region(3, 4000)]);
            let (error, owner) = refused(result);
            assert!(matches!(error, VramError::ManagerStopped { .. } | VramError::WipeFailed { .. }), "{error:?}");
            assert!(arena.bytes() == before, "a refused adoption wiped the engine's memory");
            assert_eq!((drops.count(), manager.adopted_vram()), (0, 0));
            drop::<Engine>(owner);
        });
        threads.lock().unwrap().drain(..).for_each(|thread| thread.join().unwrap());
        drop(trap.work.lock().unwrap().take());
        drop(manager);
        assert_clean(&config.stats());
    }
}

#[test]
fn events_of_an_adoption_tell_its_whole_life() {
    // covers: AUD-1 RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 16));
    let from = rig.mark();
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &[arena.region(3, 4000)]);
    rig.manager.execute(adopted.as_ref().unwrap().shard(), |_| ()).unwrap();
    rig.manager.release(adopted.unwrap().shard()).unwrap();
    assert_eq!(
        rig.names_since(from),
        [
            "vram_allocated",
            "vram_sealed",
            "seal_verified",
            "execute_started",
            "execute_finished",
            "vram_wiped",
            "vram_deallocated"
        ]
    );
    let events = rig.close_clean();
    let allocated = events.iter().find_map(|event| match &event.kind {
        EventKind::VramAllocated { bytes, .. } => Some(*bytes),
        _ => None,
    });
    assert!(allocated.unwrap() < 4000, "the engine's bytes were not allocated by us");
}

/// An engine's memory that looks, when it goes, whether the device still knows it.
#[derive(Debug)]
struct Watched {
    bytes: Vec<u8>,
    config: vram_residency::MockConfig,
    known: Arc<std::sync::atomic::AtomicU64>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.known.store(self.config.stats().live_foreign, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn the_device_forgets_an_engines_memory_before_its_owner_goes() {
    // covers: RES-9
    let known = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
    let rig = Rig::new();
    let owner = Watched { bytes: vec![7; 5000], config: rig.config.clone(), known: Arc::clone(&known) };
    let regions = [RawRegion::new(owner.bytes.as_ptr() as u64, 5000)];
    // SAFETY: the bytes are the owner's, do not move with it, and nobody writes them.
    let adopted = unsafe { rig.manager.adopt(spec("engine"), owner, &regions) }.unwrap();
    let shard = adopted.shard().clone();
    assert_eq!(rig.config.stats().live_foreign, 1);
    drop(adopted);
    assert_eq!(known.load(std::sync::atomic::Ordering::SeqCst), u64::MAX, "the record owns it still");
    rig.manager.release(&shard).unwrap();
    assert_eq!(known.load(std::sync::atomic::Ordering::SeqCst), 0, "work that is queued could still touch it");
}

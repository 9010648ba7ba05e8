//! The difference between a shard and the source that it was sealed from: every bit of it, and nothing on the word of another source.
//! (DIG-4, whose full table is not built yet.)

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::*;

/// Image bytes under one entry of the table, with blocks of 1024.
const SUBTREE: u64 = 32 << 10;

type Place = (u64, u8);

/// What the report must be, by hand: `image` was sealed, `flipped` are the bits that changed, `tensor` names what lies at a byte.
#[track_caller]
fn assert_exact(found: &Difference, image: &[u8], flipped: &BTreeSet<Place>, tensor: impl Fn(u64) -> Option<String>) {
    let was_set = |(offset, bit): Place| image[offset as usize] >> bit & 1 == 1;
    let cleared = flipped.iter().filter(|place| was_set(**place)).count() as u64;
    assert_eq!((found.cleared, found.set), (cleared, flipped.len() as u64 - cleared));
    let bits: Vec<ChangedBit> = flipped
        .iter()
        .take(64)
        .map(|&(offset, bit)| ChangedBit { offset, bit, was_set: was_set((offset, bit)), tensor: tensor(offset) })
        .collect();
    assert_eq!(found.bits, bits);
    let subtrees: BTreeSet<u64> = flipped.iter().map(|(offset, _)| offset / SUBTREE).collect();
    assert_eq!((found.subtrees, found.of), (subtrees.len() as u64, (image.len() as u64).div_ceil(SUBTREE)));
    let mut changed = image.to_vec();
    flipped.iter().for_each(|(offset, bit)| changed[*offset as usize] ^= 1 << bit);
    assert_eq!(found.digest, digest_bytes(&block(1024), &changed));
}

#[test]
fn a_thousand_flips_in_three_layouts_are_told_exactly() {
    let rig = Rig::lenient();
    let mut dice = Dice::new(41);
    let bytes = noise(300_001, 1);
    let whole = rig.seal("whole", &bytes);

    let lengths = [40_000, 5, 0, 70_001, 1024, 3];
    let tensors: Vec<Vec<u8>> = (10..).zip(lengths).map(|(seed, bytes)| noise(bytes, seed)).collect();
    let (file, mut image, mut places) = (safetensors(&tensors), Vec::new(), Vec::new());
    for tensor in tensors.iter().filter(|tensor| !tensor.is_empty()) {
        image.resize(image.len().next_multiple_of(1024), 0);
        places.push(image.len() as u64..(image.len() + tensor.len()) as u64);
        image.extend_from_slice(tensor);
    }
    let names = ["t00000", "t00001", "t00003", "t00004", "t00005"];
    let tensor = |at| places.iter().position(|place| place.contains(&at)).map(|at| names[at].to_owned());
    let open = || ShardSource::safetensors(file.path()).unwrap();
    let split = rig.manager.seal_model(spec("split"), open()).unwrap();

    let (arena, scattered) = scatter(&mut dice, &[1, 40_000, 1024, 33_000, 3]);
    let adopted = adopt(&rig.manager, spec("adopted"), &arena, &regions(&arena, &scattered)).0.unwrap();
    let gathered = super::image(&arena.bytes(), &scattered, 1024);
    let region = |at| {
        (0..5).find(|of| {
            let (from, bytes) = scattered[*of];
            let first = offset(&scattered, 1024, from).unwrap();
            (first..first + bytes as u64).contains(&at)
        })
    };
    let region = |at| region(at).map(|of| format!("region {of}"));

    type Case<'a> = (&'a SealedShard, &'a [u8], &'a dyn Fn() -> ShardSource<'a>, &'a dyn Fn(u64) -> Option<String>);
    let cases: [Case<'_>; 3] = [
        (&whole, &bytes, &|| ShardSource::reader(300_001, &bytes[..]), &|_| None),
        (&split, &image, &open, &tensor),
        (adopted.shard(), &gathered, &|| ShardSource::bytes(&gathered), &region),
    ];
    let (mut flips, mut in_padding) = (0, 0);
    for round in 0..16 {
        for (shard, image, source, tensor) in cases {
            let virtual_padding = |at| shard.id() == adopted.shard().id() && region(at).is_none();
            // Nothing, a few, and all in one byte.
            let flipped: BTreeSet<Place> = (0..dice.below(65))
                .map(|at| match round {
                    7 => (4096, (at % 8) as u8),
                    _ => (dice.below(image.len() as u64), dice.bit()),
                })
                .filter(|(at, _)| !virtual_padding(*at))
                .collect();
            let flip = || flipped.iter().for_each(|(at, bit)| rig.flip_bit(shard, *at, *bit));
            flip();
            let found = rig.manager.difference(shard, source()).unwrap();
            assert_exact(&found, image, &flipped, tensor);
            assert_eq!(found.digest == shard.digest(), flipped.is_empty());
            flip();
            flips += flipped.len();
            in_padding += flipped.iter().filter(|(at, _)| tensor(*at).is_none()).count();
        }
    }
    assert!(flips >= 1000 && in_padding > 0, "{flips}, {in_padding} of them in padding");
    rig.manager.release(adopted.shard()).unwrap();
    drop(adopted);
    rig.close_clean();
}

#[test]
fn beyond_64_bits_all_are_counted_and_the_first_are_placed() {
    // covers: AUD-1
    let rig = Rig::lenient_writable();
    let bytes = noise(100_000, 3);
    let shard = rig.seal("written", &bytes);
    let stream = rig.stream();
    stream.enqueue_write(&shard, 30_000, 60_000, 0xa5).unwrap();
    stream.synchronize().unwrap();
    let written = (30_000..90_000).flat_map(|at: u64| (0..8).map(move |bit| (at, bit)));
    let differs = |(at, bit): &Place| (bytes[*at as usize] ^ 0xa5) >> bit & 1 == 1;
    let flipped: BTreeSet<Place> = written.filter(differs).collect();
    let found = rig.manager.difference(&shard, ShardSource::bytes(&bytes)).unwrap();
    assert_exact(&found, &bytes, &flipped, |_| None);
    assert!(flipped.len() > 200_000 && found.bits.len() == 64);
    let said = said!(rig, EventKind::DifferenceFound { shard, digest, subtrees, of, set, cleared, first, .. } =>
        (shard, digest, (subtrees, of), (set, cleared), first));
    let wanted = (
        found.shard,
        found.digest,
        (found.subtrees, found.of),
        (found.set, found.cleared),
        Some(found.bits[0].clone()),
    );
    assert_eq!(said, [wanted]);
    drop(stream);
    rig.close_clean();
}

#[test]
fn a_source_that_is_not_the_sealed_one_is_refused_and_says_nothing() {
    // covers: SEAL-6
    let rig = Rig::lenient();
    let bytes = noise(100_000, 4);
    let shard = rig.seal("one", &bytes);
    // Of an intact shard a source of the right length is not read.
    let unread = || ShardSource::reader(100_000, never());
    assert_eq!(rig.manager.difference(&shard, unread()).unwrap().digest, shard.digest());
    rig.flip(&shard, 50_000);
    let refused = |source: ShardSource<'_>, code, word: &str| {
        let mark = rig.mark();
        let error = rig.manager.difference(&shard, source).unwrap_err();
        assert!(error.code() == code && error.to_string().contains(word), "{error:?}");
        let names = rig.names_since(mark);
        assert!(names.contains(&"operation_failed") && !names.contains(&"difference_found"), "{names:?}");
    };
    let (failed, wrong) = (ErrorCode::ModelLoadFailed, ErrorCode::DigestMismatch);
    // In what has changed, where the lie even repeats the change, and elsewhere; and another model.
    for lie in [50_000, 50_001, 0, 99_999] {
        let mut bytes = bytes.clone();
        bytes[lie] ^= 1 << 3;
        refused(ShardSource::bytes(&bytes), wrong, "is not the expected model");
    }
    refused(ShardSource::bytes(&noise(100_000, 5)), wrong, "is not the expected model");
    for bytes in [&bytes[1..], &[&bytes[..], &[0]].concat()] {
        refused(ShardSource::bytes(bytes), failed, "and the shard's 100000");
    }
    refused(ShardSource::reader(1, never()), failed, "and the shard's 100000");
    refused(ShardSource::reader(100_000, &bytes[..99_000]), failed, "ended 1000 bytes early");
    refused(ShardSource::reader(100_000, io::repeat(0)), failed, "more bytes");
    let cut = |good| {
        reads(
            move |at, room| {
                if at < good { Ok(fill(room, 10_000, 7)) } else { Err(io::Error::other("the cable is out")) }
            },
        )
    };
    for good in [0, 60_000, 100_000] {
        refused(ShardSource::reader(100_000, cut(good)), failed, "the cable is out");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let shrinks = ShardSource::file(file.path()).unwrap();
    file.as_file().set_len(70_000).unwrap();
    refused(shrinks, failed, "early");
    let panics = ShardSource::reader(100_000, reads(|_, _| panic!("the reader's own")));
    catch_unwind(AssertUnwindSafe(|| rig.manager.difference(&shard, panics))).unwrap_err();
    assert_eq!(rig.names_since(rig.mark() - 1), ["operation_failed"]);
    // The twin, after all that.
    std::fs::write(file.path(), &bytes).unwrap();
    let found = rig.manager.difference(&shard, ShardSource::file(file.path()).unwrap()).unwrap();
    assert_exact(&found, &bytes, &BTreeSet::from([(50_000, 3)]), |_| None);
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

#[test]
fn a_subtree_of_several_chunks_is_read_in_step_with_the_source() {
    let rig = Rig::with(small(), |builder| builder.tree_params(TreeParams::new(8192, b"salt").unwrap()));
    let bytes = noise((4 << 20) + 5, 9);
    let shard = rig.seal("large", &bytes);
    // A subtree has 2 MiB, a chunk one; the second subtree is passed over.
    let places = [0, (1 << 20) - 1, 1 << 20, (2 << 20) - 1, 4 << 20, (4 << 20) + 4];
    places.iter().for_each(|at| rig.flip(&shard, *at));
    let found = rig.manager.difference(&shard, ShardSource::bytes(&bytes)).unwrap();
    assert_eq!(found.bits.iter().map(|bit| (bit.offset, bit.bit)).collect::<Vec<_>>(), places.map(|at| (at, 3)));
    assert_eq!((found.subtrees, found.of, found.set + found.cleared), (2, 3, 6));
    rig.close_clean();
}

#[test]
fn it_is_evidence_in_every_state_and_acts_on_what_it_finds_first() {
    // covers: VER-5 ERR-4 SCR-4
    let bytes = noise(50_000, 6);
    for first in [false, true] {
        let rig = Rig::new();
        let (bad, good) = (rig.seal("bad", &bytes), rig.seal("good", &noise(2000, 7)));
        rig.flip(&bad, 40_000);
        let find = || rig.manager.difference(&bad, ShardSource::bytes(&bytes));
        let stopped = ["seal_verification_failed", "shard_quarantined", "manager_stopped"];
        if first {
            let names = rig.events_of(|| drop(find().unwrap()));
            assert_eq!(names, [&stopped[..], &["difference_found"]].concat());
        } else {
            assert!(matches!(rig.execute(&bad), (Err(VramError::IntegrityFailure { .. }), false)));
        }
        let stopped = ManagerState::Stopped(StopReason::IntegrityFailure);
        assert_eq!((rig.manager.state(), rig.count("shard_quarantined")), (stopped, 1));
        assert_eq!(rig.events_of(|| drop(find().unwrap())), ["difference_found"]);
        assert_exact(&find().unwrap(), &bytes, &BTreeSet::from([(40_000, 3)]), |_| None);
        let unread = ShardSource::reader(2000, never());
        assert_eq!(rig.manager.difference(&good, unread).unwrap().bits, []);
        rig.manager.release(&bad).unwrap();
        assert_error!(find(), VramError::StaleHandle { .. });
        rig.close_clean();
    }
}

#[test]
fn a_copy_that_is_not_what_the_kernels_digested_is_not_believed() {
    // covers: VER-11 ERR-3
    let bytes = noise(50_000, 8);
    for (fault, code) in [
        (Fault::CopyToHostCorrupts { bit: 77 }, ErrorCode::DeviceUntrusted),
        (Fault::CopyToHostSkipped, ErrorCode::DeviceUntrusted),
        (Fault::call(MockCall::CopyToHost), ErrorCode::CudaError),
    ] {
        let rig = Rig::lenient();
        let shard = rig.seal("one", &bytes);
        rig.flip(&shard, 9);
        // The first copy brings the digest back.
        rig.order(fault.nth(2));
        let error = rig.manager.difference(&shard, ShardSource::bytes(&bytes)).unwrap_err();
        assert_eq!((error.code(), rig.count("difference_found")), (code, 0));
        let untrusted = rig.manager.state() == ManagerState::Stopped(StopReason::DeviceUntrusted);
        assert_eq!(untrusted, code == ErrorCode::DeviceUntrusted);
        assert_eq!(rig.manager.difference(&shard, ShardSource::bytes(&bytes)).unwrap().bits.len(), 1);
        rig.close_clean();
    }
}

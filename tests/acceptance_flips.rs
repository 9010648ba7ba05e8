//! Every flipped bit is found before anything executes, wherever it lies: in the shard, at every level of its tree, or in
//! the seal.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use support::{Dice, Rig, assert_clean, noise, refusals, spec, vouching};
use vram_residency::{
    BadRange, Digest, EventKind, ManagerState, OnIntegrityFailure, RefusalReason, SealedShard, ShardSource, VramError,
    digest_bytes,
};

/// Threads that share the positions; each has a machine of its own.
const WORKERS: u64 = 2;

/// Flips every position of `positions` in a freshly sealed copy of `bytes`, one at a time, and wants each refused.
fn flip_all(bytes: &[u8], positions: &[u64], seed: u64) {
    let tried = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let tried = &tried;
            scope.spawn(move || {
                let mine = positions.iter().copied().skip(worker as usize).step_by(WORKERS as usize);
                tried.fetch_add(flip_each(bytes, mine, seed ^ worker), Ordering::SeqCst);
            });
        }
    });
    assert_eq!(tried.into_inner(), positions.len() as u64, "every position was tried");
}

fn flip_each(bytes: &[u8], positions: impl Iterator<Item = u64>, seed: u64) -> u64 {
    let config = support::small();
    // Without a sink of its own the trail goes to tracing, which nobody listens to: this is a long run.
    let manager = support::builder(&config)
        .on_integrity_failure(OnIntegrityFailure::QuarantineShard)
        .staging(4 << 10)
        .build()
        .unwrap();
    let rig = Rig { config, sink: std::sync::Arc::default(), manager: manager.into() };
    let vouched: Digest = digest_bytes(&support::block(1024), bytes);
    let mut dice = Dice::new(seed);
    let mut tried = 0;
    for at in positions {
        let seal = || {
            rig.manager.seal_model(
                spec("flipped").expect(vouching::file(rig.manager.tree_params(), vouched)),
                ShardSource::bytes(bytes),
            )
        };
        let shard = seal().unwrap();
        let bit = dice.bit();
        rig.flip_bit(&shard, at, bit);
        let (outcome, ran) = rig.execute(&shard);
        assert!(!ran, "the work ran over a flip of bit {bit} of byte {at} (seed {seed})");
        match outcome {
            Err(VramError::IntegrityFailure { shard: named, first_bad: Some(range) }) => {
                assert_eq!(named, *shard.id());
                assert!(covers(&range, at, bytes.len() as u64), "byte {at} is not in {range}");
            }
            other => panic!("bit {bit} of byte {at} (seed {seed}): {other:?}"),
        }
        rig.manager.release(&shard).unwrap();
        tried += 1;
    }
    rig.assert_recount();
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    let (stats, _) = rig.close();
    assert_clean(&stats);
    tried
}

/// One entry of the level-1 table is 32 KiB of image with 1 KiB blocks.
fn covers(range: &BadRange, at: u64, image: u64) -> bool {
    let end = range.offset + range.bytes;
    range.offset <= at && at < end && end <= image && range.bytes <= 32 << 10
}

#[test]
fn a_flip_of_every_byte_of_a_two_level_shard_is_refused() {
    // covers: VER-4 VER-5
    let bytes = noise(33 << 10, 1);
    let positions: Vec<u64> = (0..bytes.len() as u64).collect();
    flip_all(&bytes, &positions, 11);
}

#[test]
fn a_flip_in_every_leaf_of_a_three_level_shard_is_refused() {
    // covers: VER-4
    let bytes = noise((1 << 20) + 1, 2);
    let mut dice = Dice::new(22);
    let leaves = bytes.len().div_ceil(1024) as u64;
    assert_eq!(leaves, 1025);
    let in_leaf = |leaf: u64, dice: &mut Dice| leaf * 1024 + dice.below((bytes.len() as u64 - leaf * 1024).min(1024));
    let positions: Vec<u64> = (0..leaves).map(|leaf| in_leaf(leaf, &mut dice)).collect();
    flip_all(&bytes, &positions, 23);
}

#[test]
fn a_flip_at_random_positions_of_a_three_level_shard_is_refused() {
    // covers: VER-4 ASR-2
    let bytes = noise((1 << 20) + 1, 3);
    let mut dice = Dice::new(33);
    let positions: Vec<u64> = (0..2000).map(|_| dice.below(bytes.len() as u64)).collect();
    flip_all(&bytes, &positions, 34);
}

#[test]
fn a_flip_names_its_half_mebibyte_and_the_first_tensor_there() {
    // covers: VER-4
    // With blocks of 4096 bytes an entry of the level-1 table stands for 128 of them.
    const SUBTREE: u64 = 512 << 10;
    let rig = Rig::with(support::small(), |builder| {
        builder.tree_params(support::block(4096)).on_integrity_failure(OnIntegrityFailure::QuarantineShard)
    });
    let lengths = [300_000, 5, 700_001, 4096, 12_345, 400_000, 3, 90_000, 512 << 10, 1, 4097];
    let tensors: Vec<Vec<u8>> = (0..).zip(lengths).map(|(seed, bytes)| noise(bytes, seed)).collect();
    let file = support::safetensors(&tensors);
    // Each tensor begins with a block of its own.
    let mut image = 0_u64;
    let places: Vec<(u64, u64)> = lengths
        .iter()
        .map(|bytes| {
            let from = image.next_multiple_of(4096);
            image = from + *bytes as u64;
            (from, image)
        })
        .collect();
    assert!(image > 3 * SUBTREE);
    let mut named = std::collections::BTreeSet::new();
    let flips = places.iter().flat_map(|(from, to)| [*from, (from + to) / 2, to - 1]);
    // The last is padding, which belongs to no tensor: it is sealed as well.
    for at in flips.chain([places[1].1]) {
        let sealed = rig.manager.seal_model(spec("flipped"), ShardSource::safetensors(file.path()).unwrap());
        let shard = sealed.unwrap();
        assert_eq!(shard.byte_len(), image);
        rig.flip(&shard, at);
        let (outcome, ran) = rig.execute(&shard);
        let Err(VramError::IntegrityFailure { shard: id, first_bad: Some(found) }) = outcome else {
            panic!("byte {at}: {outcome:?}")
        };
        assert!(!ran && id == *shard.id());
        let from = at / SUBTREE * SUBTREE;
        let first = places.iter().position(|(_, to)| *to > from).unwrap();
        let wanted = BadRange { offset: from, bytes: SUBTREE.min(image - from), tensor: Some(format!("t{first:05}")) };
        assert_eq!(found, wanted, "byte {at}");
        named.insert(first);
        rig.manager.release(&shard).unwrap();
    }
    // By hand: the first half mebibyte begins with the first tensor, the last three with those that reach into them.
    assert_eq!(named.into_iter().collect::<Vec<_>>(), [0, 2, 5, 8]);
    rig.close_clean();
}

#[test]
fn the_same_shards_unflipped_execute() {
    // covers: VER-1 VER-4
    let rig = Rig::new();
    for (name, bytes) in [("two-levels", noise(33 << 10, 1)), ("three-levels", noise((1 << 20) + 1, 2))] {
        let shard = rig.seal(name, &bytes);
        let read = rig.manager.execute(&shard, |verified| {
            let mut out = vec![0; bytes.len()];
            verified.read_at(0, &mut out).map(|()| out)
        });
        assert_eq!(read.unwrap().unwrap(), bytes);
    }
    // A bit that flips twice is as if it had not flipped: what counts is what is there when the check runs.
    let shard = rig.seal("twice", &noise(4096, 4));
    rig.flip_bit(&shard, 77, 3);
    rig.flip_bit(&shard, 77, 3);
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    rig.assert_recount();
    rig.close_clean();
}

/// What a seal with a changed bit must be refused for.
fn expected_reason(genuine: &SealedShard, changed: &SealedShard, at: usize) -> RefusalReason {
    // domain 20, version 2, kind 1, UUID 16, ordinal 4, epoch 16: `.specs/30-seal-format.md`.
    const EPOCH: std::ops::Range<usize> = 43..59;
    if changed.device() != genuine.device() {
        RefusalReason::ClaimsOtherDevice
    } else if changed.worker() != genuine.worker() {
        RefusalReason::ClaimsOtherWorker
    } else if EPOCH.contains(&at) {
        RefusalReason::ClaimsOtherEpoch
    } else {
        RefusalReason::Forged
    }
}

#[test]
fn a_flip_of_every_bit_of_a_seal_is_refused_for_the_right_reason() {
    // covers: SEAL-2 SEAL-3 SEAL-4 ERR-4
    let rig = Rig::new();
    let bytes = noise(5000, 5);
    let shard = rig.seal("sealed", &bytes);
    let genuine = shard.to_bytes();
    let (mut presented, mut malformed, mut reasons) = (0_u64, 0_u64, std::collections::HashMap::new());
    for at in 0..genuine.len() {
        for bit in 0..8 {
            let mut changed = genuine.clone();
            changed[at] ^= 1 << bit;
            let seal = match SealedShard::from_bytes(&changed) {
                Ok(seal) => seal,
                Err(VramError::SealRefused { reason: RefusalReason::Malformed }) => {
                    malformed += 1;
                    continue;
                }
                Err(other) => panic!("byte {at} bit {bit}: {other}"),
            };
            assert_eq!(seal.to_bytes(), changed, "one encoding: byte {at} bit {bit}");
            let wanted = expected_reason(&shard, &seal, at);
            let refusal = rig.manager.verify_sealed(&seal).unwrap_err();
            assert!(
                matches!(refusal, VramError::SealRefused { reason } if reason == wanted),
                "byte {at} bit {bit}: {refusal:?}, not {wanted}"
            );
            presented += 1;
            *reasons.entry(wanted).or_insert(0_u64) += 1;
            assert_eq!(rig.manager.state(), ManagerState::Ready, "byte {at} bit {bit}");
            if bit == at % 8 {
                presented += refused_everywhere(&rig, &seal);
            }
        }
    }
    // The prefix (domain, version) and the lengths are what cannot be changed into another seal.
    assert!(malformed >= 22 * 8, "{malformed}");
    for reason in [
        RefusalReason::ClaimsOtherDevice,
        RefusalReason::ClaimsOtherWorker,
        RefusalReason::ClaimsOtherEpoch,
        RefusalReason::Forged,
    ] {
        assert!(reasons.get(&reason).is_some_and(|count| *count > 8), "{reason}: {reasons:?}");
    }
    // The genuine one still serves, as itself and as bytes that came back.
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    assert!(matches!(rig.execute(&SealedShard::from_bytes(&genuine).unwrap()), (Ok(()), true)));
    rig.assert_recount();
    let (stats, events) = rig.close();
    assert_clean(&stats);
    assert_eq!(refusals(&events), presented, "every refusal is counted, with an event or without");
}

/// Presents a bad seal to every other call; gives how many those were.
fn refused_everywhere(rig: &Rig, seal: &SealedShard) -> u64 {
    let (executed, ran) = rig.execute(seal);
    assert!(!ran);
    let refusals = [
        executed.unwrap_err(),
        rig.manager.compute_vram_digest(seal).unwrap_err(),
        rig.manager.release(seal).unwrap_err(),
        rig.manager.begin(seal, vram_residency::ExecuteOptions::default()).map(drop).unwrap_err(),
    ];
    for refusal in &refusals {
        assert!(matches!(refusal, VramError::SealRefused { .. }), "{refusal:?}");
    }
    refusals.len() as u64
}

#[test]
fn a_seal_that_is_cut_or_extended_is_malformed() {
    // covers: SEAL-3 SEAL-4
    let rig = Rig::new();
    let shard = rig.seal("sealed", &noise(5000, 6));
    let genuine = shard.to_bytes();
    let malformed = |bytes: &[u8]| match SealedShard::from_bytes(bytes) {
        Err(VramError::SealRefused { reason: RefusalReason::Malformed }) => {}
        other => panic!("{} of {} bytes: {other:?}", bytes.len(), genuine.len()),
    };
    for length in 0..genuine.len() {
        malformed(&genuine[..length]);
        malformed(&genuine[genuine.len() - length..]);
    }
    for more in 1..=8 {
        for filler in [0x00, 0xff, genuine[0]] {
            let mut extended = genuine.clone();
            extended.extend(std::iter::repeat_n(filler, more));
            malformed(&extended);
            let mut shifted = vec![filler; more];
            shifted.extend_from_slice(&genuine);
            malformed(&shifted);
        }
    }
    malformed(&[0; 2049]);
    malformed(&genuine.repeat(2));
    rig.manager.verify_sealed(&SealedShard::from_bytes(&genuine).unwrap()).unwrap();
    rig.close_clean();
}

#[test]
fn a_flip_of_every_bit_of_the_tag_is_forged() {
    // covers: SEAL-2
    let rig = Rig::new();
    let shard = rig.seal("sealed", &noise(100, 7));
    let genuine = shard.to_bytes();
    for at in genuine.len() - 32..genuine.len() {
        for bit in 0..8 {
            let mut changed = genuine.clone();
            changed[at] ^= 1 << bit;
            let seal = SealedShard::from_bytes(&changed).unwrap();
            let refusal = rig.manager.verify_sealed(&seal).unwrap_err();
            assert!(matches!(refusal, VramError::SealRefused { reason: RefusalReason::Forged }), "{refusal:?}");
        }
    }
    rig.manager.verify_sealed(&shard).unwrap();
    let named = rig
        .sink
        .events()
        .iter()
        .any(|event| matches!(&event.kind, EventKind::SealRefused { reason: RefusalReason::Forged, .. }));
    assert!(named, "the trail has the reason");
    rig.close_clean();
}

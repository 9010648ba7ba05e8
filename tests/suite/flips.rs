//! Every flipped bit is found before anything executes: in the shard, at every level of its tree, or in the seal.

use std::collections::{BTreeSet, HashMap};

use crate::*;

/// Flips a bit at each position of a freshly sealed copy of `bytes`, on two machines: each is refused, and its place is named.
fn flip_each(bytes: &[u8], positions: &[u64]) {
    let half = positions.len().div_ceil(2);
    thread::scope(|scope| {
        for mine in positions.chunks(half) {
            scope.spawn(move || {
                let lenient = OnIntegrityFailure::QuarantineShard;
                let rig = Rig::with(small(), |builder| builder.on_integrity_failure(lenient).staging(4 << 10));
                let mut dice = Dice::new(11);
                for at in mine {
                    let shard = rig.seal("flipped", bytes);
                    let bit = dice.bit();
                    rig.flip_bit(&shard, *at, bit);
                    let (outcome, ran) = rig.execute(&shard);
                    let Err(VramError::IntegrityFailure { shard: named, first_bad: Some(range) }) = outcome else {
                        panic!("bit {bit} of byte {at}: {outcome:?}")
                    };
                    assert!(!ran && named == *shard.id(), "the work ran over a flip of bit {bit} of byte {at}");
                    // One entry of the table stands for 32 KiB of image with blocks of 1 KiB.
                    let there = (range.offset..range.offset + range.bytes).contains(at) && range.bytes <= 32 << 10;
                    assert!(there && range.offset + range.bytes <= bytes.len() as u64, "byte {at} is not in {range}");
                    rig.manager.release(&shard).unwrap();
                }
                // The twin: a bit that flips twice is as if it had not flipped.
                let shard = rig.seal("flipped", bytes);
                (0..2).for_each(|_| rig.flip(&shard, 77));
                assert!(matches!(rig.execute(&shard), (Ok(()), true)));
                rig.close_clean();
            });
        }
    });
}

#[test]
fn a_flip_of_every_byte_of_a_two_level_shard_is_refused() {
    // covers: VER-4 VER-5 VER-1
    let bytes = noise(33 << 10, 1);
    flip_each(&bytes, &(0..bytes.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_flip_in_every_leaf_of_a_three_level_shard_is_refused() {
    // covers: VER-4
    let bytes = noise((1 << 20) + 1, 2);
    let mut dice = Dice::new(22);
    let positions: Vec<u64> = (0..1024).map(|leaf| leaf * 1024 + dice.below(1024)).chain([1 << 20]).collect();
    flip_each(&bytes, &positions);
}

#[test]
fn a_flip_names_its_half_mebibyte_and_the_first_tensor_there() {
    // covers: VER-4
    // With blocks of 4096 bytes an entry of the level-1 table stands for 128 of them.
    const SUBTREE: u64 = 512 << 10;
    let lenient = OnIntegrityFailure::QuarantineShard;
    let rig = Rig::with(small(), |builder| builder.tree_params(block(4096)).on_integrity_failure(lenient));
    let lengths = [300_000, 5, 700_001, 4096, 12_345, 400_000, 3, 90_000, 512 << 10, 1, 4097];
    let tensors: Vec<Vec<u8>> = (0..).zip(lengths).map(|(seed, bytes)| noise(bytes, seed)).collect();
    let file = safetensors(&tensors);
    // Each tensor begins with a block of its own.
    let mut image = 0_u64;
    let place = |bytes: usize| {
        let from = image.next_multiple_of(4096);
        image = from + bytes as u64;
        (from, image)
    };
    let places: Vec<(u64, u64)> = lengths.into_iter().map(place).collect();
    let mut named = BTreeSet::new();
    let flips = places.iter().flat_map(|(from, to)| [*from, (from + to) / 2, to - 1]);
    // The last is padding, which belongs to no tensor: it is sealed as well.
    for at in flips.chain([places[1].1]) {
        let sealed = rig.manager.seal_model(spec("flipped"), ShardSource::safetensors(file.path()).unwrap());
        let shard = sealed.unwrap();
        assert_eq!(shard.byte_len(), image);
        rig.flip(&shard, at);
        let Err(VramError::IntegrityFailure { first_bad: Some(found), .. }) = rig.execute(&shard).0 else {
            panic!("byte {at}")
        };
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
    let shard = rig.seal("sealed", &noise(5000, 5));
    let genuine = shard.to_bytes();
    let (mut presented, mut malformed, mut reasons) = (0_u64, 0, HashMap::new());
    for (at, bit) in (0..genuine.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
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
        // Every call in turn.
        let calls: [&dyn Fn() -> Result<(), VramError>; 5] = [
            &|| rig.manager.verify_sealed(&seal).map(drop),
            &|| rig.execute(&seal).0,
            &|| rig.manager.compute_vram_digest(&seal).map(drop),
            &|| rig.manager.release(&seal).map(drop),
            &|| rig.manager.begin(&seal, ExecuteOptions::default()).map(drop),
        ];
        for call in if bit == at % 8 { &calls[..] } else { &calls[..1] } {
            let refused = call();
            let right = matches!(refused, Err(VramError::SealRefused { reason }) if reason == wanted);
            assert!(right, "byte {at} bit {bit}: {refused:?}, not {wanted}");
            presented += 1;
        }
        *reasons.entry(wanted).or_insert(0) += 1;
        assert_eq!(rig.manager.state(), ManagerState::Ready, "byte {at} bit {bit}");
    }
    // The prefix (domain, version) and the lengths are what cannot be changed into another seal.
    assert!(malformed >= 22 * 8, "{malformed}");
    assert!(reasons.len() == 4 && reasons.values().all(|count| *count > 8), "{reasons:?}");
    assert!(reasons[&RefusalReason::Forged] >= 256, "the tag is the last 32 bytes");
    // The genuine one still serves, as itself and as bytes that came back.
    for seal in [&shard, &SealedShard::from_bytes(&genuine).unwrap()] {
        assert!(matches!(rig.execute(seal), (Ok(()), true)));
    }
    rig.assert_recount();
    assert_eq!(refusals(&rig.close_clean()), presented, "every refusal is counted, with an event or without");
}

//! The host's form against the reference's answers, and against itself.

mod speed;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::digest::tests::noise;

fn keys(first: u8) -> LevelKeys {
    let mut seed = Box::new(Zeroizing::new([0; 32]));
    for (byte, value) in seed.iter_mut().zip(first..) {
        *byte = value;
    }
    LevelKeys::new(seed)
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn top(keys: &LevelKeys, lanes: Lanes, chunks: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut stream = KeyedStream::new(keys, threads(3)).with_lanes(lanes);
    for chunk in chunks {
        stream.update(chunk.as_ref());
    }
    hex::encode(*stream.finish())
}

/// The image that the vectors are of.
fn counted(bytes: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..bytes.div_ceil(32) as u64).flat_map(|at| Sha256::digest(at.to_le_bytes())).collect();
    image.truncate(bytes);
    image
}

#[test]
fn the_references_answers() {
    // covers: DIG-2 DIG-3
    let kinds = Lanes::each();
    println!("{kinds:?}"); // `None` is not on this processor
    let mut count = 0;
    for line in include_str!("../../../tests/data/keyed_vectors.txt").lines().filter(|line| !line.starts_with('#')) {
        let [bytes, of_levels, right, _] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let mut image = counted(bytes.parse().unwrap());
        assert_eq!(levels(image.len() as u64).to_string(), of_levels, "{line}");
        for lanes in kinds.into_iter().flatten() {
            for chunk in [image.len(), 1, 17, 4095, 4097, 65_537].into_iter().filter(|chunk| image.len() / chunk < 5000)
            {
                assert_eq!(top(&keys(0), lanes, image.chunks(chunk)), right, "{lanes:?} {chunk} {line}");
            }
        }
        assert_ne!(top(&keys(1), Lanes::detected(), [&image]), right, "another key: {line}");
        *image.last_mut().unwrap() ^= 0x80;
        assert_ne!(top(&keys(0), Lanes::detected(), [&image]), right, "another image: {line}");
        count += 1;
    }
    assert_eq!(count, 13);
}

#[test]
fn the_published_key_streams_are_in_the_keys_of_level_0() {
    // covers: KEY-4
    for line in include_str!("../../../tests/data/rfc8439.txt").lines().filter(|line| !line.starts_with('#')) {
        let [seed, counter, right] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let seed = LevelKeys::new(Box::new(Zeroizing::new(hex::decode(seed).unwrap().try_into().unwrap())));
        let at = 64 * counter.parse::<usize>().unwrap();
        let of_level = |level| hex::encode(&seed.level(level).as_flattened().as_flattened()[at..at + 64]);
        assert_eq!(of_level(0), right);
        assert_ne!(of_level(1), right);
    }
}

#[test]
fn keys_and_blocks_are_zeroed_on_drop() {
    // covers: KEY-3
    fn zeroes<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    let keys = keys(0);
    let mut stream = KeyedStream::new(&keys, NonZeroUsize::MIN);
    stream.update(&[1; 4097]);
    zeroes(&*keys.0);
    zeroes(&*keys.level(0));
    zeroes(&stream.levels[0].partial);
    zeroes(&stream.finish());
    // What the cipher holds of a key while it works, by its feature `zeroize`.
    zeroes(ChaCha20::new(&[0; 32].into(), &[0; 12].into()).get_core());
}

#[test]
fn an_image_has_the_levels_that_its_length_says() {
    // covers: DIG-3
    for (log, count) in [(12, 1), (20, 2), (28, 3), (36, 4), (44, 5), (52, 6), (60, 7)] {
        assert_eq!([levels(1 << log), levels((1 << log) + 1)], [count, count + 1], "2^{log}");
    }
    assert_eq!([levels(0), levels(1), levels(u64::MAX)], [1, 1, 8]);
    // Without a byte: as a block of zeros, of which the length, which the tag has, tells it.
    let none: [&[u8]; 0] = [];
    assert_eq!(top(&keys(0), Lanes::detected(), none), top(&keys(0), Lanes::detected(), [[0; 4096]]));
}

#[test]
fn large_updates_on_many_threads_equal_a_level_at_a_time() {
    // covers: DIG-2 DIG-3
    let (keys, image) = (keys(7), noise(5, (17 << 20) + 4095));
    let mut data = image.clone();
    for level in 0..levels(image.len() as u64) {
        let mut out = vec![[0; 16]; data.len().div_ceil(BLOCK_BYTES)];
        hash_level(threads(1 + level as usize), &keys.level(level), &data, &mut out);
        data = out.concat();
    }
    assert_eq!(data.len(), 16);
    assert_eq!(top(&keys, Lanes::detected(), [&image]), hex::encode(data));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_kind_of_lanes_and_every_chunking_equals_the_portable_form(
        seed in any::<u64>(), first in 0u8..200, len in 1usize..40_000,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        // covers: DIG-2 DIG-3
        let (keys, image) = (keys(first), noise(seed, len));
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
        places.extend([0, len]);
        places.sort_unstable();
        let right = top(&keys, Lanes::default(), [&image]);
        for lanes in Lanes::each().into_iter().flatten() {
            prop_assert_eq!(top(&keys, lanes, places.windows(2).map(|pair| &image[pair[0]..pair[1]])), right.clone());
        }
    }

    #[test]
    fn every_flipped_bit_changes_the_top(
        seed in any::<u64>(), len in 1usize..40_000, at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        // covers: DIG-2
        let (keys, mut image) = (keys(3), noise(seed, len));
        let before = top(&keys, Lanes::detected(), [&image]);
        image[at.index(len)] ^= 1 << bit;
        for lanes in Lanes::each().into_iter().flatten() {
            prop_assert_ne!(&top(&keys, lanes, [&image]), &before);
        }
    }
}

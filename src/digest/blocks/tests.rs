//! Every kind of lanes against `sha2` and against the stock tool's known answers.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::digest::TreeHasher;
use crate::digest::tests::noise;

const SALTS: [&[u8]; 3] = [b"", b"s", &[0xa5; 32]];

/// The hashes of blocks, each by itself and by `sha2`.
fn expected(params: &TreeParams, data: &[u8]) -> Vec<Hash> {
    let mut salt = params.salt().to_vec();
    salt.resize(salt.len().next_multiple_of(64), 0);
    let hash = |block: &[u8]| {
        let padding = vec![0; params.block_len() - block.len()];
        Sha256::new().chain_update(&salt).chain_update(block).chain_update(padding).finalize().into()
    };
    data.chunks(params.block_len()).map(hash).collect()
}

/// Whole blocks, and last blocks that are short by a byte or nearly empty, in the numbers around which lanes are left empty.
fn agree(lanes: Lanes) {
    for (log, salt) in (10..=16).zip(SALTS.into_iter().cycle()) {
        let params = TreeParams::new(1 << log, salt).unwrap();
        let hasher = BlockHasher::new(&params).with_lanes(lanes);
        let counts = if log == 10 { (0..=34).collect() } else { vec![1, 3, 17] };
        let data = noise(log, counts.last().unwrap() * params.block_len());
        let hashes = expected(&params, &data);
        for count in counts {
            let whole = count * params.block_len();
            let mut found = vec![[0; 32]; count];
            hasher.hash_run(&data[..whole], &mut found);
            assert_eq!(found, hashes[..count], "{lanes:?} {count} blocks of {}", params.block_size());
            for missing in [1, 63, 64, 65, params.block_len() - 1]
                .into_iter()
                .filter(|_| count == 1 || (log == 10 && count % 8 == 1))
            {
                let image = &data[..whole - missing];
                hasher.hash_run(image, &mut found);
                assert_eq!(found, expected(&params, image), "{lanes:?} {} bytes", image.len());
            }
        }
    }
}

/// A bit that changes in one block changes the hash of that block, to the right one, and no other.
fn keep_lanes_apart(lanes: Lanes) {
    let params = TreeParams::new(1024, b"salt").unwrap();
    let hasher = BlockHasher::new(&params).with_lanes(lanes);
    let mut data = noise(77, 16 * 1024);
    let before = expected(&params, &data);
    for block in 0..16 {
        let at = block * 1024 + (block * 389) % 1024;
        data[at] ^= 1 << (block % 8);
        let mut found = vec![[0; 32]; 16];
        hasher.hash_run(&data, &mut found);
        let differing: Vec<usize> = (0..16).filter(|&at| found[at] != before[at]).collect();
        assert_eq!((differing, &found), (vec![block], &expected(&params, &data)), "{lanes:?}");
        data[at] ^= 1 << (block % 8);
    }
}

/// The stock tool's answers for images that are not long, and another answer for another image.
fn know_the_stock_tools_answers(lanes: Lanes) {
    let mut count = 0;
    for line in include_str!("../../../tests/data/fsverity.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [length, block_size, salt, seed, digest] = fields[..] else { panic!("{line:?}") };
        let (length, seed) = (length.parse::<usize>().unwrap(), seed.parse().unwrap());
        if length > 20_000 {
            continue;
        }
        let salt = hex::decode(salt.trim_start_matches('-')).unwrap();
        let params = TreeParams::new(block_size.parse().unwrap(), &salt).unwrap();
        let of = |image: &[u8]| {
            let mut hasher = TreeHasher::new(&params, NonZeroUsize::MIN).with_lanes(lanes);
            hasher.update(image);
            hasher.finish().digest.to_string()
        };
        let mut image = noise(seed, length);
        assert_eq!(of(&image), digest, "{lanes:?} {line}");
        if let Some(last) = image.last_mut() {
            *last ^= 0x80;
            assert_ne!(of(&image), digest, "{lanes:?} {line}");
        }
        count += 1;
    }
    assert!(count >= 70, "only {count} known answers");
}

#[test]
fn every_kind_of_lanes_that_this_processor_has_hashes_as_sha2_does() {
    // covers: DIG-1 DIG-2
    let kinds = Lanes::each();
    println!("{kinds:?}"); // `None` is not on this processor
    for lanes in kinds.into_iter().filter_map(|(_, lanes)| lanes).chain([Lanes::all()]) {
        agree(lanes);
        keep_lanes_apart(lanes);
        know_the_stock_tools_answers(lanes);
    }
}

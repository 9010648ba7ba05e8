//! The kernels' bodies against a plain reference over `sha2`.
// covers: DIG-1 DIG-3 DEV-2 VER-11
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

/// The initial hash value of FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

fn salt_block(salt: &[u8]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..salt.len()].copy_from_slice(salt);
    block
}

fn block_hash(salt: &[u8], data: &[u8], block_size: usize) -> Vec<u8> {
    let mut hash = Sha256::new();
    if !salt.is_empty() {
        hash.update(salt_block(salt));
    }
    hash.update(data);
    hash.update(vec![0; block_size - data.len()]);
    hash.finalize().to_vec()
}

/// The level-1 table that `DigestJob` documents, with its number of leaves.
fn reference(regions: &[&[u8]], block_size: usize, salt: &[u8]) -> (Vec<u8>, usize) {
    let blocks = regions.iter().flat_map(|region| region.chunks(block_size));
    let leaves: Vec<Vec<u8>> = blocks.map(|data| block_hash(salt, data, block_size)).collect();
    if let [leaf] = leaves.as_slice() {
        return (leaf.clone(), 1);
    }
    let nodes = leaves.concat().chunks(block_size).flat_map(|hashes| block_hash(salt, hashes, block_size)).collect();
    (nodes, leaves.len())
}

fn tree<'a>(regions: &'a [&'a [u8]], block_size: usize, salt: &[u8], room: usize) -> Tree<'a> {
    let mut start = INITIAL;
    if !salt.is_empty() {
        sha2::block_api::compress256(&mut start, &[salt_block(salt)]);
    }
    Tree { block_size, start, salted: !salt.is_empty(), room, nonce: 0x0123_4567_89ab_cdef, backwards: false, regions }
}

fn agrees(regions: &[&[u8]], block_size: usize, salt: &[u8], room: usize) {
    let (table, leaves) = reference(regions, block_size, salt);
    let launch = tree(regions, block_size, salt, room);
    let entries = u64::try_from(table.len() / 32).unwrap();
    let expected = (table, [launch.nonce, u64::try_from(leaves).unwrap(), entries, 0]);
    let lengths: Vec<usize> = regions.iter().map(|region| region.len()).collect();
    let what = format!("{lengths:?} in blocks of {block_size}, salt {salt:?}, room for {room}");
    assert!(digest(&launch) == expected, "{what}");
    assert!(digest(&Tree { backwards: true, ..launch }) == expected, "{what}, backwards");
}

/// Bytes whose first one lies `skew` bytes past a 16-byte boundary.
struct Skewed(Vec<u128>, usize, usize);

impl Skewed {
    fn new(bytes: usize, skew: usize, seed: usize) -> Self {
        let word = |at: usize| (at.wrapping_add(seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 3;
        let word = |at: usize| u128::try_from(word(at)).unwrap().wrapping_mul(0xd120_0000_0000_0001_9ab3);
        Self((0..(bytes + skew).div_ceil(16)).map(word).collect(), skew, bytes)
    }

    fn bytes(&self) -> &[u8] {
        let (all, words) = (self.0.as_ptr().cast::<u8>(), self.0.len());
        assert!(self.1 + self.2 <= words * 16);
        // SAFETY: the words have 16 bytes each, `new` made enough of them for skew and length, as just asserted.
        let first = unsafe { all.add(self.1) };
        // SAFETY: as above; the words live as long as the borrow of `self`, and nobody writes them.
        unsafe { std::slice::from_raw_parts(first, self.2) }
    }
}

const NO_CHUNKS: usize = 1 << 20;

#[test]
fn lengths_around_every_boundary() {
    for block_size in [1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        let block = block_size;
        for length in [1, 3, 63, 64, 65, 127, block - 64, block - 1, block, block + 1, 2 * block, 3 * block + 17] {
            for salt in [&[][..], &[7; 1], &[9; 32]] {
                let bytes = Skewed::new(length, length % 16, block);
                agrees(&[bytes.bytes()], block_size, salt, NO_CHUNKS);
            }
        }
    }
}

#[test]
fn every_alignment_of_a_region() {
    for skew in 0..16 {
        for length in [1, 5, 64, 68, 1023, 1024, 4095, 4096, 4097, 9000] {
            let bytes = Skewed::new(length, skew, skew);
            agrees(&[bytes.bytes()], 1024, &[], NO_CHUNKS);
            agrees(&[bytes.bytes()], 4096, b"salt", NO_CHUNKS);
        }
    }
}

#[test]
fn lengths_around_the_boundaries_of_levels() {
    // With blocks of 1024 bytes a node has 32 leaves: 32 leaves fill a node, 1024 leaves fill 32 nodes.
    for leaves in [31, 32, 33, 1023, 1024, 1025] {
        for tail in [0, 1] {
            let bytes = Skewed::new(leaves * 1024 + tail, 0, leaves);
            agrees(&[bytes.bytes()], 1024, &[1], NO_CHUNKS);
        }
    }
    let bytes = Skewed::new(129 * 4096, 0, 5);
    agrees(&[bytes.bytes()], 4096, &[], NO_CHUNKS);
}

#[test]
fn chunks_do_not_change_the_table() {
    let bytes = Skewed::new(150 * 1024 + 5, 0, 1);
    for room in [32, 64, 96, 150, 151, 152] {
        let whole_nodes_or_all = room % 32 == 0 || room >= 151;
        if whole_nodes_or_all {
            agrees(&[bytes.bytes()], 1024, &[], room);
        }
    }
}

#[test]
fn batches_of_regions() {
    for count in [1, 2, 3, 127, 128, 129, 300] {
        let regions: Vec<Skewed> = (0..count).map(|at| Skewed::new(1 + at * 997 % 5000, at * 7 % 16, at)).collect();
        let regions: Vec<&[u8]> = regions.iter().map(Skewed::bytes).collect();
        agrees(&regions, 1024, &[], 64);
        agrees(&regions, 4096, b"a longer salt", NO_CHUNKS);
    }
}

#[test]
fn a_changed_bit_changes_the_table() {
    let mut bytes = Skewed::new(40 * 1024, 0, 3);
    let before = digest(&tree(&[bytes.bytes()], 1024, &[], NO_CHUNKS));
    bytes.0[1234] ^= 1;
    let after = digest(&tree(&[bytes.bytes()], 1024, &[], NO_CHUNKS));
    assert!(before.0 != after.0 && before.1 == after.1);
}

#[test]
fn blocks_that_no_region_holds_are_not_counted() {
    let bytes = Skewed::new(3 * 1024, 0, 3);
    let region = Region { ptr: address(bytes.bytes()), bytes: 3 * 1024, first_block: 0 };
    let regions = [region];
    let mut counters = [0_u64; 2];
    let mut hashes = [0_u128; 16];
    let mut args = LeavesArgs {
        regions: address(&regions),
        region_count: 1,
        first_block: 0,
        block_count: 8,
        hashes: address_mut(&mut hashes),
        counters: address_mut(&mut counters),
        start: INITIAL,
        block_size: 1024,
        message_bits: 8 * 1024,
        one: 1,
        reserved: 0,
    };
    launch(LEAVES, &args, 1, false);
    assert_eq!(counters, [3, 0]);
    let regions = [Region { first_block: 2, ..region }];
    args.regions = address(&regions);
    launch(LEAVES, &args, 1, false);
    assert_eq!(counters, [6, 0], "blocks before the first region");
    args.region_count = 0;
    launch(LEAVES, &args, 1, false);
    assert_eq!(counters, [6, 0]);
}

#[test]
fn counts_say_what_was_read_and_what_is_not_zero() {
    for skew in 0..16 {
        for length in [0, 1, 15, 16, 17, 31, 32, 33, 255, 4096, 70_001] {
            let mut bytes = Skewed::new(length, skew, skew + length);
            let expected = bytes.bytes().iter().filter(|byte| **byte != 0).count();
            let expected = [9, u64::try_from(length).unwrap(), u64::try_from(expected).unwrap(), 0];
            for grid in [1, 2, 7] {
                assert_eq!(count_nonzero(bytes.bytes(), grid, 9), expected, "{length} bytes at {skew}, {grid} blocks");
            }
            bytes.0.fill(0);
            assert_eq!(count_nonzero(bytes.bytes(), 3, 9), [9, expected[1], 0, 0]);
        }
    }
}

#[test]
fn a_single_byte_is_found_wherever_it_lies() {
    for at in 0..100 {
        for value in [1, 0x7f, 0x80, 0xff] {
            let mut bytes = [0_u8; 100];
            bytes[at] = value;
            assert_eq!(count_nonzero(&bytes, 1, 1), [1, 100, 1, 0]);
        }
    }
}

#[test]
fn blocks_beyond_4_gib_of_a_region_and_of_an_image() {
    // covers: RES-7
    for block_size in [1024_u64, 65536] {
        // Three blocks and a bit lie in memory: the end of a region that begins far below them, as do its first blocks in the image.
        for (before, first_block) in [(1 << 32, 0), ((1 << 32) + (1 << 20), 5), (1 << 34, 1 << 33), (1 << 40, 1 << 40)]
        {
            let held = Skewed::new(usize::try_from(3 * block_size + 9).unwrap(), 0, 3);
            let bytes = held.bytes();
            let mut region = Region { ptr: address(bytes) - before, bytes: before + 3 * block_size + 9, first_block };
            let mut counters = [0_u64; 2];
            let mut hashes = [0_u128; 8];
            let regions = [region];
            let mut args = LeavesArgs {
                regions: address(&regions),
                region_count: 1,
                first_block: first_block + before / block_size,
                block_count: 4,
                hashes: address_mut(&mut hashes),
                counters: address_mut(&mut counters),
                start: INITIAL,
                block_size: u32::try_from(block_size).unwrap(),
                message_bits: 8 * u32::try_from(block_size).unwrap(),
                one: 1,
                reserved: 0,
            };
            launch(LEAVES, &args, 1, false);
            let (found, counted) = (hashes, counters);
            region = Region { ptr: address(bytes), bytes: 3 * block_size + 9, first_block: 0 };
            let regions = [region];
            (args.regions, args.first_block, counters) = (address(&regions), 0, [0; 2]);
            args.counters = address_mut(&mut counters);
            launch(LEAVES, &args, 1, false);
            assert_eq!((found, counted), (hashes, counters), "{before} bytes before, from block {first_block}");
            assert!(counted == [4, 0] && found.iter().all(|hash| *hash != 0));
        }
    }
}

#[test]
#[ignore = "reads 4 GiB: ci/deep.sh limits"]
fn counts_beyond_4_gib() {
    // covers: RES-7
    let bytes = (1_usize << 32) + 4113;
    let mut span = vec![0_u8; bytes];
    assert_eq!(count_nonzero(&span, 3, 1), [1, u64::try_from(bytes).unwrap(), 0, 0]);
    for at in [0, (1 << 32) - 1, 1 << 32, bytes - 1] {
        span[at] = 9;
    }
    assert_eq!(count_nonzero(&span, 4096, 1), [1, u64::try_from(bytes).unwrap(), 4, 0]);
}

#[test]
fn launches_of_another_shape_are_refused() {
    let mut counters = [0_u64; 2];
    let args = CountArgs { ptr: 0, bytes: 0, counters: address_mut(&mut counters) };
    assert_eq!(status(COUNT.0, &args, 1, 256, false), 0);
    assert_eq!(status(COUNT.0, &args, 0, 256, false), 1, "no thread blocks");
    assert_eq!(status(COUNT.0, &args, 1, 128, false), 1, "another block");
    assert_eq!(status(COUNT.0, &counters, 1, 256, false), 1, "another structure");
    assert_eq!(status(c"vram_no_such_kernel", &args, 1, 256, false), 500);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_regions_sizes_and_salts(
        lengths in proptest::collection::vec((1_usize..20_000, 0_usize..16), 1..12),
        log in 10_u32..=16,
        salt in proptest::collection::vec(any::<u8>(), 0..=32),
        nodes in 1_usize..4,
    ) {
        let block_size = 1_usize << log;
        let regions: Vec<Skewed> = lengths.iter().map(|&(length, skew)| Skewed::new(length, skew, length)).collect();
        let regions: Vec<&[u8]> = regions.iter().map(Skewed::bytes).collect();
        agrees(&regions, block_size, &salt, nodes * block_size / 32);
    }
}

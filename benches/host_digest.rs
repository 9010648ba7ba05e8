//! The host digest against `sha2`, in turns in one process: other load takes from both alike.
//!
//! `cargo bench --bench host_digest` prints medians of the ratios of neighbours in time. For images that one thread hashes it is what
//! the same tree takes when `sha2` hashes its blocks one after the other, over what the library takes; for long ones, what as many
//! plain streams as there are cores take for a part of the bytes each, over what the library takes: a tree has nodes and a padding for
//! every block, a stream has neither. With `-- --check` it fails where a short image is slower, or a long one not 1.6 times as fast.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::panic,
    missing_docs
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use vram_residency::{TreeParams, digest_bytes};

/// Images of so many blocks are hashed by one thread, as long as they are shorter than 1 MiB.
const BLOCKS: [usize; 14] = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 129, 255];
const LONG_BYTES: usize = 64 << 20;
const ROUNDS: usize = 61;
/// Ratios must not be below these; the first leaves room for noise.
const SHORT_LEAST: f64 = 0.97;
const LONG_LEAST: f64 = 1.6;

fn seconds(times: usize, work: impl Fn()) -> f64 {
    let start = Instant::now();
    (0..times).for_each(|_| work());
    start.elapsed().as_secs_f64()
}

/// Keeps the compiler from leaving out what is measured.
fn consume(value: impl Sized) {
    let _ = black_box(value);
}

/// The tree by `sha2` alone, and as much as its descriptor.
fn plain_tree(block: usize, image: &[u8]) -> Vec<[u8; 32]> {
    let hash =
        |data: &[u8]| Sha256::new().chain_update(data).chain_update(vec![0; block - data.len()]).finalize().into();
    let mut level: Vec<[u8; 32]> = image.chunks(block).map(hash).collect();
    while level.len() > 1 {
        level = level.as_flattened().chunks(block).map(hash).collect();
    }
    level.push(Sha256::digest([0; 256]).into());
    level
}

/// Hashes the bytes in as many parts as there are cores, each as one stream on a thread of its own.
fn streams_at_once(image: &[u8], cores: usize) {
    std::thread::scope(|scope| {
        for part in image.chunks(image.len().div_ceil(cores)) {
            scope.spawn(move || consume(Sha256::digest(part)));
        }
    });
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Medians of what the library takes and of how much faster it is than the other.
fn compare(times: usize, ours: impl Fn(), theirs: impl Fn()) -> (f64, f64) {
    let pairs: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (seconds(times, &ours), seconds(times, &theirs))).collect();
    let ratios = pairs.iter().map(|(ours, theirs)| theirs / ours).collect();
    (median(pairs.iter().map(|(ours, _)| ours / times as f64).collect()), median(ratios))
}

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut image = vec![0; LONG_BYTES];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in image.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    let mut passed = true;
    for block in [1024, 4096, 65536] {
        let params = TreeParams::new(block, b"").unwrap();
        let block = block as usize;
        for blocks in BLOCKS.into_iter().filter(|blocks| blocks * block < 1 << 20) {
            let image = &image[..blocks * block];
            let times = (1 << 19) / image.len() + 1;
            let ours = || consume(digest_bytes(&params, black_box(image)));
            let (took, ratio) = compare(times, ours, || consume(plain_tree(block, black_box(image))));
            println!("{blocks:4} blocks of {block:5}: {:8.2} µs, {ratio:.2} × the tree by sha2", took * 1e6);
            passed &= ratio >= SHORT_LEAST;
        }
        let ours = || consume(digest_bytes(&params, black_box(&image)));
        let (took, ratio) = compare(1, ours, || streams_at_once(black_box(&image), cores));
        let rate = LONG_BYTES as f64 / took / 1e9;
        println!("64 MiB, blocks of {block:5}: {rate:.2} GB/s on {cores} cores, {ratio:.2} × as many streams of sha2");
        // The bound is on the default block size; small blocks pay for more padding and more nodes.
        passed &= params != TreeParams::default() || ratio >= LONG_LEAST;
    }
    if check && !passed {
        eprintln!("a short image is below {SHORT_LEAST}, or a long one below {LONG_LEAST}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

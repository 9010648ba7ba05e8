//! The host tree digest on all cores against single-stream SHA-256 on all cores at once, measured in turns in one process.
//!
//! `cargo bench --bench host_digest` prints, for each block size, the median of the ratios of neighbours in time: what the cores
//! take for a part of the bytes each, without a tree, over what the tree takes. With `-- --check` a ratio below 0.85 is a failure.
//! Other load takes from both alike. How far the cores get at once is printed beside it: that is the machine's, not the tree's.
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

const BYTES: usize = 64 << 20;
const ROUNDS: usize = 61;
const LEAST: f64 = 0.85;

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Keeps the compiler from leaving out what is measured.
fn consume(value: impl Sized) {
    let _ = black_box(value);
}

/// Hashes the bytes in as many parts as there are cores, each as one stream on a thread of its own.
fn streams_at_once(image: &[u8], cores: usize) {
    std::thread::scope(|scope| {
        for part in image.chunks(image.len().div_ceil(cores)) {
            scope.spawn(move || consume(Sha256::digest(part)));
        }
    });
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut image = vec![0; BYTES];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in image.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    let params: Vec<TreeParams> = [1024, 4096, 65536].map(|size| TreeParams::new(size, b"").unwrap()).into();
    let (mut single, mut at_once) = (Vec::new(), Vec::new());
    let mut trees = vec![(Vec::new(), Vec::new()); params.len()];
    for _ in 0..ROUNDS {
        single.push(seconds(|| consume(Sha256::digest(black_box(&image)))));
        for (params, (times, ratios)) in params.iter().zip(&mut trees) {
            let streams = seconds(|| streams_at_once(black_box(&image), cores));
            let tree = seconds(|| consume(digest_bytes(params, black_box(&image))));
            at_once.push(streams);
            times.push(tree);
            ratios.push(streams / tree);
        }
    }
    let rate = |seconds: f64| BYTES as f64 / seconds / 1e9;
    println!("single-stream SHA-256   {:6.2} GB/s on one core", rate(median(single)));
    println!("single-stream SHA-256   {:6.2} GB/s on {cores} cores at once", rate(median(at_once)));
    let mut passed = true;
    for (params, (times, ratios)) in params.iter().zip(trees) {
        let ratio = median(ratios);
        println!(
            "tree, {:5}-byte blocks  {:6.2} GB/s on {cores} cores: {ratio:.3} of single streams at once",
            params.block_size(),
            rate(median(times))
        );
        // The bound is on the default block size; small blocks pay for more padding and more nodes.
        passed &= params.block_size() != TreeParams::default().block_size() || ratio >= LEAST;
    }
    if check && !passed {
        eprintln!("the tree is below {LEAST} of {cores} single streams at once");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

//! The host tree digest on all cores against single-stream SHA-256 on one, measured in turns in one process.
//!
//! `cargo bench --bench host_digest` prints medians and their ratio: the share of `cores × single stream` that the tree
//! reaches. With `-- --check` a ratio below 0.85 is a failure. Other load on the machine makes the ratio worse, never better.
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

const BYTES: usize = 256 << 20;
const ROUNDS: usize = 9;
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
    let (mut single, mut trees) = (Vec::new(), vec![Vec::new(); params.len()]);
    for _ in 0..ROUNDS {
        single.push(seconds(|| consume(Sha256::digest(black_box(&image)))));
        for (params, times) in params.iter().zip(&mut trees) {
            times.push(seconds(|| consume(digest_bytes(params, black_box(&image)))));
        }
    }
    let rate = |seconds: f64| BYTES as f64 / seconds / 1e9;
    let single = median(single);
    println!("single-stream SHA-256   {:6.2} GB/s", rate(single));
    let mut passed = true;
    for (params, times) in params.iter().zip(trees) {
        let time = median(times);
        let ratio = single / (time * cores as f64);
        println!(
            "tree, {:5}-byte blocks  {:6.2} GB/s on {cores} cores: {ratio:.3} of {cores} x single stream",
            params.block_size(),
            rate(time)
        );
        // The bound is on the default block size; small blocks pay for more padding and more nodes.
        passed &= params.block_size() != TreeParams::default().block_size() || ratio >= LEAST;
    }
    if check && !passed {
        eprintln!("the tree is below {LEAST} of {cores} x single stream");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

//! The fixed cost of verify and execute on a shard of one block, beside one HMAC-SHA256 of 256 bytes in the same run.
//!
//! `cargo bench --bench fixed_cost` prints both and their ratio. The mock device and a silent sink: what is measured is this
//! crate's own way from the call to the work, one block's digest included.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a bench may stop at once when something is wrong"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use vram_residency::{DeviceSelector, MockConfig, Policy, ShardSource, VramManager, WorkerId, WorkerSecret};
use vram_residency_harness::{silent, spec};

/// The median time of one call, from `rounds` batches of `batch`, the two subjects in turn.
fn medians(rounds: usize, batch: u32, mut one: impl FnMut(), mut two: impl FnMut()) -> (Duration, Duration) {
    let time = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        for _ in 0..batch {
            work();
        }
        began.elapsed() / batch
    };
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ones.push(time(&mut one));
        twos.push(time(&mut two));
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(rounds / 2).copied().unwrap_or_default()
    };
    (median(&mut ones), median(&mut twos))
}

fn main() {
    let manager = VramManager::builder(WorkerId::new("bench").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(MockConfig::new().late_streams(false)))
        .policy(Policy::development())
        .audit(silent())
        .build()
        .unwrap();
    let weights = [7; 4096];
    let shard = manager.seal_model(spec("one-block"), ShardSource::bytes(&weights)).unwrap();
    let message = [9; 256];
    let key = Hmac::<Sha256>::new_from_slice(&[3; 32]).unwrap();
    let (executed, signed) = medians(
        51,
        200,
        || manager.execute(&shard, |verified| black_box(verified.byte_len())).map(|_| ()).unwrap(),
        || {
            let mut mac = key.clone();
            mac.update(black_box(&message));
            black_box(mac.finalize());
        },
    );
    let ratio = executed.as_secs_f64() / signed.as_secs_f64();
    println!("verify and execute, one block: {executed:?}");
    println!("one HMAC of 256 bytes:         {signed:?}");
    println!("ratio: {ratio:.1}");
    manager.release(&shard).unwrap();
}

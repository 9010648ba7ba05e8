//! Checking 200 adopted tensors in one batch, beside one check of as many bytes in one piece, in the same run.
//!
//! The mock hashes one large image on all cores and small ones on one; what is asked here is the cost of the batch, so give it one
//! core: `taskset -c 0 cargo bench --bench batch` prints the medians of interleaved rounds and their ratios; `-- --check` fails when one is above
//! 1.3. The mock device and a silent sink: what is measured beyond the hashing is this crate's own way, 200 times. Tensors are of
//! 64 KiB each, sealed once as 200 shards (checked with `begin_all`) and once as 200 regions of one shard.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "a bench may stop at once when something is wrong; its tensors are its own"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use vram_residency::{
    DeviceSelector, ExecuteOptions, MockConfig, Policy, RawRegion, SealedShard, ShardSource, VramManager, WorkerId,
    WorkerSecret,
};
use vram_residency_harness::{noise, silent, spec};

const TENSORS: usize = 200;
const TENSOR_BYTES: usize = 64 << 10;
const ROUNDS: usize = 15;
const MOST: f64 = 1.3;

/// Adopts tensors as the regions of one shard.
fn adopt(manager: &VramManager, name: &str, tensors: Vec<Vec<u8>>) -> SealedShard {
    let regions: Vec<RawRegion> = tensors
        .iter()
        .map(|tensor| RawRegion::new(tensor.as_ptr().expose_provenance() as u64, tensor.len() as u64))
        .collect();
    // SAFETY: the vectors live in `tensors`, which moves without moving their contents; nobody writes them.
    unsafe { manager.adopt(spec(name), tensors, &regions) }.unwrap().shard().clone()
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() -> ExitCode {
    let manager = VramManager::builder(WorkerId::new("bench").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(64 << 20)))
        .policy(Policy::development())
        .audit(silent())
        .build()
        .unwrap();
    let tensors: Vec<Vec<u8>> = (0..TENSORS as u64).map(|seed| noise(TENSOR_BYTES, seed)).collect();
    let whole = manager.seal_model(spec("whole"), ShardSource::bytes(&tensors.concat())).unwrap();
    let regions = adopt(&manager, "regions", tensors.clone());
    assert_eq!(regions.digest(), whole.digest(), "both checks read the same image");
    let shards: Vec<SealedShard> =
        (0..).zip(tensors).map(|(at, tensor): (u32, _)| adopt(&manager, &format!("t{at}"), vec![tensor])).collect();
    let shards: Vec<&SealedShard> = shards.iter().collect();
    let check = |shard| black_box(manager.verify_sealed(shard)).map(drop).unwrap();
    let batch = || {
        for guard in manager.begin_all(&shards, ExecuteOptions::default()).unwrap() {
            guard.finish().unwrap();
        }
    };
    let (mut one, mut many_regions, mut many_shards) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(time(|| check(&whole)));
        many_regions.push(time(|| check(&regions)));
        many_shards.push(time(batch));
    }
    let base = median(&mut one);
    println!("one check of {} MiB:             {base:?}", (TENSORS * TENSOR_BYTES) >> 20);
    let mut worst: f64 = 0.0;
    for (what, times) in
        [("200 regions of one shard", &mut many_regions), ("200 shards in one batch ", &mut many_shards)]
    {
        let found = median(times);
        let ratio = found.as_secs_f64() / base.as_secs_f64();
        println!("{what}:        {found:?}  ratio {ratio:.3}");
        worst = worst.max(ratio);
    }
    if std::env::args().any(|argument| argument == "--check") && worst > MOST {
        println!("FAILED: the ratio {worst:.3} is above {MOST}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

//! Nor do the regions.
use vram_residency::{ExecuteOptions, SealedShard, VramManager};

fn keep(manager: &VramManager, shard: &SealedShard) {
    let run = manager.begin(shard, ExecuteOptions::default()).unwrap();
    let regions = run.regions();
    drop(run);
    let _ = regions.len();
}

fn main() {}

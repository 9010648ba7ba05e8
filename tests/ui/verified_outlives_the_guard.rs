//! Nor do they outlive their guard.
use vram_residency::{ExecuteOptions, SealedShard, VramManager};

fn keep(manager: &VramManager, shard: &SealedShard) {
    let run = manager.begin(shard, ExecuteOptions::default()).unwrap();
    let verified = run.verified();
    run.finish().unwrap();
    let _ = verified.read_at(0, &mut [0]);
}

fn main() {}

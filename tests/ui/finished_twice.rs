//! A guard ends once.
use vram_residency::{ExecuteOptions, SealedShard, VramManager};

fn twice(manager: &VramManager, shard: &SealedShard) {
    let run = manager.begin(shard, ExecuteOptions::default()).unwrap();
    run.finish().unwrap();
    run.finish().unwrap();
}

fn main() {}

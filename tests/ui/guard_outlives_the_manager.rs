//! A guard does not outlive its manager.
use vram_residency::{ExecuteOptions, SealedShard, VramManager};

fn after(manager: VramManager, shard: &SealedShard) {
    let run = manager.begin(shard, ExecuteOptions::default()).unwrap();
    drop(manager);
    run.finish().unwrap();
}

fn main() {}

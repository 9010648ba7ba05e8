//! A finished guard reads nothing.
use vram_residency::{ExecuteOptions, SealedShard, VramManager};

fn after(manager: &VramManager, shard: &SealedShard) {
    let run = manager.begin(shard, ExecuteOptions::default()).unwrap();
    run.finish().unwrap();
    let _ = run.read_at(0, &mut [0]);
}

fn main() {}

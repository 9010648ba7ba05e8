//! An `Execution` comes from `begin` only.
use vram_residency::{ExecuteOptions, Execution, SealedShard, VramManager};

fn forge<'a>(manager: &'a VramManager, shard: &SealedShard) -> Execution<'a> {
    Execution::begin(manager, shard, &ExecuteOptions::default()).unwrap()
}

fn main() {}

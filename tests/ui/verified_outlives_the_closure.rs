//! Verified bytes do not leave the closure.
use vram_residency::{SealedShard, VramManager};

fn keep(manager: &VramManager, shard: &SealedShard) {
    let kept = manager.execute(shard, |verified| *verified).unwrap();
    let _ = kept.read_at(0, &mut [0]);
}

fn main() {}

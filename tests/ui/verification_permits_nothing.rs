//! A report is data: it opens nothing.
use vram_residency::{SealedShard, VramManager};

fn reach(manager: &VramManager, shard: &SealedShard) {
    let report = manager.verify_sealed(shard).unwrap();
    let _ = report.read_at(0, &mut [0]);
}

fn main() {}

//! A seal leads to no memory: not by pointer, not by slice, not by region.
use vram_residency::SealedShard;

fn reach(shard: &SealedShard) {
    let _ = shard.as_ptr();
    let _ = shard.device_ptr();
    let _ = shard.as_bytes();
    let _ = shard.read_at(0, &mut [0]);
    let _ = shard.regions();
}

fn main() {}

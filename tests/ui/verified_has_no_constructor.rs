//! A `Verified` comes from a check only.
use vram_residency::{SealedShard, Verified};

fn forge(shard: &SealedShard) -> Verified<'_> {
    Verified::new(shard)
}

fn main() {}

//! The tag of a seal is not handed out.
use vram_residency::SealedShard;

fn tag(shard: &SealedShard) {
    let _ = shard.tag();
}

fn main() {}

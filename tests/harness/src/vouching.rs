//! What someone vouched for, in the words of a manager's own block size and salt.

use vram_residency::{Digest, Expectation, Layout, RawRegion, TreeParams};

/// Bytes or a file that have this digest.
pub fn file(params: &TreeParams, digest: Digest) -> Expectation {
    Expectation::FsVerityWith { digest, params: params.clone() }
}

/// An engine's memory in these regions, of which only the lengths are known, whose image has this digest.
pub fn regions(params: &TreeParams, regions: &[RawRegion], digest: Digest) -> Expectation {
    let lengths: Vec<u64> = regions.iter().map(RawRegion::byte_len).collect();
    Expectation::Image { digest, layout: Layout::of_regions(params, &lengths).unwrap().digest() }
}

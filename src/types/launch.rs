//! What a kernel is asked, and what it writes back.

use super::{DevicePtr, Span};

/// One digest launch: the level-1 table of the fs-verity tree over an image.
///
/// The image is `regions` in order, each zero-padded to a block. With `arity = block_size / 32` and L leaves, the kernel
/// writes to `table`: the one leaf hash when L = 1, else the ceil(L / arity) hashes of the blocks of leaf hashes (with the
/// default 4096-byte blocks, one 32-byte entry for each 512 KiB of image). The host finishes the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DigestJob<'a> {
    /// The image, in order. No region is empty.
    pub(crate) regions: &'a [Span],
    /// Bytes per block: a power of two from 1024 to 65536.
    pub(crate) block_size: u32,
    /// Prepended to every block, zero-padded to 64 bytes, when not empty; at most 32 bytes.
    pub(crate) salt: &'a [u8],
    /// Room for the leaf hashes of one chunk: a multiple of `block_size`, or 32 × L if that is less.
    pub(crate) scratch: Span,
    /// Room for the table: exactly 32 bytes an entry.
    pub(crate) table: Span,
    /// Room for a list of the regions, at least [`REGION_BYTES`](Self::REGION_BYTES) each, for drivers whose kernels look them up
    /// on the device.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "the mock's kernels get the regions from the host"))]
    pub(crate) region_list: Span,
    /// Where the kernel writes a [`LaunchResult`].
    pub(crate) result: DevicePtr,
    pub(crate) nonce: u64,
}

impl DigestJob<'_> {
    /// What one region takes of the list of regions, on the device and on its way there.
    pub(crate) const REGION_BYTES: u64 = 24;
}

/// One keyed hash of an image: NH over blocks of 4,096 bytes, and over its own outputs, level after level, down to one.
///
/// The image is that of [`DigestJob`]. What lies in `keys`, `nodes` and `top` is secret: wiping it is up to the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyedJob<'a> {
    /// The image, in order. No region is empty.
    pub(crate) regions: &'a [Span],
    /// Bytes per block of the tree, which regions are padded to: a power of two from 1024 to 65536.
    pub(crate) block_size: u32,
    /// As of a digest.
    pub(crate) region_list: Span,
    /// The keys of all levels, one after the other: exactly [`KEY_BYTES`](Self::KEY_BYTES) each.
    pub(crate) keys: Span,
    /// Scratch: best [`KeyedSizes::nodes`] bytes. Less makes more chunks; a chunk takes at least 4,096 bytes.
    pub(crate) nodes: Span,
    /// Where the one output of the last level goes: 16 bytes.
    pub(crate) top: DevicePtr,
    /// Where the kernel writes a [`LaunchResult`].
    pub(crate) result: DevicePtr,
    pub(crate) nonce: u64,
}

impl KeyedJob<'_> {
    pub(crate) const KEY_BYTES: u64 = 4112;
    /// What a block is hashed to, on every level.
    pub(crate) const SUMS_BYTES: u64 = 16;
}

/// What a keyed hash of an image comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyedSizes {
    /// Blocks of each level, the image's first; the last level has one.
    pub(crate) blocks: Vec<u64>,
    /// Outputs of one chunk of the image, and of all levels between the first and the last.
    pub(crate) nodes: u64,
    /// Bytes read, on all levels.
    pub(crate) covered: u64,
}

impl KeyedSizes {
    pub(crate) const BLOCK_BYTES: u64 = 4096;
    /// Blocks of the image whose outputs are in scratch at one time, at most: 1 GiB.
    pub(crate) const CHUNK_BLOCKS: u64 = 1 << 18;

    /// Of an image of so many bytes, of which `held` lie in regions; `None` when there are none.
    pub(crate) fn new(image_bytes: u64, held: u64) -> Option<Self> {
        let mut blocks = vec![Some(image_bytes.div_ceil(Self::BLOCK_BYTES)).filter(|count| *count > 0)?];
        let mut covered = held;
        let mut between = 0_u64;
        while let Some(below) = blocks.last().copied().filter(|count| *count > 1) {
            let bytes = below.checked_mul(KeyedJob::SUMS_BYTES)?;
            covered = covered.checked_add(bytes)?;
            between = between.checked_add(if blocks.len() > 1 { bytes } else { 0 })?;
            blocks.push(bytes.div_ceil(Self::BLOCK_BYTES));
        }
        let chunk = if blocks.len() > 1 { blocks.first().copied()?.min(Self::CHUNK_BLOCKS) } else { 0 };
        let nodes = chunk.checked_mul(KeyedJob::SUMS_BYTES)?.checked_add(between)?;
        Some(Self { blocks, nodes, covered })
    }
}

/// What a kernel writes back to show that this launch ran, and how far. 32 bytes, little-endian words in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaunchResult {
    pub(crate) nonce: u64,
    /// Blocks hashed (digest) or bytes read (zero proof; keyed hash, on all levels).
    pub(crate) covered: u64,
    /// Digest: table entries written. Zero proof: bytes that are not zero. Keyed hash: blocks, on all levels.
    pub(crate) found: u64,
    pub(crate) reserved: u64,
}

impl LaunchResult {
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(bytes.get(at..).and_then(|rest| rest.get(..8)).unwrap_or(&[0; 8]));
            u64::from_le_bytes(word)
        };
        Self { nonce: word(0), covered: word(8), found: word(16), reserved: word(24) }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
mod tests {
    use super::*;

    #[test]
    fn keyed_sizes_follow_the_levels_and_scratch_is_bounded() {
        // covers: RES-7
        for (bytes, blocks, nodes) in [
            (1, vec![1], 0),
            (4096, vec![1], 0),
            (4097, vec![2, 1], 32),
            (1 << 20, vec![256, 1], 4096),
            ((1 << 20) + 1, vec![257, 2, 1], 257 * 16 + 32),
            (70 << 30, vec![70 << 18, 70 << 10, 280, 2, 1], (4 << 20) + 16 * ((70 << 10) + 282)),
        ] {
            let sizes = KeyedSizes::new(bytes, bytes).unwrap();
            let above: u64 = blocks.iter().filter(|count| **count > 1).map(|count| 16 * count).sum();
            assert_eq!((sizes.blocks, sizes.nodes, sizes.covered), (blocks, nodes, bytes + above), "{bytes} bytes");
        }
        assert_eq!(KeyedSizes::new(0, 0), None);
        assert_eq!(KeyedSizes::new(u64::MAX, u64::MAX), None, "more bytes are read than a u64 counts");
        assert_eq!(KeyedSizes::new(u64::MAX, 1).unwrap().blocks.len(), 8);
    }

    #[test]
    fn results_decode_word_by_word() {
        let mut bytes = [0; 32];
        for (at, byte) in [(0, 1), (8, 2), (16, 3), (24, 4)] {
            bytes[at] = byte;
        }
        let result = LaunchResult { nonce: 1, covered: 2, found: 3, reserved: 4 };
        assert_eq!(LaunchResult::from_bytes(&bytes), result);
    }
}

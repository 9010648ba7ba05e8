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

/// What a kernel writes back to show that this launch ran, and how far. 32 bytes, little-endian words in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaunchResult {
    pub(crate) nonce: u64,
    /// Blocks hashed (digest) or bytes read (zero proof).
    pub(crate) covered: u64,
    /// Digest: table entries written. Zero proof: bytes that are not zero.
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
mod tests {
    use super::*;

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

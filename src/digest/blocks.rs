//! The hashes of blocks: one level of a tree from the bytes below it.
//!
//! Owns [`BlockHasher`]. Promises a hash of 32 bytes for each block, the last zero-padded if it is short, each with the salt in front,
//! on as many threads as it is given: leaves from the bytes of an image, or a level from the hashes of the one below, for both are
//! bytes in blocks. This is what a device's kernels compute; a device in host memory can call it for a launch:
//!
//! ```text
//! BlockHasher::new(&params).hash_all(threads, bytes, &mut hashes);    // hashes.len() == bytes.len().div_ceil(block size)
//! ```
//!
//! For an image of several regions it is called once for each, since each of them begins a block.

use std::num::NonZeroUsize;

use zeroize::Zeroizing;

use super::lanes::{Chunk, Lanes, Shape, chunks, compress, to_bytes};
use super::pool::in_shares;
use super::{Hash, TreeParams};

/// The state that SHA-256 begins with: FIPS 180-4, 5.3.3.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

const CHUNK_BYTES: usize = 64;

/// Input of a short last block.
static ZEROS: [Chunk; 1024] = [[[0; 16]; 4]; 1024];

#[derive(Clone, Debug)]
pub(crate) struct BlockHasher {
    lanes: Lanes,
    shape: Shape,
    block_len: usize,
}

impl BlockHasher {
    pub(crate) fn new(params: &TreeParams) -> Self {
        let mut start = START;
        let salted = !params.salt().is_empty();
        if salted {
            let mut padded = [0; CHUNK_BYTES];
            for (to, from) in padded.iter_mut().zip(params.salt()) {
                *to = *from;
            }
            compress(&mut start, chunks(&padded));
        }
        Self::after(start, salted, params.block_len())
    }

    /// For blocks behind what `start` has taken in: nothing, or the chunk of a salt. O(1).
    pub(crate) fn after(start: [u32; 8], salted: bool, block_len: usize) -> Self {
        let bytes = block_len.saturating_add(if salted { CHUNK_BYTES } else { 0 });
        // SHA-256's padding: a one, zeros, and the length in bits.
        let mut end = [[0; 16]; 4];
        let [[first, ..], .., [_, _, _, _, _, _, _, _, length @ ..]] = &mut end;
        *first = 0x80;
        *length = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8).to_be_bytes();
        let shape = Shape { start, chunks: block_len.div_ceil(CHUNK_BYTES), end };
        Self { lanes: Lanes::detected(), shape, block_len }
    }

    #[cfg(test)]
    pub(super) fn with_lanes(self, lanes: Lanes) -> Self {
        Self { lanes, ..self }
    }

    /// Hashes one block, zero-padded if it is short.
    pub(crate) fn hash(&self, block: &[u8]) -> Hash {
        let mut hash = [0; 32];
        self.hash_run(block, std::slice::from_mut(&mut hash));
        hash
    }

    /// Hashes consecutive blocks, of which the last may be short, into as many hashes, on up to `threads` threads.
    pub(crate) fn hash_all(&self, threads: NonZeroUsize, data: &[u8], out: &mut [Hash]) {
        in_shares(threads, self.block_len, data, out, |data, out| self.hash_run(data, out));
    }

    pub(super) fn hash_run(&self, data: &[u8], out: &mut [Hash]) {
        let blocks = data.chunks_exact(self.block_len);
        let (short, whole) = (blocks.remainder(), blocks.len());
        self.lanes.hash(&self.shape, chunks(data), out);
        if let Some(hash) = out.get_mut(whole).filter(|_| !short.is_empty()) {
            *hash = self.hash_short(short);
        }
    }

    /// Hashes a block that ends early.
    fn hash_short(&self, block: &[u8]) -> Hash {
        let mut state = self.shape.start;
        let whole = chunks(block);
        compress(&mut state, whole);
        let mut last = Zeroizing::new([0; CHUNK_BYTES]);
        for (to, from) in last.iter_mut().zip(block.iter().skip(whole.len().saturating_mul(CHUNK_BYTES))) {
            *to = *from;
        }
        compress(&mut state, chunks(&*last));
        let missing = self.shape.chunks.saturating_sub(whole.len()).saturating_sub(1);
        compress(&mut state, ZEROS.get(..missing).unwrap_or(&ZEROS));
        compress(&mut state, &[self.shape.end]);
        to_bytes(state)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests;

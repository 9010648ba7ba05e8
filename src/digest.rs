//! The tree digest: fs-verity over SHA-256, on the host.
//!
//! Owns [`TreeParams`], the host tree ([`tree`], [`stream`], [`descriptor`]) down to its blocks ([`blocks`], [`lanes`], [`pool`]),
//! the keyed hash ([`keyed`]) and the layouts of images ([`layout`]). Promises that for every length, block size and salt the digest of some bytes is the one that
//! `fsverity digest --hash-alg=sha256` prints for a file of these bytes. Refuses to hand out a bare root hash: only the
//! descriptor binds length, block size and algorithm.
//!
//! Source: the Linux kernel's `Documentation/filesystems/fsverity.rst`.

use crate::error::VramError;

pub(crate) mod blocks;
mod descriptor;
pub(crate) mod keyed;
mod lanes;
pub(crate) mod layout;
pub(crate) mod pool;
mod stream;
mod tree;

pub(crate) use stream::hash_stream;
pub use stream::{digest_bytes, digest_reader};
pub(crate) use tree::{TreeDigest, TreeHasher, digest_from_table, first_difference};

pub(crate) const HASH_BYTES: usize = 32;

/// A SHA-256 hash inside the tree.
pub(crate) type Hash = [u8; HASH_BYTES];

/// Block size and salt of a tree. Both are part of the digest; the salt is not a secret.
///
/// The default, 4096-byte blocks without a salt, is the default of `fsverity digest`.
///
/// ```
/// use vram_residency::TreeParams;
/// let params = TreeParams::new(65536, b"model-zoo")?;
/// assert_eq!(params.block_size(), 65536);
/// assert!(TreeParams::new(1000, b"").is_err());
/// # Ok::<(), vram_residency::VramError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TreeParams {
    /// The binary logarithm of the block size: 10 to 16.
    log_block: u8,
    salt: Vec<u8>,
}

/// The binary logarithms of the smallest and the largest block, and of a hash.
const MIN_LOG_BLOCK: u8 = 10;
const MAX_LOG_BLOCK: u8 = 16;
const LOG_HASH: u32 = 5;

impl TreeParams {
    pub(crate) const MAX_SALT: usize = 32;

    /// Checks and takes a block size in bytes and a salt.
    ///
    /// # Errors
    /// `INVALID_PARAMS` naming `block size` when it is not a power of two from 1024 to 65536, or `salt` when it is longer
    /// than 32 bytes.
    pub fn new(block_size: u32, salt: &[u8]) -> Result<Self, VramError> {
        let log_block = (MIN_LOG_BLOCK..=MAX_LOG_BLOCK)
            .find(|&log| 1u32.checked_shl(u32::from(log)) == Some(block_size))
            .ok_or_else(|| VramError::InvalidParams {
                field: "block size",
                problem: format!("is {block_size}; give a power of two from 1024 to 65536"),
            })?;
        if salt.len() > Self::MAX_SALT {
            return Err(VramError::InvalidParams {
                field: "salt",
                problem: format!("is {} bytes long; at most {} are allowed", salt.len(), Self::MAX_SALT),
            });
        }
        Ok(Self { log_block, salt: salt.to_vec() })
    }

    /// Bytes per block.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        1u32.wrapping_shl(self.log_block_u32())
    }

    /// The salt; empty for none.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub(crate) const fn log_block(&self) -> u8 {
        self.log_block
    }

    #[expect(clippy::as_conversions, reason = "u32::from is not const; u8 to u32 loses nothing")]
    const fn log_block_u32(&self) -> u32 {
        self.log_block as u32
    }

    /// Bytes per block, for indexing host memory.
    pub(crate) const fn block_len(&self) -> usize {
        1usize.wrapping_shl(self.log_block_u32())
    }

    /// Hashes that fill a block: block size / 32.
    pub(crate) const fn arity(&self) -> u64 {
        1u64.wrapping_shl(self.log_block_u32().saturating_sub(LOG_HASH))
    }

    pub(crate) const fn arity_len(&self) -> usize {
        1usize.wrapping_shl(self.log_block_u32().saturating_sub(LOG_HASH))
    }

    /// Leaves of an image of `bytes` bytes: ceil(bytes / block size).
    pub(crate) const fn blocks(&self, bytes: u64) -> u64 {
        ceil_shift(bytes, self.log_block_u32())
    }

    /// Entries of the level-1 table over `blocks` leaves: ceil(blocks / arity), which is 1 for a single leaf.
    pub(crate) const fn table_entries(&self, blocks: u64) -> u64 {
        ceil_shift(blocks, self.log_block_u32().saturating_sub(LOG_HASH))
    }

    /// Image bytes under one entry of the level-1 table: block size² / 32.
    pub(crate) const fn subtree_bytes(&self) -> u64 {
        1u64.wrapping_shl(self.log_block_u32().saturating_mul(2).saturating_sub(LOG_HASH))
    }

    /// `bytes` rounded up to a multiple of the block size; `None` on overflow.
    pub(crate) const fn padded(&self, bytes: u64) -> Option<u64> {
        bytes.checked_next_multiple_of(1u64.wrapping_shl(self.log_block_u32()))
    }
}

/// ceil(value / 2^log), without overflow, for `log` below 64.
const fn ceil_shift(value: u64, log: u32) -> u64 {
    let floor = value.wrapping_shr(log);
    // The floor is below 2^63 whenever the remainder can be other than zero, so that this never saturates.
    if floor.wrapping_shl(log) == value { floor } else { floor.saturating_add(1) }
}

impl Default for TreeParams {
    fn default() -> Self {
        Self { log_block: 12, salt: Vec::new() }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests;

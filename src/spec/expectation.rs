//! What someone vouched for.
//!
//! Owns [`Expectation`]. Promises that an expectation speaks of everything that an engine reads: bytes, names,
//! types, shapes and order. The digest of an image alone is none: tensors that were renamed into each other have the same image.

use crate::digest::TreeParams;
use crate::error::VramError;
use crate::id::ShardId;
use crate::types::{Digest, DigestKind};

/// What someone vouched for of a model: the digest of its file as publishers give it, or of its image and of what lies where in it.
///
/// ```
/// use vram_residency::{Expectation, TreeParams, digest_bytes};
/// let published = digest_bytes(&TreeParams::default(), b"weights"); // or parsed: what `fsverity digest` prints
/// let expectation = Expectation::FsVerity(published);
/// # let _ = expectation;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expectation {
    /// The fs-verity digest of the whole file, header included, as `fsverity digest` prints it: with 4096-byte blocks and without
    /// a salt, whatever the manager's own parameters are.
    FsVerity(Digest),
    /// The fs-verity digest of the whole file, of another block size or with a salt.
    FsVerityWith {
        /// The digest.
        digest: Digest,
        /// The block size and salt that it was made with.
        params: TreeParams,
    },
    /// The plain SHA-256 of the whole file, header included, as `sha256sum` prints it.
    Sha256([u8; 32]),
    /// The digest of the image, made with the manager's block size and salt, and the digest of its layout.
    Image {
        /// The fs-verity digest of the image.
        digest: Digest,
        /// The digest of its layout: see [`Layout::digest`](crate::Layout::digest).
        layout: [u8; 32],
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) of: DigestKind,
    pub(crate) digest: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// What was vouched for, or read from the source.
    pub(crate) wanted: Wanted,
    pub(crate) found: Digest,
}

impl Mismatch {
    pub(crate) const fn of_shard(self, shard: ShardId) -> VramError {
        let Self { wanted: Wanted { of, digest: expected }, found: actual } = self;
        VramError::DigestMismatch { shard, of, expected, actual }
    }
}

impl Wanted {
    /// Compares in ordinary time: neither side is a secret.
    pub(crate) fn judge(self, found: Digest) -> Result<(), Mismatch> {
        if self.digest == found { Ok(()) } else { Err(Mismatch { wanted: self, found }) }
    }
}

/// Holds a layout's digest against the one that was vouched for.
pub(crate) fn judge_layout(wanted: [u8; 32], found: [u8; 32]) -> Result<(), Mismatch> {
    Wanted { of: DigestKind::Layout, digest: Digest::from_bytes(wanted) }.judge(Digest::from_bytes(found))
}

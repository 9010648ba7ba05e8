//! The fs-verity descriptor: what turns a root hash into a file digest.
//!
//! Owns the 256-byte encoding of `struct fsverity_descriptor`. Little-endian, in this order: version (1 byte, 1), hash
//! algorithm (1 byte, 1 = SHA-256), binary logarithm of the block size (1 byte), salt length (1 byte), four zero bytes,
//! data size (8 bytes), root hash (64 bytes, zero-padded), salt (32 bytes, zero-padded), 144 zero bytes.

use sha2::{Digest as _, Sha256};

use super::{Hash, TreeParams};
use crate::types::Digest;

/// The file digest of an image of `image_bytes` bytes whose tree has this root. O(1).
pub(super) fn file_digest(params: &TreeParams, image_bytes: u64, root: &Hash) -> Digest {
    // A salt is at most 32 bytes long.
    let salt_bytes = u8::try_from(params.salt().len()).unwrap_or(u8::MAX);
    let mut salt = [0; TreeParams::MAX_SALT];
    for (to, from) in salt.iter_mut().zip(params.salt()) {
        *to = *from;
    }
    let mut descriptor = Sha256::new();
    descriptor.update([1, 1, params.log_block(), salt_bytes]);
    descriptor.update([0; 4]);
    descriptor.update(image_bytes.to_le_bytes());
    descriptor.update(root);
    descriptor.update([0; 32]);
    descriptor.update(salt);
    descriptor.update([0; 144]);
    Digest::from_bytes(descriptor.finalize().into())
}

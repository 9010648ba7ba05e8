//! The tree digest: fs-verity over SHA-256.
//!
//! Owns [`Digest`] and [`TreeParams`].

/// A file digest of fs-verity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl Digest {
    /// Takes 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Block size and salt of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeParams {
    block_size: u32,
    salt: Vec<u8>,
}

impl TreeParams {
    /// Bytes per block.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The salt; empty for none.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }
}

impl Default for TreeParams {
    fn default() -> Self {
        Self { block_size: 4096, salt: Vec::new() }
    }
}

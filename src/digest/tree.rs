//! The Merkle tree on the host.
//!
//! Owns [`TreeHasher`], which builds the tree while bytes arrive, and what is done with a level-1 table that a device
//! computed. Promises: the same result for any chunking and any number of threads; host memory of one block, one level-1
//! block, one bounded batch of leaf hashes and the table. Refuses nothing: every sequence of bytes has a digest.
//!
//! All hashing of blocks goes through [`BlockHasher`], as many at a time as there are.

use std::num::NonZeroUsize;

use zeroize::Zeroizing;

use super::blocks::BlockHasher;
use super::descriptor::file_digest;
use super::{HASH_BYTES, Hash, TreeParams};
use crate::error::VramError;
use crate::types::Digest;

/// The most that is hashed before the leaf hashes are folded into the table, in bytes.
const BATCH_BYTES: usize = 16 << 20;

/// What the tree over an image comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeDigest {
    /// The file digest.
    pub(crate) digest: Digest,
    /// The level-1 table, as `driver::DigestJob` describes it; empty for an empty image.
    pub(crate) table: Vec<Hash>,
    /// Bytes of the image, padding between regions included.
    pub(crate) image_bytes: u64,
}

/// Builds the tree over an image while its bytes arrive, in chunks of any size.
///
/// Holds one partial block (wiped on drop), fewer than `arity` leaf hashes and the level-1 table; O(1) more for a batch.
pub(crate) struct TreeHasher {
    params: TreeParams,
    threads: NonZeroUsize,
    blocks: BlockHasher,
    /// The block that is not full yet. Its capacity is one block from the first byte on, so that it never moves and leaves a copy behind;
    /// none before that, because it takes time to wipe.
    partial: Zeroizing<Vec<u8>>,
    /// Leaf hashes that do not fill a level-1 block yet.
    leaves: Vec<Hash>,
    table: Vec<Hash>,
    image_bytes: u64,
}

impl TreeHasher {
    /// An empty image, to be hashed on up to `threads` threads where an update is large.
    pub(crate) fn new(params: &TreeParams, threads: NonZeroUsize) -> Self {
        Self {
            threads,
            blocks: BlockHasher::new(params),
            partial: Zeroizing::default(),
            leaves: Vec::new(),
            table: Vec::new(),
            image_bytes: 0,
            params: params.clone(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_lanes(self, lanes: super::lanes::Lanes) -> Self {
        Self { blocks: self.blocks.with_lanes(lanes), ..self }
    }

    /// Appends bytes to the image. O(bytes).
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        // 2^64 bytes are not reached by any process.
        self.image_bytes = self.image_bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let mut rest = bytes;
        if !self.partial.is_empty() {
            let missing = self.params.block_len().saturating_sub(self.partial.len());
            let (head, tail) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
            self.partial.extend_from_slice(head);
            rest = tail;
            if self.partial.len() < self.params.block_len() {
                return;
            }
            self.absorb_partial();
        }
        let blocks = rest.chunks_exact(self.params.block_len());
        let tail = blocks.remainder();
        let whole = rest.get(..rest.len().saturating_sub(tail.len())).unwrap_or(&[]);
        for batch in whole.chunks(BATCH_BYTES) {
            self.absorb(batch);
        }
        if !tail.is_empty() {
            self.partial.reserve_exact(self.params.block_len());
            self.partial.extend_from_slice(tail);
        }
    }

    /// Ends a region that others follow: appends zeros up to the next block, which count as bytes of the image.
    #[allow(dead_code, reason = "images of several regions")]
    pub(crate) fn pad_to_block(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let missing = self.params.block_len().saturating_sub(self.partial.len());
        self.image_bytes = self.image_bytes.saturating_add(u64::try_from(missing).unwrap_or(u64::MAX));
        self.absorb_partial();
    }

    /// Ends the image.
    pub(crate) fn finish(mut self) -> TreeDigest {
        if !self.partial.is_empty() {
            self.absorb_partial();
        }
        match self.leaves.as_slice() {
            [] => {}
            // The hash of a lone block is the root itself.
            [only] if self.table.is_empty() => self.table.push(*only),
            leaves => self.table.push(self.blocks.hash(leaves.as_flattened())),
        }
        let root = root(&self.blocks, &self.params, &self.table);
        TreeDigest {
            digest: file_digest(&self.params, self.image_bytes, &root),
            table: self.table,
            image_bytes: self.image_bytes,
        }
    }

    /// Hashes the partial block, zero-padded if it is short.
    fn absorb_partial(&mut self) {
        let mut partial = std::mem::take(&mut self.partial);
        self.absorb(&partial);
        // Emptied, not wiped: its bytes are overwritten by the next block, and wiped at the end.
        partial.clear();
        self.partial = partial;
    }

    /// Hashes blocks, of which only the very last of the image may be short.
    fn absorb(&mut self, data: &[u8]) {
        let known = self.leaves.len();
        let more = data.len().div_ceil(self.params.block_len());
        self.leaves.resize(known.saturating_add(more), [0; HASH_BYTES]);
        if let Some(fresh) = self.leaves.get_mut(known..) {
            self.blocks.hash_all(self.threads, data, fresh);
        }
        let arity = self.params.arity_len();
        let nodes = self.leaves.chunks_exact(arity).len();
        if nodes == 0 {
            return;
        }
        let full = nodes.saturating_mul(arity);
        let known = self.table.len();
        self.table.resize(known.saturating_add(nodes), [0; HASH_BYTES]);
        if let (Some(leaves), Some(fresh)) = (self.leaves.get(..full), self.table.get_mut(known..)) {
            self.blocks.hash_all(self.threads, leaves.as_flattened(), fresh);
        }
        self.leaves.drain(..full);
    }
}

/// The root over a level-1 table; all zero over an empty one, as fs-verity defines for empty files.
fn root(blocks: &BlockHasher, params: &TreeParams, table: &[Hash]) -> Hash {
    let mut level: Vec<Hash>;
    let mut below = table;
    while below.len() > 1 {
        let mut above = vec![[0; HASH_BYTES]; below.len().div_ceil(params.arity_len())];
        blocks.hash_run(below.as_flattened(), &mut above);
        level = above;
        below = &level;
    }
    below.first().copied().unwrap_or([0; HASH_BYTES])
}

/// Finishes the tree over a level-1 table that a device computed. O(entries).
///
/// # Errors
/// `INTERNAL` when the table has not exactly the entries that an image of `image_bytes` bytes has.
pub(crate) fn digest_from_table(params: &TreeParams, image_bytes: u64, table: &[Hash]) -> Result<Digest, VramError> {
    if u64::try_from(table.len()) != Ok(params.table_entries(params.blocks(image_bytes))) {
        return Err(VramError::Internal { what: "a level-1 table has not one entry for each subtree of its image" });
    }
    let root = root(&BlockHasher::new(params), params, table);
    Ok(file_digest(params, image_bytes, &root))
}

/// The first byte range (offset and length) whose entries of two level-1 tables differ, clipped to the image; `None` when
/// the tables are equal. An entry that only one of the tables has counts as different. O(entries).
pub(crate) fn first_difference(
    params: &TreeParams,
    image_bytes: u64,
    sealed: &[Hash],
    found: &[Hash],
) -> Option<(u64, u64)> {
    let common = sealed.iter().zip(found).take_while(|(sealed, found)| sealed == found).count();
    if common == sealed.len() && common == found.len() {
        return None;
    }
    let entry = u64::try_from(common).unwrap_or(u64::MAX);
    let offset = entry.saturating_mul(params.subtree_bytes()).min(image_bytes);
    Some((offset, image_bytes.saturating_sub(offset).min(params.subtree_bytes())))
}

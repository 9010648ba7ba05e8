//! The keyed hash of an image whose bytes arrive in chunks.

use std::num::NonZeroUsize;

use zeroize::Zeroizing;

use super::lanes::Lanes;
use super::{BLOCK_BYTES, LevelKey, LevelKeys, Output, hash_with};

/// The most that is hashed before the outputs are hashed in turn, in bytes.
const BATCH_BYTES: usize = 16 << 20;

/// The keyed hash of an image whose bytes arrive in chunks of any size.
///
/// Holds one partial block a level, and the key of each level that is needed; O(1) more for a batch.
pub(crate) struct KeyedStream<'a> {
    keys: &'a LevelKeys,
    threads: NonZeroUsize,
    lanes: Lanes,
    /// From the bytes of the image up; never empty.
    pub(super) levels: Vec<Level>,
}

#[derive(Default)]
pub(super) struct Level {
    /// Made for the first block that is hashed here. A level that never needs it holds the one output of the last level below.
    key: Option<Box<Zeroizing<LevelKey>>>,
    /// The block that is not full yet. Its capacity is one block from the first byte on, so that it never moves and leaves a copy.
    pub(super) partial: Zeroizing<Vec<u8>>,
}

impl<'a> KeyedStream<'a> {
    /// An empty image, to be hashed on up to `threads` threads where an update is large.
    pub(crate) fn new(keys: &'a LevelKeys, threads: NonZeroUsize) -> Self {
        Self { keys, threads, lanes: Lanes::detected(), levels: vec![Level::default()] }
    }

    #[cfg(test)]
    pub(super) fn with_lanes(self, lanes: Lanes) -> Self {
        Self { lanes, ..self }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for batch in bytes.chunks(BATCH_BYTES) {
            self.take(0, batch);
        }
    }

    /// The top: the one output of the last level.
    pub(crate) fn finish(mut self) -> Zeroizing<Output> {
        let mut top = Zeroizing::new([0; 16]);
        let mut at = 0usize;
        while let Some(Level { key, partial }) = self.levels.get_mut(at) {
            if at > 0 && key.is_none() && partial.len() == top.len() {
                top.copy_from_slice(partial);
                break;
            }
            if key.is_none() || !partial.is_empty() {
                let missing = BLOCK_BYTES.saturating_sub(partial.len());
                partial.reserve_exact(missing);
                partial.resize(BLOCK_BYTES, 0);
                self.take(at, &[]);
            }
            at = at.saturating_add(1);
        }
        top
    }

    /// Takes the next bytes of a level, and hands the outputs of its blocks to the level above.
    fn take(&mut self, at: usize, bytes: &[u8]) {
        if at == self.levels.len() {
            self.levels.push(Level::default());
        }
        let Some(Level { key, partial }) = self.levels.get_mut(at) else { return };
        let missing = if partial.is_empty() { 0 } else { BLOCK_BYTES.saturating_sub(partial.len()) };
        let (head, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        partial.extend_from_slice(head);
        let (whole, tail) = rest.as_chunks::<BLOCK_BYTES>();
        let full = if partial.len() == BLOCK_BYTES { partial.as_slice() } else { &[] };
        let mut outputs = Zeroizing::new(vec![[0; 16]; whole.len().saturating_add(full.len().min(1))]);
        if !outputs.is_empty() {
            let key = key.get_or_insert_with(|| self.keys.level(u32::try_from(at).unwrap_or(u32::MAX)));
            let (first, others) = outputs.split_at_mut(full.len().min(1));
            hash_with(self.lanes, NonZeroUsize::MIN, key, full, first);
            hash_with(self.lanes, self.threads, key, whole.as_flattened(), others);
        }
        if !full.is_empty() {
            // Emptied, not wiped: its bytes are overwritten by the next block, and wiped at the end.
            partial.clear();
        }
        if !tail.is_empty() {
            partial.reserve_exact(BLOCK_BYTES);
            partial.extend_from_slice(tail);
        }
        if !outputs.is_empty() {
            self.take(at.saturating_add(1), outputs.as_flattened());
        }
    }
}

//! The keyed hash of an image, on the host.
//!
//! Owns [`LevelKeys`], one level ([`hash_level`]) and the whole of it ([`KeyedStream`]). Promises what `.specs/keyed.py` prints, for
//! any chunking, any number of threads and whichever instructions the processor has ([`lanes`]); and that keys and outputs are zeroed
//! when dropped, and shown nowhere: who knows them can find another image with the same top. Refuses nothing: an image without bytes
//! counts as a block of zeros. What the hash is for, and what it is worth, is in `.specs/35-keyed-check.md`.
//!
//! An image's padding between regions is hashed as the zeros that it is, as in [`TreeHasher`](super::TreeHasher).

use std::num::NonZeroUsize;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use zeroize::Zeroizing;

pub(crate) use self::lanes::LevelKey;
use self::lanes::{Lanes, blocks};
use super::pool::in_shares;

mod lanes;

/// Bytes of a block, of images as of outputs. It has nothing to do with the tree's block size.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// What a block comes to: the sums of both passes, little-endian.
pub(crate) type Output = [u8; 16];

/// Outputs that fill a block.
const ARITY: u64 = 256;

/// The most that is hashed before the outputs are hashed in turn, in bytes.
const BATCH_BYTES: usize = 16 << 20;

/// The fewest whole blocks of ChaCha20 that hold a level's key: the cipher keeps nothing of them.
const STREAM_BYTES: usize = 4160;

/// Levels of the hash of an image, 1 to 8: up to 4 KiB, 1 MiB, 256 MiB, 64 GiB, 16 TiB and so on.
pub(crate) fn levels(image_bytes: u64) -> u32 {
    let mut outputs = image_bytes.div_ceil(4096);
    let mut levels = 1u32;
    while outputs > 1 {
        outputs = outputs.div_ceil(ARITY);
        levels = levels.saturating_add(1);
    }
    levels
}

/// What the keys of all levels of one enrolment are made from.
pub(crate) struct LevelKeys(Box<Zeroizing<[u8; 32]>>);

impl LevelKeys {
    pub(crate) const fn new(seed: Box<Zeroizing<[u8; 32]>>) -> Self {
        Self(seed)
    }

    /// The key of a level, counted from 0: the first 4,112 bytes of ChaCha20 (RFC 8439) under a nonce that is the level.
    pub(crate) fn level(&self, level: u32) -> Box<Zeroizing<LevelKey>> {
        let [a, b, c, d] = level.to_le_bytes();
        let seed: &[u8; 32] = &self.0;
        let mut stream = Zeroizing::new([0; STREAM_BYTES]);
        ChaCha20::new(seed.into(), &[a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0].into()).write_keystream(&mut *stream);
        let mut key = Box::new(Zeroizing::new([[[0; 4]; 4]; 257]));
        for (to, from) in key.as_flattened_mut().as_flattened_mut().iter_mut().zip(stream.iter()) {
            *to = *from;
        }
        key
    }
}

/// Hashes consecutive blocks of one level, of which the last is zero-padded if it is short, into as many outputs, on up to `threads`
/// threads. It is what a device's kernel computes. The outputs are the caller's to erase.
pub(crate) fn hash_level(threads: NonZeroUsize, key: &LevelKey, data: &[u8], out: &mut [Output]) {
    hash_with(Lanes::detected(), threads, key, data, out);
}

fn hash_with(lanes: Lanes, threads: NonZeroUsize, key: &LevelKey, data: &[u8], out: &mut [Output]) {
    in_shares(threads, BLOCK_BYTES, data, out, |data, out| {
        let whole = blocks(data);
        lanes.hash(key, whole, out);
        let short = data.chunks_exact(BLOCK_BYTES).remainder();
        if let Some(out) = out.get_mut(whole.len()).filter(|_| !short.is_empty()) {
            let mut padded = Zeroizing::new([0; BLOCK_BYTES]);
            for (to, from) in padded.iter_mut().zip(short) {
                *to = *from;
            }
            lanes.hash(key, blocks(&*padded), std::slice::from_mut(out));
        }
    });
}

/// The keyed hash of an image whose bytes arrive in chunks of any size.
///
/// Holds one partial block a level, and the key of each level that is needed; O(1) more for a batch.
pub(crate) struct KeyedStream<'a> {
    keys: &'a LevelKeys,
    threads: NonZeroUsize,
    lanes: Lanes,
    /// From the bytes of the image up; never empty.
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    /// Made for the first block that is hashed here. A level that never needs it holds the one output of the last level below.
    key: Option<Box<Zeroizing<LevelKey>>>,
    /// The block that is not full yet. Its capacity is one block from the first byte on, so that it never moves and leaves a copy.
    partial: Zeroizing<Vec<u8>>,
}

impl<'a> KeyedStream<'a> {
    /// An empty image, to be hashed on up to `threads` threads where an update is large.
    pub(crate) fn new(keys: &'a LevelKeys, threads: NonZeroUsize) -> Self {
        Self { keys, threads, lanes: Lanes::detected(), levels: vec![Level::default()] }
    }

    #[cfg(test)]
    fn with_lanes(self, lanes: Lanes) -> Self {
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

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests;

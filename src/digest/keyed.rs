//! The keyed hash of an image, on the host.
//!
//! Owns [`LevelKeys`], one level (`hash_level`, for tests and the mock) and the whole of it ([`KeyedStream`]). Promises what `.specs/keyed.py` prints, for
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
pub(crate) use self::stream::KeyedStream;
use super::pool::in_shares;

mod lanes;
mod stream;

/// Bytes of a block, of images as of outputs. It has nothing to do with the tree's block size.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// What a block comes to: the sums of both passes, little-endian.
pub(crate) type Output = [u8; 16];

/// Outputs that fill a block.
const ARITY: u64 = 256;

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
#[cfg(any(test, feature = "mock"))]
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

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests;

//! The key of a keyed check.
//!
//! Owns [`KeyedKey`]: what the levels of the keyed hash are keyed with, and what its top is tagged with. Promises a key of its own for
//! each [`Enrolment`], tags that bind length and levels to the top, and that they are compared in constant time. When a key is made
//! and when it has to go is in `.specs/35-keyed-check.md`.

use zeroize::Zeroizing;

use super::{BLOCK_BYTES, Tag, WorkerSecret, expand};
use crate::digest::keyed::{self, LevelKeys, Output};
use crate::error::VramError;
use crate::types::{DeviceKind, DeviceUuid};

/// Begin the HKDF info and what is tagged.
const KEY_DOMAIN: &[u8; 23] = b"vram-residency/keyed/1\0";
const TAG_DOMAIN: &[u8; 27] = b"vram-residency/keyed-tag/1\0";

/// What a key is for: one shard, enrolled once.
#[derive(Debug)]
pub(crate) struct Enrolment {
    pub(crate) device_kind: DeviceKind,
    pub(crate) device_uuid: DeviceUuid,
    /// The manager's 16 random bytes.
    pub(crate) epoch: [u8; 16],
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    /// Which enrolment of this manager it is.
    pub(crate) number: u64,
}

impl Enrolment {
    /// The HKDF info: domain, then every field, fixed-width and little-endian.
    fn info(&self) -> Vec<u8> {
        let mut info = KEY_DOMAIN.to_vec();
        info.push(self.device_kind.to_byte());
        info.extend_from_slice(self.device_uuid.as_bytes());
        info.extend_from_slice(&self.epoch);
        info.extend_from_slice(&self.slot.to_le_bytes());
        info.extend_from_slice(&self.generation.to_le_bytes());
        info.extend_from_slice(&self.number.to_le_bytes());
        info
    }
}

/// The key of one enrolment.
pub(crate) struct KeyedKey {
    levels: LevelKeys,
    /// 32 derived bytes, padded as those of [`SealKey`](super::SealKey).
    tag: Box<Zeroizing<[u8; BLOCK_BYTES]>>,
}

impl KeyedKey {
    /// Derives the key: HKDF-SHA256 with 32 random bytes that no other enrolment has.
    ///
    /// Fails only with `INTERNAL`.
    pub(crate) fn derive(secret: &WorkerSecret, salt: &[u8; 32], enrolment: &Enrolment) -> Result<Self, VramError> {
        let mut seed = Box::new(Zeroizing::new([0; 64]));
        expand(&secret.bytes, salt, &enrolment.info(), &mut **seed)?;
        let (mut levels, mut tag) = (Box::new(Zeroizing::new([0; 32])), Box::new(Zeroizing::new([0; BLOCK_BYTES])));
        for (to, from) in levels.iter_mut().chain(tag.iter_mut()).zip(seed.iter()) {
            *to = *from;
        }
        Ok(Self { levels: LevelKeys::new(levels), tag })
    }

    pub(crate) const fn levels(&self) -> &LevelKeys {
        &self.levels
    }

    /// The tag of an image of `image_bytes` bytes with this top.
    pub(crate) fn sign(&self, image_bytes: u64, top: &Output) -> Tag {
        let mut message = Zeroizing::new(Vec::with_capacity(BLOCK_BYTES));
        message.extend_from_slice(TAG_DOMAIN);
        message.extend_from_slice(&image_bytes.to_le_bytes());
        message.extend_from_slice(&4096u32.to_le_bytes());
        message.extend_from_slice(&keyed::levels(image_bytes).to_le_bytes());
        message.extend_from_slice(top);
        Tag::of(&self.tag, &message)
    }

    /// Whether the tag is that of this image, in time that does not depend on either's contents.
    pub(crate) fn verify(&self, image_bytes: u64, top: &Output, tag: &Tag) -> bool {
        self.sign(image_bytes, top).is(tag)
    }
}

#[cfg(test)]
mod tests;

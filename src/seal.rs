//! The seal: what a manager signed about a shard, as plain data.
//!
//! Owns [`SealedShard`]. Promises that a seal's bytes are the canonical encoding of its message followed by the tag, and that
//! holding one proves nothing: only a manager can say whether the tag verifies, and its record, not the seal, says what the
//! shard must be. Refuses whatever is not exactly one encoding. Carries no pointer and no secret.

mod message;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::message::MAX_SEAL_BYTES;
pub(crate) use self::message::{SealMessage, SetPart};
use crate::clock;
use crate::error::{RefusalReason, VramError};
use crate::id::{ModelRef, SetId, ShardId, WorkerId};
use crate::keys::{SealKey, Tag};
use crate::types::{Digest, Identity, Origin, SealedDevice};

/// A seal: the signed statement that an image with this digest lies in this device's memory.
///
/// A capability, not a proof: present it to the manager that made it. Its fields are what it *claims* until then. It may leave
/// the process as at most 2 KiB of bytes, or through serde (hexadecimal text in formats for people, bytes in others), and dies
/// with its manager. Cheap to clone. Two seals are not comparable, because that would compare tags.
///
/// ```
/// use vram_residency::{ErrorCode, SealedShard};
/// let error = SealedShard::from_bytes(b"not a seal").unwrap_err();
/// assert_eq!(error.code(), ErrorCode::SealVerificationFailed);
/// ```
///
/// ```compile_fail,E0369
/// fn same(one: &vram_residency::SealedShard, two: &vram_residency::SealedShard) -> bool {
///     one == two
/// }
/// ```
#[derive(Clone)]
pub struct SealedShard(Arc<Contents>);

struct Contents {
    message: SealMessage,
    bytes: Vec<u8>,
    tag: Tag,
}

impl SealedShard {
    pub(crate) fn sign(key: &SealKey, message: SealMessage) -> Result<Self, VramError> {
        let bytes = message.encode().map_err(|_| VramError::Internal { what: "a seal message cannot be encoded" })?;
        let tag = key.sign(&bytes);
        Ok(Self(Arc::new(Contents { message, bytes, tag })))
    }

    /// Whether the tag is the key's. Constant time in the contents, O(length).
    pub(crate) fn tag_verifies(&self, key: &SealKey) -> bool {
        key.verify(&self.0.bytes, &self.0.tag)
    }

    /// What the seal states. Believe it only after [`SealedShard::tag_verifies`].
    pub(crate) fn message(&self) -> &SealMessage {
        &self.0.message
    }

    pub(crate) fn message_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Why a seal whose tag does not verify was refused: the first foreign thing that it claims, else `Forged`.
    pub(crate) fn claim(&self, identity: &Identity) -> RefusalReason {
        let message = self.message();
        let device = (message.device_kind, message.device_uuid, message.ordinal);
        if device != (identity.kind, identity.uuid, identity.ordinal) {
            RefusalReason::ClaimsOtherDevice
        } else if message.worker != identity.worker {
            RefusalReason::ClaimsOtherWorker
        } else if message.epoch != identity.epoch {
            RefusalReason::ClaimsOtherEpoch
        } else {
            RefusalReason::Forged
        }
    }

    /// The seal as bytes: the signed message, then the 32 bytes of the tag; at most 2048. O(length).
    ///
    /// The format, with a decoder of ten lines, is in `.specs/30-seal-format.md`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.0.bytes.as_slice(), self.0.tag.as_bytes()].concat()
    }

    /// Takes bytes that claim to be a seal. Says nothing about the tag: only the manager that made it can. O(length).
    ///
    /// # Errors
    /// `SEAL_VERIFICATION_FAILED` ([`RefusalReason::Malformed`]) when they are not exactly what [`SealedShard::to_bytes`]
    /// yields for some message: cut, extended, over 2048 bytes, of another version, or with an invalid field.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VramError> {
        Self::parse(bytes).ok_or(VramError::SealRefused { reason: RefusalReason::Malformed })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_SEAL_BYTES {
            return None;
        }
        let (bytes, tag) = bytes.split_last_chunk::<{ Tag::BYTES }>()?;
        let message = SealMessage::decode(bytes).ok()?;
        Some(Self(Arc::new(Contents { message, bytes: bytes.to_vec(), tag: Tag::from_bytes(*tag) })))
    }

    getters! {
        /// The shard's name.
        fn id(&self) -> &ShardId { &self.message().shard }
        /// The worker that sealed it.
        fn worker(&self) -> &WorkerId { &self.message().worker }
        /// The caller's reference to the model, if one was given.
        fn model_ref(&self) -> Option<&ModelRef> { self.message().model_ref.as_ref() }
        /// The set that the shard is a part of, its index and the number of parts; `None` outside a set.
        fn part(&self) -> Option<(SetId, u32, u32)> { self.message().set.map(|part| (part.set, part.index, part.count)) }
        /// The fs-verity digest of the image.
        fn digest(&self) -> Digest { self.message().digest }
        /// SHA-256 of the image's layout: names, offsets, lengths and types of what lies in it.
        fn layout_digest(&self) -> [u8; 32] { self.message().layout_digest }
        /// Bytes of the image.
        fn byte_len(&self) -> u64 { self.message().byte_len }
        /// Bytes per block of the digest's tree.
        fn block_size(&self) -> u32 { self.message().block_size }
        /// The salt of the digest's tree: at most 32 bytes, empty for none.
        fn salt(&self) -> &[u8] { &self.message().salt }
    }

    /// The device that holds the image.
    #[must_use]
    pub fn device(&self) -> SealedDevice {
        let message = self.message();
        SealedDevice { kind: message.device_kind, uuid: message.device_uuid, ordinal: message.ordinal }
    }

    getters! {
        /// Whose word the digest rests on.
        fn origin(&self) -> Origin { self.message().origin }
        /// Whether the memory belongs to an engine.
        fn is_adopted(&self) -> bool { self.message().adopted }
    }

    /// When it was sealed, by the worker's wall clock.
    #[must_use]
    pub fn sealed_at(&self) -> SystemTime {
        clock::from_unix_nanos(self.message().sealed_at)
    }
}

shown!(SealedShard, this: id = this.id(), digest = this.digest(), byte_len = this.byte_len(), device = this.device(), origin = this.origin());

impl Serialize for SealedShard {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.to_bytes();
        if serializer.is_human_readable() {
            serializer.serialize_str(&hex::encode(bytes))
        } else {
            serializer.serialize_bytes(&bytes)
        }
    }
}

impl<'de> Deserialize<'de> for SealedShard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

struct Visitor;

impl serde::de::Visitor<'_> for Visitor {
    type Value = SealedShard;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a seal")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SealedShard, E> {
        // Bounded before it is decoded, and lower case only, so that text too has one spelling.
        if text.len() > MAX_SEAL_BYTES.saturating_mul(2) || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(E::custom("not a seal"));
        }
        self.visit_bytes(&hex::decode(text).map_err(|_| E::custom("not a seal"))?)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<SealedShard, E> {
        SealedShard::from_bytes(bytes).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests;

//! The canonical encoding of what a seal states.
//!
//! Owns [`SealMessage`] and its bytes. Promises one encoding for each message and one message for each accepted encoding:
//! every field is fixed-width little-endian or behind its length, absence has one spelling, and whatever else a decoder
//! could be lenient about is refused. Decoding allocates no more than the input's length and never panics. The byte table
//! is in `.specs/30-seal-format.md`.

use crate::id::{ModelRef, SetId, ShardId, WorkerId};
use crate::keys::Tag;
use crate::types::{DeviceKind, DeviceUuid, Digest, Origin};

/// Begins every message, so that no other use of HMAC yields a seal.
const DOMAIN: &[u8; 20] = b"vram-residency/seal\0";

/// Changes when the layout does.
const VERSION: u16 = 1;

/// The most bytes of an encoded message with its tag.
pub(crate) const MAX_SEAL_BYTES: usize = 2048;

/// The part that a shard plays in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetPart {
    pub(crate) set: SetId,
    /// Which part this is, from 0.
    pub(crate) index: u32,
    pub(crate) count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealMessage {
    pub(crate) device_kind: DeviceKind,
    pub(crate) device_uuid: DeviceUuid,
    pub(crate) ordinal: u32,
    /// The manager's 16 random bytes.
    pub(crate) epoch: [u8; 16],
    /// The row of the slot table.
    pub(crate) slot: u32,
    /// Which use of the slot this is, from 1.
    pub(crate) generation: u64,
    pub(crate) worker: WorkerId,
    pub(crate) shard: ShardId,
    pub(crate) model_ref: Option<ModelRef>,
    pub(crate) set: Option<SetPart>,
    /// The hash of the layout (names, offsets, lengths, dtypes).
    pub(crate) layout_digest: [u8; 32],
    /// Bytes of the image, at least 1.
    pub(crate) byte_len: u64,
    /// Bytes per block of the tree: a power of two from 1024 to 65536.
    pub(crate) block_size: u32,
    /// The salt of the tree: at most 32 bytes, empty for none.
    pub(crate) salt: Vec<u8>,
    pub(crate) digest: Digest,
    /// Whose word the digest rests on.
    pub(crate) origin: Origin,
    /// The memory belongs to an engine.
    pub(crate) adopted: bool,
    /// When it was sealed, in nanoseconds since 1970.
    pub(crate) sealed_at: u64,
}

/// The field at which bytes stop being the encoding of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The field's name in the byte table.
    pub(crate) field: &'static str,
}

impl SealMessage {
    /// The canonical bytes, at most [`MAX_SEAL_BYTES`] with a tag. O(length).
    ///
    /// Fails, naming the field, when the message says something that no decoder accepts.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Malformed> {
        self.check()?;
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(DOMAIN);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(self.device_kind.to_byte());
        bytes.extend_from_slice(self.device_uuid.as_bytes());
        bytes.extend_from_slice(&self.ordinal.to_le_bytes());
        bytes.extend_from_slice(&self.epoch);
        bytes.extend_from_slice(&self.slot.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        put(&mut bytes, "worker", self.worker.as_str().as_bytes())?;
        put(&mut bytes, "shard", self.shard.as_str().as_bytes())?;
        put(&mut bytes, "model_ref", self.model_ref.as_ref().map_or(b"", |name| name.as_str().as_bytes()))?;
        let no_set = SetPart { set: SetId::from_bytes([0; 16]), index: 0, count: 0 };
        let part = self.set.unwrap_or(no_set);
        bytes.extend_from_slice(part.set.as_bytes());
        bytes.extend_from_slice(&part.index.to_le_bytes());
        bytes.extend_from_slice(&part.count.to_le_bytes());
        bytes.extend_from_slice(&self.layout_digest);
        bytes.extend_from_slice(&self.byte_len.to_le_bytes());
        bytes.extend_from_slice(&self.block_size.to_le_bytes());
        put(&mut bytes, "salt", &self.salt)?;
        bytes.extend_from_slice(self.digest.as_bytes());
        bytes.push(origin_to_byte(self.origin));
        bytes.push(u8::from(self.adopted));
        bytes.extend_from_slice(&self.sealed_at.to_le_bytes());
        if bytes.len().saturating_add(Tag::BYTES) > MAX_SEAL_BYTES {
            return Err(Malformed { field: "length" });
        }
        Ok(bytes)
    }

    /// The message of which `bytes` are the encoding. O(length).
    ///
    /// Fails, naming the field, on anything else: a cut or extended input, an unknown version, an invalid name or number.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        if &input.array::<20>("domain")? != DOMAIN {
            return Err(Malformed { field: "domain" });
        }
        if u16::from_le_bytes(input.array("version")?) != VERSION {
            return Err(Malformed { field: "version" });
        }
        let message = Self {
            device_kind: kind_from_byte(input.byte("device_kind")?)?,
            device_uuid: DeviceUuid::from_bytes(input.array("device_uuid")?),
            ordinal: input.u32("ordinal")?,
            epoch: input.array("epoch")?,
            slot: input.u32("slot")?,
            generation: input.u64("generation")?,
            worker: WorkerId::new(input.text("worker")?).map_err(|_| Malformed { field: "worker" })?,
            shard: ShardId::new(input.text("shard")?).map_err(|_| Malformed { field: "shard" })?,
            model_ref: match input.text("model_ref")? {
                "" => None,
                name => Some(ModelRef::new(name).map_err(|_| Malformed { field: "model_ref" })?),
            },
            set: input.set()?,
            layout_digest: input.array("layout_digest")?,
            byte_len: input.u64("byte_len")?,
            block_size: input.u32("block_size")?,
            salt: input.prefixed("salt")?.to_vec(),
            digest: Digest::from_bytes(input.array("digest")?),
            origin: origin_from_byte(input.byte("origin")?)?,
            adopted: match input.byte("adopted")? {
                0 => false,
                1 => true,
                _ => return Err(Malformed { field: "adopted" }),
            },
            sealed_at: input.u64("sealed_at")?,
        };
        if !input.0.is_empty() {
            return Err(Malformed { field: "end" });
        }
        message.check()?;
        Ok(message)
    }

    /// What the field types do not say by themselves.
    fn check(&self) -> Result<(), Malformed> {
        let field = if self.generation == 0 {
            "generation"
        } else if self.set.is_some_and(|part| part.index >= part.count) {
            "part_index"
        } else if self.byte_len == 0 {
            "byte_len"
        } else if !self.block_size.is_power_of_two() || !(1024..=65536).contains(&self.block_size) {
            "block_size"
        } else if self.salt.len() > 32 {
            "salt"
        } else {
            return Ok(());
        };
        Err(Malformed { field })
    }
}

fn put(bytes: &mut Vec<u8>, field: &'static str, value: &[u8]) -> Result<(), Malformed> {
    let length = u16::try_from(value.len()).map_err(|_| Malformed { field })?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(value);
    Ok(())
}

const fn kind_from_byte(byte: u8) -> Result<DeviceKind, Malformed> {
    match byte {
        1 => Ok(DeviceKind::Cuda),
        2 => Ok(DeviceKind::Mock),
        _ => Err(Malformed { field: "device_kind" }),
    }
}

const fn origin_to_byte(origin: Origin) -> u8 {
    match origin {
        Origin::Expected => 1,
        Origin::Measured => 2,
    }
}

const fn origin_from_byte(byte: u8) -> Result<Origin, Malformed> {
    match byte {
        1 => Ok(Origin::Expected),
        2 => Ok(Origin::Measured),
        _ => Err(Malformed { field: "origin" }),
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed { field })?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn prefixed(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::from(u16::from_le_bytes(self.array(field)?));
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed { field })?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.prefixed(field)?).map_err(|_| Malformed { field })
    }

    /// A count of 0 spells "no set", and then id and index are zero too.
    fn set(&mut self) -> Result<Option<SetPart>, Malformed> {
        let id = self.array::<16>("set_id")?;
        let (index, count) = (self.u32("part_index")?, self.u32("part_count")?);
        if count > 0 {
            Ok(Some(SetPart { set: SetId::from_bytes(id), index, count }))
        } else if id == [0; 16] && index == 0 {
            Ok(None)
        } else {
            Err(Malformed { field: "part_count" })
        }
    }
}

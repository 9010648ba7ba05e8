//! What lies where in an image.
//!
//! Owns [`Layout`]: the kind of an image, its length and the places of its tensors, and the one encoding of these that is
//! hashed into a seal. Promises that tensors lie in order, apart from each other and inside the image. Refuses lengths that
//! overflow.

use sha2::{Digest as _, Sha256};

use super::TreeParams;
use crate::error::VramError;

words! {
    /// How the bytes of a source become an image.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum LayoutKind: Display {
        /// The bytes as they are, in one region.
        File = "file",
        /// Every tensor at a block-aligned offset.
        Tensors = "tensors",
        /// Memory of an engine, of which only the lengths are known: each region at a block-aligned offset.
        Regions = "regions",
    }
}

/// One tensor of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name in the model, as the file spells it: foreign text of any length, to be escaped before it is shown.
    pub name: String,
    /// The type of its elements in the spelling of safetensors, such as `F32`.
    pub dtype: String,
    /// Elements along each dimension; empty for a scalar.
    pub shape: Vec<u64>,
    /// Its first byte, counted from the start of the image. A multiple of the block size unless the tensor is empty.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What lies where in an image: the bytes that a digest speaks of.
///
/// A `file` image is the bytes as they are, and its digest is what `fsverity digest` prints for the file.
///
/// A `tensors` image holds the tensors of a safetensors file, and nothing else, in the order of their data in the file (ties
/// by name). Each starts at a multiple of the block size; the gap behind each but the last is zero; the image ends with the
/// last byte of the last tensor. Tensors without elements take no space. To see the same digest with the stock tool, write
/// that image to a file: append every tensor's bytes, and before each further non-empty one pad the file with zeros
/// (`truncate --size=%4096`), then run `fsverity digest --block-size=4096`.
///
/// ```
/// use std::num::NonZeroUsize;
/// use vram_residency::{LayoutKind, ShardSource, TreeParams, digest_source};
/// let source = digest_source(ShardSource::bytes(b"weights"), &TreeParams::default(), NonZeroUsize::MIN)?;
/// assert_eq!((source.layout.kind(), source.layout.byte_len()), (LayoutKind::File, 7));
/// # Ok::<(), vram_residency::VramError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    kind: LayoutKind,
    block_size: u32,
    bytes: u64,
    tensors: Vec<TensorInfo>,
}

/// Parts the layout digest from every other use of SHA-256.
const DOMAIN: &[u8] = b"vram-residency layout v1";

impl Layout {
    pub(crate) const fn of_file(params: &TreeParams, bytes: u64) -> Self {
        Self { kind: LayoutKind::File, block_size: params.block_size(), bytes, tensors: Vec::new() }
    }

    /// Tensors in this order; their offsets are assigned here.
    ///
    /// # Errors
    /// `INVALID_PARAMS` naming `shard length` when the image would be longer than 2^64 - 1 bytes.
    pub(crate) fn of_tensors(params: &TreeParams, mut tensors: Vec<TensorInfo>) -> Result<Self, VramError> {
        let too_long = || VramError::InvalidParams {
            field: "shard length",
            problem: "is more than 2^64 - 1 bytes once its tensors are padded to blocks; split the model".to_owned(),
        };
        let mut end = 0u64;
        for tensor in &mut tensors {
            tensor.offset = if tensor.bytes == 0 { end } else { params.padded(end).ok_or_else(too_long)? };
            end = tensor.offset.checked_add(tensor.bytes).ok_or_else(too_long)?;
        }
        Ok(Self { kind: LayoutKind::Tensors, block_size: params.block_size(), bytes: end, tensors })
    }

    /// Regions of these lengths, in bytes, which an engine adopted without saying what they are: tensors of bytes, named
    /// `region 0` and so on.
    ///
    /// # Errors
    /// `INVALID_PARAMS` naming `shard length` when the image would be longer than 2^64 - 1 bytes.
    pub fn of_regions(params: &TreeParams, lengths: &[u64]) -> Result<Self, VramError> {
        let tensor = |(at, &bytes): (usize, &u64)| TensorInfo {
            name: format!("region {at}"),
            dtype: "U8".to_owned(),
            shape: vec![bytes],
            offset: 0,
            bytes,
        };
        let tensors = Self::of_tensors(params, lengths.iter().enumerate().map(tensor).collect())?;
        Ok(Self { kind: LayoutKind::Regions, ..tensors })
    }

    /// How the source became the image.
    #[must_use]
    pub const fn kind(&self) -> LayoutKind {
        self.kind
    }

    /// The block size, in bytes, that the offsets are made for.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The length of the image in bytes, padding between tensors included.
    #[must_use]
    pub const fn byte_len(&self) -> u64 {
        self.bytes
    }

    /// The tensors by offset; none for a `file` image.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor that holds the byte at `offset`; `None` for padding, for bytes behind the image and in `file` images.
    /// O(log tensors), but for tensors without elements.
    #[must_use]
    pub fn tensor_at(&self, offset: u64) -> Option<&TensorInfo> {
        self.tensor_in(offset, 1)
    }

    /// The first tensor that has a byte among the `bytes` bytes from `offset` on; none has one among 0 bytes. O(log tensors), but
    /// for tensors without elements.
    #[must_use]
    pub fn tensor_in(&self, offset: u64, bytes: u64) -> Option<&TensorInfo> {
        let first = self.tensors.partition_point(|tensor| tensor.offset.saturating_add(tensor.bytes) <= offset);
        let candidate = self.tensors.get(first..)?.iter().find(|tensor| tensor.bytes > 0)?;
        (bytes > 0 && candidate.offset < offset.saturating_add(bytes)).then_some(candidate)
    }

    /// The SHA-256 of the layout's only encoding. Equal for equal layouts, and for no others. O(names).
    ///
    /// The encoding: the domain `vram-residency layout v1`, the kind (1 byte: 0 file, 1 tensors, 2 regions), the block size (4 bytes), the
    /// image length (8 bytes), the number of tensors (8 bytes); then for each tensor its name and its dtype, each with
    /// its length in bytes before it, the number of dimensions, each dimension, offset and length (8 bytes each). All
    /// numbers are little-endian.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update([match self.kind {
            LayoutKind::File => 0,
            LayoutKind::Tensors => 1,
            LayoutKind::Regions => 2,
        }]);
        hash.update(self.block_size.to_le_bytes());
        hash.update(self.bytes.to_le_bytes());
        hash.update(count(self.tensors.len()));
        for tensor in &self.tensors {
            for text in [&tensor.name, &tensor.dtype] {
                hash.update(count(text.len()));
                hash.update(text);
            }
            hash.update(count(tensor.shape.len()));
            for dimension in &tensor.shape {
                hash.update(dimension.to_le_bytes());
            }
            hash.update(tensor.offset.to_le_bytes());
            hash.update(tensor.bytes.to_le_bytes());
        }
        hash.finalize().into()
    }
}

fn count(items: usize) -> [u8; 8] {
    // No supported target has more than 64 bits of address.
    u64::try_from(items).unwrap_or(u64::MAX).to_le_bytes()
}

//! A verified image, in one shard or in several.
//!
//! Owns [`Sealed`] and [`Image`], which put the parts of an image together again. Promises that all parts are verified in one batch
//! before anything is read, and that a read gives the same bytes however the image is cut.

use std::time::Duration;

use vram_residency::{ExecuteOptions, Execution, SealedShard, TensorInfo, VramError, VramManager};

use crate::split::Split;

/// What is sealed: the shards of one image, in order.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) name: String,
    pub(crate) shards: Vec<SealedShard>,
    /// How the image was cut; `None` for one that was not.
    pub(crate) split: Option<Split>,
}

impl Sealed {
    /// Bytes of the whole image.
    pub(crate) fn byte_len(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.saturating_add(shard.byte_len()))
    }

    /// Verifies every part, then opens the image.
    pub(crate) fn begin<'a>(&'a self, manager: &'a VramManager) -> Result<Image<'a>, VramError> {
        let shards: Vec<_> = self.shards.iter().collect();
        Ok(Image { parts: manager.begin_all(&shards, ExecuteOptions::default())?, split: self.split.as_ref() })
    }
}

/// An image whose every byte has been verified.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    parts: Vec<Execution<'a>>,
    split: Option<&'a Split>,
}

/// A tensor, or the whole image where no tensors are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    pub(crate) tensor: Option<&'a TensorInfo>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Image<'_> {
    /// The pieces that statistics are made of, in the order of the image.
    pub(crate) fn regions(&self) -> Result<Vec<Region<'_>>, VramError> {
        let layout = match (self.split, self.parts.first()) {
            (Some(split), _) => &split.layout,
            (None, Some(whole)) => whole.verified()?.layout(),
            (None, None) => return Ok(Vec::new()),
        };
        if layout.tensors().is_empty() {
            return Ok(vec![Region { tensor: None, offset: 0, bytes: layout.byte_len() }]);
        }
        let region = |tensor| Region { tensor: Some(tensor), offset: tensor.offset, bytes: tensor.bytes };
        Ok(layout.tensors().iter().map(region).collect())
    }

    /// Copies bytes of the image out of VRAM, from `offset` on, out of as many parts as they lie in.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), VramError> {
        let part_bytes = self.split.map_or(u64::MAX, Split::part_bytes);
        let (mut offset, mut rest) = (offset, out);
        while !rest.is_empty() {
            let nowhere = || VramError::Internal { what: "a read leaves the image" };
            let (index, inside) =
                offset.checked_div(part_bytes).zip(offset.checked_rem(part_bytes)).ok_or_else(nowhere)?;
            let part = usize::try_from(index).ok().and_then(|index| self.parts.get(index)).ok_or_else(nowhere)?;
            let bytes = usize::try_from(part_bytes.saturating_sub(inside)).unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at_mut_checked(bytes).ok_or_else(nowhere)?;
            part.read_at(inside, piece)?;
            offset = offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            rest = behind;
        }
        Ok(())
    }

    /// Ends the execution of every part. The result counts only if all of them say so. Returns how long the batch of checks took.
    pub(crate) fn finish(self) -> Result<Duration, VramError> {
        let mut took = Duration::ZERO;
        for part in self.parts {
            took = took.max(part.finish()?.duration);
        }
        Ok(took)
    }
}

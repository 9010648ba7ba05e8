//! A verified image, in one shard or in several.
//!
//! Owns [`Sealed`] and [`Image`], which put the parts of an image together again. Promises that all parts are verified in one batch
//! before anything is read, and that a read gives the same bytes however the image is cut.

use std::collections::VecDeque;
use std::time::Duration;

use vram_residency::{ExecuteOptions, Execution, Layout, SealedShard, TensorInfo, VramError, VramManager};

use crate::split::Split;

/// What is sealed: the shards of one image, in order.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) name: String,
    pub(crate) shards: Vec<SealedShard>,
    /// How the image was cut; `None` for one that was not.
    pub(crate) split: Option<Split>,
    /// The names of the files that the shards were, where there are several; else empty.
    pub(crate) files: Vec<String>,
}

impl Sealed {
    /// Bytes of the whole image.
    pub(crate) fn byte_len(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.saturating_add(shard.byte_len()))
    }

    /// Verifies every part, then opens the image.
    pub(crate) fn begin<'a>(&'a self, manager: &'a VramManager) -> Result<Image<'a>, VramError> {
        let shards: Vec<_> = self.shards.iter().collect();
        let parts = manager.begin_all(&shards, ExecuteOptions::default())?.into();
        Ok(Image { parts, split: self.split.as_ref(), start: 0, took: Duration::ZERO })
    }
}

/// An image whose every byte has been verified. It is read forward.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// The executions that have not ended.
    parts: VecDeque<Execution<'a>>,
    split: Option<&'a Split>,
    /// Where the first of them starts in the image. Parts that have been read are ended: an execution that was read holds a
    /// staging buffer, and parts may be many.
    start: u64,
    took: Duration,
}

/// A tensor, or the whole image where no tensors are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    pub(crate) tensor: Option<&'a TensorInfo>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// The pieces that statistics are made of, in the order of the image.
pub(crate) fn regions(layouts: &[(u64, Layout)]) -> Vec<Region<'_>> {
    let mut regions = Vec::new();
    for (start, layout) in layouts {
        if layout.tensors().is_empty() {
            regions.push(Region { tensor: None, offset: *start, bytes: layout.byte_len() });
        }
        regions.extend(layout.tensors().iter().map(|tensor| Region {
            tensor: Some(tensor),
            offset: start.saturating_add(tensor.offset),
            bytes: tensor.bytes,
        }));
    }
    regions
}

impl Image<'_> {
    /// What lies where in the image: the layouts of the files that it is made of, each with its place.
    pub(crate) fn layouts(&self) -> Result<Vec<(u64, Layout)>, VramError> {
        if let Some(split) = self.split {
            return Ok(vec![(0, split.layout.clone())]);
        }
        let mut start = 0u64;
        let placed = |part: &Execution<'_>| {
            let layout = part.verified()?.layout().clone();
            let at = start;
            start = start.saturating_add(layout.byte_len());
            Ok((at, layout))
        };
        self.parts.iter().map(placed).collect()
    }

    /// Copies bytes of the image out of VRAM, from `offset` on, out of as many parts as they lie in. The executions of parts that
    /// lie before them end here, so offsets must not go back.
    pub(crate) fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), VramError> {
        let (mut offset, mut rest) = (offset, out);
        while !rest.is_empty() {
            let nowhere = || VramError::Internal { what: "a read leaves the image, or goes back in it" };
            let part = self.parts.front().ok_or_else(nowhere)?;
            let inside = offset.checked_sub(self.start).ok_or_else(nowhere)?;
            let left = part.verified()?.byte_len().saturating_sub(inside);
            if left == 0 {
                self.end_first()?;
                continue;
            }
            let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at_mut_checked(bytes).ok_or_else(nowhere)?;
            part.read_at(inside, piece)?;
            offset = offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            rest = behind;
        }
        Ok(())
    }

    /// Ends the executions that are left. What was read counts only if this succeeds, as the ends before did. Returns how long
    /// the batch of checks took.
    pub(crate) fn finish(mut self) -> Result<Duration, VramError> {
        while !self.parts.is_empty() {
            self.end_first()?;
        }
        Ok(self.took)
    }

    fn end_first(&mut self) -> Result<(), VramError> {
        let first = self.parts.pop_front().ok_or(VramError::Internal { what: "a part that is not there ends" })?;
        self.start = self.start.saturating_add(first.verified()?.byte_len());
        self.took = self.took.max(first.finish()?.duration);
        Ok(())
    }
}

#[cfg(all(test, feature = "mock"))]
mod tests {
    use super::*;
    use crate::signals::Signals;
    use vram_residency::{DeviceSelector, MockConfig, Policy, ShardSource, WorkerId, WorkerSecret};

    #[test]
    fn parts_are_read_as_one_and_ended_one_by_one() {
        // covers: SEAL-8
        let manager = VramManager::builder(WorkerId::new("w").unwrap(), WorkerSecret::random().unwrap())
            .device(DeviceSelector::Mock(MockConfig::new()))
            .policy(Policy::development())
            .build()
            .unwrap();
        let bytes: Vec<u8> = (0..5000u16).flat_map(u16::to_le_bytes).collect();
        let (source, signals) = (|| ShardSource::bytes(&bytes), Signals::default());
        let split = Split::measure(source(), manager.tree_params(), 4096, &signals).unwrap();
        let shards = split.seal(&manager, "m", source(), true, &signals).unwrap();
        let sealed = Sealed { name: "m".to_owned(), shards, split: Some(split), files: Vec::new() };

        let mut image = sealed.begin(&manager).unwrap();
        let mut found = vec![0; 4000];
        image.read_at(0, &mut found).unwrap();
        assert_eq!((found.as_slice(), image.parts.len()), (&bytes[..4000], 3));
        image.read_at(4000, &mut found).unwrap();
        assert_eq!((found.as_slice(), image.parts.len()), (&bytes[4000..8000], 2));
        image.read_at(0, &mut found).unwrap_err();
        found.truncate(2000);
        image.read_at(8000, &mut found).unwrap();
        assert_eq!((found.as_slice(), image.parts.len()), (&bytes[8000..], 1));
        image.read_at(9999, &mut [0; 2]).unwrap_err();
        assert!(image.finish().unwrap() > Duration::ZERO);

        // A bit of the last part is enough that nothing of the first is read.
        let last = &sealed.shards[2];
        manager.mock_controls().unwrap().flip_bit(last, 7, 0).unwrap();
        let error = sealed.begin(&manager).unwrap_err();
        assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == last.id()), "{error}");
    }
}

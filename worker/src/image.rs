//! A verified image, in one shard or in several.
//!
//! Owns [`Sealed`] and [`Image`], which put the parts of an image together again. Promises that all parts are verified in one batch
//! before anything is read, and that a read gives the same bytes however the image is cut.

use std::time::Duration;

use vram_residency::{Check, ExecuteOptions, Execution, Layout, SealedShard, TensorInfo, VramError, VramManager};

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
    pub(crate) fn begin<'a>(&'a self, manager: &'a VramManager, check: Check) -> Result<Image<'a>, VramError> {
        let shards: Vec<_> = self.shards.iter().collect();
        // A check after the work looks at all bytes: who asks for less has none.
        let options = ExecuteOptions::default().check(check).verify_after(check.is_full());
        let parts = manager.begin_all(&shards, options)?;
        let ends = shards.iter().scan(0u64, |end, shard| {
            *end = end.saturating_add(shard.byte_len());
            Some(*end)
        });
        Ok(Image { parts, ends: ends.collect(), split: self.split.as_ref() })
    }
}

/// An image that has been verified, as far as was asked for. What was read of it counts once [`renew`](Self::renew) or
/// [`finish`](Self::finish) says so.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    parts: Vec<Execution<'a>>,
    split: Option<&'a Split>,
    /// Where each part ends in the image.
    ends: Vec<u64>,
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
            let layout = part.verified().layout().clone();
            let at = start;
            start = start.saturating_add(layout.byte_len());
            Ok((at, layout))
        };
        self.parts.iter().map(placed).collect()
    }

    /// Copies bytes of the image out of VRAM, from `offset` on, out of as many parts as they lie in.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), VramError> {
        const NOWHERE: VramError = VramError::Internal { what: "a read leaves the image" };
        let (mut offset, mut rest) = (offset, out);
        while !rest.is_empty() {
            let at = self.ends.partition_point(|end| *end <= offset);
            let (part, end) = self.parts.get(at).zip(self.ends.get(at)).ok_or(NOWHERE)?;
            let (left, start) = (end.saturating_sub(offset), end.saturating_sub(part.byte_len()));
            let inside = offset.saturating_sub(start);
            let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at_mut_checked(bytes).ok_or(NOWHERE)?;
            part.read_at(inside, piece)?;
            offset = offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            rest = behind;
        }
        Ok(())
    }

    /// How long the last check took, of all parts in one batch.
    pub(crate) fn checked_in(&self) -> Duration {
        self.parts.iter().map(|part| part.verification().duration).max().unwrap_or_default()
    }

    /// What the last check looked at: how many subtrees, and of how many.
    pub(crate) fn coverage(&self) -> (u64, u64) {
        let reports = self.parts.iter().map(Execution::verification);
        reports
            .fold((0, 0), |(looked, of), report| (looked.saturating_add(report.subtrees), of.saturating_add(report.of)))
    }

    /// Verifies every part again: what was read counts, and the next execute is open.
    pub(crate) fn renew(self) -> Result<Self, VramError> {
        Ok(Self { parts: Execution::renew_all(self.parts)?, ..self })
    }

    /// Verifies every part again, where that was asked for: what was read counts. Returns how long a check took.
    pub(crate) fn finish(self) -> Result<Duration, VramError> {
        let parts = Execution::finish_all(self.parts)?;
        Ok(parts.iter().map(|part| part.duration).max().unwrap_or_default())
    }
}

#[cfg(all(test, feature = "mock"))]
mod tests {
    use super::*;
    use crate::signals::Signals;
    use vram_residency::{DeviceSelector, MockConfig, Policy, ShardSource, WorkerId, WorkerSecret};

    #[test]
    fn parts_are_read_as_one_and_count_together() {
        // covers: SEAL-8
        let manager = VramManager::builder(WorkerId::new("w").unwrap(), WorkerSecret::random().unwrap())
            .device(DeviceSelector::Mock(MockConfig::new()))
            .policy(Policy::development())
            .build()
            .unwrap();
        let bytes: Vec<u8> = (0..5000u16).flat_map(u16::to_le_bytes).collect();
        let (source, signals) = (|| ShardSource::bytes(&bytes), Signals::default());
        let split = Split::measure(source(), manager.tree_params(), 4096, None, &signals).unwrap();
        let shards = split.seal(&manager, "m", source(), true, &signals).unwrap();
        let sealed = Sealed { name: "m".to_owned(), shards, split: Some(split), files: Vec::new() };

        let image = sealed.begin(&manager, Check::Digest).unwrap();
        let mut found = vec![0; 10_000];
        image.read_at(0, &mut found).unwrap();
        assert!(found == bytes && image.checked_in() > Duration::ZERO);
        image.read_at(4090, &mut found[..10]).unwrap();
        assert_eq!(found[..10], bytes[4090..4100]);
        image.read_at(9999, &mut [0; 2]).unwrap_err();
        assert!(image.renew().unwrap().finish().unwrap() > Duration::ZERO);

        // A bit of the last part is enough that nothing of the first is read.
        let last = &sealed.shards[2];
        let image = sealed.begin(&manager, Check::Digest).unwrap();
        manager.mock_controls().unwrap().flip_bit(last, 7, 0).unwrap();
        let error = image.renew().unwrap_err();
        assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == last.id()), "{error}");
    }
}

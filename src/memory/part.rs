//! Parts of an image: which subtrees a check looks at, and how they are digested.
//!
//! Owns [`Part`]. A subtree begins at a block, so that its leaves, and the entry over them, are those of the whole tree.

use std::collections::BTreeSet;

use super::check::{CheckSizes, HASH_BYTES};
use super::image::{ImageMap, Piece};
use crate::digest::{Hash, TreeDigest, TreeParams};
use crate::error::{VramError, draw};
use crate::types::{DigestJob, Span};

/// Some subtrees of an image, in order, not all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part(Vec<u64>);

impl Part {
    /// `count` subtrees of `of`, each choice as likely as any other; `None` for all of them. O(count log count).
    ///
    /// # Errors
    /// `INTERNAL` when the operating system gives no randomness.
    pub(crate) fn sample(count: u64, of: u64) -> Result<Option<Self>, VramError> {
        if count >= of {
            return Ok(None);
        }
        // Floyd's algorithm (Bentley, CACM 30(9), 1987).
        let mut chosen = BTreeSet::new();
        for last in of.saturating_sub(count)..of {
            let mut drawn = [0; 16];
            draw(&mut drawn)?;
            // From 128 bits, so that what is left over favours nothing by more than 2^-64.
            let at = u128::from_le_bytes(drawn).checked_rem(u128::from(last).saturating_add(1)).unwrap_or(0);
            let at = u64::try_from(at).unwrap_or(last);
            if !chosen.insert(at) {
                chosen.insert(last);
            }
        }
        Ok(Some(Self(chosen.into_iter().collect())))
    }

    /// The `n`-th part of `of` subtrees from `cursor` on, which goes on to where the next one begins; `None` for all of them.
    pub(crate) fn rotate(cursor: &mut u64, n: u64, of: u64) -> Option<Self> {
        let count = of.checked_div(n).map_or(of, |_| of.div_ceil(n));
        if count >= of {
            return None;
        }
        let begin = *cursor;
        let around = |at: u64| begin.saturating_add(at).checked_rem(of).unwrap_or(0);
        let chosen: BTreeSet<u64> = (0..count).map(around).collect();
        *cursor = around(count);
        Some(Self(chosen.into_iter().collect()))
    }

    pub(crate) fn subtrees(&self) -> &[u64] {
        &self.0
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// The first subtree of the part that is not as sealed, as a byte range of the image. O(count).
    pub(crate) fn first_difference(
        &self,
        params: &TreeParams,
        sealed: &TreeDigest,
        entries: &[Hash],
    ) -> Option<(u64, u64)> {
        let is_sealed = |at: u64, entry: Option<&Hash>| {
            entry.is_some() && usize::try_from(at).ok().and_then(|at| sealed.table.get(at)) == entry
        };
        let mut entries = entries.iter();
        let changed = self.0.iter().find(|at| !is_sealed(**at, entries.next()))?;
        let offset = changed.saturating_mul(params.subtree_bytes());
        Some((offset, sealed.image_bytes.saturating_sub(offset).min(params.subtree_bytes())))
    }

    /// Whether it is the last subtree, alone, and that is a single block.
    pub(super) fn is_one_block_of_many(&self, params: &TreeParams, image_bytes: u64) -> bool {
        self.count() == 1 && params.blocks(self.bytes(params, image_bytes)) == 1
    }

    /// Where the bytes of the part lie, and how many blocks they are; virtual padding lies nowhere.
    pub(super) fn spans(&self, params: &TreeParams, image: &ImageMap) -> (Vec<Span>, u64) {
        let subtree = params.subtree_bytes();
        let (mut spans, mut blocks) = (Vec::new(), 0_u64);
        for run in self.0.chunk_by(|before, after| before.checked_add(1) == Some(*after)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let end = last.saturating_add(1).saturating_mul(subtree).min(image.bytes());
            let mut at = first.saturating_mul(subtree);
            while let Some(left) = end.checked_sub(at).filter(|left| *left > 0) {
                let Some(piece) = image.piece(at) else { break };
                let (Piece::Resident(Span { bytes, .. }) | Piece::Padding(bytes)) = piece;
                let bytes = bytes.min(left);
                if let Piece::Resident(span) = piece {
                    spans.push(Span { ptr: span.ptr, bytes });
                    blocks = blocks.saturating_add(params.blocks(bytes));
                }
                at = at.saturating_add(bytes);
            }
        }
        (spans, blocks)
    }

    /// Image bytes of it, virtual padding among them.
    pub(crate) fn bytes(&self, params: &TreeParams, image_bytes: u64) -> u64 {
        let subtree = params.subtree_bytes();
        let bytes = |at: &u64| image_bytes.saturating_sub(at.saturating_mul(subtree)).min(subtree);
        self.0.iter().map(bytes).fold(0, u64::saturating_add)
    }
}

/// What a digest of a part takes, of `room` bytes that are enough for the whole image: the hashes of a subtree at a time are enough.
pub(super) fn sizes(params: &TreeParams, part: &Part, spans: usize, blocks: u64, room: u64) -> Option<CheckSizes> {
    let entries = part.count();
    let list = u64::try_from(spans).ok()?.checked_mul(DigestJob::REGION_BYTES)?.checked_next_multiple_of(HASH_BYTES)?;
    let left = room.checked_sub(entries.checked_add(1)?.checked_mul(HASH_BYTES)?)?.checked_sub(list)?;
    let scratch = blocks.checked_mul(HASH_BYTES)?.min(left);
    let least = blocks.min(params.arity()).checked_mul(HASH_BYTES)?;
    (scratch >= least).then_some(CheckSizes { entries, blocks, list, scratch, keyed: 0 })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests {
    use super::*;
    use crate::types::DevicePtr;

    #[test]
    fn every_subtree_is_chosen_as_often_as_any_other() {
        // covers: VER-8
        const ROUNDS: u64 = 20_000;
        let mut seen = [0_u64; 10];
        for _ in 0..ROUNDS {
            let part = Part::sample(3, 10).unwrap().unwrap();
            assert!(part.0.len() == 3 && part.0.is_sorted_by(|a, b| a < b), "{part:?}");
            part.0.iter().for_each(|at| seen[usize::try_from(*at).unwrap()] += 1);
        }
        // Binomial with p = 0.3: 6,000 ± 65; eight deviations never happen.
        assert!(seen.iter().all(|times| times.abs_diff(ROUNDS * 3 / 10) < 520), "{seen:?}");
        assert_eq!(Part::sample(10, 10).unwrap(), None);
        assert_eq!(Part::sample(u64::MAX, 1).unwrap(), None);
    }

    #[test]
    fn a_rotation_comes_to_everything_in_time() {
        // covers: VER-8
        for of in 1..40 {
            for n in 1..12 {
                let mut cursor = 0;
                for _ in 0..3 {
                    let parts = (0..n).map(|_| Part::rotate(&mut cursor, n, of));
                    let seen: BTreeSet<u64> =
                        parts.flat_map(|part| part.map_or_else(|| (0..of).collect(), |part| part.0)).collect();
                    assert!(seen.iter().copied().eq(0..of), "{of} subtrees in {n} executes: {seen:?}");
                }
            }
        }
    }

    #[test]
    fn a_part_is_digested_in_the_room_of_the_whole() {
        // covers: VER-8 DIG-3
        let params = TreeParams::new(1024, &[]).unwrap();
        for regions in [1, 3, 65, 200_usize] {
            let regions: Vec<Span> = (0..regions)
                .map(|at| Span { ptr: DevicePtr(1 << 20 | (at as u64) << 16), bytes: 700 + 999 * at as u64 % 40_000 })
                .collect();
            let image = ImageMap::new(&params, &regions).unwrap();
            let whole = CheckSizes::new(&params, image.bytes(), regions.len()).unwrap();
            let of = params.table_entries(params.blocks(image.bytes()));
            for count in 1..of {
                let part = Part::sample(count, of).unwrap().unwrap();
                let (spans, blocks) = part.spans(&params, &image);
                let sizes = sizes(&params, &part, spans.len(), blocks, whole.bytes().unwrap());
                let sizes = sizes.unwrap_or_else(|| panic!("{count} of {of} in {} regions", regions.len()));
                assert!(sizes.bytes() <= whole.bytes() && sizes.host_bytes() <= whole.host_bytes(), "{count} of {of}");
            }
        }
    }
}

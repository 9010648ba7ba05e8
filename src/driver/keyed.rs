//! How a keyed hash becomes launches.
//!
//! Owns [`Plan`]: a job whose sizes, alignments and overlaps have been checked, because the kernel trusts its arguments. The image
//! is hashed chunk by chunk, each folded to the second level before the next; then the levels above, each as a whole.

use super::digest::{BLOCK_SIZES, counters, finish, invalid, list, regions, result_span};
use crate::ffi::{Kernels, KeyedArgs, Region, Stream};
use crate::types::{DevicePtr, DriverError, KeyedJob, KeyedSizes, LaunchResult, Span};

/// Blocks whose outputs fill one block of the next level.
const ARITY: u64 = KeyedSizes::BLOCK_BYTES / KeyedJob::SUMS_BYTES;

#[derive(Debug)]
pub(super) struct Plan {
    regions: Vec<Region>,
    sizes: KeyedSizes,
    /// Blocks of a chunk: all, or a multiple of the arity.
    chunk: u64,
    block_shift: u32,
    list: DevicePtr,
    keys: DevicePtr,
    nodes: DevicePtr,
    top: Span,
    result: Span,
    nonce: u64,
}

/// A level, or a chunk of it: its blocks, and where their outputs go.
#[derive(Clone, Copy)]
struct Level {
    number: u64,
    blocks: u64,
    sums: DevicePtr,
}

fn top(job: &KeyedJob<'_>) -> Span {
    Span { ptr: job.top, bytes: KeyedJob::SUMS_BYTES }
}

pub(super) fn spans(job: &KeyedJob<'_>) -> Vec<Span> {
    let result = Span { ptr: job.result, bytes: 32 };
    job.regions.iter().copied().chain([job.region_list, job.keys, job.nodes, top(job), result]).collect()
}

/// The address behind the outputs of so many blocks.
fn behind(ptr: DevicePtr, blocks: u64) -> Result<DevicePtr, DriverError> {
    blocks.checked_mul(KeyedJob::SUMS_BYTES).and_then(|bytes| ptr.checked_add(bytes)).ok_or_else(invalid)
}

/// Blocks of a chunk, where there is so much room for outputs.
fn chunk(sizes: &KeyedSizes, room: u64) -> Option<u64> {
    let leaves = sizes.blocks.first().copied()?;
    if leaves == 1 {
        return Some(1);
    }
    let most = leaves.min(KeyedSizes::CHUNK_BLOCKS);
    let short = sizes.nodes.saturating_sub(room).div_ceil(KeyedJob::SUMS_BYTES);
    let fit = most.checked_sub(short)?;
    let chunk = if fit == leaves { leaves } else { fit.checked_sub(fit.checked_rem(ARITY)?)? };
    (chunk > 0).then_some(chunk)
}

impl Plan {
    pub(super) fn new(job: &KeyedJob<'_>) -> Result<Self, DriverError> {
        Self::check(job).ok_or_else(invalid)
    }

    fn check(job: &KeyedJob<'_>) -> Option<Self> {
        let block_size = Some(job.block_size).filter(|size| size.is_power_of_two() && BLOCK_SIZES.contains(size))?;
        let (regions, _) = regions(job.regions, u64::from(block_size))?;
        let held = job.regions.iter().try_fold(0_u64, |sum, region| sum.checked_add(region.bytes))?;
        let last = regions.last()?;
        let image_bytes = last.first_block.checked_mul(u64::from(block_size))?.checked_add(last.bytes)?;
        let sizes = KeyedSizes::new(image_bytes, held)?;
        let chunk = chunk(&sizes, job.nodes.bytes)?;
        let spans = [job.region_list, job.keys, job.nodes, top(job)];
        let result = result_span(job.result, &spans).ok()?;
        let apart = spans.iter().enumerate().all(|(at, one)| {
            let later = spans.iter().skip(at.saturating_add(1)).chain([&result]).chain(job.regions);
            !later.into_iter().any(|other| other.overlaps(*one))
        }) && !job.regions.iter().any(|region| region.overlaps(result));
        let aligned = spans.iter().all(|span| span.ptr.0.is_multiple_of(16));
        let listed = Region::BYTES.checked_mul(regions.len()).and_then(|bytes| u64::try_from(bytes).ok())?;
        let levels = u64::try_from(sizes.blocks.len()).ok()?;
        let sized = listed <= job.region_list.bytes && levels.checked_mul(KeyedJob::KEY_BYTES) == Some(job.keys.bytes);
        (apart && aligned && sized).then_some(Self {
            regions,
            sizes,
            chunk,
            block_shift: block_size.trailing_zeros(),
            list: job.region_list.ptr,
            keys: job.keys.ptr,
            nodes: job.nodes.ptr,
            top: top(job),
            result,
            nonce: job.nonce,
        })
    }

    pub(super) fn region_list(&self) -> Vec<u8> {
        list(&self.regions)
    }

    /// What this launch leaves in its result, if all of it ran.
    pub(super) fn expected(&self) -> LaunchResult {
        let found = self.sizes.blocks.iter().fold(0_u64, |sum, blocks| sum.saturating_add(*blocks));
        LaunchResult { nonce: self.nonce, covered: self.sizes.covered, found, reserved: 0 }
    }

    /// All levels, the image's first; and the scratch that is used.
    fn levels(&self) -> Result<(Vec<Level>, Span), DriverError> {
        let mut at = self.nodes;
        let mut levels = Vec::with_capacity(self.sizes.blocks.len());
        for (number, blocks) in (0..).zip(self.sizes.blocks.iter().copied()) {
            let sums = if blocks == 1 { self.top.ptr } else { at };
            levels.push(Level { number, blocks, sums });
            let room = match (blocks, number) {
                (1, _) => 0,
                (_, 0) => self.chunk,
                _ => blocks,
            };
            at = behind(at, room)?;
        }
        let bytes = at.0.checked_sub(self.nodes.0).ok_or_else(invalid)?;
        Ok((levels, Span { ptr: self.nodes, bytes }))
    }

    /// Enqueues everything, behind the copy of the list of regions.
    pub(super) fn enqueue(&self, kernels: &Kernels, stream: &Stream) -> Result<(), DriverError> {
        let (levels, used) = self.levels()?;
        let mut levels = levels.into_iter();
        let image = levels.next().ok_or_else(invalid)?;
        let second = levels.next();
        let counters = counters(self.result)?;
        for span in [counters, self.top, used].into_iter().filter(|span| span.bytes > 0) {
            stream.fill(span, 0)?;
        }
        let mut first = 0;
        while let Some(left) = image.blocks.checked_sub(first).filter(|left| *left > 0) {
            let chunk = Level { blocks: left.min(self.chunk), ..image };
            if first > 0 {
                let bytes = chunk.blocks.checked_mul(KeyedJob::SUMS_BYTES).ok_or_else(invalid)?;
                stream.fill(Span { ptr: chunk.sums, bytes }, 0)?;
            }
            kernels.keyed(stream, self.of_image(chunk, first, counters)?)?;
            if let Some(second) = second {
                let done = first.checked_div(ARITY).ok_or_else(invalid)?;
                let parents =
                    Level { blocks: chunk.blocks.div_ceil(ARITY), sums: behind(second.sums, done)?, ..second };
                kernels.keyed(stream, self.above(chunk, parents, counters)?)?;
            }
            first = first.checked_add(chunk.blocks).ok_or_else(invalid)?;
        }
        let mut below = second.unwrap_or(image);
        for level in levels {
            kernels.keyed(stream, self.above(below, level, counters)?)?;
            below = level;
        }
        finish(kernels, stream, self.result, counters, self.nonce)
    }

    fn of_image(&self, chunk: Level, first_block: u64, counters: Span) -> Result<KeyedArgs, DriverError> {
        let key = chunk.number.checked_mul(KeyedJob::KEY_BYTES).and_then(|bytes| self.keys.checked_add(bytes));
        Ok(KeyedArgs {
            regions: self.list.0,
            region_count: u64::try_from(self.regions.len()).map_err(|_| invalid())?,
            bytes: 0,
            first_block,
            block_count: chunk.blocks,
            key: key.ok_or_else(invalid)?.0,
            sums: chunk.sums.0,
            counters: counters.ptr.0,
            block_shift: self.block_shift,
            share: 1,
        })
    }

    /// Over the outputs of `below`.
    fn above(&self, below: Level, level: Level, counters: Span) -> Result<KeyedArgs, DriverError> {
        let bytes = below.blocks.checked_mul(KeyedJob::SUMS_BYTES).ok_or_else(invalid)?;
        let args = self.of_image(level, 0, counters)?;
        Ok(KeyedArgs { regions: below.sums.0, region_count: 0, bytes, ..args })
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
mod tests {
    use super::*;

    fn plan(bytes: u64, keys: u64, nodes: u64) -> Option<Plan> {
        Plan::check(&KeyedJob {
            regions: &[Span { ptr: DevicePtr(1 << 20), bytes }],
            block_size: 4096,
            region_list: Span { ptr: DevicePtr(8192), bytes: 24 },
            keys: Span { ptr: DevicePtr(65_536), bytes: keys * KeyedJob::KEY_BYTES },
            nodes: Span { ptr: DevicePtr(1 << 60), bytes: nodes },
            top: DevicePtr(4096),
            result: DevicePtr(2048),
            nonce: 1,
        })
    }

    #[test]
    fn chunks_are_what_scratch_allows_and_at_most_1_gib() {
        // covers: RES-7
        const BYTES: u64 = (70 << 30) + 5;
        let sizes = KeyedSizes::new(BYTES, BYTES).unwrap();
        let between = sizes.nodes - 16 * KeyedSizes::CHUNK_BLOCKS;
        for (nodes, chunk) in [
            (sizes.nodes, Some(1 << 18)),
            (u64::MAX - (1 << 60), Some(1 << 18)),
            (sizes.nodes - 1, Some((1 << 18) - 256)),
            (between + 4096, Some(256)),
            (between + 4095, None),
            (0, None),
        ] {
            assert_eq!(plan(BYTES, 5, nodes).map(|plan| plan.chunk), chunk, "{nodes} bytes");
        }
        assert!(plan(BYTES, 4, sizes.nodes).is_none() && plan(BYTES, 6, sizes.nodes).is_none(), "other keys");
        let (levels, used) = plan(BYTES, 5, sizes.nodes).unwrap().levels().unwrap();
        let ends = levels.iter().map(|level| level.sums.0 + 16 * level.blocks.min(KeyedSizes::CHUNK_BLOCKS));
        let begins = levels.iter().map(|level| level.sums.0);
        assert!(ends.take(3).eq(begins.skip(1).take(3)), "one behind the other");
        assert_eq!((used.bytes, levels[4].sums), (sizes.nodes, DevicePtr(4096)));
        assert_eq!(plan(1, 1, 0).unwrap().levels().unwrap().1.bytes, 0, "one block needs no scratch");
        assert!(plan(0, 1, 0).is_none() && plan(u64::MAX, 8, 1 << 59).is_none());
    }
}

//! How a digest and a count become launches.
//!
//! Owns [`Plan`]: a job whose sizes, alignments and overlaps have been checked, because the kernels trust their arguments.

use sha2::block_api::compress256;

use crate::ffi::{
    CountArgs, FinishArgs, HostBuffer, INVALID_VALUE, Kernels, LeavesArgs, NodesArgs, ONE, Region, Stream, failure,
};
use crate::types::{DevicePtr, DigestJob, DriverError, LaunchResult, Span};

/// The call that errors of a launch are named after.
pub(super) const OPERATION: &str = "cuLaunchKernel";

const HASH_BYTES: u64 = 32;
/// Image bytes whose leaf hashes are in scratch at one time, at most.
const CHUNK_BYTES: u64 = 1 << 30;
pub(super) const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 1024..=65536;
/// FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[derive(Debug)]
pub(super) struct Plan {
    regions: Vec<Region>,
    leaves: u64,
    /// Leaves of a chunk: all, or a multiple of the arity.
    chunk: u64,
    arity: u64,
    block_size: u32,
    message_bits: u32,
    start: [u32; 8],
    list: DevicePtr,
    scratch: DevicePtr,
    table: DevicePtr,
    result: Span,
    nonce: u64,
}

pub(super) fn invalid() -> DriverError {
    failure(OPERATION, INVALID_VALUE)
}

/// The result at an address, if it is aligned and overlaps none of `others`.
pub(super) fn result_span(ptr: DevicePtr, others: &[Span]) -> Result<Span, DriverError> {
    let result = Span { ptr, bytes: 32 };
    let fits = ptr.0.is_multiple_of(8) && !others.iter().any(|other| other.overlaps(result));
    if fits { Ok(result) } else { Err(invalid()) }
}

pub(super) fn spans(job: &DigestJob<'_>) -> Vec<Span> {
    let result = Span { ptr: job.result, bytes: HASH_BYTES };
    job.regions.iter().copied().chain([job.scratch, job.table, job.region_list, result]).collect()
}

/// The two counters of a launch: words 1 and 2 of its result.
pub(super) fn counters(result: Span) -> Result<Span, DriverError> {
    Ok(Span { ptr: result.ptr.checked_add(8).ok_or_else(invalid)?, bytes: 16 })
}

/// SHA-256's state before the first byte of a block.
fn start(salt: &[u8]) -> Option<[u32; 8]> {
    let mut state = INITIAL;
    if !salt.is_empty() {
        let mut block = [0; 64];
        block.get_mut(..salt.len()).filter(|room| room.len() <= 32)?.copy_from_slice(salt);
        compress256(&mut state, &[block]);
    }
    Some(state)
}

/// An image's regions with the blocks before each, and how many blocks there are. None may be empty.
pub(super) fn regions(spans: &[Span], block: u64) -> Option<(Vec<Region>, u64)> {
    let mut blocks = 0_u64;
    let mut regions = Vec::with_capacity(spans.len());
    for span in spans {
        regions.push(Region {
            ptr: span.ptr.0,
            bytes: Some(span.bytes).filter(|bytes| *bytes > 0)?,
            first_block: blocks,
        });
        blocks = blocks.checked_add(span.bytes.div_ceil(block))?;
    }
    (blocks > 0).then_some((regions, blocks))
}

/// Puts a list of regions where it can be copied from. Waits for an earlier copy from there, if there still is one.
pub(super) fn stage(list: &[u8], staging: &mut HostBuffer, from: usize) -> Result<(), DriverError> {
    let staged = staging.bytes_mut()?.get_mut(from..).and_then(|rest| rest.get_mut(..list.len()));
    staged.ok_or_else(invalid)?.copy_from_slice(list);
    Ok(())
}

/// The list of the regions as kernels read it.
pub(super) fn list(regions: &[Region]) -> Vec<u8> {
    regions.iter().flat_map(|region| region.to_bytes()).collect()
}

impl Plan {
    pub(super) fn new(job: &DigestJob<'_>) -> Result<Self, DriverError> {
        Self::check(job).ok_or_else(invalid)
    }

    fn check(job: &DigestJob<'_>) -> Option<Self> {
        let block_size = Some(job.block_size).filter(|size| size.is_power_of_two() && BLOCK_SIZES.contains(size))?;
        let block = u64::from(block_size);
        let arity = block.checked_div(HASH_BYTES)?;
        let (regions, leaves) = regions(job.regions, block)?;
        let entries = leaves.div_ceil(arity);
        let room = job.scratch.bytes.checked_div(HASH_BYTES)?.min(CHUNK_BYTES.checked_div(block)?.max(arity));
        let chunk = if room >= leaves { leaves } else { room.checked_sub(room.checked_rem(arity)?)? };
        let outputs = [job.scratch, job.table, job.region_list];
        let aligned = outputs.iter().all(|span| span.ptr.0.is_multiple_of(16));
        let listed = DigestJob::REGION_BYTES.checked_mul(u64::try_from(regions.len()).ok()?)? <= job.region_list.bytes;
        let result = result_span(job.result, &outputs).ok()?;
        let apart = !job.scratch.overlaps(job.table)
            && !job.scratch.overlaps(job.region_list)
            && !job.table.overlaps(job.region_list)
            && !job.regions.iter().any(|region| outputs.iter().chain([&result]).any(|output| output.overlaps(*region)));
        let sized = chunk > 0 && entries.checked_mul(HASH_BYTES) == Some(job.table.bytes);
        let salted = if job.salt.is_empty() { 0 } else { 64 };
        let message_bits = block_size.checked_add(salted)?.checked_mul(8)?;
        let start = start(job.salt)?;
        (aligned && listed && apart && sized).then_some(Self {
            regions,
            leaves,
            chunk,
            arity,
            block_size,
            message_bits,
            start,
            list: job.region_list.ptr,
            scratch: job.scratch.ptr,
            table: job.table.ptr,
            result,
            nonce: job.nonce,
        })
    }

    pub(super) fn region_list(&self) -> Vec<u8> {
        list(&self.regions)
    }

    /// Enqueues everything, behind the copy of the list of regions.
    pub(super) fn enqueue(&self, kernels: &Kernels, stream: &Stream) -> Result<(), DriverError> {
        let counters = counters(self.result)?;
        stream.fill(counters, 0)?;
        let region_count = u64::try_from(self.regions.len()).map_err(|_| invalid())?;
        let (mut first_block, mut table) = (0, self.table);
        while let Some(left) = self.leaves.checked_sub(first_block).filter(|left| *left > 0) {
            let block_count = left.min(self.chunk);
            let entries = block_count.div_ceil(self.arity);
            kernels.leaves(
                stream,
                LeavesArgs {
                    regions: self.list.0,
                    region_count,
                    first_block,
                    block_count,
                    hashes: self.scratch.0,
                    counters: counters.ptr.0,
                    start: self.start,
                    block_size: self.block_size,
                    message_bits: self.message_bits,
                    one: ONE,
                    reserved: 0,
                },
            )?;
            kernels.nodes(
                stream,
                entries,
                NodesArgs {
                    hashes: self.scratch.0,
                    leaf_count: block_count,
                    table: table.0,
                    counters: counters.ptr.0,
                    start: self.start,
                    block_size: self.block_size,
                    message_bits: self.message_bits,
                    one: ONE,
                    single: u32::from(self.leaves == 1),
                },
            )?;
            first_block = first_block.checked_add(block_count).ok_or_else(invalid)?;
            let written = entries.checked_mul(HASH_BYTES).ok_or_else(invalid)?;
            table = table.checked_add(written).ok_or_else(invalid)?;
        }
        finish(kernels, stream, self.result, counters, self.nonce)
    }
}

pub(super) fn finish(
    kernels: &Kernels,
    stream: &Stream,
    result: Span,
    counters: Span,
    nonce: u64,
) -> Result<(), DriverError> {
    kernels.finish(stream, FinishArgs { result: result.ptr.0, counters: counters.ptr.0, nonce })
}

pub(super) fn enqueue_count(
    kernels: &Kernels,
    stream: &Stream,
    span: Span,
    result: Span,
    nonce: u64,
) -> Result<(), DriverError> {
    let counters = counters(result)?;
    stream.fill(counters, 0)?;
    kernels.count(stream, CountArgs { ptr: span.ptr.0, bytes: span.bytes, counters: counters.ptr.0 })?;
    finish(kernels, stream, result, counters, nonce)
}

const _: () = assert!(LaunchResult::BYTES == 32 && DigestJob::REGION_BYTES == 24 && Region::BYTES == 24);

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
mod tests {
    use super::*;

    const EDGES: [u64; 11] = [
        0,
        1,
        1 << 20,
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) + 1,
        130 << 30,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];

    /// A job over one image, with its table, scratch and result in the lowest MiB.
    fn plan(regions: &[Span], block_size: u32, table_bytes: u64, scratch_bytes: u64) -> Option<Plan> {
        Plan::check(&DigestJob {
            regions,
            block_size,
            salt: &[],
            scratch: Span { ptr: DevicePtr(1 << 61), bytes: scratch_bytes },
            table: Span { ptr: DevicePtr(1 << 60), bytes: table_bytes },
            region_list: Span { ptr: DevicePtr(8192), bytes: 24 * u64::try_from(regions.len()).unwrap() },
            result: DevicePtr(4096),
            nonce: 1,
        })
    }

    #[test]
    fn jobs_at_the_edges_of_their_sizes() {
        // covers: RES-7
        const AT: u64 = 65_536;
        for block_size in [1024, 65536] {
            let (block, arity) = (u64::from(block_size), u64::from(block_size) / 32);
            for bytes in EDGES {
                let leaves = bytes.div_ceil(block);
                let table = leaves.div_ceil(arity) * 32;
                let region = [Span { ptr: DevicePtr(AT), bytes }];
                let fits = bytes > 0 && u128::from(AT) + u128::from(bytes) <= 1 << 60;
                let made = plan(&region, block_size, table, 1 << 20);
                assert_eq!(made.is_some(), fits, "{bytes} bytes");
                if let Some(plan) = made {
                    assert_eq!((plan.leaves, plan.chunk.min(leaves)), (leaves, plan.chunk));
                    assert!(plan.chunk == leaves || plan.chunk.is_multiple_of(arity));
                }
                for wrong in EDGES.into_iter().filter(|wrong| *wrong != table) {
                    assert!(plan(&region, block_size, wrong, 1 << 20).is_none(), "a table of {wrong} bytes");
                }
                for scratch in EDGES {
                    let enough = scratch >= (leaves * 32).min(block);
                    let apart = u128::from(scratch) + (1 << 61) < 1 << 64;
                    assert_eq!(plan(&region, block_size, table, scratch).is_some(), fits && enough && apart);
                }
            }
        }
    }

    #[test]
    fn regions_whose_blocks_come_late() {
        // covers: RES-7
        let regions = [
            Span { ptr: DevicePtr(1 << 20), bytes: 130 << 30 },
            Span { ptr: DevicePtr(1 << 40), bytes: (1 << 32) + 1 },
            Span { ptr: DevicePtr(1 << 41), bytes: 1 },
        ];
        let leaves = (130 << 20) + (1 << 22) + 1 + 1;
        let plan = plan(&regions, 1024, u64::div_ceil(leaves, 32) * 32, 1 << 20).unwrap();
        let first: Vec<u64> = plan.regions.iter().map(|region| region.first_block).collect();
        assert_eq!((plan.leaves, first), (leaves, vec![0, 130 << 20, (130 << 20) + (1 << 22) + 1]));
        assert_eq!(plan.region_list().len(), 3 * Region::BYTES);
    }

    #[test]
    fn results_lie_apart_and_never_wrap() {
        // covers: RES-7
        for ptr in EDGES {
            let result = result_span(DevicePtr(ptr), &[Span { ptr: DevicePtr(1 << 40), bytes: 1 << 20 }]);
            let wraps = u128::from(ptr) + 32 >= 1 << 64;
            assert_eq!(result.is_ok(), ptr.is_multiple_of(8) && !wraps, "{ptr}");
        }
    }
}

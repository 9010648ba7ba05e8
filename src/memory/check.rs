//! The check: one digest launch whose result counts only if this launch produced it.
//!
//! Owns [`CheckSpace`], the device and host memory that one digest needs, reserved when the shard is sealed so that no check
//! ever fails for want of room. Before each launch all of it is poisoned; the result must carry the launch's nonce and cover
//! every block; the host finishes the tree from the level-1 table.

use super::region::Region;
use super::{Device, DeviceFailure, Stream};
use crate::digest::{TreeDigest, TreeParams, digest_from_table};
use crate::driver::HostBuffer;
use crate::error::VramError;
use crate::types::{DevicePtr, DigestJob, LaunchResult, Span};

/// Written over results, tables and scratch before each launch.
pub(super) const POISON: u8 = 0xEE;

/// Image bytes whose leaf hashes are in scratch at one time.
const CHUNK_BYTES: u64 = 1 << 30;

const HASH_BYTES: u64 = 32;

/// Where the parts of a check space begin. Result and table lie together, so that one copy brings both back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckSizes {
    entries: u64,
    blocks: u64,
    /// Of the list of regions.
    list: u64,
    scratch: u64,
}

impl CheckSizes {
    /// What checking an image of `image_bytes` in so many regions takes; `None` when that is not a u64.
    pub(crate) fn new(params: &TreeParams, image_bytes: u64, regions: usize) -> Option<Self> {
        let blocks = params.blocks(image_bytes);
        let chunk = CHUNK_BYTES.checked_div(u64::from(params.block_size()))?;
        let scratch = blocks.min(chunk).checked_mul(HASH_BYTES)?;
        // Whole hashes, so that what lies behind the list is aligned as hashes are.
        let list = u64::try_from(regions).ok()?.checked_mul(DigestJob::REGION_BYTES)?;
        let list = list.checked_next_multiple_of(HASH_BYTES)?;
        Some(Self { entries: params.table_entries(blocks), blocks, list, scratch })
    }

    fn readback(self) -> Option<u64> {
        self.entries.checked_add(1)?.checked_mul(HASH_BYTES)
    }

    pub(crate) fn bytes(self) -> Option<u64> {
        self.readback()?.checked_add(self.list)?.checked_add(self.scratch)
    }
}

#[derive(Debug)]
pub(super) struct CheckSpace {
    sizes: CheckSizes,
    result: DevicePtr,
    table: Span,
    list: Span,
    scratch: Span,
    all: Span,
    /// Result and table on their way back; behind them, the list of regions on its way there.
    readback: HostBuffer,
    readback_bytes: usize,
    /// Of the launch under way; 0 when there is none.
    nonce: u64,
}

impl CheckSpace {
    /// Lays the parts out in `region`, which holds at least `sizes.bytes()`.
    pub(super) fn new(device: &Device, region: &Region, sizes: CheckSizes) -> Result<Self, VramError> {
        const TOO_SMALL: VramError = VramError::Internal { what: "the check space does not fit its region" };
        let all = region.span();
        let readback_bytes = sizes.readback().ok_or(TOO_SMALL)?;
        let table_bytes = readback_bytes.checked_sub(HASH_BYTES).ok_or(TOO_SMALL)?;
        let table = Span { ptr: all.ptr.checked_add(HASH_BYTES).ok_or(TOO_SMALL)?, bytes: table_bytes };
        let list = Span { ptr: all.ptr.checked_add(readback_bytes).ok_or(TOO_SMALL)?, bytes: sizes.list };
        let scratch = Span { ptr: list.ptr.checked_add(sizes.list).ok_or(TOO_SMALL)?, bytes: sizes.scratch };
        if sizes.bytes().is_none_or(|bytes| bytes > all.bytes) {
            return Err(TOO_SMALL);
        }
        let host_bytes = readback_bytes.checked_add(sizes.list).ok_or(TOO_SMALL)?;
        let readback = device.driver.host_buffer(usize::try_from(host_bytes).map_err(|_| TOO_SMALL)?)?;
        let readback_bytes = usize::try_from(readback_bytes).map_err(|_| TOO_SMALL)?;
        Ok(Self { sizes, result: all.ptr, table, list, scratch, all, readback, readback_bytes, nonce: 0 })
    }

    /// Enqueues a digest of `regions`, poison first, read-back last.
    pub(super) fn launch(&mut self, device: &Device, stream: &Stream, regions: &[Span]) -> Result<(), DigestFailure> {
        let nonce = device.nonce();
        self.readback.bytes_mut()?.fill(POISON);
        device.driver.fill(stream.id, self.all, POISON)?;
        device.driver.digest(
            stream.id,
            &DigestJob {
                regions,
                block_size: device.params.block_size(),
                salt: device.params.salt(),
                scratch: self.scratch,
                table: self.table,
                region_list: self.list,
                result: self.result,
                nonce,
            },
            &mut self.readback,
            self.readback_bytes,
        )?;
        device.driver.copy_to_host(stream.id, &mut self.readback, 0, self.result, self.readback_bytes)?;
        self.nonce = nonce;
        Ok(())
    }

    /// Waits for the digest that was enqueued last, and takes it if that very launch produced it. Blocks.
    pub(super) fn collect(
        &mut self,
        device: &Device,
        stream: &Stream,
        image_bytes: u64,
    ) -> Result<TreeDigest, DigestFailure> {
        let nonce = std::mem::take(&mut self.nonce);
        stream.synchronize()?;
        let bytes = self.readback.bytes_mut()?;
        let bytes = bytes.get_mut(..self.readback_bytes).unwrap_or_default();
        let (result, table) =
            bytes.split_first_chunk::<{ LaunchResult::BYTES }>().ok_or(DeviceFailure::Unproven("digest"))?;
        let expected = LaunchResult { nonce, covered: self.sizes.blocks, found: self.sizes.entries, reserved: 0 };
        if nonce == 0 || LaunchResult::from_bytes(result) != expected {
            return Err(DeviceFailure::Unproven("digest").into());
        }
        let (table, rest) = table.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(DeviceFailure::Unproven("digest").into());
        }
        let table = table.to_vec();
        let digest = digest_from_table(&device.params, image_bytes, &table).map_err(DigestFailure::Host)?;
        Ok(TreeDigest { digest, table, image_bytes })
    }
}

#[derive(Debug)]
pub(crate) enum DigestFailure {
    /// The device's fault.
    Device(DeviceFailure),
    /// This crate's fault.
    Host(VramError),
}

impl<T: Into<DeviceFailure>> From<T> for DigestFailure {
    fn from(failure: T) -> Self {
        Self::Device(failure.into())
    }
}

impl From<DigestFailure> for VramError {
    fn from(failure: DigestFailure) -> Self {
        match failure {
            DigestFailure::Device(failure) => failure.into(),
            DigestFailure::Host(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(block_size: u32, image_bytes: u64) -> CheckSizes {
        CheckSizes::new(&TreeParams::new(block_size, &[]).unwrap(), image_bytes, 1).unwrap()
    }

    #[test]
    fn sizes_follow_the_tree_and_scratch_is_bounded() {
        // covers: DIG-3 RES-7
        assert_eq!(sizes(4096, 1), CheckSizes { entries: 1, blocks: 1, list: 32, scratch: 32 });
        assert_eq!(sizes(4096, 4097), CheckSizes { entries: 1, blocks: 2, list: 32, scratch: 64 });
        assert_eq!(sizes(4096, 512 << 10), CheckSizes { entries: 1, blocks: 128, list: 32, scratch: 4096 });
        assert_eq!(sizes(4096, (512 << 10) + 1), CheckSizes { entries: 2, blocks: 129, list: 32, scratch: 129 * 32 });
        let large = sizes(4096, 130 << 30);
        assert_eq!((large.entries, large.scratch), (130 * 2048, 8 << 20));
        assert_eq!(large.bytes(), Some((130 * 2048 + 2) * 32 + (8 << 20)));
        let lists = [(1, 32), (4, 96), (5, 128), (3000, 72_000)];
        for (regions, bytes) in lists {
            assert_eq!(
                CheckSizes::new(&TreeParams::default(), 1 << 20, regions).unwrap().list,
                bytes,
                "{regions} regions"
            );
        }
        assert!(CheckSizes::new(&TreeParams::default(), u64::MAX, 1).is_some_and(|sizes| sizes.bytes().is_some()));
        assert!(CheckSizes::new(&TreeParams::default(), 1, usize::MAX).is_none());
    }
}

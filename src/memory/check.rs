//! The check: one digest launch whose result counts only if this launch produced it.
//!
//! Owns [`CheckSpace`], the device and host memory that one digest needs, reserved when the shard is sealed so that no check
//! ever fails for want of room. Before each launch all of it is poisoned; the result must carry the launch's nonce and cover
//! every block; the host finishes the tree from the level-1 table.

use super::image::ImageMap;
use super::keyed;
use super::part::{self, Part};
use super::region::Region;
use super::{Device, DeviceFailure, Stream};
use crate::digest::{HASH_BYTES as HASH_LEN, Hash, TreeDigest, TreeParams, digest_from_table};
use crate::driver::HostBuffer;
use crate::error::VramError;
use crate::types::{DigestJob, LaunchResult, Span};

/// Written over results, tables and scratch before each launch.
pub(super) const POISON: u8 = 0xEE;

/// Image bytes whose leaf hashes are in scratch at one time.
const CHUNK_BYTES: u64 = 1 << 30;

pub(super) const HASH_BYTES: u64 = 32;

/// Where the parts of a check space begin. Result and table lie together, so that one copy brings both back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckSizes {
    pub(super) entries: u64,
    pub(super) blocks: u64,
    /// Of the list of regions.
    pub(super) list: u64,
    pub(super) scratch: u64,
    /// What a keyed hash of the same image takes in place of a digest.
    pub(super) keyed: u64,
}

impl CheckSizes {
    /// What checking an image of `image_bytes` in so many regions takes; `None` when that is not a u64.
    pub(crate) fn new(params: &TreeParams, image_bytes: u64, regions: usize) -> Option<Self> {
        let blocks = params.blocks(image_bytes);
        let chunk = CHUNK_BYTES.checked_div(u64::from(params.block_size()))?;
        let scratch = blocks.min(chunk).checked_mul(HASH_BYTES)?;
        // One more: parts of an image may be cut into as many regions as they take off the table, and one.
        // Whole hashes, so that what lies behind the list is aligned as hashes are.
        let list = u64::try_from(regions).ok()?.checked_add(1)?.checked_mul(DigestJob::REGION_BYTES)?;
        let list = list.checked_next_multiple_of(HASH_BYTES)?;
        let keyed = keyed::bytes(image_bytes, regions)?;
        Some(Self { entries: params.table_entries(blocks), blocks, list, scratch, keyed })
    }

    fn readback(self) -> Option<u64> {
        self.entries.checked_add(1)?.checked_mul(HASH_BYTES)
    }

    /// In host memory: what is read back, and behind it the list of regions on its way to the device.
    pub(super) fn host_bytes(self) -> Option<u64> {
        self.readback()?.checked_add(self.list)
    }

    pub(crate) fn bytes(self) -> Option<u64> {
        Some(self.readback()?.checked_add(self.list)?.checked_add(self.scratch)?.max(self.keyed))
    }
}

#[derive(Debug)]
pub(super) struct CheckSpace {
    /// Of the whole image.
    sizes: CheckSizes,
    pub(super) all: Span,
    /// Result and table on their way back; behind them, the list of regions on its way there.
    pub(super) readback: HostBuffer,
    /// The nonce of the digest under way, and its sizes.
    underway: Option<(u64, CheckSizes)>,
    /// What shows that the keyed hash under way has run.
    pub(super) keyed: Option<LaunchResult>,
    /// The keys of its levels on their way there; none before the first.
    pub(super) keys: Option<HostBuffer>,
}

pub(super) const TOO_SMALL: VramError = VramError::Internal { what: "the check space does not fit its region" };

impl CheckSpace {
    /// Takes `region`, which holds at least `sizes.bytes()`, for digests of the whole image or of parts.
    pub(super) fn new(device: &Device, region: &Region, sizes: CheckSizes) -> Result<Self, VramError> {
        let all = region.span();
        if sizes.bytes().is_none_or(|bytes| bytes > all.bytes) {
            return Err(TOO_SMALL);
        }
        let host_bytes = sizes.host_bytes().and_then(|bytes| usize::try_from(bytes).ok()).ok_or(TOO_SMALL)?;
        let readback = device.driver.host_buffer(host_bytes)?;
        Ok(Self { sizes, all, readback, underway: None, keyed: None, keys: None })
    }

    /// Enqueues a digest of the whole image, poison first, read-back last.
    pub(super) fn launch(&mut self, device: &Device, stream: &Stream, regions: &[Span]) -> Result<(), DigestFailure> {
        self.launch_sized(device, stream, regions, self.sizes)
    }

    /// Enqueues a digest of a part, which is an image of its own to the device.
    pub(super) fn launch_part(
        &mut self,
        device: &Device,
        stream: &Stream,
        image: &ImageMap,
        part: &Part,
    ) -> Result<(), DigestFailure> {
        let (spans, blocks) = part.spans(&device.params, image);
        let room = self.sizes.bytes().unwrap_or(0);
        let sizes = part::sizes(&device.params, part, spans.len(), blocks, room);
        self.launch_sized(device, stream, &spans, sizes.ok_or(DigestFailure::Host(TOO_SMALL))?)
    }

    fn launch_sized(
        &mut self,
        device: &Device,
        stream: &Stream,
        regions: &[Span],
        sizes: CheckSizes,
    ) -> Result<(), DigestFailure> {
        self.underway = None;
        let at = |offset: u64| self.all.ptr.checked_add(offset).ok_or(DigestFailure::Host(TOO_SMALL));
        let table = Span { ptr: at(HASH_BYTES)?, bytes: sizes.entries.saturating_mul(HASH_BYTES) };
        let behind = HASH_BYTES.saturating_add(table.bytes);
        let region_list = Span { ptr: at(behind)?, bytes: sizes.list };
        let scratch = Span { ptr: at(behind.saturating_add(sizes.list))?, bytes: sizes.scratch };
        let read = usize::try_from(behind).map_err(|_| DigestFailure::Host(TOO_SMALL))?;
        let nonce = device.nonce();
        self.readback.bytes_mut()?.fill(POISON);
        device.driver.fill(stream.id, self.all, POISON)?;
        device.driver.digest(
            stream.id,
            &DigestJob {
                regions,
                block_size: device.params.block_size(),
                salt: device.params.salt(),
                scratch,
                table,
                region_list,
                result: self.all.ptr,
                nonce,
            },
            &mut self.readback,
            read,
        )?;
        device.driver.copy_to_host(stream.id, &mut self.readback, 0, self.all.ptr, read)?;
        self.underway = Some((nonce, sizes));
        Ok(())
    }

    /// Waits for the digest that was enqueued last, and takes its table if that very launch produced it. Blocks.
    pub(super) fn collect_table(&mut self, stream: &Stream) -> Result<Vec<Hash>, DigestFailure> {
        const UNPROVEN: DeviceFailure = DeviceFailure::Unproven("digest");
        let underway = self.underway.take();
        stream.synchronize()?;
        let (nonce, CheckSizes { entries, blocks, .. }) = underway.ok_or(UNPROVEN)?;
        let (result, table) =
            self.readback.bytes_mut()?.split_first_chunk::<{ LaunchResult::BYTES }>().ok_or(UNPROVEN)?;
        let expected = LaunchResult { nonce, covered: blocks, found: entries, reserved: 0 };
        if LaunchResult::from_bytes(result) != expected {
            return Err(UNPROVEN.into());
        }
        let (table, _) = table.as_chunks::<HASH_LEN>();
        Ok(usize::try_from(entries).ok().and_then(|entries| table.get(..entries)).ok_or(UNPROVEN)?.to_vec())
    }

    /// [`collect_table`](Self::collect_table) of the whole image, up to its digest.
    pub(super) fn collect(
        &mut self,
        device: &Device,
        stream: &Stream,
        image_bytes: u64,
    ) -> Result<TreeDigest, DigestFailure> {
        let table = self.collect_table(stream)?;
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
        assert_eq!(sizes(4096, 1), CheckSizes { entries: 1, blocks: 1, list: 64, scratch: 32, keyed: 4208 });
        assert_eq!(sizes(4096, 4097), CheckSizes { entries: 1, blocks: 2, list: 64, scratch: 64, keyed: 8352 });
        assert_eq!(
            sizes(4096, 512 << 10),
            CheckSizes { entries: 1, blocks: 128, list: 64, scratch: 4096, keyed: 10_368 }
        );
        assert_eq!(
            sizes(4096, (512 << 10) + 1),
            CheckSizes { entries: 2, blocks: 129, list: 64, scratch: 129 * 32, keyed: 10_384 }
        );
        let large = sizes(4096, 130 << 30);
        assert_eq!((large.entries, large.scratch), (130 * 2048, 8 << 20));
        assert_eq!(large.bytes(), Some((130 * 2048 + 3) * 32 + (8 << 20)));
        let lists = [(1, 64), (3, 96), (4, 128), (2999, 72_000)];
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

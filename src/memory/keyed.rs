//! The keyed hash of an image where it lies.
//!
//! It runs in the room of a digest. Keys and outputs lie there and in host memory for the length of a launch, and are overwritten behind it.

use zeroize::Zeroizing;

use super::check::{CheckSpace, DigestFailure, HASH_BYTES, POISON, TOO_SMALL};
use super::image::ImageMap;
use super::{Device, DeviceFailure, Stream};
use crate::digest::keyed::{LevelKeys, Output};
use crate::driver::HostBuffer;
use crate::types::{DigestJob, KeyedJob, KeyedSizes, LaunchResult, Span};

/// Result and top lie together, so that one copy brings both back.
const HEAD_BYTES: u64 = 64;
const READ_BYTES: usize = LaunchResult::BYTES + 16;

/// What a keyed hash of an image of `image_bytes` in so many regions takes; `None` when that is not a u64.
pub(super) fn bytes(image_bytes: u64, regions: usize) -> Option<u64> {
    let sizes = KeyedSizes::new(image_bytes.max(1), 0)?;
    HEAD_BYTES.checked_add(keys(&sizes)?)?.checked_add(list(regions)?)?.checked_add(sizes.nodes)
}

fn keys(sizes: &KeyedSizes) -> Option<u64> {
    u64::try_from(sizes.blocks.len()).ok()?.checked_mul(KeyedJob::KEY_BYTES)
}

fn list(regions: usize) -> Option<u64> {
    u64::try_from(regions).ok()?.checked_mul(DigestJob::REGION_BYTES)?.checked_next_multiple_of(HASH_BYTES)
}

impl CheckSpace {
    /// Enqueues a keyed hash of the whole image: poison first, read-back and erasure last.
    pub(super) fn launch_keyed(
        &mut self,
        device: &Device,
        stream: &Stream,
        image: &ImageMap,
        key: &LevelKeys,
    ) -> Result<(), DigestFailure> {
        self.keyed = None;
        let regions: Vec<Span> = image.spans().collect();
        let sizes = KeyedSizes::new(image.bytes(), 0).ok_or(DigestFailure::Host(TOO_SMALL))?;
        let part = |offset: Option<u64>, bytes: Option<u64>| {
            let ptr = offset.and_then(|offset| self.all.ptr.checked_add(offset));
            ptr.zip(bytes).map(|(ptr, bytes)| Span { ptr, bytes }).ok_or(DigestFailure::Host(TOO_SMALL))
        };
        let key_bytes = keys(&sizes);
        let head = part(Some(0), Some(HEAD_BYTES))?;
        let keys = part(Some(HEAD_BYTES), key_bytes)?;
        let behind_keys = HEAD_BYTES.checked_add(keys.bytes);
        let region_list = part(behind_keys, list(regions.len()))?;
        let behind_list = behind_keys.and_then(|at| at.checked_add(region_list.bytes));
        let nodes = part(behind_list, Some(sizes.nodes))?;
        let used = part(Some(0), behind_list.and_then(|at| at.checked_add(sizes.nodes)))?;

        let key_len = usize::try_from(keys.bytes).map_err(|_| DigestFailure::Host(TOO_SMALL))?;
        if self.keys.is_none() {
            self.keys = Some(device.driver.host_buffer(key_len)?);
        }
        let staged = self.keys.as_mut().ok_or(DigestFailure::Host(TOO_SMALL))?;
        self.readback.bytes_mut()?.fill(POISON);
        device.driver.fill(stream.id, head, POISON)?;
        // From here on whatever fails erases.
        for (level, room) in (0..).zip(staged.bytes_mut()?.chunks_exact_mut(KEY_LEN)) {
            room.copy_from_slice(key.level(level).as_flattened().as_flattened());
        }
        let launched = device.driver.copy_to_device(stream.id, keys.ptr, staged, 0, key_len).and_then(|()| {
            let job = KeyedJob {
                regions: &regions,
                block_size: device.params.block_size(),
                region_list,
                keys,
                nodes,
                top: head.ptr.checked_add(HASH_BYTES).unwrap_or(head.ptr),
                result: head.ptr,
                nonce: device.nonce(),
            };
            let expected = device.driver.keyed(stream.id, &job, &mut self.readback, READ_BYTES)?;
            device.driver.copy_to_host(stream.id, &mut self.readback, 0, head.ptr, READ_BYTES)?;
            Ok(expected)
        });
        // Whatever became of it, nothing secret stays.
        let erased = device.driver.fill(stream.id, used, POISON);
        let expected = launched.and_then(|expected| erased.map(|()| expected));
        if expected.is_err() {
            let _told_already = stream.synchronize().and_then(|()| staged.wipe());
        }
        self.keyed = Some(expected?);
        Ok(())
    }

    /// Waits for the keyed hash that was enqueued last, and takes its top if that very launch produced it. Blocks.
    pub(super) fn collect_keyed(&mut self, stream: &Stream) -> Result<Zeroizing<Output>, DigestFailure> {
        let expected = self.keyed.take();
        let top = stream.synchronize().map_err(DigestFailure::from).and_then(|()| self.top(expected));
        // Whatever became of it, nothing secret stays.
        let wiped = self.readback.wipe_first(READ_BYTES);
        let keys = self.keys.as_mut().map_or(Ok(()), HostBuffer::wipe);
        let top = top?;
        wiped.and(keys)?;
        Ok(top)
    }

    fn top(&mut self, expected: Option<LaunchResult>) -> Result<Zeroizing<Output>, DigestFailure> {
        const UNPROVEN: DeviceFailure = DeviceFailure::Unproven("keyed hash");
        let (result, rest) =
            self.readback.bytes_mut()?.split_first_chunk::<{ LaunchResult::BYTES }>().ok_or(UNPROVEN)?;
        let top = rest.first_chunk::<16>().copied().map(Zeroizing::new).ok_or(UNPROVEN)?;
        if Some(LaunchResult::from_bytes(result)) == expected { Ok(top) } else { Err(UNPROVEN.into()) }
    }
}

/// Of a level's key, in host memory.
const KEY_LEN: usize = 4112;
const _: () = assert!(KeyedJob::KEY_BYTES == 4112);

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use super::*;
    use crate::digest::TreeParams;
    use crate::driver::mock::{Fault, FaultOrder, MockCall, MockConfig};
    use crate::memory::CheckSizes;
    use crate::memory::region::Region;

    #[test]
    fn no_key_stays_in_host_memory_whatever_fails() {
        // covers: VER-13
        let config = MockConfig::new().capacity_bytes(64 << 20);
        let mock = config.open().unwrap();
        let driver = mock.driver();
        let device = Device::open(Arc::clone(driver), TreeParams::default(), 1 << 20, NonZeroUsize::MIN).unwrap();
        let (bytes, stream) = (9000, Stream::new(driver).unwrap());
        let sizes = CheckSizes::new(&device.params, bytes, 1).unwrap();
        let [image, check] =
            [(); 2].map(|()| Region::allocate(driver, 2 << 20).map_err(|failed| failed.error).unwrap());
        let span = Span { ptr: image.span().ptr, bytes };
        device.driver.fill(stream.id, image.span(), 7).unwrap();
        let image = ImageMap::new(&device.params, &[span]).unwrap();
        let mut space = CheckSpace::new(&device, &check, sizes).unwrap();
        let key = LevelKeys::new(Box::new(Zeroizing::new([7; 32])));
        let mut hash = |fault: Option<FaultOrder>| {
            fault.into_iter().for_each(|fault| config.fail(fault).unwrap());
            let launched = space.launch_keyed(&device, &stream, &image, &key);
            let hashed = launched.and_then(|()| space.collect_keyed(&stream)).map(drop);
            let mut left = space.readback.bytes_mut().unwrap()[..READ_BYTES].to_vec();
            left.extend_from_slice(space.keys.as_mut().map_or(&[], |keys| keys.bytes_mut().unwrap()));
            (hashed.is_ok(), left.iter().filter(|byte| ![0, POISON].contains(byte)).count())
        };
        assert_eq!(hash(None), (true, 0));
        for call in
            [MockCall::Fill, MockCall::CopyToDevice, MockCall::Keyed, MockCall::CopyToHost, MockCall::Synchronize]
        {
            assert_eq!(hash(Some(Fault::call(call).nth(1))), (false, 0), "{call:?}");
        }
    }
}

//! A shard's memory: its image and the space that checks it.
//!
//! Owns [`ShardMemory`]. It is allocated whole or not at all, and ends in one of two ways: wiped, proven and freed, or kept out
//! of the pool for good. Dropping it without a wipe keeps it out of the pool.

use std::sync::Arc;

use super::check::{CheckSizes, CheckSpace, DigestFailure};
use super::region::Region;
use super::{Device, DeviceFailure, Stream};
use crate::digest::TreeDigest;
use crate::driver::{DevicePtr, HostBuffer, Span};
use crate::error::VramError;

/// Device memory of one shard.
#[derive(Debug)]
pub(crate) struct ShardMemory {
    device: Arc<Device>,
    stream: Stream,
    image: Region,
    check: Region,
    space: CheckSpace,
    proof: HostBuffer,
    image_bytes: u64,
}

impl ShardMemory {
    /// Allocates an image of `image_bytes` in `image_room` bytes, and `check_room` bytes for its checks (both in allocator
    /// units), proves both resident and zeroes them.
    ///
    /// # Errors
    /// The driver's, or `POLICY_VIOLATION` when residency is not proven. Nothing stays allocated.
    pub(crate) fn allocate(
        device: &Arc<Device>,
        image_bytes: u64,
        image_room: u64,
        check_room: u64,
    ) -> Result<Self, VramError> {
        const TOO_LARGE: VramError = VramError::Internal { what: "the image does not fit its region" };
        let sizes = CheckSizes::new(device.params(), image_bytes).ok_or(TOO_LARGE)?;
        if image_bytes > image_room {
            return Err(TOO_LARGE);
        }
        let driver = &device.driver;
        let stream = Stream::new(driver)?;
        let proof = driver.host_buffer(crate::driver::LaunchResult::BYTES)?;
        let image = Region::allocate(driver, image_room)?;
        let check = match Region::allocate(driver, check_room) {
            Ok(check) => check,
            Err(error) => {
                image.free()?; // never written
                return Err(error);
            }
        };
        let mut proof = proof;
        let space = match CheckSpace::new(device, &check, sizes) {
            Ok(space) => space,
            Err(error) => {
                image.free()?; // never written
                check.free()?; // never written
                return Err(error);
            }
        };
        // Whatever others left there is gone before the first byte of ours arrives, the tail behind the image included.
        if let Err(failure) = device.wipe(&stream, &mut proof, image.span(), check.span()) {
            image.free()?;
            check.free()?;
            return Err(failure.into());
        }
        Ok(Self { device: Arc::clone(device), stream, image, check, space, proof, image_bytes })
    }

    /// The image, as long as its bytes (the region may be longer).
    pub(crate) fn image(&self) -> Span {
        Span { ptr: self.image.span().ptr, bytes: self.image_bytes }
    }

    /// The bytes that it takes on the device.
    pub(crate) fn room(&self) -> u64 {
        self.image.span().bytes.saturating_add(self.check.span().bytes)
    }

    /// Where the kernels of this shard write their results.
    pub(super) const fn result(&self) -> DevicePtr {
        self.check.span().ptr
    }

    pub(super) const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Asks the driver again where all of it lies.
    pub(crate) fn prove_residency(&self) -> Result<(), VramError> {
        self.image.prove_residency()?;
        self.check.prove_residency()
    }

    /// Digests the image where it lies. Blocks; O(bytes) on the device.
    pub(crate) fn digest(&mut self) -> Result<TreeDigest, DigestFailure> {
        let image = self.image();
        self.space.digest(&self.device, &self.stream, &[image], image.bytes)
    }

    /// Wipes, proves zero, and frees. Returns the bytes that went back.
    ///
    /// # Errors
    /// The memory itself, with the reason, when it could not be proven zero: it is not free then.
    pub(crate) fn wipe_and_free(mut self) -> Result<u64, (Box<Self>, DeviceFailure)> {
        // Work that was enqueued before may have failed; that is its caller's news, and must not be taken for the wipe's.
        let _earlier = self.stream.synchronize();
        let wiped = self.device.wipe(&self.stream, &mut self.proof, self.image.span(), self.check.span());
        if let Err(failure) = wiped {
            return Err((Box::new(self), failure));
        }
        let room = self.room();
        let Self { image, check, .. } = self;
        // Both are zero: a driver that refuses to take one back leaks it, but leaks nothing of ours.
        for freed in [image.free(), check.free()] {
            if let Err(error) = freed {
                tracing::error!(%error, "wiped device memory could not be freed");
            }
        }
        Ok(room)
    }
}

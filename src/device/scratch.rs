//! Unsealed working memory.
//!
//! Owns [`ScratchMemory`]: proven resident and zeroed like a shard's, never digested, wiped and proven zero before it is freed.

use std::sync::Arc;

use super::region::Region;
use super::{Device, DeviceFailure, Stream};
use crate::driver::{DevicePtr, HostBuffer, LaunchResult, StreamId};
use crate::error::VramError;

/// Working memory of an engine.
#[derive(Debug)]
pub(crate) struct ScratchMemory {
    device: Arc<Device>,
    stream: Stream,
    region: Region,
    /// Where the zero proof writes.
    check: Region,
    proof: HostBuffer,
    /// Engines' streams whose work uses it.
    used_on: Vec<StreamId>,
}

impl ScratchMemory {
    /// Allocates `room` bytes and `check_room` bytes for their proof (both in allocator units), and zeroes them.
    ///
    /// # Errors
    /// As `ShardMemory::allocate`. Nothing stays allocated.
    pub(crate) fn allocate(device: &Arc<Device>, room: u64, check_room: u64) -> Result<Self, VramError> {
        let stream = Stream::new(&device.driver)?;
        let proof = device.driver.host_buffer(LaunchResult::BYTES)?;
        let region = Region::allocate(&device.driver, room)?;
        let check = match Region::allocate(&device.driver, check_room) {
            Ok(check) => check,
            Err(error) => {
                region.free()?; // never written
                return Err(error);
            }
        };
        let mut memory = Self { device: Arc::clone(device), stream, region, check, proof, used_on: Vec::new() };
        match memory.wipe() {
            Ok(()) => Ok(memory),
            Err(failure) => {
                memory.free(); // nothing of ours was in it
                Err(failure.into())
            }
        }
    }

    /// Where it lies.
    pub(crate) const fn ptr(&self) -> DevicePtr {
        self.region.span().ptr
    }

    /// Names a stream whose work uses it.
    pub(crate) fn used_on(&mut self, stream: StreamId) {
        self.used_on.push(stream);
    }

    fn wipe(&mut self) -> Result<(), DeviceFailure> {
        self.device.wipe(&self.stream, &mut self.proof, &[self.region.span()], self.check.span())
    }

    fn free(self) {
        for error in [self.region.free(), self.check.free()].into_iter().filter_map(Result::err) {
            tracing::error!(%error, "wiped device memory could not be given back");
        }
    }

    /// Waits for what the streams that used it hold, wipes, proves zero, and frees.
    ///
    /// # Errors
    /// The memory itself, with the reason, when it could not be proven zero: it is not free then.
    pub(crate) fn wipe_and_free(mut self) -> Result<(), (Box<Self>, DeviceFailure)> {
        // Taken, for they need not live any longer when a failed wipe is tried again.
        for stream in std::mem::take(&mut self.used_on) {
            // An engine's own failure is reported once and is its own news; what matters is that nothing of it still runs, and
            // that is not known when the wait fails again.
            let driver = &self.device.driver;
            if let Err(error) = driver.synchronize(stream).or_else(|_theirs| driver.synchronize(stream)) {
                return Err((Box::new(self), error.into()));
            }
        }
        match self.wipe() {
            Ok(()) => {
                self.free();
                Ok(())
            }
            Err(failure) => Err((Box::new(self), failure)),
        }
    }
}

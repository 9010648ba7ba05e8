//! Unsealed working memory.
//!
//! Owns [`ScratchMemory`]: proven resident and zeroed like a shard's, never digested, wiped and proven zero before it is freed.

use std::sync::Arc;

use super::region::{Region, Unallocated};
use super::shard::{Retired, Unretired};
use super::{Device, DeviceFailure, Stream};
use crate::driver::HostBuffer;
use crate::panics::aside;
use crate::types::{DevicePtr, DriverError, LaunchResult, Span, StreamId};

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
    pub(crate) fn allocate(device: &Arc<Device>, room: u64, check_room: u64) -> Result<Self, Unallocated> {
        let stream = Stream::new(&device.driver)?;
        let proof = device.driver.host_buffer(LaunchResult::BYTES)?;
        let region = Region::allocate(&device.driver, room)?;
        let check = match Region::allocate(&device.driver, check_room) {
            Ok(check) => check,
            Err(unallocated) => return Err(unallocated.after(vec![region])),
        };
        let mut memory = Self { device: Arc::clone(device), stream, region, check, proof, used_on: Vec::new() };
        match memory.wipe() {
            Ok(_) => Ok(memory),
            Err(failure) => {
                if let Err(error) = memory.free() {
                    aside!(|| tracing::error!(%error, "unused device memory could not be given back"));
                }
                Err(Unallocated { error: failure.into(), stuck: memory.room() })
            }
        }
    }

    /// The bytes that it still takes.
    pub(crate) fn room(&self) -> u64 {
        self.region.unfreed_bytes().saturating_add(self.check.unfreed_bytes())
    }

    /// Where it lies.
    pub(crate) const fn ptr(&self) -> DevicePtr {
        self.region.span().ptr
    }

    /// Names a stream whose work uses it.
    pub(crate) fn used_on(&mut self, stream: StreamId) {
        self.used_on.push(stream);
    }

    /// Zeroes what is still there, and proves it. Returns how many bytes.
    fn wipe(&mut self) -> Result<u64, DeviceFailure> {
        let Some(check) = self.check.unfreed() else { return Ok(0) };
        let spans: Vec<Span> = self.region.unfreed().into_iter().collect();
        self.device.wipe(&self.stream, &mut self.proof, &spans, check)?;
        Ok(spans.iter().fold(check.bytes, |sum, span| sum.saturating_add(span.bytes)))
    }

    /// The check space comes last, so that a later try finds it.
    fn free(&mut self) -> Result<(), DriverError> {
        self.region.free()?;
        self.check.free()
    }

    /// Waits for what the streams that used it hold, wipes, proves zero, and frees.
    ///
    /// # Errors
    /// The memory itself, with the reason and what was done so far, when it could not be proven zero, or the driver did not take
    /// it back.
    pub(crate) fn wipe_and_free(mut self) -> Result<Retired, Unretired<Self>> {
        let wiped = match self.wait().and_then(|()| self.wipe()) {
            Ok(wiped) => wiped,
            Err(failure) => return Err(Unretired { memory: Box::new(self), failure, done: Retired::default() }),
        };
        let before = self.room();
        let outcome = self.free();
        let done = Retired { wiped, left: 0, freed: before.saturating_sub(self.room()) };
        match outcome {
            Ok(()) => Ok(done),
            Err(error) => Err(Unretired { memory: Box::new(self), failure: error.into(), done }),
        }
    }

    /// Waits for every stream that used it, also behind one that cannot be waited for: they need not live any longer when a
    /// failed wipe is tried again.
    fn wait(&mut self) -> Result<(), DeviceFailure> {
        let mut outcome = Ok(());
        for stream in std::mem::take(&mut self.used_on) {
            // An engine's own failure is reported once and is its own news; what matters is that nothing of it still runs, and
            // that is not known when the wait fails again.
            let driver = &self.device.driver;
            outcome = outcome.and(driver.synchronize(stream).or_else(|_theirs| driver.synchronize(stream)));
        }
        Ok(outcome?)
    }
}

//! Controls of the mock device, for our tests and those of our users.

use super::VramManager;
use crate::driver::EngineStream;
use crate::driver::mock::{FaultOrder, MockDevice, MockStats};
use crate::error::VramError;
use crate::manager::scratch::Scratch;
use crate::seal::SealedShard;
use crate::types::{DevicePtr, DriverError, RawStream, Span};

/// What a test can do to the mock behind a manager's back.
#[derive(Clone, Copy, Debug)]
pub struct MockControls<'a> {
    manager: &'a VramManager,
    device: &'a MockDevice,
}

/// A stream of a make-believe engine on the mock. What is enqueued runs when something orders it, and not before.
#[derive(Debug)]
pub struct MockStream<'a> {
    controls: MockControls<'a>,
    stream: EngineStream,
}

impl MockStream<'_> {
    /// The handle, as an engine would pass it.
    #[must_use]
    pub fn raw(&self) -> RawStream {
        RawStream::new(self.stream.id().0)
    }

    /// Enqueues that the engine writes `value` over bytes of a shard.
    ///
    /// # Errors
    /// `CUDA_ERROR` (740, `read_only`) when the memory is mapped read-only, as sealed memory of our own is unless the device was
    /// made with [`MockConfig::read_only`](crate::MockConfig::read_only)`(false)`; `INVALID_PARAMS` when the range leaves the
    /// shard's region, or is an engine's memory that was not adopted as writable; those of a seal that is not live.
    pub fn enqueue_write(&self, shard: &SealedShard, offset: u64, bytes: u64, value: u8) -> Result<(), VramError> {
        let record = self.controls.manager.inner.admit(shard)?;
        let at = record.image.address(offset).ok_or_else(|| VramError::InvalidParams {
            field: "offset",
            problem: format!("{offset} is no byte of the image of {} bytes", record.image.bytes()),
        })?;
        self.stream.fill(Span { ptr: at, bytes }, value).map_err(|e| not_ours(shard, e.into()))
    }

    /// Enqueues that the engine writes `value` over device memory at an address that it knows.
    ///
    /// # Errors
    /// `CUDA_ERROR` when no allocation of the device holds the whole range; 740, `read_only`, when it may not be written.
    pub fn enqueue_fill(&self, address: u64, bytes: u64, value: u8) -> Result<(), VramError> {
        let span = Span { ptr: DevicePtr(address), bytes };
        Ok(self.stream.fill(span, value)?)
    }

    /// Blocks until everything that was enqueued has run.
    ///
    /// # Errors
    /// `CUDA_ERROR` when the device reports one.
    pub fn synchronize(&self) -> Result<(), VramError> {
        Ok(self.stream.synchronize()?)
    }

    /// Enqueues that the engine writes `value` over the first `bytes` bytes of working memory.
    ///
    /// # Errors
    /// `CUDA_ERROR` when the range leaves it.
    pub fn enqueue_scratch_write(&self, scratch: &Scratch, bytes: u64, value: u8) -> Result<(), VramError> {
        let span = Span { ptr: scratch.address(), bytes };
        Ok(self.stream.fill(span, value)?)
    }
}

/// The mock's number for a write to memory that may not be written.
const READ_ONLY: u32 = 740;

/// A refused write as what it is to whoever adopted the memory.
fn not_ours(shard: &SealedShard, error: VramError) -> VramError {
    match error {
        VramError::Device(DriverError { code: READ_ONLY, .. }) if shard.is_adopted() => VramError::InvalidParams {
            field: "shard",
            problem: format!(
                "{} lies in an engine's memory that was adopted for reading alone; adopt its regions as `writable()`, where they are",
                shard.id()
            ),
        },
        error => error,
    }
}

impl VramManager {
    /// The controls, when this manager runs on the mock.
    #[must_use]
    pub fn mock_controls(&self) -> Option<MockControls<'_>> {
        self.mock.as_ref().map(|device| MockControls { manager: self, device })
    }
}

impl<'a> MockControls<'a> {
    /// Makes a stream for a make-believe engine.
    ///
    /// # Errors
    /// `CUDA_ERROR` when the mock refuses.
    pub fn engine_stream(&self) -> Result<MockStream<'a>, VramError> {
        let stream = self.device.driver().engine_stream()?;
        Ok(MockStream { controls: *self, stream })
    }

    /// Flips one bit of a shard's image where it lies, as a rowhammer attack would.
    ///
    /// # Errors
    /// `INVALID_PARAMS` when the position leaves the image, or is an engine's memory that was not adopted as writable; those of a
    /// seal that is not live.
    pub fn flip_bit(&self, shard: &SealedShard, byte: u64, bit: u8) -> Result<(), VramError> {
        let at = self.place(shard, byte, bit)?;
        self.device.flip_bit(at, 0, bit).map_err(|error| not_ours(shard, error))
    }

    /// As [`flip_bit`](Self::flip_bit), when the `nth` [`MockCall`](crate::MockCall) from now begins; 1 is the next.
    ///
    /// # Errors
    /// As there.
    pub fn flip_bit_later(&self, shard: &SealedShard, byte: u64, bit: u8, nth: u64) -> Result<(), VramError> {
        self.device.flip_bit_later(self.place(shard, byte, bit)?, bit, nth)
    }

    fn place(&self, shard: &SealedShard, byte: u64, bit: u8) -> Result<DevicePtr, VramError> {
        let record = self.manager.inner.admit(shard)?;
        record.image.address(byte).filter(|_| bit < 8).ok_or_else(|| VramError::InvalidParams {
            field: "bit position",
            problem: format!("byte {byte}, bit {bit} is no bit of the image of {} bytes", record.image.bytes()),
        })
    }

    /// Flips one bit of the byte at a device address.
    ///
    /// # Errors
    /// `CUDA_ERROR` when no allocation of the device holds it; 740, `read_only`, when it is an engine's memory that was not adopted
    /// as writable.
    pub fn flip_address(&self, address: u64, bit: u8) -> Result<(), VramError> {
        self.device.flip_bit(DevicePtr(address), 0, bit)
    }

    /// Reads device memory at an address, past every check. It runs no queued operation.
    ///
    /// # Errors
    /// `CUDA_ERROR` when no allocation of the device holds the whole range.
    pub fn peek_address(&self, address: u64, out: &mut [u8]) -> Result<(), VramError> {
        self.device.peek(DevicePtr(address), out)
    }

    /// Reads bytes of a shard's image where they lie, past every check. It runs no queued operation.
    ///
    /// # Errors
    /// Those of a seal that is not live, and of a range that leaves the image.
    pub fn peek(&self, shard: &SealedShard, offset: u64, out: &mut [u8]) -> Result<(), VramError> {
        let record = self.manager.inner.admit(shard)?;
        let at = record.image.address(offset).ok_or_else(|| VramError::InvalidParams {
            field: "offset",
            problem: format!("{offset} is no byte of the image of {} bytes", record.image.bytes()),
        })?;
        self.device.peek(at, out)
    }

    /// Orders a fault: a [`Fault`](crate::Fault) for the next call that can meet it, or a [`FaultOrder`] for others.
    ///
    /// # Errors
    /// `CUDA_ERROR` when the mock does not take the order.
    pub fn fail_next(&self, order: impl Into<FaultOrder>) -> Result<(), VramError> {
        self.device.order(order)
    }

    /// Forgets all faults that were ordered and not met.
    ///
    /// # Errors
    /// `CUDA_ERROR` when the mock refuses.
    pub fn clear_faults(&self) -> Result<(), VramError> {
        self.device.clear_faults()
    }

    /// What has happened on this device.
    ///
    /// # Errors
    /// `CUDA_ERROR` when the mock refuses.
    pub fn stats(&self) -> Result<MockStats, VramError> {
        Ok(self.device.stats())
    }
}

//! The mock device: host memory that behaves like a GPU and fails to order. It protects nothing.
//!
//! Owns [`MockConfig`] (what a machine is made of, shared by its clones), [`Fault`] (what can go wrong to order) and
//! [`MockDriver`], which answers [`Driver`] for one device. Promises that bytes move only when the contract of the driver
//! says so: streams run late, memory comes poisoned. Refuses what a GPU would refuse, with the same kind of error.

mod config;
mod fault;
#[cfg(test)]
mod tests;

pub use config::{MockConfig, MockStats};
pub use fault::{Fault, FaultOrder, MockCall, ResidencyLie};

use crate::driver::{Driver, HostBuffer};
use crate::error::VramError;
use crate::ffi::mock::MockDevice;
use crate::types::{
    Access, DeviceInfo, DeviceKind, DevicePtr, DeviceUuid, DigestJob, DriverError, EventId, MemoryInfo, Residency,
    Span, StreamId,
};

/// One device of a mock machine.
#[derive(Debug)]
pub(crate) struct MockDriver {
    device: MockDevice,
    info: DeviceInfo,
}

impl MockDriver {
    fn new(device: MockDevice, ordinal: u32, granularity: u64) -> Result<Self, DriverError> {
        let info = DeviceInfo {
            kind: DeviceKind::Mock,
            ordinal,
            uuid: DeviceUuid::from_bytes(device.uuid()?),
            name: "mock device".to_owned(),
            total_bytes: device.memory_info()?.total,
            granularity,
        };
        Ok(Self { device, info })
    }

    /// Orders a fault: a [`Fault`] for the next call that can meet it, or a [`FaultOrder`] for others.
    pub(crate) fn order(&self, order: impl Into<FaultOrder>) -> Result<(), VramError> {
        fault::order(&self.device, order.into())
    }

    /// Forgets every fault that has not been met. A device that is dead stays dead.
    pub(crate) fn clear_faults(&self) -> Result<(), VramError> {
        Ok(self.device.clear_faults()?)
    }

    /// Flips bit `bit` (0 to 7) of the byte at `byte` bytes after `ptr`, at rest: nothing runs, nothing else notices.
    pub(crate) fn flip_bit(&self, ptr: DevicePtr, byte: u64, bit: u8) -> Result<(), VramError> {
        let at = ptr.checked_add(byte).filter(|_| bit < 8).ok_or_else(|| VramError::InvalidParams {
            field: "bit",
            problem: format!("{bit} of byte {byte} does not exist; bits are 0 to 7, within the allocation"),
        })?;
        Ok(self.device.flip_bit(at, bit)?)
    }

    /// Reads device memory as it is now. Unlike a copy it runs no queued operation.
    pub(crate) fn peek(&self, ptr: DevicePtr, out: &mut [u8]) -> Result<(), VramError> {
        Ok(self.device.peek(ptr, out)?)
    }

    /// What has happened on this device.
    pub(crate) fn stats(&self) -> Result<MockStats, VramError> {
        Ok(MockStats::of(&self.device.stats()?))
    }
}

impl Driver for MockDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn memory_info(&self) -> Result<MemoryInfo, DriverError> {
        self.device.memory_info()
    }
    fn alloc(&self, bytes: u64) -> Result<DevicePtr, DriverError> {
        self.device.alloc(bytes)
    }
    fn free(&self, ptr: DevicePtr) -> Result<(), DriverError> {
        self.device.free(ptr)
    }
    fn residency(&self, ptr: DevicePtr) -> Result<Residency, DriverError> {
        self.device.residency(ptr)
    }
    #[allow(unsafe_code, reason = "passes its caller's promise on")]
    unsafe fn register(&self, span: Span, access: Access) -> Result<(), DriverError> {
        // SAFETY: the caller of this function vouches for the span until `unregister`, in the same words.
        unsafe { self.device.register_foreign(span, access) }
    }
    fn unregister(&self, span: Span) -> Result<(), DriverError> {
        self.device.unregister_foreign(span.ptr)
    }
    fn protect(&self, span: Span, access: Access) -> Result<bool, DriverError> {
        self.device.protect(span, access)
    }
    fn host_buffer(&self, bytes: usize) -> Result<HostBuffer, DriverError> {
        self.device.host_buffer(bytes)
    }
    fn stream(&self) -> Result<StreamId, DriverError> {
        self.device.stream()
    }
    fn destroy_stream(&self, stream: StreamId) -> Result<(), DriverError> {
        self.device.destroy_stream(stream)
    }
    fn synchronize(&self, stream: StreamId) -> Result<(), DriverError> {
        self.device.synchronize(stream)
    }
    fn event(&self) -> Result<EventId, DriverError> {
        self.device.event()
    }
    fn destroy_event(&self, event: EventId) -> Result<(), DriverError> {
        self.device.destroy_event(event)
    }
    fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), DriverError> {
        self.device.record_event(event, stream)
    }
    fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), DriverError> {
        self.device.wait_event(stream, event)
    }
    fn synchronize_event(&self, event: EventId) -> Result<(), DriverError> {
        self.device.synchronize_event(event)
    }
    fn query_event(&self, event: EventId) -> Result<bool, DriverError> {
        self.device.query_event(event)
    }
    fn copy_to_device(
        &self,
        stream: StreamId,
        to: DevicePtr,
        source: &mut HostBuffer,
        from: usize,
        bytes: usize,
    ) -> Result<(), DriverError> {
        self.device.copy_to_device(stream, to, source, from, bytes)
    }
    fn copy_to_host(
        &self,
        stream: StreamId,
        target: &mut HostBuffer,
        to: usize,
        from: DevicePtr,
        bytes: usize,
    ) -> Result<(), DriverError> {
        self.device.copy_to_host(stream, target, to, from, bytes)
    }
    fn fill(&self, stream: StreamId, span: Span, value: u8) -> Result<(), DriverError> {
        self.device.fill(stream, span, value)
    }
    /// The mock takes the regions as they are: it needs no list of them.
    fn digest(
        &self,
        stream: StreamId,
        job: &DigestJob<'_>,
        _staging: &mut HostBuffer,
        _from: usize,
    ) -> Result<(), DriverError> {
        self.device.digest(stream, job)
    }
    fn count_nonzero(&self, stream: StreamId, span: Span, result: DevicePtr, nonce: u64) -> Result<(), DriverError> {
        self.device.count_nonzero(stream, span, result, nonce)
    }
}

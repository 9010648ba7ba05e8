//! The seam below which devices differ.
//!
//! Owns [`Driver`], about two dozen calls that a GPU driver and the mock both answer.
//! Promises nothing about policy: no ledger, no verdicts, no audit. Everything above this file runs unchanged on every
//! device. No raw pointer crosses it: device memory is a [`DevicePtr`], host staging is a [`HostBuffer`].

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "mock")]
pub(crate) mod mock;

use std::fmt;

pub(crate) use crate::ffi::host::HostBuffer;
use crate::types::{
    Access, DeviceInfo, DevicePtr, DigestJob, DriverError, EventId, MemoryInfo, Residency, Span, StreamId,
};

/// A GPU driver, or the mock, on one device.
///
/// All calls are safe to make from any thread; the driver serialises what it must. Copies, fills and kernels are enqueued
/// and may run at any later time unless a `synchronize`, `wait_event` or the buffer's own wait orders them. Out-of-range
/// device addresses are an error, never host undefined behaviour.
#[allow(dead_code, reason = "the seam is cut for the CUDA driver and for engine streams, which use all of it")]
pub(crate) trait Driver: Send + Sync + fmt::Debug {
    /// What the device is.
    fn info(&self) -> &DeviceInfo;
    /// How much memory is free.
    fn memory_info(&self) -> Result<MemoryInfo, DriverError>;

    /// Allocates `bytes` (a multiple of the granularity) of device memory. Its contents are arbitrary.
    fn alloc(&self, bytes: u64) -> Result<DevicePtr, DriverError>;
    /// Frees an allocation by its first byte.
    fn free(&self, ptr: DevicePtr) -> Result<(), DriverError>;
    /// Asks where an address lies.
    fn residency(&self, ptr: DevicePtr) -> Result<Residency, DriverError>;
    /// Makes memory that an engine allocated known to the driver, where the driver has to be told (the mock does).
    ///
    /// # Safety
    /// The span is memory of this device, or initialised host memory where the driver is the mock, that stays allocated, and that
    /// nobody writes while an operation of this driver uses it, until [`unregister`](Self::unregister). With
    /// [`Access::ReadWrite`] it may also be written, and nobody uses it while an operation may write it; otherwise the mock,
    /// whose memory is the process's, refuses every write.
    #[allow(unsafe_code, reason = "whether an engine's memory is really there only the engine knows")]
    unsafe fn register(&self, span: Span, access: Access) -> Result<(), DriverError>;
    /// The reverse of [`register`](Self::register).
    fn unregister(&self, span: Span) -> Result<(), DriverError>;
    /// Switches a whole allocation; `Ok(true)` when the driver confirms the new access, `Ok(false)` when it cannot. Where it says
    /// [`NotSupported`](DriverErrorKind::NotSupported) nothing was switched; after any other error the access is not known. A
    /// switch to read-write that does not happen is an error: writing all the same may cost the whole context.
    fn protect(&self, span: Span, access: Access) -> Result<bool, DriverError>;
    /// Allocates host staging memory, zeroed.
    fn host_buffer(&self, bytes: usize) -> Result<HostBuffer, DriverError>;

    /// Makes a stream that does not synchronise with the default one.
    fn stream(&self) -> Result<StreamId, DriverError>;
    /// Finishes what the stream holds and destroys it.
    fn destroy_stream(&self, stream: StreamId) -> Result<(), DriverError>;
    /// Blocks until everything on the stream has run.
    fn synchronize(&self, stream: StreamId) -> Result<(), DriverError>;
    /// Makes an event.
    fn event(&self) -> Result<EventId, DriverError>;
    /// Destroys an event.
    fn destroy_event(&self, event: EventId) -> Result<(), DriverError>;
    /// Puts an event behind what the stream holds.
    fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), DriverError>;
    /// Makes later work on the stream wait for the event.
    fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), DriverError>;
    /// Blocks until the event has passed.
    fn synchronize_event(&self, event: EventId) -> Result<(), DriverError>;
    /// Whether the event has passed.
    fn query_event(&self, event: EventId) -> Result<bool, DriverError>;

    /// Enqueues a copy of `bytes` from the start of `source` at `from` to device memory.
    fn copy_to_device(
        &self,
        stream: StreamId,
        to: DevicePtr,
        source: &mut HostBuffer,
        from: usize,
        bytes: usize,
    ) -> Result<(), DriverError>;
    /// Enqueues a copy of device memory into `target` at `to`.
    fn copy_to_host(
        &self,
        stream: StreamId,
        target: &mut HostBuffer,
        to: usize,
        from: DevicePtr,
        bytes: usize,
    ) -> Result<(), DriverError>;
    /// Enqueues filling a span with one byte value.
    fn fill(&self, stream: StreamId, span: Span, value: u8) -> Result<(), DriverError>;
    /// Enqueues a digest of the level-1 table. A list of the regions may travel through `staging`, from byte `from` on, where it has
    /// as much room as on the device: nothing is allocated for a digest.
    fn digest(
        &self,
        stream: StreamId,
        job: &DigestJob<'_>,
        staging: &mut HostBuffer,
        from: usize,
    ) -> Result<(), DriverError>;
    /// Enqueues a count of the bytes of `span` that are not zero.
    fn count_nonzero(&self, stream: StreamId, span: Span, result: DevicePtr, nonce: u64) -> Result<(), DriverError>;
}

//! One driver, over one table of functions: the NVIDIA driver's, or the mock's.
//!
//! Owns [`Driver`]: memory from the virtual-memory API, pinned staging, streams of its own, native kernels. Promises that kernels,
//! copies and fills touch only memory that this driver allocated or that was registered with it, that memory is given back only
//! when none of its streams uses it any more, and that the whole device is never synchronised. No raw pointer crosses it: device
//! memory is a [`DevicePtr`], host staging is a [`HostBuffer`]. Refuses to compile kernels just in time, and to export memory.
//! Knows nothing of policy: no ledger, no verdicts, no audit.
//!
//! Runs over the mock in tests; not yet run on a GPU.

mod digest;
mod images;
mod keyed;
#[cfg(feature = "cuda")]
mod library;
#[cfg(feature = "mock")]
pub(crate) mod mock;
mod open;
mod registry;
mod residency;
#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

#[cfg(feature = "cuda")]
pub(crate) use library::DriverLibrary;
#[cfg(not(feature = "cuda"))]
pub(crate) use open::DriverLibrary;
#[cfg(feature = "mock")]
pub(crate) use open::open_mock;
pub(crate) use open::{Wanted, open};

#[cfg(feature = "mock")]
pub(crate) use crate::ffi::Stream as EngineStream;
use crate::ffi::{
    AnyStream, Context, INVALID_HANDLE, INVALID_VALUE, Kernels, Mapping, Operation, Pinned, Stream, Unmapped, failure,
};
pub(crate) use crate::ffi::{Event, HostBuffer};
use crate::panics::aside;
use crate::types::{
    Access, DeviceInfo, DevicePtr, DigestJob, DriverError, DriverErrorKind, KeyedJob, LaunchResult, MemoryInfo,
    Residency, Span, StreamId,
};
use registry::Registry;

/// The driver of one device.
///
/// All calls are safe to make from any thread. Copies, fills and kernels are enqueued and may run at any later time unless a
/// `synchronize`, `wait_event` or the buffer's own wait orders them. Out-of-range device addresses are an error.
#[derive(Debug)]
pub(crate) struct Driver {
    info: DeviceInfo,
    registry: Registry,
    kernels: Kernels,
    pinned: Pinned,
    context: Arc<Context>,
    /// Held shared while something is enqueued; taken whole once before memory is given back, so that nothing that found the
    /// memory alive is still on its way to a stream.
    gate: RwLock<()>,
}

/// A stream that something may be enqueued on, and the memory that it may use, while this lives.
struct Enqueue<'a> {
    stream: Arc<Stream>,
    _gate: RwLockReadGuard<'a, ()>,
}

impl Driver {
    fn new(info: DeviceInfo, context: Arc<Context>, kernels: Kernels) -> Self {
        let (pinned, registry) = (Pinned::new(&context), Registry::new(context.id()));
        Self { info, registry, kernels, pinned, context, gate: RwLock::new(()) }
    }

    /// Finds the stream and every span, and notes that the stream uses them.
    fn enqueue(&self, operation: &'static str, id: StreamId, spans: &[Span]) -> Result<Enqueue<'_>, DriverError> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let stream = self.registry.stream(id).ok_or_else(|| failure(operation, INVALID_HANDLE))?;
        if !self.registry.note_uses(id, spans) {
            return Err(failure(operation, INVALID_VALUE));
        }
        Ok(Enqueue { stream, _gate: gate })
    }

    fn any_stream(&self, id: StreamId) -> AnyStream {
        self.registry.stream(id).map_or(AnyStream::Engine(id), AnyStream::Own)
    }

    /// Waits until none of our streams uses the memory at `base`. On a dead context nothing runs any more.
    fn wait_for_users(&self, base: DevicePtr) -> Result<(), DriverError> {
        drop(self.gate.write().unwrap_or_else(PoisonError::into_inner));
        let _part = self.context.begin(Operation::Part)?;
        for id in self.registry.users(base) {
            match self.synchronize(id) {
                Err(error) if error.kind != DriverErrorKind::Sticky => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(crate) fn memory_info(&self) -> Result<MemoryInfo, DriverError> {
        self.context.memory_info()
    }

    /// Allocates `bytes` (a multiple of the granularity) of device memory. Its contents are arbitrary.
    pub(crate) fn alloc(&self, bytes: u64) -> Result<DevicePtr, DriverError> {
        if bytes == 0 || !bytes.is_multiple_of(self.info.granularity) {
            return Err(failure("cuMemCreate", INVALID_VALUE));
        }
        Ok(self.registry.add_mapping(Mapping::create(&self.context, bytes)?))
    }

    pub(crate) fn free(&self, ptr: DevicePtr) -> Result<(), DriverError> {
        // Out of the registry first: nothing new finds it.
        let mapping = self.registry.take_mapping(ptr).ok_or_else(|| failure("cuMemUnmap", INVALID_VALUE))?;
        if let Err(error) = self.wait_for_users(ptr) {
            self.registry.add_mapping(mapping);
            return Err(error);
        }
        // Before the driver may give the address out again: what the next owner does there must not be forgotten.
        self.registry.forget_uses(ptr);
        match mapping.unmap() {
            Unmapped::Done => Ok(()),
            Unmapped::Leaked(error) => Err(error),
            Unmapped::Refused(mapping, error) => {
                self.registry.add_mapping(mapping);
                Err(error)
            }
        }
    }

    pub(crate) fn residency(&self, ptr: DevicePtr) -> Result<Residency, DriverError> {
        residency::ask(&self.context, ptr, self.registry.is_own(ptr))
    }

    /// Takes memory that an engine allocated in, so that kernels may use it, and makes it known to the mock, which has to be told.
    ///
    /// # Safety
    /// The span is memory of this device, or initialised host memory where the device is the mock, that stays allocated, and that
    /// nobody writes while an operation of this driver uses it, until [`unregister`](Self::unregister). With
    /// [`Access::ReadWrite`] it may also be written, and nobody uses it while an operation may write it; otherwise the mock,
    /// whose memory is the process's, refuses every write.
    #[allow(unsafe_code, reason = "whether an engine's memory is really there only the engine knows")]
    pub(crate) unsafe fn register(&self, span: Span, access: Access) -> Result<(), DriverError> {
        // Where it lies is asked next.
        if !self.registry.add_engine(span) {
            return Err(failure("cuPointerGetAttributes", INVALID_VALUE));
        }
        // SAFETY: the caller of this function vouches for the span until `unregister`, in the same words.
        unsafe { self.context.register(span, access) }.inspect_err(|_| {
            self.registry.take_engine(span);
        })
    }

    pub(crate) fn unregister(&self, span: Span) -> Result<(), DriverError> {
        if !self.registry.take_engine(span) {
            return Err(failure("cuPointerGetAttributes", INVALID_VALUE));
        }
        // Which also forgets what it waited for. What is registered there meanwhile is another's, with uses of its own.
        let waited = self.wait_for_users(span.ptr);
        self.context.unregister(span);
        waited
    }

    /// Switches a whole allocation; `Ok(true)` when the driver confirms the new access, `Ok(false)` when it cannot. Where it says
    /// [`NotSupported`](DriverErrorKind::NotSupported) nothing was switched; after any other error the access is not known. A
    /// switch to read-write that does not happen is an error: writing all the same may cost the whole context.
    pub(crate) fn protect(&self, span: Span, access: Access) -> Result<bool, DriverError> {
        if self.registry.is_engine(span) {
            return Ok(false); // not ours to switch
        }
        // A kernel that still writes would fault on memory that has become read-only, and kill the context.
        self.wait_for_users(span.ptr)?;
        let switched = self.registry.with_mapping(span, |mapping| mapping.protect(access == Access::ReadOnly));
        switched.ok_or_else(|| failure("cuMemSetAccess", INVALID_VALUE))?
    }

    pub(crate) fn host_buffer(&self, bytes: usize) -> Result<HostBuffer, DriverError> {
        self.pinned.allocate(bytes)
    }

    /// Makes a stream that does not synchronise with the default one.
    pub(crate) fn stream(&self) -> Result<StreamId, DriverError> {
        Ok(self.registry.add_stream(Stream::create(&self.context)?))
    }

    /// Makes a stream as an engine does: nothing here knows of it.
    #[cfg(feature = "mock")]
    pub(crate) fn engine_stream(&self) -> Result<EngineStream, DriverError> {
        Stream::create(&self.context)
    }

    /// Finishes what the stream holds and destroys it.
    pub(crate) fn destroy_stream(&self, id: StreamId) -> Result<(), DriverError> {
        let stream = self.registry.stream(id).ok_or_else(|| failure("cuStreamDestroy_v2", INVALID_HANDLE))?;
        let part = self.context.begin(Operation::Part)?;
        let finished = self.synchronize(id);
        drop(part);
        self.registry.take_stream(id);
        drop(stream);
        finished
    }

    pub(crate) fn synchronize(&self, id: StreamId) -> Result<(), DriverError> {
        let until = self.registry.now();
        self.any_stream(id).synchronize(&self.context)?;
        self.registry.settle(id, until);
        Ok(())
    }

    pub(crate) fn event(&self) -> Result<Event, DriverError> {
        Event::create(&self.context)
    }

    pub(crate) fn record_event(&self, event: &Event, stream: StreamId) -> Result<(), DriverError> {
        event.record(&self.any_stream(stream))
    }

    pub(crate) fn wait_event(&self, stream: StreamId, event: &Event) -> Result<(), DriverError> {
        self.any_stream(stream).wait(event)
    }

    /// Enqueues a copy of `bytes` from the start of `source` at `from` to device memory.
    pub(crate) fn copy_to_device(
        &self,
        stream: StreamId,
        to: DevicePtr,
        source: &mut HostBuffer,
        from: usize,
        bytes: usize,
    ) -> Result<(), DriverError> {
        let span = Span { ptr: to, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) };
        let on = self.enqueue("cuMemcpyHtoDAsync_v2", stream, &[span])?;
        self.pinned.copy_to_device(&on.stream, to, source, from, bytes)
    }

    /// Enqueues a copy of device memory into `target` at `to`.
    pub(crate) fn copy_to_host(
        &self,
        stream: StreamId,
        target: &mut HostBuffer,
        to: usize,
        from: DevicePtr,
        bytes: usize,
    ) -> Result<(), DriverError> {
        let span = Span { ptr: from, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) };
        let on = self.enqueue("cuMemcpyDtoHAsync_v2", stream, &[span])?;
        self.pinned.copy_to_host(&on.stream, target, to, from, bytes)
    }

    pub(crate) fn fill(&self, stream: StreamId, span: Span, value: u8) -> Result<(), DriverError> {
        self.enqueue("cuMemsetD8Async", stream, &[span])?.stream.fill(span, value)
    }

    /// Enqueues a digest of the level-1 table. A list of the regions may travel through `staging`, from byte `from` on, where it has
    /// as much room as on the device: nothing is allocated for a digest.
    pub(crate) fn digest(
        &self,
        stream: StreamId,
        job: &DigestJob<'_>,
        staging: &mut HostBuffer,
        from: usize,
    ) -> Result<(), DriverError> {
        let plan = digest::Plan::new(job)?;
        let _digest = self.context.begin(Operation::Digest)?;
        let list = plan.region_list();
        digest::stage(&list, staging, from)?;
        let on = self.enqueue(digest::OPERATION, stream, &digest::spans(job))?;
        // Anew for every launch: what lay on the device between two checks is not believed.
        self.pinned.copy_to_device(&on.stream, job.region_list.ptr, staging, from, list.len())?;
        plan.enqueue(&self.kernels, &on.stream)
    }

    /// Enqueues a keyed hash, with the list of the regions as for a [`digest`](Self::digest); says which result shows that all of
    /// it ran. `top` counts only with that.
    pub(crate) fn keyed(
        &self,
        stream: StreamId,
        job: &KeyedJob<'_>,
        staging: &mut HostBuffer,
        from: usize,
    ) -> Result<LaunchResult, DriverError> {
        let plan = keyed::Plan::new(job)?;
        let _keyed = self.context.begin(Operation::Keyed)?;
        let list = plan.region_list();
        digest::stage(&list, staging, from)?;
        let on = self.enqueue(digest::OPERATION, stream, &keyed::spans(job))?;
        self.pinned.copy_to_device(&on.stream, job.region_list.ptr, staging, from, list.len())?;
        plan.enqueue(&self.kernels, &on.stream)?;
        Ok(plan.expected())
    }

    pub(crate) fn count_nonzero(
        &self,
        stream: StreamId,
        span: Span,
        result: DevicePtr,
        nonce: u64,
    ) -> Result<(), DriverError> {
        let result = digest::result_span(result, &[span])?;
        let _count = self.context.begin(Operation::CountNonzero)?;
        let on = self.enqueue(digest::OPERATION, stream, &[span, result])?;
        digest::enqueue_count(&self.kernels, &on.stream, span, result, nonce)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _part = self.context.begin(Operation::Part);
        for id in self.registry.stream_ids() {
            // What a stream still holds uses memory and kernels that go next. A failure is that of a dead context.
            let _finished = self.synchronize(id);
        }
        let left = self.registry.mapped_bytes();
        if left > 0 {
            aside!(|| {
                tracing::error!(
                    bytes = left,
                    "device memory that was not proven wiped stays allocated until the process ends"
                )
            });
            self.context.keep();
        }
    }
}

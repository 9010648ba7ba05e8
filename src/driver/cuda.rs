//! CUDA devices.
//!
//! Owns [`CudaDriver`], which answers [`Driver`] over the NVIDIA driver's library: memory from the virtual-memory API, pinned
//! staging, streams of its own, native kernels. Promises that kernels, copies and fills touch only memory that this driver
//! allocated or that was registered with it, that memory is given back only when none of its streams uses it any more, and
//! that the whole device is never synchronised. Refuses to compile kernels just in time, and to export memory.
//!
//! Runs against a stand-in for the driver in tests; not yet run on a GPU.

mod books;
mod digest;
mod images;
mod library;
mod open;
mod residency;
#[cfg(test)]
#[cfg(vram_rig)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

pub(crate) use library::DriverLibrary;
#[cfg(feature = "stand-in")]
pub(crate) use open::open_stand_in;
pub(crate) use open::{Wanted, open};

use crate::driver::{Driver, HostBuffer};
use crate::ffi::cuda::{
    AnyStream, Context, Event, INVALID_HANDLE, INVALID_VALUE, Kernels, Mapping, Pinned, Stream, Unmapped, failure,
};
use crate::panics::aside;
use crate::types::{
    Access, DeviceInfo, DevicePtr, DigestJob, DriverError, DriverErrorKind, EventId, MemoryInfo, Residency, Span,
    StreamId,
};
use books::Books;

/// One CUDA device.
#[derive(Debug)]
pub(crate) struct CudaDriver {
    info: DeviceInfo,
    books: Books,
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

impl CudaDriver {
    fn new(info: DeviceInfo, context: Arc<Context>, kernels: Kernels) -> Self {
        let pinned = Pinned::new(&context);
        Self { info, books: Books::default(), kernels, pinned, context, gate: RwLock::new(()) }
    }

    /// Finds the stream and every span, and notes that the stream uses them.
    fn enqueue(&self, operation: &'static str, id: StreamId, spans: &[Span]) -> Result<Enqueue<'_>, DriverError> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let stream = self.books.stream(id).ok_or_else(|| failure(operation, INVALID_HANDLE))?;
        if !self.books.note_uses(id, spans) {
            return Err(failure(operation, INVALID_VALUE));
        }
        Ok(Enqueue { stream, _gate: gate })
    }

    /// A stream of ours, or an engine's.
    fn any_stream(&self, id: StreamId) -> AnyStream {
        self.books.stream(id).map_or(AnyStream::Engine(id), AnyStream::Own)
    }

    fn find_event(&self, operation: &'static str, id: EventId) -> Result<Arc<Event>, DriverError> {
        self.books.event(id).ok_or_else(|| failure(operation, INVALID_HANDLE))
    }

    /// Waits until none of our streams uses the memory at `base`. On a dead context nothing runs any more.
    fn wait_for_users(&self, base: DevicePtr) -> Result<(), DriverError> {
        drop(self.gate.write().unwrap_or_else(PoisonError::into_inner));
        for id in self.books.users(base) {
            match self.synchronize(id) {
                Err(error) if error.kind != DriverErrorKind::Sticky => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Driver for CudaDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory_info(&self) -> Result<MemoryInfo, DriverError> {
        self.context.memory_info()
    }

    fn alloc(&self, bytes: u64) -> Result<DevicePtr, DriverError> {
        if bytes == 0 || !bytes.is_multiple_of(self.info.granularity) {
            return Err(failure("cuMemCreate", INVALID_VALUE));
        }
        Ok(self.books.add_mapping(Mapping::create(&self.context, bytes)?))
    }

    fn free(&self, ptr: DevicePtr) -> Result<(), DriverError> {
        // Out of the books first: nothing new finds it.
        let mapping = self.books.take_mapping(ptr).ok_or_else(|| failure("cuMemUnmap", INVALID_VALUE))?;
        if let Err(error) = self.wait_for_users(ptr) {
            self.books.add_mapping(mapping);
            return Err(error);
        }
        // Before the driver may give the address out again: what the next owner does there must not be forgotten.
        self.books.forget_uses(ptr);
        match mapping.unmap() {
            Unmapped::Done => Ok(()),
            Unmapped::Leaked(error) => Err(error),
            Unmapped::Refused(mapping, error) => {
                self.books.add_mapping(mapping);
                Err(error)
            }
        }
    }

    fn residency(&self, ptr: DevicePtr) -> Result<Residency, DriverError> {
        residency::ask(&self.context, ptr, self.books.is_own(ptr))
    }

    #[allow(unsafe_code, reason = "the trait's contract; there is nothing to tell the driver")]
    unsafe fn register(&self, span: Span, _: Access) -> Result<(), DriverError> {
        // The driver knows its own memory. The books take the span, so that kernels may read it; where it lies is asked next.
        if self.books.add_engine(span) { Ok(()) } else { Err(failure("cuPointerGetAttributes", INVALID_VALUE)) }
    }

    fn unregister(&self, span: Span) -> Result<(), DriverError> {
        if !self.books.take_engine(span) {
            return Err(failure("cuPointerGetAttributes", INVALID_VALUE));
        }
        // Which also forgets what it waited for. What is registered there meanwhile is another's, with uses of its own.
        self.wait_for_users(span.ptr)
    }

    fn protect(&self, span: Span, access: Access) -> Result<bool, DriverError> {
        if self.books.is_engine(span) {
            return Ok(false); // not ours to switch
        }
        // A kernel that still writes would fault on memory that has become read-only, and kill the context.
        self.wait_for_users(span.ptr)?;
        let switched = self.books.with_mapping(span, |mapping| mapping.protect(access == Access::ReadOnly));
        switched.ok_or_else(|| failure("cuMemSetAccess", INVALID_VALUE))?
    }

    fn host_buffer(&self, bytes: usize) -> Result<HostBuffer, DriverError> {
        self.pinned.allocate(bytes)
    }

    fn stream(&self) -> Result<StreamId, DriverError> {
        Ok(self.books.add_stream(Stream::create(&self.context)?))
    }

    fn destroy_stream(&self, id: StreamId) -> Result<(), DriverError> {
        let stream = self.books.stream(id).ok_or_else(|| failure("cuStreamDestroy_v2", INVALID_HANDLE))?;
        let finished = self.synchronize(id);
        self.books.take_stream(id);
        drop(stream);
        finished
    }

    fn synchronize(&self, id: StreamId) -> Result<(), DriverError> {
        let until = self.books.now();
        self.any_stream(id).synchronize(&self.context)?;
        self.books.settle(id, until);
        Ok(())
    }

    fn event(&self) -> Result<EventId, DriverError> {
        Ok(self.books.add_event(Event::create(&self.context)?))
    }

    fn destroy_event(&self, id: EventId) -> Result<(), DriverError> {
        self.books.take_event(id).map(drop).ok_or_else(|| failure("cuEventDestroy_v2", INVALID_HANDLE))
    }

    fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), DriverError> {
        self.find_event("cuEventRecord", event)?.record(&self.any_stream(stream))
    }

    fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), DriverError> {
        self.any_stream(stream).wait(&*self.find_event("cuStreamWaitEvent", event)?)
    }

    fn synchronize_event(&self, event: EventId) -> Result<(), DriverError> {
        self.find_event("cuEventSynchronize", event)?.synchronize()
    }

    fn query_event(&self, event: EventId) -> Result<bool, DriverError> {
        self.find_event("cuEventQuery", event)?.has_passed()
    }

    fn copy_to_device(
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

    fn copy_to_host(
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

    fn fill(&self, stream: StreamId, span: Span, value: u8) -> Result<(), DriverError> {
        self.enqueue("cuMemsetD8Async", stream, &[span])?.stream.fill(span, value)
    }

    fn digest(
        &self,
        stream: StreamId,
        job: &DigestJob<'_>,
        staging: &mut HostBuffer,
        from: usize,
    ) -> Result<(), DriverError> {
        let plan = digest::Plan::new(job)?;
        let list = plan.region_list();
        // Waits for an earlier copy of the list, if there still is one.
        let staged = staging.bytes_mut()?.get_mut(from..).and_then(|rest| rest.get_mut(..list.len()));
        staged.ok_or_else(|| failure(digest::OPERATION, INVALID_VALUE))?.copy_from_slice(&list);
        let on = self.enqueue(digest::OPERATION, stream, &digest::spans(job))?;
        // Anew for every launch: what lay on the device between two checks is not believed.
        self.pinned.copy_to_device(&on.stream, job.region_list.ptr, staging, from, list.len())?;
        plan.enqueue(&self.kernels, &on.stream)
    }

    fn count_nonzero(&self, stream: StreamId, span: Span, result: DevicePtr, nonce: u64) -> Result<(), DriverError> {
        let result = digest::result_span(result, &[span])?;
        let on = self.enqueue(digest::OPERATION, stream, &[span, result])?;
        digest::enqueue_count(&self.kernels, &on.stream, span, result, nonce)
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        for id in self.books.stream_ids() {
            // What a stream still holds uses memory and kernels that go next. A failure is that of a dead context.
            let _finished = self.synchronize(id);
        }
        let left = self.books.mapped_bytes();
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

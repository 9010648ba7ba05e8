//! Streams and events, and what is enqueued without a kernel.

use std::sync::Arc;

use super::context::Context;
use super::types::{EVENT_DISABLE_TIMING, STREAM_NON_BLOCKING};
use super::{native, status};
use crate::panics::aside;
use crate::types::{DriverError, Span, StreamId};

/// A stream of our own, which does not synchronise with the default one. Destroyed when dropped; what it holds still runs.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Arc<Context>,
    raw: usize,
}

impl Stream {
    pub(crate) fn create(context: &Arc<Context>) -> Result<Self, DriverError> {
        let _current = context.enter()?;
        let mut raw = 0;
        // SAFETY: the driver writes one handle to the local; the context is current, by the guard above.
        unsafe { (context.table().stream_create)(&raw mut raw, STREAM_NON_BLOCKING) }.check("cuStreamCreate")?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    pub(crate) fn id(&self) -> StreamId {
        StreamId(super::wide(self.raw))
    }

    pub(super) const fn raw(&self) -> usize {
        self.raw
    }

    pub(super) const fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn fill(&self, span: Span, value: u8) -> Result<(), DriverError> {
        let _current = self.context.enter()?;
        let (ptr, bytes) = (span.ptr.0, native(span.bytes));
        // SAFETY: the stream lives, because `self` does. The caller found the span in live device memory; the host holds no
        // reference into that.
        unsafe { (self.context.table().fill)(ptr, value, bytes, self.raw) }.check("cuMemsetD8Async")
    }
}

#[cfg(feature = "mock")]
impl Stream {
    pub(crate) fn synchronize(&self) -> Result<(), DriverError> {
        AnyStream::Engine(self.id()).synchronize(&self.context)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Ok(_current) = self.context.enter() else { return };
        // SAFETY: the handle came from cuStreamCreate in Stream::create, and is destroyed here only.
        let status = unsafe { (self.context.table().stream_destroy)(self.raw) };
        if let Err(error) = status.check("cuStreamDestroy_v2") {
            aside!(|| tracing::debug!(%error, "a stream could not be destroyed"));
        }
    }
}

/// A stream of ours, held alive, or an engine's.
#[derive(Clone, Debug)]
pub(crate) enum AnyStream {
    /// Ours.
    Own(Arc<Stream>),
    /// A handle from `ExecuteOptions::on_stream`, whose caller vouched that the stream is of this device and lives until
    /// everything that this crate does with it is done. There is no other way in for a stream that is not ours.
    Engine(StreamId),
}

impl AnyStream {
    fn raw(&self) -> usize {
        match self {
            Self::Own(stream) => stream.raw,
            Self::Engine(stream) => native(stream.0),
        }
    }

    pub(crate) fn synchronize(&self, context: &Context) -> Result<(), DriverError> {
        let _current = context.enter()?;
        // SAFETY: the stream lives: it is ours and held, or the contract of `on_stream` says so (see AnyStream).
        unsafe { (context.table().stream_synchronize)(self.raw()) }.check("cuStreamSynchronize")
    }

    pub(crate) fn wait(&self, event: &Event) -> Result<(), DriverError> {
        let context = &event.context;
        let _current = context.enter()?;
        // SAFETY: the event lives, because it is borrowed; the stream lives, by AnyStream's invariant. 0 is the default flag.
        unsafe { (context.table().stream_wait)(self.raw(), event.raw, 0) }.check("cuStreamWaitEvent")
    }
}

/// A point on a stream, without a clock. Destroyed when dropped.
#[derive(Debug)]
pub(crate) struct Event {
    context: Arc<Context>,
    raw: usize,
}

impl Event {
    pub(crate) fn create(context: &Arc<Context>) -> Result<Self, DriverError> {
        let _current = context.enter()?;
        let mut raw = 0;
        // SAFETY: the driver writes one handle to the local; the context is current, by the guard above.
        unsafe { (context.table().event_create)(&raw mut raw, EVENT_DISABLE_TIMING) }.check("cuEventCreate")?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// # Errors
    /// [`DriverError::CAPTURING`] where an engine records a graph on the stream: the event would become a part of that.
    pub(crate) fn record(&self, stream: &AnyStream) -> Result<(), DriverError> {
        let _current = self.context.enter()?;
        if let AnyStream::Engine(_) = stream {
            let mut status = 0;
            // SAFETY: the driver writes one number to the local; the stream lives, by AnyStream's invariant.
            let asked = unsafe { (self.context.table().is_capturing)(stream.raw(), &raw mut status) };
            asked.check("cuStreamIsCapturing")?;
            if status != 0 {
                return Err(status::failure("cuStreamIsCapturing", DriverError::CAPTURING));
            }
        }
        // SAFETY: the event lives, because `self` does; the stream lives, by AnyStream's invariant.
        unsafe { (self.context.table().event_record)(self.raw, stream.raw()) }.check("cuEventRecord")
    }

    pub(crate) fn synchronize(&self) -> Result<(), DriverError> {
        let _current = self.context.enter()?;
        // SAFETY: the event lives, because `self` does.
        unsafe { (self.context.table().event_synchronize)(self.raw) }.check("cuEventSynchronize")
    }

    pub(crate) fn has_passed(&self) -> Result<bool, DriverError> {
        let _current = self.context.enter()?;
        // SAFETY: the event lives, because `self` does.
        let answer = unsafe { (self.context.table().event_query)(self.raw) };
        match answer {
            status::Status(status::NOT_READY) => Ok(false),
            other => other.check("cuEventQuery").map(|()| true),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let Ok(_current) = self.context.enter() else { return };
        // SAFETY: the handle came from cuEventCreate in Event::create, and is destroyed here only. An event that a stream
        // still has to pass or wait for is let go of by the driver after that (cuEventDestroy's documentation).
        let status = unsafe { (self.context.table().event_destroy)(self.raw) };
        if let Err(error) = status.check("cuEventDestroy_v2") {
            aside!(|| tracing::debug!(%error, "an event could not be destroyed"));
        }
    }
}

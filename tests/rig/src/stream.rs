//! A stream of an engine's own.

use std::sync::Arc;

use vram_residency::{DriverError, DriverErrorKind, MockControls, MockStream, RawStream, VramError};

use crate::Raw;

/// A stream that an engine works on. What is enqueued on the mock and on the stand-in runs when something orders it, and not
/// before. Ended when dropped.
#[derive(Debug)]
pub struct EngineStream<'a>(Place<'a>);

#[derive(Debug)]
enum Place<'a> {
    Mock(MockStream<'a>),
    Gpu { raw: Arc<Raw>, stream: usize },
}

impl<'a> EngineStream<'a> {
    pub(crate) fn mock(controls: MockControls<'a>) -> Self {
        Self(Place::Mock(controls.engine_stream().unwrap()))
    }

    pub(crate) fn gpu(raw: &Arc<Raw>) -> Self {
        Self(Place::Gpu { raw: Arc::clone(raw), stream: raw.stream() })
    }

    /// The handle, as an engine passes it.
    pub fn raw(&self) -> RawStream {
        match &self.0 {
            Place::Mock(stream) => stream.raw(),
            Place::Gpu { stream, .. } => RawStream::new(*stream as u64),
        }
    }

    /// The driver's handle, for kernels; `None` on the mock.
    pub fn handle(&self) -> Option<usize> {
        match &self.0 {
            Place::Mock(_) => None,
            Place::Gpu { stream, .. } => Some(*stream),
        }
    }

    /// Enqueues a fill, which the device may refuse: the mock does where memory is read-only. On a GPU that costs the context.
    ///
    /// # Errors
    /// The device's.
    pub fn try_fill(&self, address: u64, bytes: usize, value: u8) -> Result<(), VramError> {
        match &self.0 {
            Place::Mock(stream) => stream.enqueue_fill(address, bytes as u64, value),
            Place::Gpu { raw, stream } => raw.fill(*stream, address, value, bytes).map_err(|code| {
                let (operation, kind) = ("cuMemsetD8Async", DriverErrorKind::Other);
                VramError::Device(DriverError { operation, code, name: "unknown", kind })
            }),
        }
    }

    /// Enqueues a fill.
    pub fn fill(&self, address: u64, bytes: usize, value: u8) {
        self.try_fill(address, bytes, value).unwrap();
    }

    /// Whether everything that was enqueued has run; `None` where the machine counts what has not.
    pub fn is_idle(&self) -> Option<bool> {
        match &self.0 {
            Place::Gpu { raw, stream } if !raw.is_stand_in() => Some(raw.is_idle(*stream)),
            _ => None,
        }
    }

    /// Blocks until everything that was enqueued has run.
    ///
    /// # Errors
    /// In words, when the device reports one.
    pub fn synchronize(&self) -> Result<(), String> {
        match &self.0 {
            Place::Mock(stream) => stream.synchronize().map_err(|error| error.to_string()),
            Place::Gpu { raw, stream } => {
                raw.synchronize(*stream).map_err(|code| format!("cuStreamSynchronize: driver error {code}"))
            }
        }
    }
}

impl Drop for EngineStream<'_> {
    fn drop(&mut self) {
        // A dead context takes nothing back.
        if let Place::Gpu { raw, stream } = &self.0
            && raw.synchronize(*stream).is_ok()
        {
            raw.destroy_stream(*stream);
        }
    }
}

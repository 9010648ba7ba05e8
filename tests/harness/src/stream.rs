//! A stream of an engine's own.

use std::sync::Arc;

use vram_residency::RawStream;

use crate::{Raw, Refused};

/// A stream that an engine works on. What is enqueued on the mock runs when something orders it, and not before. Ended when dropped.
#[derive(Debug)]
pub struct EngineStream {
    raw: Arc<Raw>,
    stream: usize,
}

impl EngineStream {
    pub(crate) fn new(raw: &Arc<Raw>) -> Self {
        Self { raw: Arc::clone(raw), stream: raw.stream() }
    }

    /// The handle, as an engine passes it.
    pub fn raw(&self) -> RawStream {
        RawStream::new(self.stream as u64)
    }

    /// The driver's handle, for kernels.
    pub fn handle(&self) -> usize {
        self.stream
    }

    /// Enqueues a fill, which the device may refuse: the mock does where memory is read-only. On a GPU that costs the context.
    pub fn try_fill(&self, address: u64, bytes: usize, value: u8) -> Result<(), Refused> {
        self.raw.fill(self.stream, address, value, bytes)
    }

    /// Enqueues a fill.
    pub fn fill(&self, address: u64, bytes: usize, value: u8) {
        self.try_fill(address, bytes, value).unwrap();
    }

    /// Whether everything that was enqueued has run; `None` where the machine counts what has not.
    pub fn is_idle(&self) -> Option<bool> {
        (!self.raw.is_mock()).then(|| self.raw.is_idle(self.stream))
    }

    /// Blocks until everything that was enqueued has run.
    pub fn synchronize(&self) -> Result<(), Refused> {
        self.raw.synchronize(self.stream)
    }
}

impl Drop for EngineStream {
    fn drop(&mut self) {
        // A dead context takes nothing back.
        if self.raw.synchronize(self.stream).is_ok() {
            self.raw.destroy_stream(self.stream);
        }
    }
}

//! What the driver says to the mock, and to nobody where there is none.
//!
//! Owns [`Operation`]: several calls of the table are one thing to whoever orders faults and counts (a digest), or a part of
//! another (waiting for whoever uses memory that is given back). And the memory of engines, which the mock has to be told of.

use super::context::Context;
use crate::types::{Access, DriverError, Span};

/// What the calls of a thread belong to, as `cuda/include/vram_mock.h` numbers it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mock"), allow(dead_code, reason = "nobody is told"))]
pub(crate) enum Operation {
    Digest = 6,
    CountNonzero = 7,
    Keyed = 15,
    Part = 16,
}

#[must_use]
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    #[cfg(feature = "mock")]
    machine: Option<&'a super::mock::Machine>,
    _on_this_thread: std::marker::PhantomData<(&'a (), *const ())>,
}

impl Context {
    /// What this thread calls from now on is a part of the operation, until the guard is dropped.
    ///
    /// # Errors
    /// That of an operation that the mock was told to fail as a whole.
    #[cfg(feature = "mock")]
    pub(crate) fn begin(&self, operation: Operation) -> Result<Begun<'_>, DriverError> {
        let machine = self.api().machine().map(AsRef::as_ref);
        if let Some(machine) = machine {
            let _current = self.enter()?;
            machine.begin(operation)?;
        }
        Ok(Begun { machine, _on_this_thread: std::marker::PhantomData })
    }

    /// Tells the mock of memory that an engine allocated. The NVIDIA driver knows its own.
    ///
    /// # Safety
    /// As `Driver::register`.
    #[cfg(feature = "mock")]
    pub(crate) unsafe fn register(&self, span: Span, access: Access) -> Result<(), DriverError> {
        let Some(machine) = self.api().machine() else { return Ok(()) };
        // SAFETY: the caller of this function vouches for the span until `unregister`, in the same words.
        unsafe { machine.register(self.device(), span, access) }
    }

    #[cfg(feature = "mock")]
    pub(crate) fn unregister(&self, span: Span) {
        if let Some(machine) = self.api().machine() {
            machine.unregister(self.device(), span);
        }
    }

    #[cfg(not(feature = "mock"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "as with the mock")]
    pub(crate) const fn begin(&self, _: Operation) -> Result<Begun<'_>, DriverError> {
        Ok(Begun { _on_this_thread: std::marker::PhantomData })
    }

    #[cfg(not(feature = "mock"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "as with the mock")]
    pub(crate) const unsafe fn register(&self, _: Span, _: Access) -> Result<(), DriverError> {
        Ok(())
    }

    #[cfg(not(feature = "mock"))]
    #[allow(clippy::unused_self, reason = "as with the mock")]
    pub(crate) const fn unregister(&self, _: Span) {}
}

#[cfg(feature = "mock")]
impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.machine.is_some() {
            super::mock::Machine::end();
        }
    }
}

//! The mock device: host memory that behaves like a GPU and fails to order. It protects nothing.
//!
//! Owns [`MockConfig`] (what a machine is made of, shared by its clones), [`Fault`] (what can go wrong to order) and
//! [`MockDevice`], the driver of one device with what tests can do to it. Everything else is the code that ships.

mod config;
mod fault;

use std::sync::Arc;

pub use config::{MockConfig, MockStats};
pub use fault::{Fault, FaultOrder, MockCall, ResidencyLie};

use crate::driver::Driver;
use crate::error::VramError;
use crate::ffi::mock::Machine;
use crate::types::DevicePtr;

#[derive(Clone, Debug)]
pub(crate) struct MockDevice {
    machine: Arc<Machine>,
    ordinal: u32,
    driver: Arc<Driver>,
}

impl MockDevice {
    pub(crate) const fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Orders a fault: a [`Fault`] for the next call that can meet it, or a [`FaultOrder`] for others.
    pub(crate) fn order(&self, order: impl Into<FaultOrder>) -> Result<(), VramError> {
        fault::order(&self.machine, self.ordinal, order.into())
    }

    /// Forgets every fault that has not been met. A device that is dead stays dead.
    pub(crate) fn clear_faults(&self) -> Result<(), VramError> {
        Ok(self.machine.forget(self.ordinal)?)
    }

    /// Flips bit `bit` (0 to 7) of the byte at `byte` bytes after `ptr`, at rest: nothing runs, nothing else notices.
    pub(crate) fn flip_bit(&self, ptr: DevicePtr, byte: u64, bit: u8) -> Result<(), VramError> {
        let at = ptr.checked_add(byte).filter(|_| bit < 8).ok_or_else(|| VramError::InvalidParams {
            field: "bit",
            problem: format!("{bit} of byte {byte} does not exist; bits are 0 to 7, within the allocation"),
        })?;
        Ok(self.machine.flip(at, bit)?)
    }

    /// As [`flip_bit`](Self::flip_bit), when the `nth` call from now begins.
    pub(crate) fn flip_bit_later(&self, at: DevicePtr, bit: u8, nth: u64) -> Result<(), VramError> {
        fault::flip(&self.machine, self.ordinal, at, bit, nth)
    }

    /// Reads device memory as it is now. Unlike a copy it runs no queued operation.
    pub(crate) fn peek(&self, ptr: DevicePtr, out: &mut [u8]) -> Result<(), VramError> {
        Ok(self.machine.look(ptr, out)?)
    }

    pub(crate) fn stats(&self) -> MockStats {
        let mut stats = MockStats::default();
        stats.add(&self.machine.stats(self.ordinal));
        stats
    }
}

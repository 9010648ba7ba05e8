//! One device, over any driver.
//!
//! Owns [`Device`]: streams and staging with lifetimes, regions that are proven resident, uploads, digests and wipes that
//! prove themselves. Promises that no result of a kernel is used that this very launch did not produce, and that memory which
//! held weights is freed only after it was proven zero. Knows nothing of ledgers, seals, states or events.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::digest::TreeParams;
use crate::driver::Driver;
use crate::error::{VramError, draw};
use crate::panics::aside;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::{Access, DeviceInfo, DriverError, DriverErrorKind, MemoryInfo, Span, StreamId};

mod check;
mod cross_check;
mod image;
mod keyed;
mod part;
mod reader;
mod region;
mod scratch;
mod self_test;
mod shard;
mod staging;
mod wipe;

pub(crate) use crate::driver::Event;

pub(crate) use check::{CheckSizes, DigestFailure};
pub(crate) use image::ImageMap;
pub(crate) use part::Part;
pub(crate) use region::{Protection, Unallocated};
pub(crate) use scratch::ScratchMemory;
pub(crate) use shard::{Owners, Retired, ShardMemory, Unretired};
use staging::Staging;
pub(crate) use staging::{DEFAULT_STAGING_BYTES, UploadFailed};

#[derive(Clone, Debug)]
pub(crate) enum DeviceFailure {
    /// A driver call failed.
    Call(DriverError),
    /// The kernel did not show that this launch ran over everything.
    Unproven(&'static str),
}

impl From<DriverError> for DeviceFailure {
    fn from(error: DriverError) -> Self {
        Self::Call(error)
    }
}

impl DeviceFailure {
    /// Whether the context is dead, so that every later call fails too.
    pub(crate) const fn is_sticky(&self) -> bool {
        matches!(self, Self::Call(DriverError { kind: DriverErrorKind::Sticky, .. }))
    }
}

impl From<DeviceFailure> for VramError {
    fn from(failure: DeviceFailure) -> Self {
        match failure {
            DeviceFailure::Call(error) => Self::Device(error),
            DeviceFailure::Unproven(operation) => Self::DeviceUntrusted { operation },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    driver: Arc<Driver>,
    id: StreamId,
}

impl Stream {
    fn new(driver: &Arc<Driver>) -> Result<Self, DriverError> {
        Ok(Self { id: driver.stream()?, driver: Arc::clone(driver) })
    }

    pub(crate) fn synchronize(&self) -> Result<(), DriverError> {
        self.driver.synchronize(self.id)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Err(error) = self.driver.destroy_stream(self.id) {
            aside!(|| tracing::debug!(%error, "a stream could not be destroyed"));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Device {
    driver: Arc<Driver>,
    params: TreeParams,
    staging: Staging,
    readers: reader::Pool,
    nonces: AtomicU64,
}

impl Device {
    /// Takes a driver and asks it the known questions.
    ///
    /// # Errors
    /// The driver's, or `DEVICE_UNTRUSTED` when a kernel answers a known question wrongly.
    pub(crate) fn open(
        driver: Arc<Driver>,
        params: TreeParams,
        staging_bytes: usize,
        threads: NonZeroUsize,
    ) -> Result<Arc<Self>, VramError> {
        let mut first = [0; 8];
        draw(&mut first)?;
        let device = Arc::new(Self {
            staging: Staging::new(staging_bytes, threads),
            readers: reader::Pool::default(),
            nonces: AtomicU64::new(u64::from_le_bytes(first)),
            driver,
            params,
        });
        device.answer_known_questions()?;
        Ok(device)
    }

    pub(crate) fn info(&self) -> &DeviceInfo {
        self.driver.info()
    }

    pub(crate) const fn params(&self) -> &TreeParams {
        &self.params
    }

    /// Makes an engine's memory known to the driver.
    ///
    /// # Safety
    /// As `Driver::register`.
    #[allow(unsafe_code, reason = "passes its caller's promise on to the driver")]
    pub(crate) unsafe fn register(&self, span: Span, access: Access) -> Result<(), DriverError> {
        // SAFETY: the caller of this function vouches for the span in the words of `Driver::register`.
        unsafe { self.driver.register(span, access) }
    }

    /// Makes an engine's memory unknown to the driver again.
    pub(crate) fn unregister(&self, span: Span) {
        if let Err(error) = self.driver.unregister(span) {
            aside!(|| tracing::error!(%error, "the driver still knows memory that was given back"));
        }
    }

    pub(crate) fn memory_info(&self) -> Result<MemoryInfo, DriverError> {
        self.driver.memory_info()
    }

    /// An event behind what the stream holds now.
    pub(crate) fn event(&self, stream: StreamId) -> Result<Event, DriverError> {
        let event = self.driver.event()?;
        self.driver.record_event(&event, stream)?;
        Ok(event)
    }

    /// A number that no earlier launch of this process carried, and that no poison or zero equals.
    fn nonce(&self) -> u64 {
        loop {
            let nonce = self.nonces.fetch_add(1, Ordering::Relaxed);
            if nonce != 0 && nonce != u64::from_le_bytes([check::POISON; 8]) {
                return nonce;
            }
        }
    }
}

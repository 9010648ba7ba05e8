//! Points on an engine's stream.

use std::sync::Arc;

use super::Device;
use crate::driver::Driver;
use crate::panics::aside;
use crate::types::{DriverError, EventId, StreamId};

/// An event behind what a stream held when it was recorded; destroyed when dropped.
#[derive(Debug)]
pub(crate) struct Event {
    driver: Arc<Driver>,
    id: EventId,
}

impl Event {
    /// Puts an event behind what the stream holds now.
    pub(crate) fn record(device: &Device, stream: StreamId) -> Result<Self, DriverError> {
        let event = Self { id: device.driver.event()?, driver: Arc::clone(&device.driver) };
        event.driver.record_event(event.id, stream)?;
        Ok(event)
    }

    /// Its handle.
    pub(crate) const fn id(&self) -> EventId {
        self.id
    }

    /// Whether everything before it has run.
    pub(crate) fn has_passed(&self) -> Result<bool, DriverError> {
        self.driver.query_event(self.id)
    }

    /// Blocks until everything before it has run.
    pub(crate) fn synchronize(&self) -> Result<(), DriverError> {
        self.driver.synchronize_event(self.id)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Err(error) = self.driver.destroy_event(self.id) {
            aside!(|| tracing::debug!(%error, "an event could not be destroyed"));
        }
    }
}

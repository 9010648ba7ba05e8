//! Tables of regions on the device.
//!
//! Owns [`Tables`]: device memory and pinned memory in pairs, each used by one launch at a time. One pair is made when the device
//! is opened, so that a check does not fail for want of room; a launch that finds none free makes one, or waits for one. They
//! hold addresses and lengths, never weights.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::digest::OPERATION;
use crate::driver::{DriverError, DriverErrorKind, HostBuffer, Span};
use crate::ffi::cuda::{AnyStream, Context, Event, INVALID_VALUE, Mapping, Pinned, Stream, Unmapped, failure};

/// The most pairs that are kept for later.
const MOST_KEPT: usize = 8;
/// Bytes of a pair's table, unless a launch needs more: 2,730 regions.
const LEAST_BYTES: usize = 64 << 10;

/// The pairs that no launch is being made with.
#[derive(Debug)]
pub(super) struct Tables {
    granularity: u64,
    kept: Mutex<Vec<Table>>,
}

#[derive(Debug)]
struct Table {
    /// Taken in drop only.
    device: Option<Mapping>,
    host: HostBuffer,
    /// Behind the last launch that reads it.
    event: Event,
    pending: bool,
    /// No mark could be left behind the last launch, and its stream did not finish either.
    unknown: bool,
}

impl Tables {
    pub(super) fn new(context: &Arc<Context>, pinned: &Pinned, granularity: u64) -> Result<Self, DriverError> {
        let first = Table::make(context, pinned, granularity, LEAST_BYTES)?;
        Ok(Self { granularity, kept: Mutex::new(vec![first]) })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Table>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues a copy of `bytes` to the device, and what `launch` makes of them there.
    pub(super) fn with_table(
        &self,
        (context, pinned): (&Arc<Context>, &Pinned),
        stream: &Arc<Stream>,
        bytes: &[u8],
        launch: impl FnOnce(Span) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let mut table = self.take(context, pinned, bytes.len())?;
        let span = table.span().ok_or_else(|| failure(OPERATION, INVALID_VALUE))?;
        let room = table.host.bytes_mut()?;
        room.get_mut(..bytes.len()).ok_or_else(|| failure(OPERATION, INVALID_VALUE))?.copy_from_slice(bytes);
        let launched =
            pinned.copy_to_device(stream, span.ptr, &mut table.host, 0, bytes.len()).and_then(|()| launch(span));
        // Also when the launch failed: part of it may have been enqueued.
        let marked = table.mark(context, stream);
        let mut kept = self.kept();
        if kept.len() < MOST_KEPT {
            kept.push(table);
        } else {
            drop(kept);
            drop(table); // waits
        }
        launched.and(marked)
    }

    /// A pair that no launch uses, with room for `bytes`.
    fn take(&self, context: &Arc<Context>, pinned: &Pinned, bytes: usize) -> Result<Table, DriverError> {
        let mut kept = self.kept();
        if let Some(at) = kept.iter().position(|table| table.holds(bytes) && table.is_free()) {
            return Ok(kept.swap_remove(at));
        }
        let full = kept.len() >= MOST_KEPT;
        drop(kept);
        if !full {
            match Table::make(context, pinned, self.granularity, bytes.max(LEAST_BYTES)) {
                Err(error) if error.kind == DriverErrorKind::OutOfMemory => {
                    return self.wait_for(bytes)?.ok_or(error);
                }
                made => return made,
            }
        }
        match self.wait_for(bytes)? {
            Some(table) => Ok(table),
            None => Table::make(context, pinned, self.granularity, bytes.max(LEAST_BYTES)),
        }
    }

    /// Takes a pair with room for `bytes` that a launch still uses, and waits for that.
    fn wait_for(&self, bytes: usize) -> Result<Option<Table>, DriverError> {
        let mut kept = self.kept();
        let Some(at) = kept.iter().position(|table| table.holds(bytes)) else { return Ok(None) };
        let mut table = kept.swap_remove(at);
        drop(kept);
        table.wait()?;
        Ok(Some(table))
    }
}

impl Table {
    fn make(context: &Arc<Context>, pinned: &Pinned, granularity: u64, bytes: usize) -> Result<Self, DriverError> {
        let too_large = || failure("cuMemCreate", INVALID_VALUE);
        let room = u64::try_from(bytes).map_err(|_| too_large())?;
        let room = room.checked_next_multiple_of(granularity).ok_or_else(too_large)?;
        let host = pinned.allocate(bytes)?;
        let event = Event::create(context)?;
        let device = Some(Mapping::create(context, room)?);
        Ok(Self { device, host, event, pending: false, unknown: false })
    }

    fn holds(&self, bytes: usize) -> bool {
        self.host.len() >= bytes
    }

    /// Whether the last launch with it is done.
    fn is_free(&self) -> bool {
        !self.unknown && (!self.pending || self.event.has_passed().unwrap_or(false))
    }

    fn span(&self) -> Option<Span> {
        self.device.as_ref().map(Mapping::span)
    }

    /// Leaves a mark behind the launch that was just enqueued.
    fn mark(&mut self, context: &Context, stream: &Arc<Stream>) -> Result<(), DriverError> {
        let stream = AnyStream::Own(Arc::clone(stream));
        let marked = self.event.record(&stream);
        self.pending = marked.is_ok();
        self.unknown = marked.is_err() && stream.synchronize(context).is_err();
        marked
    }

    fn wait(&mut self) -> Result<(), DriverError> {
        if self.pending {
            self.event.synchronize()?;
            self.pending = false;
        }
        Ok(())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let waited = self.wait();
        // On a dead context nothing reads it any more.
        if self.unknown || waited.is_err_and(|error| error.kind != DriverErrorKind::Sticky) {
            tracing::error!(
                "a table of regions is kept for good: the driver does not say whether a launch still reads it"
            );
            return;
        }
        if let Some(Unmapped::Leaked(error) | Unmapped::Refused(_, error)) = self.device.take().map(Mapping::unmap) {
            tracing::error!(%error, "a table of regions could not be given back");
        }
    }
}

//! Staging: the only host memory that weights pass through.
//!
//! Owns [`Staging`]: two buffers of bounded size, shared by the uploads of a device, one upload at a time. While one buffer is on
//! its way to the device the next is read and hashed. What was used is wiped before the upload returns, also when it fails.

use std::num::NonZeroUsize;
use std::sync::PoisonError;

use super::shard::ShardMemory;
use super::{Device, DeviceFailure};
use crate::driver::HostBuffer;
use crate::error::VramError;
use crate::panics::aside;
use crate::source::{Measure, Opened};
use crate::sync::Mutex;
use crate::types::DriverError;

/// Each of the two buffers, unless the caller chooses.
pub(crate) const DEFAULT_STAGING_BYTES: usize = 16 << 20;

/// The buffers of a device's uploads.
#[derive(Debug)]
pub(super) struct Staging {
    bytes: usize,
    threads: NonZeroUsize,
    buffers: Mutex<Vec<HostBuffer>>,
}

/// Why an upload failed.
#[derive(Debug)]
pub(crate) enum UploadFailed {
    /// The source could not be read, or was not what it said.
    Source(VramError),
    /// The device did not take it.
    Device(DeviceFailure),
}

impl From<DriverError> for UploadFailed {
    fn from(error: DriverError) -> Self {
        Self::Device(error.into())
    }
}

/// Wipes the buffers when the upload is over, however it ended.
struct Wiped<'a>(&'a mut Vec<HostBuffer>);

impl Drop for Wiped<'_> {
    fn drop(&mut self) {
        for buffer in self.0.iter_mut() {
            if let Err(error) = buffer.wipe() {
                aside!(
                    || tracing::error!(%error, "a staging buffer could not be wiped yet; it is wiped when it is freed"),
                );
            }
        }
    }
}

impl Staging {
    pub(super) const fn new(bytes: usize, threads: NonZeroUsize) -> Self {
        Self { bytes, threads, buffers: Mutex::new(Vec::new()) }
    }
}

impl Device {
    /// The threads that uploads may hash on.
    pub(crate) const fn staging_threads(&self) -> NonZeroUsize {
        self.staging.threads
    }

    /// Copies all of `source` into `memory`, and measures what was read. Blocks until the device has it.
    pub(crate) fn upload(
        &self,
        memory: &ShardMemory,
        source: &mut Opened<'_>,
        measure: &mut Measure,
    ) -> Result<(), UploadFailed> {
        let image = memory.owned_image().map_err(UploadFailed::Device)?;
        let wanted = usize::try_from(image.bytes).unwrap_or(usize::MAX).min(self.staging.bytes);
        let mut held = self.staging.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if held.iter().any(|buffer| buffer.len() < wanted) {
            held.clear();
        }
        while held.len() < 2 {
            held.push(self.driver.host_buffer(wanted)?);
        }
        let buffers = Wiped(&mut held);
        let stream = memory.stream();
        let mut offset: u64 = 0;
        while offset < image.bytes {
            for buffer in buffers.0.iter_mut() {
                let left = usize::try_from(image.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
                if left == 0 {
                    break;
                }
                let bytes = buffer.bytes_mut()?; // waits until the device has taken what it held
                let room = bytes.len().min(left);
                let filled = bytes.get_mut(..room).unwrap_or_default();
                let read = source.read(filled).map_err(UploadFailed::Source)?;
                if read != room {
                    const SHORT: VramError = VramError::Internal { what: "a source ended before its length" };
                    return Err(UploadFailed::Source(SHORT));
                }
                measure.update(filled, source.places());
                let to = image
                    .ptr
                    .checked_add(offset)
                    .ok_or(DeviceFailure::Unproven("upload"))
                    .map_err(UploadFailed::Device)?;
                self.driver.copy_to_device(stream.id, to, buffer, 0, room)?;
                offset = offset.saturating_add(u64::try_from(room).unwrap_or(u64::MAX));
            }
        }
        stream.synchronize()?;
        drop(buffers);
        Ok(())
    }
}

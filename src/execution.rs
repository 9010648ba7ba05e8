//! Executions: the scope in which verified bytes may be used.
//!
//! Owns [`Execution`], [`Verified`] and [`ExecuteOptions`]. An execution exists only after a check that began after its call found
//! every byte as sealed; while it exists the shard cannot be released; its result counts only if `finish` says so.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::audit::{EventKind, ExecuteOutcome};
use crate::core::{Core, ManagerState};
use crate::device::Reader;
use crate::digest::layout::{Layout, TensorInfo};
use crate::error::VramError;
use crate::manager::VramManager;
use crate::names::ShardId;
use crate::residents::Pinned;
use crate::seal::SealedShard;
use crate::verify::{Coverage, Verification};

/// How an execution is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ExecuteOptions {
    coverage: Option<Coverage>,
}

impl ExecuteOptions {
    /// How much of the image the check reads; the manager's own choice when not set.
    pub const fn coverage(mut self, coverage: Coverage) -> Self {
        self.coverage = Some(coverage);
        self
    }
}

/// An address in device memory, for an engine of any CUDA binding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawDevicePtr(u64);

impl RawDevicePtr {
    /// The address as the driver's `CUdeviceptr` holds it.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl std::fmt::Debug for RawDevicePtr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawDevicePtr(..)")
    }
}

/// One piece of a verified image: a tensor, or the whole image where no tensors are known.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedRegion<'a> {
    tensor: Option<&'a TensorInfo>,
    offset: u64,
    bytes: u64,
    ptr: RawDevicePtr,
}

impl<'a> VerifiedRegion<'a> {
    /// The tensor that lies here, if the layout knows tensors.
    #[must_use]
    pub const fn tensor(&self) -> Option<&'a TensorInfo> {
        self.tensor
    }

    /// Its first byte, counted from the start of the image.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn byte_len(&self) -> u64 {
        self.bytes
    }

    /// Its address on the device.
    ///
    /// # Safety
    /// The address is valid for reads of [`byte_len`](Self::byte_len) bytes by the device while the execution lives. The caller
    /// must not write through it, must not use it after the execution ended, and must have finished all device work that
    /// reads it before the execution ends.
    #[must_use]
    #[allow(unsafe_code, reason = "the contract of a raw device address is the caller's to keep")]
    pub const unsafe fn device_ptr(&self) -> RawDevicePtr {
        self.ptr
    }
}

/// What every kind of guard holds.
#[derive(Debug)]
struct Scope {
    core: Arc<Core>,
    record: Option<Pinned>,
    verification: Verification,
    started: Instant,
    reader: Mutex<Option<Reader>>,
}

impl Scope {
    fn begin(core: &Arc<Core>, sealed: &SealedShard, options: &ExecuteOptions) -> Result<Self, VramError> {
        let begun = Self::try_begin(core, sealed, options);
        if let Err(error) = &begun {
            core.trail.emit(EventKind::ExecuteRefused { shard: sealed.id().clone(), code: error.code() });
        }
        begun
    }

    fn try_begin(core: &Arc<Core>, sealed: &SealedShard, options: &ExecuteOptions) -> Result<Self, VramError> {
        core.permit()?;
        let (record, verification) = core.check(sealed, options.coverage.unwrap_or_default())?;
        core.permit()?; // another shard may have failed meanwhile
        core.trail.require(EventKind::ExecuteStarted { shard: record.id.clone() })?;
        Ok(Self {
            core: Arc::clone(core),
            record: Some(record),
            verification,
            started: Instant::now(),
            reader: Mutex::default(),
        })
    }

    fn view(&self) -> Option<Verified<'_>> {
        self.record.as_ref().map(|record| Verified { scope: self, record })
    }

    /// Ends the scope once, with its outcome in the trail.
    fn end(&mut self, outcome: ExecuteOutcome) {
        if let Some(reader) = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.core.device.keep_reader(reader);
        }
        if let Some(record) = self.record.take() {
            let shard = record.id.clone();
            drop(record);
            self.core.trail.emit(EventKind::ExecuteFinished { shard, outcome, duration: self.started.elapsed() });
        }
    }

    fn finish(mut self) -> Result<Verification, VramError> {
        match self.core.state.get() {
            ManagerState::Ready | ManagerState::Draining => {
                self.end(ExecuteOutcome::Finished);
                Ok(self.verification.clone())
            }
            state @ ManagerState::Stopped(_) => {
                self.end(ExecuteOutcome::Discarded);
                Err(VramError::ManagerStopped { state })
            }
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.end(ExecuteOutcome::Abandoned);
    }
}

/// Verified bytes, for as long as the execution that verified them.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    scope: &'a Scope,
    record: &'a Pinned,
}

impl<'a> Verified<'a> {
    /// The shard.
    #[must_use]
    pub fn id(&self) -> &'a ShardId {
        &self.record.id
    }

    /// Bytes of the image.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.record.image.bytes
    }

    /// What the check found.
    #[must_use]
    pub fn verification(&self) -> &'a Verification {
        &self.scope.verification
    }

    /// What lies where in the image.
    #[must_use]
    pub fn layout(&self) -> &'a Layout {
        &self.record.layout
    }

    /// The tensors of the image in order, or one region for all of it where the layout knows none. O(tensors).
    #[must_use]
    pub fn regions(&self) -> Vec<VerifiedRegion<'a>> {
        let (layout, image) = (self.layout(), self.record.image);
        let region = |tensor, offset: u64, bytes| {
            let ptr = RawDevicePtr(image.ptr.checked_add(offset)?.0);
            Some(VerifiedRegion { tensor, offset, bytes, ptr })
        };
        if layout.tensors().is_empty() {
            return region(None, 0, image.bytes).into_iter().collect();
        }
        layout.tensors().iter().filter_map(|tensor| region(Some(tensor), tensor.offset, tensor.bytes)).collect()
    }

    /// Copies bytes of the image out of VRAM, from `offset` on, until `out` is full. Blocks; host memory in between is bounded
    /// and wiped.
    ///
    /// # Errors
    /// `INVALID_PARAMS` when the range leaves the image; the device's errors.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), VramError> {
        let bytes = self.byte_len();
        let end = u64::try_from(out.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > bytes) {
            return Err(VramError::InvalidParams {
                field: "offset",
                problem: format!("{offset} and {} bytes from there leave the image of {bytes} bytes", out.len()),
            });
        }
        let device = &self.scope.core.device;
        let mut held = self.scope.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match &mut *held {
            Some(reader) => reader,
            none => none.insert(device.reader()?),
        };
        let read = device.read(reader, self.record.image, offset, out).map_err(VramError::from);
        drop(held);
        read.inspect_err(|error| self.scope.core.note_device_failure(error))
    }
}

/// A verified shard in use. It is released for nobody while this lives; call [`finish`](Self::finish) to learn whether the result
/// counts. Dropped without it, the execution is over and its result should not be used; leaked, the shard stays pinned until
/// the manager is dropped.
///
/// A guard cannot be copied or cloned:
/// ```compile_fail
/// fn twice(run: vram_residency::Execution<'_>) {
///     let other = run.clone();
/// }
/// ```
#[derive(Debug)]
#[must_use = "an execution that is not finished gives no result"]
pub struct Execution<'a> {
    scope: Scope,
    manager: PhantomData<&'a VramManager>,
}

impl Execution<'_> {
    pub(crate) fn begin(core: &Arc<Core>, sealed: &SealedShard, options: &ExecuteOptions) -> Result<Self, VramError> {
        Ok(Self { scope: Scope::begin(core, sealed, options)?, manager: PhantomData })
    }

    /// The verified bytes.
    ///
    /// # Errors
    /// `INTERNAL`, never in practice: the scope is over.
    pub fn verified(&self) -> Result<Verified<'_>, VramError> {
        self.scope.view().ok_or(VramError::Internal { what: "the execution is over" })
    }

    /// Bytes of the image.
    #[must_use]
    pub const fn byte_len(&self) -> u64 {
        self.scope.verification.bytes
    }

    /// What the check found.
    #[must_use]
    pub const fn verification(&self) -> &Verification {
        &self.scope.verification
    }

    /// The tensors of the image, or one region for all of it. O(tensors).
    #[must_use]
    pub fn regions(&self) -> Vec<VerifiedRegion<'_>> {
        self.scope.view().map(|verified| verified.regions()).unwrap_or_default()
    }

    /// Copies bytes of the image out of VRAM; see [`Verified::read_at`].
    ///
    /// # Errors
    /// As there.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), VramError> {
        self.verified()?.read_at(offset, out)
    }

    /// Ends the execution and says whether its result counts.
    ///
    /// # Errors
    /// `MANAGER_STOPPED` when the manager stopped meanwhile: discard the result.
    pub fn finish(self) -> Result<Verification, VramError> {
        self.scope.finish()
    }
}

//! Executions: the scope in which verified bytes may be used.
//!
//! Owns [`Execution`] and [`Verified`]. An execution exists only after a check that began after its call found
//! what it looked at as sealed: every byte, unless less was asked for and allowed; while it exists the shard cannot be released; its result counts only if `finish` says so.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::digest::layout::{Layout, TensorInfo};
use crate::error::VramError;
use crate::id::ShardId;
use crate::manager::VramManager;
use crate::manager::inner::Inner;
use crate::manager::verify::VerifyReport;
use crate::seal::SealedShard;
use crate::spec::ExecuteOptions;
use crate::types::RawDevicePtr;

mod scope;

use scope::Scope;

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

/// Verified bytes, for as long as the execution that verified them.
#[derive(Clone, Copy)]
pub struct Verified<'a> {
    scope: &'a Scope,
}

shown!(Verified<'_>, this: scope = this.scope);

impl<'a> Verified<'a> {
    getters! {
        /// The shard.
        fn id(&self) -> &'a ShardId { &self.scope.record.id }
        /// Bytes of the image.
        fn byte_len(&self) -> u64 { self.scope.record.image.bytes() }
        /// What the check found.
        fn verification(&self) -> &'a VerifyReport { &self.scope.report }
        /// What lies where in the image.
        fn layout(&self) -> &'a Layout { &self.scope.record.layout }
    }

    /// The tensors of the image in order, or one region for all of it where the layout knows none. O(tensors).
    #[must_use]
    pub fn regions(&self) -> Vec<VerifiedRegion<'a>> {
        let (layout, image) = (self.layout(), &self.scope.record.image);
        let region = |tensor, offset: u64, bytes| {
            // A tensor of no bytes may lie behind the last byte.
            let address = image.address(offset).or_else(|| image.end().filter(|_| bytes == 0));
            let ptr = RawDevicePtr::of(address?);
            Some(VerifiedRegion { tensor, offset, bytes, ptr })
        };
        if layout.tensors().is_empty() {
            return region(None, 0, image.bytes()).into_iter().collect();
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
                problem: format!(
                    "{offset} and {} bytes from there leave the image of {bytes} bytes; read within it",
                    out.len()
                ),
            });
        }
        let read = self.scope.inner.device.read(&self.scope.record.image, offset, out).map_err(VramError::from);
        read.inspect_err(|error| self.scope.inner.note_device_failure(error))
    }
}

/// A verified shard in use. It is released for nobody while this lives; call [`finish`](Self::finish) to learn whether the result
/// counts. Dropped without it, the execution is over and its result should not be used: the drop does not block, and the shard
/// stays pinned until what the engine had enqueued is done. Leaked, it stays pinned until the manager is dropped.
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

/// An [`Execution`] that keeps its manager alive, for tasks that outlive a borrow. It may be held across awaits; beginning and
/// finishing block, so they belong on the runtime's blocking pool.
#[derive(Debug)]
#[must_use = "an execution that is not finished gives no result"]
pub struct OwnedExecution {
    scope: Scope,
    // Declared after the scope, so that the manager outlives it also while this is dropped.
    manager: Arc<VramManager>,
}

impl Execution<'_> {
    pub(crate) fn begin(inner: &Arc<Inner>, shard: &SealedShard, options: &ExecuteOptions) -> Result<Self, VramError> {
        Ok(Self { scope: Scope::begin(inner, shard, options)?, manager: PhantomData })
    }

    pub(crate) fn begin_all(
        inner: &Arc<Inner>,
        shards: &[&SealedShard],
        options: &ExecuteOptions,
    ) -> Result<Vec<Self>, VramError> {
        let scopes = Scope::begin_all(inner, shards, options)?;
        Ok(scopes.into_iter().map(|scope| Self { scope, manager: PhantomData }).collect())
    }
}

impl OwnedExecution {
    pub(crate) fn begin(
        manager: Arc<VramManager>,
        inner: &Arc<Inner>,
        shard: &SealedShard,
        options: &ExecuteOptions,
    ) -> Result<Self, VramError> {
        Ok(Self { scope: Scope::begin(inner, shard, options)?, manager })
    }

    /// The manager that it keeps alive.
    #[must_use]
    pub const fn manager(&self) -> &Arc<VramManager> {
        &self.manager
    }
}

macro_rules! guard {
    ($guard:ty) => {
        impl $guard {
            /// The verified bytes. O(1).
            #[must_use]
            pub const fn verified(&self) -> Verified<'_> {
                Verified { scope: &self.scope }
            }

            /// Bytes of the image.
            #[must_use]
            pub const fn byte_len(&self) -> u64 {
                self.scope.report.bytes
            }

            /// What the check found.
            #[must_use]
            pub const fn verification(&self) -> &VerifyReport {
                &self.scope.report
            }

            /// The tensors of the image, or one region for all of it. O(tensors).
            #[must_use]
            pub fn regions(&self) -> Vec<VerifiedRegion<'_>> {
                self.verified().regions()
            }

            /// Copies bytes of the image out of VRAM; see [`Verified::read_at`].
            ///
            /// # Errors
            /// As there.
            pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), VramError> {
                self.verified().read_at(offset, out)
            }

            /// Closes this execute and opens the next with one check: the result counts, and the shard is verified for what comes. For
            /// chains, such as a loop of tokens: n steps that end with `renew` and then a plain [`finish`](Self::finish) cost n + 1 checks.
            /// The check begins after the engine's work has ended, and ends before this returns. Also while the manager drains. Blocks.
            ///
            /// ```
            /// # use vram_residency::{ExecuteOptions, SealedShard, VramError, VramManager};
            /// fn tokens(manager: &VramManager, shard: &SealedShard, steps: u64) -> Result<Vec<u8>, VramError> {
            ///     let (mut out, mut execution) = (Vec::new(), manager.begin(shard, ExecuteOptions::default())?);
            ///     for step in 0..steps {
            ///         let mut token = [0];
            ///         execution.read_at(step, &mut token)?; // the engine's forward pass
            ///         execution = execution.renew()?;
            ///         out.push(token[0]); // only now it may leave
            ///     }
            ///     execution.finish()?;
            ///     Ok(out)
            /// }
            /// ```
            ///
            /// # Errors
            /// As [`finish`](Self::finish), `SEAL_VERIFICATION_FAILED` also when the seal is older than its
            /// [`max_age`](crate::ShardSpec::max_age), and `AUDIT_UNAVAILABLE`: discard the result, and what the work wrote since the last
            /// good check (a KV cache, scratch). The chain is over.
            pub fn renew(self) -> Result<Self, VramError> {
                let Self { scope, manager } = self;
                Ok(Self { scope: scope.renew()?, manager })
            }

            /// [`renew`](Self::renew) for executions that belong together, in order: one check of each shard, in one batch a manager; all
            /// results count, or none. Blocks.
            ///
            /// # Errors
            /// As there, of the first that fails: discard every result. All chains are over.
            pub fn renew_all(executions: Vec<Self>) -> Result<Vec<Self>, VramError> {
                let (scopes, managers): (Vec<_>, Vec<_>) =
                    executions.into_iter().map(|Self { scope, manager }| (scope, manager)).unzip();
                let scopes = Scope::renew_all(scopes)?;
                Ok(scopes.into_iter().zip(managers).map(|(scope, manager)| Self { scope, manager }).collect())
            }

            /// Waits for the engine's work, verifies once more if [`verify_after`](ExecuteOptions::verify_after) asks for it,
            /// ends the execution, and says whether its result counts. Blocks.
            ///
            /// # Errors
            /// `MANAGER_STOPPED` when the manager stopped meanwhile, `SEAL_VERIFICATION_FAILED` when the shard was found changed,
            /// `CUDA_ERROR`, `DEVICE_UNTRUSTED`: discard the result.
            pub fn finish(self) -> Result<VerifyReport, VramError> {
                let Self { scope, manager: _manager } = self; // it lives until the scope has ended
                scope.finish()
            }

            /// Closes executions that belong together: a batch, or the parts of a set on any managers. Waits for the work of all,
            /// then verifies where that was asked for, in one batch a manager; all results count, or none. Blocks.
            ///
            /// # Errors
            /// As [`finish`](Self::finish), of the first that fails: discard every result.
            pub fn finish_all(executions: Vec<Self>) -> Result<Vec<VerifyReport>, VramError> {
                // The managers live until their scopes have ended.
                let (scopes, _managers): (Vec<_>, Vec<_>) =
                    executions.into_iter().map(|Self { scope, manager }| (scope, manager)).unzip();
                Scope::finish_all(scopes)
            }
        }
    };
}

guard!(Execution<'_>);
guard!(OwnedExecution);

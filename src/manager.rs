//! The only door: [`VramManager`].
//!
//! Owns the public calls and their order. Everything behind it — ledger, slot table, device, trail — is reached through here.

use std::sync::Arc;
use std::time::Instant;

use crate::audit::{EventKind, Operation};
use crate::digest::{TreeDigest, TreeParams};
use crate::error::{ManagerState, RefusalReason, VramError};
use crate::manager::adopt::{AdoptError, Adopted};
use crate::manager::difference::Difference;
use crate::manager::execution::{Execution, OwnedExecution, Verified};
use crate::manager::inner::Inner;
use crate::manager::scratch::{Purpose, Scratch};
use crate::manager::verify::VerifyReport;
use crate::seal::SealedShard;
use crate::source::ShardSource;
use crate::spec::{Check, ExecuteOptions, ShardSpec};
use crate::types::{DeviceKind, DeviceUuid, Digest, MemoryInfo, RawRegion};

pub(crate) mod adopt;
mod builder;
mod cross_check;
pub(crate) mod difference;
pub(crate) mod execution;
pub(crate) mod inner;
mod keyed;
#[cfg(feature = "mock")]
mod mock;
mod patrol;
mod posture;
mod reseal;
pub(crate) mod scratch;
mod seal;
pub(crate) mod set;
mod shutdown;
pub(crate) mod verify;

pub use builder::{DeviceSelector, VramManagerBuilder};
#[cfg(feature = "mock")]
pub use mock::{MockControls, MockStream};
pub use posture::Posture;
pub use shutdown::ShutdownReport;

/// Keeps the shards of one worker on one device.
///
/// All methods take `&self` and may be called from any thread, at the same time. Those that touch the device block until it has
/// answered; async callers use their runtime's blocking pool. Checks of one shard take turns or share a result, checks of several
/// shards run beside each other, and uploads go one at a time. A source must not call the manager that reads it, and a sink had
/// better not. Dropping the manager wipes everything; audit sinks hold up none of it, and have five seconds after it.
///
/// ```
/// use vram_residency::{DeviceSelector, MockConfig, Policy, ShardId, ShardSource, ShardSpec, VramManager, WorkerId, WorkerSecret};
///
/// # fn main() -> Result<(), vram_residency::VramError> {
/// let manager = VramManager::builder(WorkerId::new("worker-7")?, WorkerSecret::random()?)
///     .device(DeviceSelector::Mock(MockConfig::new())) // it must be named: nothing picks it by itself
///     .policy(Policy::development())
///     .build()?;
/// let shard = manager.seal_model(ShardSpec::new(ShardId::new("model-a")?), ShardSource::bytes(&[1, 2, 3, 4]))?;
/// let sum = manager.execute(&shard, |verified| {
///     let mut bytes = [0; 4];
///     verified.read_at(0, &mut bytes).map(|()| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>())
/// })??;
/// assert_eq!(sum, 10);
/// manager.release(&shard)?;
/// assert_eq!(manager.used_vram(), 0);
/// # Ok(())
/// # }
/// ```
pub struct VramManager {
    inner: Arc<Inner>,
    patrol: Option<patrol::Patrol>,
    #[cfg(feature = "mock")]
    mock: Option<crate::driver::mock::MockDevice>,
}

shown!(VramManager, this: inner = this.inner);

impl VramManager {
    /// Begins a manager for `worker`; its keys are derived from `secret`. The manager keeps that until it is dropped: each enrolment of a
    /// keyed check has a key of its own.
    pub fn builder(worker: crate::id::WorkerId, secret: crate::keys::WorkerSecret) -> VramManagerBuilder {
        VramManagerBuilder::new(worker, secret)
    }

    /// Loads a shard into device memory and seals it there: reserve, allocate, upload, digest in VRAM, compare, map read-only,
    /// digest again, sign. Blocks; O(bytes), with two digests on the device where the memory could be mapped read-only.
    ///
    /// # Errors
    /// `INVALID_PARAMS`, `POLICY_VIOLATION`, `VRAM_OOM`, `MODEL_LOAD_FAILED`, `DIGEST_MISMATCH` (not the expected model, or not
    /// what VRAM holds), `AUDIT_UNAVAILABLE`, `CUDA_ERROR`, `DEVICE_UNTRUSTED`, `MANAGER_STOPPED`. Whatever was allocated is wiped and given back.
    pub fn seal_model(&self, spec: ShardSpec, source: ShardSource<'_>) -> Result<SealedShard, VramError> {
        self.inner.seal(&spec, source)
    }

    /// Checks the seal and digests the shard in VRAM, as an execute would, whatever the seal's age. Also answers after the manager stopped. Blocks;
    /// O(bytes) on the device.
    ///
    /// # Errors
    /// `SEAL_VERIFICATION_FAILED` (refused or changed), `STALE_HANDLE`, `CUDA_ERROR`, `DEVICE_UNTRUSTED` (not
    /// proven to have looked). A change acts like a failed execute.
    pub fn verify_sealed(&self, shard: &SealedShard) -> Result<VerifyReport, VramError> {
        self.inner.reap();
        let verified = self.inner.admit(shard).and_then(|record| self.inner.check(&record, Check::Digest, None));
        verified.inspect_err(|error| self.inner.report_failed(Operation::Verify, Some(shard.id()), error))
    }

    /// Digests the shard in VRAM and gives no verdict. Blocks; O(bytes) on the device.
    ///
    /// # Errors
    /// `SEAL_VERIFICATION_FAILED` when the seal is refused, `STALE_HANDLE`, `CUDA_ERROR`, `DEVICE_UNTRUSTED`.
    pub fn compute_vram_digest(&self, shard: &SealedShard) -> Result<Digest, VramError> {
        let started = Instant::now();
        let digested = self.inner.admit(shard).and_then(|record| self.inner.digest_resident(&record));
        match digested {
            Ok(TreeDigest { digest, image_bytes: bytes, .. }) => {
                let (shard, duration) = (shard.id().clone(), started.elapsed());
                self.inner.trail.emit(EventKind::DigestComputed { shard, digest, bytes, duration });
                Ok(digest)
            }
            Err(error) => {
                self.inner.report_failed(Operation::ComputeDigest, Some(shard.id()), &error);
                Err(error)
            }
        }
    }

    /// Says which bits of the shard are not those that were sealed, by the `source` that it was sealed from: in the same layout, or one
    /// with the same image. For evidence: it answers in every state, and of a shard that is quarantined. A change that no check had
    /// found yet acts like a failed execute. Blocks; O(bytes) on the device, and, where something has changed, of the source, all of
    /// which is read and hashed. The shard is pinned meanwhile; a MiB of each is in host memory at a time, and wiped.
    ///
    /// # Errors
    /// `MODEL_LOAD_FAILED` and `DIGEST_MISMATCH` when the source is not what was sealed: nothing is said of the shard then;
    /// `INVALID_PARAMS` when it is empty; `SEAL_VERIFICATION_FAILED` when the seal is refused, `STALE_HANDLE`, `CUDA_ERROR`,
    /// `DEVICE_UNTRUSTED` (also when a copy of what has changed is not what the kernels digested).
    pub fn difference(&self, shard: &SealedShard, source: ShardSource<'_>) -> Result<Difference, VramError> {
        self.inner.difference(shard, source)
    }

    /// Takes bytes that claim to be a seal of this manager: they decode, and the tag is its own. Whether the shard lives, and
    /// unchanged, [`verify_sealed`](Self::verify_sealed) says. Other than [`SealedShard::from_bytes`] it leaves a refusal in
    /// the trail. O(length), reads no VRAM.
    ///
    /// # Errors
    /// `SEAL_VERIFICATION_FAILED` (refused).
    pub fn open_seal(&self, bytes: &[u8]) -> Result<SealedShard, VramError> {
        let shard = SealedShard::from_bytes(bytes).map_err(|_| self.inner.refuse(None, RefusalReason::Malformed))?;
        self.inner.authenticate(&shard)?;
        Ok(shard)
    }

    /// Verifies the shard and opens the scope in which its bytes may be used. Blocks until the check is done.
    ///
    /// # Errors
    /// As [`verify_sealed`](Self::verify_sealed), also of a seal that is older than its [`max_age`](ShardSpec::max_age), and
    /// `MANAGER_STOPPED`, `AUDIT_UNAVAILABLE`, `POLICY_VIOLATION` (less is asked for than the policy demands).
    pub fn begin(&self, shard: &SealedShard, options: ExecuteOptions) -> Result<Execution<'_>, VramError> {
        let begun = Execution::begin(&self.inner, shard, &options);
        begun.inspect_err(|error| self.inner.report_not_begun(&[shard], error))
    }

    /// As [`begin`](Self::begin), with a guard that keeps the manager alive: for tasks that outlive a borrow.
    ///
    /// # Errors
    /// As there.
    pub fn begin_owned(
        self: &Arc<Self>,
        shard: &SealedShard,
        options: ExecuteOptions,
    ) -> Result<OwnedExecution, VramError> {
        let begun = OwnedExecution::begin(Arc::clone(self), &self.inner, shard, &options);
        begun.inspect_err(|error| self.inner.report_not_begun(&[shard], error))
    }

    /// Verifies several shards of this manager in one batch and opens a scope for each, in order; or for none.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), of the first shard that fails; `INVALID_PARAMS` when one is given twice.
    pub fn begin_all(&self, shards: &[&SealedShard], options: ExecuteOptions) -> Result<Vec<Execution<'_>>, VramError> {
        let begun = Execution::begin_all(&self.inner, shards, &options);
        begun.inspect_err(|error| self.inner.report_not_begun(shards, error))
    }

    /// Seals memory that an engine allocated, where it lies: `regions` in order, each but the last padded with virtual zeros to a
    /// block, so that the digest is that of the `tensors` layout of the file that they were loaded from. `owner` is what keeps the
    /// memory allocated; it is held until release. Blocks; O(bytes) on the device.
    ///
    /// When the shard has been released and its [`Adopted`] is gone, `owner` is dropped, by whoever let go of it last. Its drop may call
    /// the manager: no lock is held then, no call waits for it but the one that ends, and at a shutdown or the manager's end all
    /// shards are wiped before. An owner that keeps the manager alive does so until its shard is released.
    ///
    /// The promise is weaker than for memory of our own: its engine may write to it, which the next check finds, and it is wiped
    /// on release only with [`ShardSpec::wipe_adopted`].
    ///
    /// # Safety
    /// Every region is memory of this manager's device (on the mock: initialised host memory) that stays allocated as long as
    /// `owner` lives and whose address does not change when `owner` is moved. Until it has been released, on every thread:
    ///
    /// - Nobody writes to it while a call that concerns the shard may read it: this one, checks, reads, executions from `begin` to
    ///   `finish`; at any time on a manager with a [`patrol`](VramManagerBuilder::patrol); on the mock also a `peek` of its controls.
    /// - A region that is [`writable`](RawRegion::writable), and with `wipe_adopted` each one, is valid for writes. While it may be
    ///   written nobody else reads or writes it, and no reference to it is in use but to cells (atomics, `UnsafeCell`). It may be
    ///   written by its wipe, during a release, a shutdown or the drop of the manager; on the mock also by the test controls
    ///   while one of them is called, and by what was enqueued on their streams, until that has run. Other regions are never
    ///   written.
    ///
    /// That promise covers safe code too: who gets hold of the owner, through [`Adopted::owner`] or otherwise, could break it by a
    /// store to a cell or by a plain read, and whoever has the manager by a safe call. Let neither reach code that might.
    ///
    /// # Errors
    /// The owner, untouched, with `INVALID_PARAMS` (null, empty, misaligned, overlapping or foreign regions),
    /// `POLICY_VIOLATION`, `VRAM_OOM`, `DIGEST_MISMATCH` (not the expected model), and as
    /// [`seal_model`](Self::seal_model).
    #[allow(unsafe_code, reason = "what an engine's addresses are worth only the engine knows")]
    pub unsafe fn adopt<M: Send + Sync + 'static>(
        &self,
        spec: ShardSpec,
        owner: M,
        regions: &[RawRegion],
    ) -> Result<Adopted<M>, AdoptError<M>> {
        // SAFETY: the caller vouches for the regions in the words above.
        unsafe { self.inner.adopt(&spec, owner, regions) }
    }

    /// Allocates unsealed working memory, zeroed: counted in [`used_vram`](Self::used_vram), wiped when dropped. Blocks.
    ///
    /// # Errors
    /// `INVALID_PARAMS`, `VRAM_OOM`, `POLICY_VIOLATION`, `CUDA_ERROR`, `MANAGER_STOPPED`.
    pub fn allocate_scratch(&self, purpose: Purpose, bytes: u64) -> Result<Scratch, VramError> {
        Scratch::allocate(&self.inner, purpose, bytes)
    }

    /// Verifies a shard in full and seals it anew, under a new generation and with a fresh age; the old seal is stale then.
    /// Blocks; O(bytes) on the device.
    ///
    /// # Errors
    /// As [`verify_sealed`](Self::verify_sealed), and `SHARD_BUSY`, `MANAGER_STOPPED`, `AUDIT_UNAVAILABLE`.
    pub fn reseal(&self, shard: &SealedShard) -> Result<SealedShard, VramError> {
        self.inner.reseal(shard)
    }

    /// Whether the seal is one that this manager honours now, of a shard that is in service. Reads no VRAM.
    pub(crate) fn admit_to_set(&self, shard: &SealedShard) -> Result<(), VramError> {
        // That it failed a check says more than that its seal is old.
        self.inner.admit(shard)?.intact()?;
        self.inner.admit_fresh(shard).map(drop)
    }

    pub(crate) fn permit(&self) -> Result<(), VramError> {
        self.inner.permit()
    }

    /// Verifies the shard, runs `work` over its bytes, and gives its result if it counts.
    ///
    /// Verified bytes do not leave the closure:
    /// ```compile_fail
    /// # fn f(manager: &vram_residency::VramManager, shard: &vram_residency::SealedShard) {
    /// let kept = manager.execute(shard, |verified| *verified).unwrap();
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`begin`](Self::begin); `work` did not run then, or (`MANAGER_STOPPED`) its result does not count.
    pub fn execute<T>(
        &self,
        shard: &SealedShard,
        work: impl for<'v> FnOnce(&Verified<'v>) -> T,
    ) -> Result<T, VramError> {
        self.try_execute(shard, |verified| Ok(work(verified)))
    }

    /// As [`execute`](Self::execute), for work that can fail.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute), and those of `work`.
    pub fn try_execute<T, E: From<VramError>>(
        &self,
        shard: &SealedShard,
        work: impl for<'v> FnOnce(&Verified<'v>) -> Result<T, E>,
    ) -> Result<T, E> {
        let execution = self.begin(shard, ExecuteOptions::default())?;
        let worked = work(&execution.verified());
        execution.finish()?;
        worked
    }

    getters! {
        /// All of the device's memory, in bytes. O(1), no driver call.
        fn total_vram(&self) -> u64 { self.inner.ledger.total() }
        /// Bytes that this manager holds, in allocator granularity, quarantined ones included. O(1), no driver call.
        fn used_vram(&self) -> u64 { self.inner.ledger.used() }
        /// Bytes that further shards may take: the device less headroom less what is used. O(1), no driver call.
        fn available_vram(&self) -> u64 { self.inner.ledger.available() }
        /// Bytes of engines' memory that are under seal. They are not part of [`used_vram`](Self::used_vram). O(1).
        fn adopted_vram(&self) -> u64 { self.inner.ledger.adopted() }
        /// Bytes of used memory that are kept out of service: shards that failed a check, and memory not proven wiped. O(1).
        fn quarantined_vram(&self) -> u64 { self.inner.ledger.quarantined() }
    }

    /// The driver's view of the device's memory, other processes included.
    ///
    /// # Errors
    /// `CUDA_ERROR`.
    pub fn memory_info(&self) -> Result<MemoryInfo, VramError> {
        let asked = self.inner.device.memory_info().map_err(VramError::from);
        asked.inspect_err(|error| self.inner.note_device_failure(error))
    }

    getters! {
        /// What the manager permits now. O(1).
        fn state(&self) -> ManagerState { self.inner.state.get() }
        /// CUDA or mock. O(1).
        fn device_kind(&self) -> DeviceKind { self.inner.device.info().kind }
        /// The device's name. O(1).
        fn device_name(&self) -> &str { &self.inner.device.info().name }
        /// The device's identity. O(1).
        fn device_uuid(&self) -> DeviceUuid { self.inner.device.info().uuid }
        /// The driver's ordinal of the device. O(1).
        fn device_ordinal(&self) -> u32 { self.inner.device.info().ordinal }
        /// Block size and salt of every digest that this manager takes. O(1).
        fn tree_params(&self) -> &TreeParams { self.inner.device.params() }
    }
}

#[cfg(test)]
#[cfg(feature = "mock")]
#[allow(clippy::as_conversions, reason = "test data")]
mod tests;

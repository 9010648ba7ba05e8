//! Sealing: the steps from a source to a live shard, each of which undoes itself.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use crate::audit::{EventKind, VerificationFailure};
use crate::capacity::Reservation;
use crate::digest::TreeDigest;
use crate::digest::layout::Layout;
use crate::error::VramError;
use crate::id::ShardId;
use crate::manager::inner::{Inner, Retiring, WipeReport};
use crate::memory::{CheckSizes, Owners, Protection, ShardMemory, Unallocated, UploadFailed};
use crate::metrics::Outcome;
use crate::panics::aside;
use crate::seal::{SealMessage, SealedShard};
use crate::shards::{Claim, Patrolled, Record, Resident};
use crate::source::{Measure, Opened, ShardSource};
use crate::spec::{Mismatch, ShardSpec, Wanted};
use crate::sync::Mutex;
use crate::types::{DigestKind, DriverError, DriverErrorKind};

/// Memory on its way to becoming a shard. Dropped before that, also by a panic, it is wiped and given back; an engine's memory
/// goes back to the engine as it is.
pub(crate) struct Unsealed<'a> {
    inner: &'a Inner,
    id: &'a ShardId,
    memory: Option<(ShardMemory, Reservation)>,
}

const GIVEN_AWAY: VramError = VramError::Internal { what: "sealing memory was given away" };

impl Unsealed<'_> {
    pub(crate) fn memory(&mut self) -> Result<&mut ShardMemory, VramError> {
        self.memory.as_mut().map(|(memory, _)| memory).ok_or(GIVEN_AWAY)
    }

    pub(crate) fn count_adopted(&mut self, bytes: u64) {
        if let Some((memory, reservation)) = self.memory.take() {
            self.memory = Some((memory, reservation.with_adopted(bytes)));
        }
    }

    fn retire(&mut self) -> Option<Result<WipeReport, VramError>> {
        let (mut memory, mut reservation) = self.memory.take()?;
        let mut owners = Owners::default();
        memory.disown(&mut owners);
        reservation.let_adopted_go();
        Some(self.inner.retire(self.id, Retiring::Shard(Box::new(memory)), reservation, &mut owners))
    }
}

impl Drop for Unsealed<'_> {
    fn drop(&mut self) {
        // A failed wipe is quarantined and in the trail; the error that led here is the caller's answer.
        let _reported = self.retire();
    }
}

impl Inner {
    pub(crate) fn seal(&self, spec: &ShardSpec, source: ShardSource<'_>) -> Result<SealedShard, VramError> {
        let _underway = self.shards.underway();
        self.reap();
        // The reader is foreign code. Its panic goes on to the caller, behind the wipe and the event.
        match catch_unwind(AssertUnwindSafe(|| self.try_seal(spec, source))) {
            Ok(sealed) => self.report_sealed(&spec.id, sealed),
            Err(panic) => {
                let error = VramError::ModelLoad { problem: "the reader panicked".to_owned(), source: None };
                let _reported = self.report_sealed::<()>(&spec.id, Err(error));
                resume_unwind(panic)
            }
        }
    }

    /// What sealing came to, for the metrics, the trail and the manager's own state.
    pub(crate) fn report_sealed<T>(&self, id: &ShardId, sealed: Result<T, VramError>) -> Result<T, VramError> {
        self.metrics.sealed(match &sealed {
            Ok(_) => Outcome::Ok,
            Err(VramError::DigestMismatch { .. }) => Outcome::Mismatch,
            Err(_) => Outcome::Error,
        });
        self.report_memory();
        sealed.inspect_err(|error| {
            self.report_not_sealed(id, error);
            self.note_device_failure(error);
        })
    }

    fn try_seal(&self, spec: &ShardSpec, source: ShardSource<'_>) -> Result<SealedShard, VramError> {
        let started = Instant::now();
        self.permit()?;
        self.policy.admit_origin(spec.origin()).inspect_err(|error| self.report_violation(error))?;
        spec.set_part()?;
        let mut source = source.open_for_sealing(self.device.params())?;
        let (params, threads) = (self.device.params(), self.device.staging_threads());
        let measure = Measure::new(&mut source, params, threads, spec.expected.as_ref(), false)
            .map_err(|mismatch| self.not_expected(spec, mismatch))?;
        let claim = self.shards.claim(&spec.id, Vec::new())?;
        let image_bytes = source.image_bytes();
        let (image_room, check_room) = self.rooms(image_bytes, 1)?;
        let mut held = self.allocate(&spec.id, image_room.checked_add(check_room), || {
            ShardMemory::allocate(&self.device, image_bytes, image_room, check_room)
        })?;
        let sealed = self.load(held.memory()?, &mut source, measure, spec)?;
        let layout = source.layout().clone();
        source.finish()?;
        self.publish(claim, held, spec, sealed, layout, started)
    }

    /// Signs what VRAM holds, announces it, and makes it live.
    pub(crate) fn publish(
        &self,
        claim: Claim,
        mut held: Unsealed<'_>,
        spec: &ShardSpec,
        sealed: TreeDigest,
        layout: Layout,
        started: Instant,
    ) -> Result<SealedShard, VramError> {
        let (params, identity) = (self.device.params(), &self.identity);
        let memory = held.memory()?;
        let message = SealMessage {
            device_kind: identity.kind,
            device_uuid: identity.uuid,
            ordinal: identity.ordinal,
            epoch: identity.epoch,
            slot: claim.slot(),
            generation: claim.generation(),
            worker: identity.worker.clone(),
            shard: spec.id.clone(),
            model_ref: spec.model_ref.clone(),
            set: spec.set_part()?,
            layout_digest: layout.digest(),
            byte_len: layout.byte_len(),
            block_size: params.block_size(),
            salt: params.salt().to_vec(),
            digest: sealed.digest,
            origin: spec.origin(),
            adopted: memory.is_adopted(),
            sealed_at: self.clock.unix_nanos(),
        };
        let (image, write_protected) = (memory.image().clone(), memory.is_write_protected());
        let shard = SealedShard::sign(&self.key, message)?;
        self.permit()?; // another shard may have failed meanwhile
        self.announce(&shard, write_protected, started)?;
        let (memory, reservation) = held.memory.take().ok_or(GIVEN_AWAY)?;
        let published = claim.publish(Record {
            id: spec.id.clone(),
            message: shard.message_bytes().to_vec(),
            sealed,
            layout,
            image,
            room: reservation.bytes(),
            resident: Mutex::new(Some(Resident {
                memory,
                reservation,
                good_since: 0,
                full_at: started,
                cursor: 0,
                patrol: Patrolled::at(started),
                enrolled: None,
            })),
            weaker: 0.into(),
            ticks: 0.into(),
            sealed_at: Instant::now(),
            max_age: spec.max_age,
            failure: std::sync::OnceLock::new(),
        });
        match published {
            Ok(()) => Ok(shard),
            Err(record) => {
                // Refused after all: an engine's memory goes back as it is.
                let mut owners = Owners::default();
                if let Some(resident) = record.lock().as_mut() {
                    resident.memory.disown(&mut owners);
                    resident.reservation.let_adopted_go();
                }
                self.retire_record(&record, &mut owners)?;
                Err(VramError::ManagerStopped { state: self.state.get() })
            }
        }
    }

    /// Puts a seal into the trail before it is given out.
    pub(crate) fn announce(
        &self,
        shard: &SealedShard,
        write_protected: bool,
        started: Instant,
    ) -> Result<(), VramError> {
        self.require(EventKind::VramSealed {
            shard: shard.id().clone(),
            digest: shard.digest(),
            bytes: shard.byte_len(),
            origin: shard.origin(),
            write_protected,
            duration: started.elapsed(),
        })
    }

    /// What an image in so many regions and its checks take, in allocator units.
    pub(crate) fn rooms(&self, image_bytes: u64, regions: usize) -> Result<(u64, u64), VramError> {
        let check = CheckSizes::new(self.device.params(), image_bytes, regions).and_then(CheckSizes::bytes);
        let image = self.ledger.rounded(image_bytes);
        image.zip(check.and_then(|bytes| self.ledger.rounded(bytes))).ok_or_else(|| VramError::InvalidParams {
            field: "shard length",
            problem: format!("of {image_bytes} bytes is more than any device can hold; split the model"),
        })
    }

    /// Reserves `needed` bytes, asks the driver, and lets `take` allocate them.
    pub(crate) fn allocate<'a>(
        &'a self,
        id: &'a ShardId,
        needed: Option<u64>,
        take: impl FnOnce() -> Result<ShardMemory, Unallocated>,
    ) -> Result<Unsealed<'a>, VramError> {
        let needed = needed.unwrap_or(u64::MAX);
        match self.reserve(needed).and_then(|reservation| match take() {
            Ok(memory) => Ok((memory, reservation)),
            Err(unallocated) => Err(self.unallocated(id, unallocated, reservation)),
        }) {
            Ok(memory) => {
                self.trail.emit(EventKind::VramAllocated { shard: id.clone(), bytes: memory.1.bytes() });
                Ok(Unsealed { inner: self, id, memory: Some(memory) })
            }
            Err(error) => {
                self.report_unallocated(id, needed, &error);
                Err(error)
            }
        }
    }

    /// Reserves bytes that the driver, too, says are there.
    pub(crate) fn reserve(&self, needed: u64) -> Result<Reservation, VramError> {
        let reservation = self.ledger.reserve(needed)?;
        // Others use the device too: what they took since is not ours to give.
        let free = self.device.memory_info()?.free.saturating_sub(self.ledger.headroom());
        if free < needed { Err(VramError::OutOfMemory { needed, available: free }) } else { Ok(reservation) }
    }

    /// What a failed allocation is to the caller: the driver's late word that there is no room becomes ours, and what the
    /// driver did not take back stays counted.
    pub(crate) fn unallocated(&self, id: &ShardId, failed: Unallocated, mut reservation: Reservation) -> VramError {
        let needed = reservation.bytes();
        if failed.stuck > 0 {
            reservation.shrink_to(failed.stuck);
            let _reported = self.retire(id, Retiring::Stuck, reservation, &mut Owners::default());
        }
        match failed.error {
            VramError::Device(DriverError { kind: DriverErrorKind::OutOfMemory, .. }) => {
                let free = self.device.memory_info().map_or(0, |info| info.free);
                let available = free.saturating_sub(self.ledger.headroom());
                VramError::OutOfMemory { needed, available }
            }
            error => error,
        }
    }

    pub(crate) fn report_unallocated(&self, id: &ShardId, needed: u64, error: &VramError) {
        self.metrics.allocation_failed(error.code().as_str());
        let available = match error {
            VramError::OutOfMemory { available, .. } => *available,
            _ => self.ledger.available(),
        };
        let (shard, code) = (id.clone(), error.code());
        self.trail.refused(EventKind::VramAllocationFailed { shard, bytes: needed, available, code, suppressed: 0 });
        self.report_violation(error);
    }

    /// Uploads, holds what was read against what is expected of it, protects, digests in VRAM, and compares that with the image that was
    /// read or vouched for. Blocks; O(bytes), of which the device reads each once.
    fn load(
        &self,
        memory: &mut ShardMemory,
        source: &mut Opened<'_>,
        mut measure: Measure,
        spec: &ShardSpec,
    ) -> Result<TreeDigest, VramError> {
        self.device.upload(memory, source, &mut measure).map_err(|failed| match failed {
            UploadFailed::Source(error) => error,
            UploadFailed::Device(failure) => failure.into(),
        })?;
        let image = measure.finish().map_err(|mismatch| self.not_expected(spec, mismatch))?;
        let image = image.ok_or(VramError::Internal { what: "the source was not measured" })?;
        // Read-only first, where the driver can: what is digested and signed are the bytes that nobody can write any more through this
        // address.
        if memory.write_protect()? != Protection::ReadOnly {
            aside!(|| tracing::warn!(shard = %spec.id, "the driver did not confirm that sealed memory is read-only"));
        }
        self.expect(memory, spec, Some(image))
    }

    /// Digests what VRAM holds, and compares it with what its image is to be, if that is known.
    pub(crate) fn expect(
        &self,
        memory: &mut ShardMemory,
        spec: &ShardSpec,
        image: Option<Wanted>,
    ) -> Result<TreeDigest, VramError> {
        let resident = memory.digest()?;
        image
            .map_or(Ok(()), |image| image.judge(resident.digest))
            .map_err(|mismatch| self.not_expected(spec, mismatch))?;
        Ok(resident)
    }

    pub(crate) fn not_expected(&self, spec: &ShardSpec, mismatch: Mismatch) -> VramError {
        // Nothing of it was ever sealed: whoever gives the wrong model again and again must not fill the trail.
        self.trail.refused(EventKind::SealVerificationFailed {
            weaker_checks: 0,
            shard: spec.id.clone(),
            reason: match mismatch.wanted.of {
                DigestKind::FsVerity | DigestKind::Image => VerificationFailure::NotExpected,
                DigestKind::Sha256 => VerificationFailure::NotExpectedSha256,
                DigestKind::Layout => VerificationFailure::NotExpectedLayout,
            },
            expected: mismatch.wanted.digest,
            actual: Some(mismatch.found),
            first_bad: None,
            suppressed: 0,
        });
        mismatch.of_shard(spec.id.clone())
    }

    /// Puts a policy violation into the trail; other errors pass.
    pub(crate) fn report_violation(&self, error: &VramError) {
        if let VramError::PolicyViolation { rule, problem } = error {
            self.trail.refused(EventKind::PolicyViolation { rule, problem: problem.clone(), suppressed: 0 });
        }
    }
}

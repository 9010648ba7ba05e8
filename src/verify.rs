//! The check: seal, record, VRAM, in this order.
//!
//! Owns [`Verification`], [`Coverage`] and the order of the check. A seal proves that this manager made the handle; the record
//! says what must be resident; VRAM is digested and compared with the record, never with what was presented. Nothing here is
//! cached: every call digests again.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::audit::{EventKind, VerificationFailure};
use crate::core::Core;
use crate::device::DigestFailure;
use crate::digest::{Digest, TreeDigest, first_difference};
use crate::error::{BadRange, RefusalReason, VramError};
use crate::names::ShardId;
use crate::residents::{Absent, Pinned, Record};
use crate::seal::SealedShard;
use crate::telemetry::Outcome;

/// How much of an image one check reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Coverage {
    /// All of it.
    #[default]
    Full,
}

impl Coverage {
    /// The word used in events: `full`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
        }
    }
}

/// What a successful check found. Plain data: holding one permits nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The shard.
    pub shard: ShardId,
    /// The digest that VRAM had, equal to the sealed one.
    pub digest: Digest,
    /// Bytes of the image.
    pub bytes: u64,
    /// How much of it was read.
    pub coverage: Coverage,
    /// How long the check took, from the seal to the verdict.
    pub duration: Duration,
}

impl Core {
    /// Checks seal and record, and pins the shard.
    ///
    /// # Errors
    /// `SealRefused` and `StaleHandle` (the presenter's fault; the manager goes on), or `IntegrityFailure` when an authentic
    /// seal disagrees with the live record of its generation.
    pub(crate) fn admit(&self, sealed: &SealedShard) -> Result<Pinned, VramError> {
        self.authenticate(sealed)?;
        let message = sealed.message();
        let record =
            self.residents.pin(message.slot, message.generation).map_err(|absent| self.absent(sealed, absent))?;
        self.match_record(sealed, &record)?;
        Ok(record)
    }

    /// Whether this manager made the seal.
    pub(crate) fn authenticate(&self, sealed: &SealedShard) -> Result<(), VramError> {
        if sealed.tag_verifies(&self.key) { Ok(()) } else { Err(self.refuse(sealed, sealed.claim(&self.identity))) }
    }

    /// Whether an authentic seal says, byte for byte, what the live record of its generation says.
    pub(crate) fn match_record(&self, sealed: &SealedShard, record: &Record) -> Result<(), VramError> {
        if record.message.as_slice() == sealed.message_bytes() {
            Ok(())
        } else {
            Err(self.fail_integrity(record, VerificationFailure::RecordMismatch, None, None))
        }
    }

    /// Turns an authentic seal away whose shard is not there.
    pub(crate) fn absent(&self, sealed: &SealedShard, absent: Absent) -> VramError {
        match absent {
            Absent::Busy => VramError::ShardBusy { shard: sealed.id().clone() },
            Absent::Unknown => self.refuse(sealed, RefusalReason::UnknownSlot),
            Absent::Stale => {
                self.refuse(sealed, RefusalReason::Stale);
                VramError::StaleHandle { shard: sealed.id().clone() }
            }
        }
    }

    fn refuse(&self, sealed: &SealedShard, reason: RefusalReason) -> VramError {
        self.trail.refused(Some(sealed.id().clone()), reason);
        self.telemetry.verified(Outcome::Refused, Duration::ZERO, 0);
        VramError::SealRefused { reason }
    }

    /// The whole check. On success the shard is pinned and its bytes were the sealed ones while the check ran.
    pub(crate) fn check(&self, sealed: &SealedShard, coverage: Coverage) -> Result<(Pinned, Verification), VramError> {
        let started = Instant::now();
        let record = self.admit(sealed)?;
        if let Some(first_bad) = record.failure.get() {
            self.telemetry.verified(Outcome::Mismatch, started.elapsed(), 0);
            return Err(self.fail_integrity(&record, VerificationFailure::Quarantined, None, first_bad.clone()));
        }
        let found = self.digest_resident(&record)?;
        let same = found.digest == record.sealed.digest && found.table == record.sealed.table;
        if !same {
            self.telemetry.verified(Outcome::Mismatch, started.elapsed(), record.image.bytes);
            let first_bad = self.locate(&record, &found);
            return Err(self.fail_integrity(
                &record,
                VerificationFailure::DigestMismatch,
                Some(found.digest),
                first_bad,
            ));
        }
        let verification = Verification {
            shard: record.id.clone(),
            digest: found.digest,
            bytes: record.image.bytes,
            coverage,
            duration: started.elapsed(),
        };
        self.telemetry.verified(Outcome::Ok, verification.duration, verification.bytes);
        self.trail.emit(EventKind::SealVerified {
            shard: verification.shard.clone(),
            digest: verification.digest,
            bytes: verification.bytes,
            coverage: coverage.as_str().to_owned(),
            duration: verification.duration,
        });
        Ok((record, verification))
    }

    /// Digests a live shard's image in VRAM. A device that cannot show that it did stops the manager.
    pub(crate) fn digest_resident(&self, record: &Record) -> Result<TreeDigest, VramError> {
        let mut held = record.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((memory, _)) = held.as_mut() else {
            return Err(VramError::StaleHandle { shard: record.id.clone() });
        };
        let digested = memory.digest();
        drop(held);
        digested.map_err(|failure: DigestFailure| {
            let error = VramError::from(failure);
            self.telemetry.verified(Outcome::Error, Duration::ZERO, 0);
            self.note_device_failure(&error);
            error
        })
    }

    fn locate(&self, record: &Record, found: &TreeDigest) -> Option<BadRange> {
        let params = self.device.params();
        let (offset, bytes) = first_difference(params, record.image.bytes, &record.sealed.table, &found.table)?;
        let tensor = record.layout.tensor_in(offset, bytes).map(|tensor| tensor.name.clone());
        Some(BadRange { offset, bytes, tensor })
    }
}

//! The check: seal, record, VRAM, in this order.
//!
//! Owns [`Verification`] and the order of the check. A seal proves that this manager made the handle; the record
//! says what must be resident; VRAM is digested and compared with the record, never with what was presented. A call may share
//! the result of a check that began after it, and of no other: nothing else is ever reused.

use std::time::{Duration, Instant};

use crate::audit::{EventKind, VerificationFailure};
use crate::digest::{TreeDigest, first_difference};
use crate::error::{BadRange, RefusalReason, VramError};
use crate::id::ShardId;
use crate::manager::shared::Core;
use crate::memory::{DigestFailure, Event};
use crate::metrics::Outcome;
use crate::seal::SealedShard;
use crate::shards::{Absent, Pinned, Record, Resident};
use crate::spec::Check;
use crate::types::Digest;

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
    /// How it was checked.
    pub check: Check,
    /// How long the caller waited for the check, from the seal to the verdict.
    pub duration: Duration,
}

/// What the check of one pinned shard came to.
enum Checked {
    /// A check that began after the call had found everything as sealed.
    Shared,
    /// This call's own launch.
    Found(Result<TreeDigest, DigestFailure>),
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

    /// As [`admit`](Self::admit), for work: an expired seal is refused.
    pub(crate) fn admit_fresh(&self, sealed: &SealedShard) -> Result<Pinned, VramError> {
        let record = self.admit(sealed)?;
        if record.is_expired() { Err(self.refuse(Some(sealed), RefusalReason::Expired)) } else { Ok(record) }
    }

    /// Whether this manager made the seal.
    pub(crate) fn authenticate(&self, sealed: &SealedShard) -> Result<(), VramError> {
        if sealed.tag_verifies(&self.key) {
            Ok(())
        } else {
            Err(self.refuse(None, sealed.claim(&self.identity))) // what it claims is said nowhere
        }
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
            Absent::Failed => VramError::IntegrityFailure { shard: sealed.id().clone(), first_bad: None },
            Absent::Unknown => self.refuse(Some(sealed), RefusalReason::UnknownSlot),
            Absent::Stale => {
                self.refuse(Some(sealed), RefusalReason::Stale);
                VramError::StaleHandle { shard: sealed.id().clone() }
            }
        }
    }

    /// Turns away what was presented as a seal: `None` where this manager did not make it.
    pub(crate) fn refuse(&self, sealed: Option<&SealedShard>, reason: RefusalReason) -> VramError {
        let shard = sealed.map(|sealed| sealed.id().clone());
        self.trail.refused(EventKind::SealRefused { shard, reason, suppressed: 0 });
        self.telemetry.verified(Outcome::Refused, Duration::ZERO, 0);
        VramError::SealRefused { reason }
    }

    /// Checks what lies in VRAM under pinned records, all launches before the first wait, behind `after` if that is given.
    /// Pins that come in twice are the caller's mistake to refuse.
    ///
    /// # Errors
    /// Of the first shard that fails; each one that failed is quarantined.
    pub(crate) fn check(
        &self,
        records: &[&Pinned],
        check: Check,
        after: Option<&Event>,
    ) -> Result<Vec<Verification>, VramError> {
        let started = Instant::now();
        for record in records {
            if let Some(first_bad) = record.failure.get() {
                self.telemetry.verified(Outcome::Mismatch, started.elapsed(), 0);
                return Err(self.fail_integrity(record, VerificationFailure::Quarantined, None, first_bad.clone()));
            }
        }
        let checked = self.digest_all(records, after)?;
        let mut outcome = Ok(());
        let mut verifications = Vec::with_capacity(records.len());
        for (record, checked) in records.iter().zip(checked) {
            match self.judge(record, checked, check, started) {
                Ok(verification) => verifications.push(verification),
                Err(error) => outcome = outcome.and(Err(error)), // the first error stays; every failure is acted on
            }
        }
        outcome.map(|()| verifications)
    }

    /// Digests every record's image, or finds that a check which began after this call has just done so.
    ///
    /// A check is shared by whoever called before it began: what a caller's own stream held has to have run by then, and an
    /// execute that is closed has waited for its work before it calls. It is counted by ticks, which are drawn after both.
    fn digest_all(&self, records: &[&Pinned], after: Option<&Event>) -> Result<Vec<Checked>, VramError> {
        // Where the stream holds something, only a launch behind it will do. An error is told by that launch.
        let after = after.filter(|event| !event.has_passed().unwrap_or(false)).map(Event::id);
        let calls: Vec<u64> = records.iter().map(|record| record.tick()).collect();
        // Locked in slot order, so that two batches cannot wait for each other.
        let mut order: Vec<(u32, usize)> = records.iter().enumerate().map(|(at, record)| (record.slot(), at)).collect();
        order.sort_unstable();
        let mut held = Vec::with_capacity(records.len());
        for (_, at) in order {
            if let Some((record, call)) = records.get(at).zip(calls.get(at)) {
                held.push((at, *call, record, record.lock()));
            }
        }
        let mut launched = Vec::with_capacity(held.len());
        for (at, call, record, resident) in &mut held {
            let Some(resident) = resident.as_mut() else {
                return Err(VramError::StaleHandle { shard: record.id.clone() });
            };
            if after.is_none() && resident.good_since > *call {
                launched.push((*at, resident, Ok(None)));
                continue;
            }
            let began = record.tick();
            let launch = resident.memory.launch_digest(after).map(|()| Some(began));
            launched.push((*at, resident, launch));
        }
        let mut checked: Vec<(usize, Checked)> = launched
            .into_iter()
            .map(|(at, resident, launch)| (at, collect(records.get(at), resident, launch)))
            .collect();
        checked.sort_unstable_by_key(|(at, _)| *at);
        Ok(checked.into_iter().map(|(_, checked)| checked).collect())
    }

    fn judge(
        &self,
        record: &Record,
        checked: Checked,
        check: Check,
        started: Instant,
    ) -> Result<Verification, VramError> {
        let bytes = record.image.bytes();
        match checked {
            Checked::Found(Err(failure)) => {
                let error = VramError::from(failure);
                self.telemetry.verified(Outcome::Error, started.elapsed(), 0);
                self.report_unproven(record, &error);
                self.note_device_failure(&error);
                return Err(error);
            }
            Checked::Found(Ok(found)) if found != record.sealed => {
                self.telemetry.verified(Outcome::Mismatch, started.elapsed(), bytes);
                let first_bad = self.locate(record, &found);
                let reason = VerificationFailure::DigestMismatch;
                return Err(self.fail_integrity(record, reason, Some(found.digest), first_bad));
            }
            Checked::Found(Ok(_)) => self.telemetry.verified(Outcome::Ok, started.elapsed(), bytes),
            Checked::Shared => self.telemetry.verified(Outcome::Ok, started.elapsed(), 0),
        }
        let verification = Verification {
            shard: record.id.clone(),
            digest: record.sealed.digest,
            bytes,
            check,
            duration: started.elapsed(),
        };
        self.trail.emit(EventKind::SealVerified {
            shard: verification.shard.clone(),
            digest: verification.digest,
            bytes: verification.bytes,
            check: check.as_str().to_owned(),
            duration: verification.duration,
        });
        Ok(verification)
    }

    /// Digests a live shard's image in VRAM and gives no verdict. A device that cannot show that it did stops the manager.
    pub(crate) fn digest_resident(&self, record: &Record) -> Result<TreeDigest, VramError> {
        let mut held = record.lock();
        let Some(resident) = held.as_mut() else {
            return Err(VramError::StaleHandle { shard: record.id.clone() });
        };
        let digested = resident.memory.digest();
        drop(held);
        digested.map_err(VramError::from).inspect_err(|error| self.note_device_failure(error))
    }

    fn locate(&self, record: &Record, found: &TreeDigest) -> Option<BadRange> {
        let params = self.device.params();
        let (offset, bytes) = first_difference(params, record.image.bytes(), &record.sealed.table, &found.table)?;
        let tensor = record.layout.tensor_in(offset, bytes).map(|tensor| tensor.name.clone());
        Some(BadRange { offset, bytes, tensor })
    }
}

/// Waits for one launch, and remembers when it began if it found everything as sealed.
fn collect(record: Option<&&Pinned>, resident: &mut Resident, launch: Result<Option<u64>, DigestFailure>) -> Checked {
    match launch {
        Ok(None) => Checked::Shared,
        Err(failure) => Checked::Found(Err(failure)),
        Ok(Some(began)) => {
            let found = resident.memory.collect_digest();
            if let (Ok(found), Some(record)) = (&found, record) {
                resident.good_since = if *found == record.sealed { began } else { 0 };
            }
            Checked::Found(found)
        }
    }
}

//! The check: seal, record, VRAM, in this order.
//!
//! Owns [`VerifyReport`] and the order of the check. A seal proves that this manager made the handle; the record
//! says what must be resident; VRAM is digested and compared with the record, never with what was presented. A call may share
//! the result of a check that began after it, and of no other: nothing else is ever reused.

use std::time::{Duration, Instant};

use crate::audit::{EventKind, VerificationFailure};
use crate::digest::{Hash, TreeDigest, TreeParams, first_difference};
use crate::error::{BadRange, RefusalReason, VramError};
use crate::id::ShardId;
use crate::manager::inner::Inner;
use crate::manager::keyed;
use crate::memory::{DeviceFailure, DigestFailure, Event, Part};
use crate::metrics::Outcome;
use crate::seal::SealedShard;
use crate::shards::{Absent, Enrolled, Pinned, Record, Resident, is_signed};
use crate::spec::Check;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;
use crate::types::Digest;

/// What a successful check found. Plain data: holding one permits nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The shard.
    pub shard: ShardId,
    /// The sealed digest: that of VRAM where `check` is [`Check::Digest`]; else what was looked at is as it was under it.
    pub digest: Digest,
    /// Bytes of the image.
    pub bytes: u64,
    /// How it was checked; behind a check after the work, the weaker of what opened and closed the execute.
    pub check: Check,
    /// How many subtrees of the image that looked at …
    pub subtrees: u64,
    /// … of how many.
    pub of: u64,
    /// How many subtrees were also read back and hashed on the CPU.
    pub cross_checked: u64,
    /// How long the caller waited for the check, from the seal to the verdict.
    pub duration: Duration,
}

/// The check of one pinned shard under way. The shard's memory is locked until it is collected.
struct Digesting<'a> {
    record: &'a Pinned,
    resident: MutexGuard<'a, Option<Resident>>,
    launch: Launch,
}

enum Launch {
    /// Nothing: a check that began after the call, and was no weaker, had found everything as sealed.
    Shared(Check),
    /// This call's own launch, begun at this tick and time, beside an enrolment if there is one.
    Begun(u64, Instant, Option<Enrolled>),
    /// This call's own keyed launch, begun at this tick.
    Keyed(u64),
    /// This call's own launch over a part, and where the next one that goes around begins once this has been looked at.
    Part(Check, Part, u64),
    /// The launch failed.
    Failed(DigestFailure),
}

enum Digested {
    /// As for a launch.
    Shared(Check),
    /// This call's own launch.
    Found(Result<Found, DigestFailure>),
}

/// What device memory holds.
pub(super) enum Found {
    All(TreeDigest),
    /// What was enrolled.
    Keyed,
    /// Something else than what was enrolled; a digest of it, if there could be one.
    NotKeyed(Option<TreeDigest>),
    /// The entries of the level-1 table over a part.
    Part(Check, Part, Vec<Hash>),
}

/// What did not match: why, what was there, and where, as far as that is known.
pub(super) type Mismatch = (VerificationFailure, Option<Digest>, Option<BadRange>);

impl Found {
    /// What the check was, how many subtrees it looked at, and how many bytes of the image those are.
    pub(super) fn looked(&self, params: &TreeParams, record: &Record) -> (Check, u64, u64) {
        let bytes = record.image.bytes();
        match self {
            Self::All(_) => (Check::Digest, record.subtrees(), bytes),
            Self::Keyed | Self::NotKeyed(_) => (Check::Keyed, record.subtrees(), bytes),
            Self::Part(check, part, _) => (*check, part.count(), part.bytes(params, bytes)),
        }
    }
}

impl<'a> Digesting<'a> {
    /// Launches a hash of the image, or of the part that `check` looks at, behind `after` if that is given; or finds that a check
    /// which began after tick `call` has just made one of all bytes that is no weaker.
    ///
    /// A check is shared by whoever called before it began: what a caller's own stream held has to have run by then, and an
    /// execute that is closed has waited for its work before it calls. It is counted by ticks, which are drawn after both.
    fn launch(
        inner: &Inner,
        record: &'a Pinned,
        call: u64,
        check: Check,
        after: Option<&Event>,
    ) -> Result<Self, VramError> {
        let mut resident = record.lock();
        let Some(found) = resident.as_mut() else {
            return Err(VramError::StaleHandle { shard: record.id.clone() });
        };
        if after.is_none() && found.good_since > call {
            return Ok(Self { record, resident, launch: Launch::Shared(Check::Digest) });
        }
        let due = inner.policy.full_check_is_due(found.full_at.elapsed());
        let keyed = found.enrolled.as_ref().filter(|_| check == Check::Keyed && !due);
        if after.is_none() && keyed.is_some_and(|enrolled| enrolled.good_since > call) {
            return Ok(Self { record, resident, launch: Launch::Shared(Check::Keyed) });
        }
        let mut cursor = found.cursor;
        let part = if due { None } else { part(check, &mut cursor, record.subtrees())? };
        let launched = if let Some(part) = part {
            found.memory.launch_part(&part, after).map(|()| Launch::Part(check, part, cursor))
        } else if let Some(enrolled) = found.enrolled.as_ref().filter(|_| check == Check::Keyed && !due) {
            let tick = record.tick();
            found.memory.launch_keyed(enrolled.key.levels(), after).map(|()| Launch::Keyed(tick))
        } else {
            launch_digest(inner, record, found, check, after)
        };
        Ok(Self { record, resident, launch: launched.unwrap_or_else(Launch::Failed) })
    }

    /// Waits for the digest, remembers when it began if it found everything as sealed, and lets go of the memory.
    fn collect(mut self) -> Digested {
        let Some(resident) = self.resident.as_mut() else {
            return Digested::Found(Err(DeviceFailure::Unproven("digest").into()));
        };
        Digested::Found(match self.launch {
            Launch::Shared(check) => return Digested::Shared(check),
            Launch::Failed(failure) => Err(failure),
            Launch::Part(check, part, cursor) => resident.memory.collect_part(&part).map(|entries| {
                resident.cursor = cursor;
                Found::Part(check, part, entries)
            }),
            Launch::Keyed(tick) => keyed::collect(self.record, resident, tick),
            Launch::Begun(tick, at, enrolled) => resident.memory.collect_digest().map(|found| {
                if found == self.record.sealed {
                    (resident.good_since, resident.full_at) = (tick, at);
                    resident.enrolled = enrolled.or_else(|| resident.enrolled.take());
                    // Under the lock: a weaker check that begins after this one counts.
                    self.record.weaker.store(0, Ordering::Relaxed);
                } else {
                    (resident.good_since, resident.enrolled) = (0, None);
                }
                Found::All(found)
            }),
        })
    }
}

/// Launches a digest of the image, for a keyed check behind an enrolment.
fn launch_digest(
    inner: &Inner,
    record: &Record,
    resident: &mut Resident,
    check: Check,
    after: Option<&Event>,
) -> Result<Launch, DigestFailure> {
    let enrolled = match check {
        Check::Keyed => Some(inner.enrol(record, resident, after)?),
        _ => None,
    };
    let (tick, now) = (record.tick(), Instant::now());
    resident.memory.launch_digest(after)?;
    Ok(Launch::Begun(tick, now, enrolled))
}

/// The part that a check looks at; `None` for all.
fn part(check: Check, cursor: &mut u64, of: u64) -> Result<Option<Part>, VramError> {
    match check {
        Check::Sample(count) => Part::sample(count.into(), of),
        Check::Rotating(n) => Ok(Part::rotate(cursor, n.into(), of)),
        Check::Digest | Check::Keyed => Ok(None),
    }
}

impl Inner {
    /// Checks seal and record, and pins the shard.
    ///
    /// # Errors
    /// `SealRefused` and `StaleHandle` (the presenter's fault; the manager goes on), or `IntegrityFailure` when an authentic
    /// seal disagrees with the live record of its generation.
    pub(crate) fn admit(&self, sealed: &SealedShard) -> Result<Pinned, VramError> {
        self.authenticate(sealed)?;
        let message = sealed.message();
        let record = self.shards.pin(message.slot, message.generation).map_err(|absent| self.absent(sealed, absent))?;
        self.match_record(sealed, &record)?;
        Ok(record)
    }

    /// As [`admit`](Self::admit), for work: an expired seal is refused.
    pub(crate) fn admit_fresh(&self, sealed: &SealedShard) -> Result<Pinned, VramError> {
        let record = self.admit(sealed)?;
        if record.is_expired() { Err(self.refuse(Some(sealed), RefusalReason::Expired)) } else { Ok(record) }
    }

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
        self.metrics.verified(None, Outcome::Refused, Duration::ZERO, 0);
        VramError::SealRefused { reason }
    }

    /// Checks what lies in VRAM under a pinned record, behind `after` if that is given.
    ///
    /// # Errors
    /// `IntegrityFailure`, and the shard is quarantined; the device's.
    pub(crate) fn check(
        &self,
        record: &Pinned,
        check: Check,
        after: Option<&Event>,
    ) -> Result<VerifyReport, VramError> {
        let started = Instant::now();
        self.refuse_failed(record, started)?;
        let after = still_ahead(after);
        let digested = Digesting::launch(self, record, record.tick(), check, after)?.collect();
        self.judge(record, digested, started)
    }

    /// [`check`](Self::check) of several records, all launches before the first wait. Records that come in twice are the caller's
    /// mistake to refuse.
    ///
    /// # Errors
    /// Of the first shard that fails; each one that failed is quarantined.
    pub(crate) fn check_all(
        &self,
        records: &[&Pinned],
        check: Check,
        after: Option<&Event>,
    ) -> Result<Vec<VerifyReport>, VramError> {
        let started = Instant::now();
        records.iter().try_for_each(|record| self.refuse_failed(record, started))?;
        let after = still_ahead(after);
        // Locked in slot order, so that two batches cannot wait for each other.
        let mut order: Vec<(usize, &Pinned, u64)> =
            records.iter().enumerate().map(|(at, record)| (at, *record, record.tick())).collect();
        order.sort_unstable_by_key(|(_, record, _)| record.slot());
        let launched =
            order.into_iter().map(|(at, record, call)| Ok((at, Digesting::launch(self, record, call, check, after)?)));
        let launched: Vec<(usize, Digesting<'_>)> = launched.collect::<Result<_, VramError>>()?;
        // No lock is held any more when the verdicts are told.
        let mut digested: Vec<(usize, &Pinned, Digested)> =
            launched.into_iter().map(|(at, digesting)| (at, digesting.record, digesting.collect())).collect();
        digested.sort_unstable_by_key(|(at, ..)| *at);
        let mut outcome = Ok(Vec::with_capacity(records.len()));
        for (_, record, digested) in digested {
            match (self.judge(record, digested, started), &mut outcome) {
                (Ok(report), Ok(reports)) => reports.push(report),
                (Err(error), Ok(_)) => outcome = Err(error),
                (_, Err(_)) => {} // the first error stays; every failure is acted on
            }
        }
        outcome
    }

    /// Refuses a shard that failed a check before: nothing is launched for it.
    fn refuse_failed(&self, record: &Pinned, started: Instant) -> Result<(), VramError> {
        let Some(first_bad) = record.failure.get() else { return Ok(()) };
        self.metrics.verified(None, Outcome::Mismatch, started.elapsed(), 0);
        Err(self.fail_integrity(record, VerificationFailure::Quarantined, None, first_bad.clone()))
    }

    fn judge(&self, record: &Record, digested: Digested, started: Instant) -> Result<VerifyReport, VramError> {
        let (bytes, of) = (record.image.bytes(), record.subtrees());
        let (looked, hashed, cross_checked) = match digested {
            Digested::Shared(check) => ((check, of, bytes), 0, 0),
            Digested::Found(Err(failure)) => {
                let error = VramError::from(failure);
                self.metrics.verified(None, Outcome::Error, started.elapsed(), 0);
                self.report_unproven(record, &error, None);
                self.note_device_failure(&error);
                return Err(error);
            }
            Digested::Found(Ok(found)) => {
                let looked = found.looked(self.device.params(), record);
                if let Err((reason, actual, first_bad)) = self.compare(record, &found) {
                    self.metrics.verified(Some(looked.0), Outcome::Mismatch, started.elapsed(), looked.2);
                    return Err(self.fail_integrity(record, reason, actual, first_bad));
                }
                let cross_checked = self.cross_check(record).inspect_err(|_| {
                    self.metrics.verified(Some(looked.0), Outcome::Error, started.elapsed(), looked.2);
                })?;
                (looked, looked.2, cross_checked)
            }
        };
        let (check, subtrees, read) = looked;
        if check != Check::Digest {
            record.weaker.fetch_add(1, Ordering::Relaxed);
        }
        self.metrics.verified(Some(check), Outcome::Ok, started.elapsed(), hashed);
        let (shard, digest, duration) = (record.id.clone(), record.sealed.digest, started.elapsed());
        let report = VerifyReport { shard: shard.clone(), digest, bytes, check, subtrees, of, cross_checked, duration };
        self.trail.emit(EventKind::SealVerified {
            shard,
            digest,
            bytes: read,
            check,
            subtrees,
            of,
            cross_checked,
            duration,
        });
        Ok(report)
    }

    /// Holds what a check found against what was sealed: a failure with its digest and place, where they are known.
    pub(super) fn compare(&self, record: &Record, found: &Found) -> Result<(), Mismatch> {
        const CHANGED: VerificationFailure = VerificationFailure::DigestMismatch;
        match found {
            Found::Keyed => Ok(()),
            Found::NotKeyed(found) => {
                let changed = found.as_ref().filter(|found| **found != record.sealed);
                let actual = changed.map(|found| found.digest);
                Err((VerificationFailure::KeyedMismatch, actual, changed.and_then(|found| self.locate(record, found))))
            }
            Found::All(found) if *found == record.sealed => Ok(()),
            Found::All(found) => Err((CHANGED, Some(found.digest), self.locate(record, found))),
            Found::Part(_, part, entries) => {
                // The table lies in this process's memory: it counts as far as it is the one under the signed digest.
                if !is_signed(self.device.params(), &record.message, &record.sealed) {
                    return Err((VerificationFailure::RecordMismatch, None, None));
                }
                match part.first_difference(self.device.params(), &record.sealed, entries) {
                    Some(range) => Err((CHANGED, None, Some(record.bad_range(range)))),
                    None => Ok(()),
                }
            }
        }
    }

    pub(super) fn locate(&self, record: &Record, found: &TreeDigest) -> Option<BadRange> {
        let params = self.device.params();
        let range = first_difference(params, record.image.bytes(), &record.sealed.table, &found.table)?;
        Some(record.bad_range(range))
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
}

/// The event, where its stream still holds something: only a launch behind it will do then. An error is told by that launch. Asked
/// before the call's tick is drawn: what ran since the tick, a check that began after it need not have seen.
fn still_ahead(after: Option<&Event>) -> Option<&Event> {
    let after = after?;
    if cfg!(vram_model) {
        crate::sync::yield_now(); // the driver's own locks are no points where a model changes threads
    }
    (!after.has_passed().unwrap_or(false)).then_some(after)
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

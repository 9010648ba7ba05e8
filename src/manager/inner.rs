//! What guards and manager share: identity, key, device, ledger, slot table, state and audit trail.
//!
//! Owns [`Inner`] and the steps that protect: stopping, quarantining, retiring memory. Each of them acts first and reports after.
//!
//! Locks: of the manager's own, staging, records' memory and the pins to reap are held across calls of the driver; a record's memory
//! while the slot table gives it to its successor; no others nest. A caller's code runs under one of them: a source's reads under staging's; sinks have a thread. `.specs/25-lifecycle.md` has the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::{AuditTrail, EventKind, QuarantineCause, VerificationFailure};
use crate::capacity::{Ledger, Quarantined, Reservation};
use crate::clock::Clock;
use crate::error::{BadRange, ManagerState, StopReason, VramError};
use crate::id::ShardId;
use crate::keys::{SealKey, WorkerSecret};
use crate::memory::{Device, DeviceFailure, Owners, Retired, ScratchMemory, ShardMemory, Unretired};
use crate::metrics::{Gauges, Metrics};
use crate::policy::Policy;
use crate::shards::{Record, Resident, ShardTable};
use crate::spec::Check;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, lock};
use crate::types::{Digest, DriverError, Identity};

mod pins;
mod reports;
mod scratch_table;
mod state;

pub(crate) use pins::WatchId;
use pins::{Reapable, Watch};
pub(crate) use scratch_table::ScratchTable;
pub(crate) use state::StateCell;

/// What an integrity failure does besides quarantining the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnIntegrityFailure {
    /// The manager stops for good.
    #[default]
    Stop,
    /// Only the shard is out of service.
    QuarantineShard,
}

/// What a release did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WipeReport {
    /// The shard.
    pub shard: ShardId,
    /// Bytes zeroed and proven zero on the device.
    pub bytes: u64,
    /// Bytes of an engine's memory that were given back to it as they are.
    pub left_unwiped: u64,
    /// How long wipe, proof and free took together.
    pub duration: Duration,
}

/// The shared heart of a manager.
pub(crate) struct Inner {
    pub(crate) identity: Identity,
    pub(crate) key: SealKey,
    /// What the keys of keyed checks are derived from, one for each of these enrolments.
    pub(crate) secret: WorkerSecret,
    pub(crate) enrolments: AtomicU64,
    pub(crate) policy: Policy,
    pub(crate) on_failure: OnIntegrityFailure,
    /// How executes are checked that do not ask for more or less.
    pub(crate) check: Check,
    /// Subtrees that each check has read back and hashed on the CPU.
    pub(crate) cross_check: u32,
    pub(crate) device: Arc<Device>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) shards: Arc<ShardTable>,
    pub(crate) state: StateCell,
    pub(crate) trail: AuditTrail,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) scratch: ScratchTable,
    /// Residue beyond this many bytes stops the manager.
    pub(super) quarantine_limit: u64,
    pub(super) kept: Kept,
}

/// What waits for a later moment.
#[derive(Default)]
pub(super) struct Kept {
    /// Memory that could not be proven wiped. Its bytes stay used.
    residue: Mutex<Vec<Residue>>,
    /// Pins of dropped executions whose work may still run.
    reapable: Mutex<Vec<Reapable>>,
    /// Guards with a longest holding time, and the last number given to one.
    watched: Mutex<(u64, Vec<Watch>)>,
}

shown!(Inner, this: identity = this.identity, state = this.state.get());

/// Memory kept out of the pool, with what counts it.
#[derive(Debug)]
struct Residue {
    id: ShardId,
    memory: Retiring,
    counted: Quarantined,
}

#[derive(Debug)]
pub(crate) enum Retiring {
    /// Never held anything of ours; the driver did not take it back.
    Stuck,
    /// A shard's.
    Shard(Box<ShardMemory>),
    /// Working memory.
    Scratch(Box<ScratchMemory>),
}

impl Retiring {
    /// Tries it. What fails is given back with the reason, where there is one, and with what was done.
    fn wipe_and_free(self, owners: &mut Owners) -> Result<Retired, (Self, Option<DeviceFailure>, Retired)> {
        match self {
            Self::Stuck => Err((Self::Stuck, None, Retired::default())),
            Self::Shard(memory) => memory
                .wipe_and_free(owners)
                .map_err(|Unretired { memory, failure, done }| (Self::Shard(memory), Some(failure), done)),
            Self::Scratch(memory) => memory
                .wipe_and_free()
                .map_err(|Unretired { memory, failure, done }| (Self::Scratch(memory), Some(failure), done)),
        }
    }

    fn holds_engine_memory(&self) -> bool {
        matches!(self, Self::Shard(memory) if memory.holds_engine_memory())
    }

    /// The bytes that it takes of our share of the device, where that is known.
    fn room(&self) -> Option<u64> {
        match self {
            Self::Stuck => None,
            Self::Shard(memory) => Some(memory.room()),
            Self::Scratch(memory) => Some(memory.room()),
        }
    }
}

impl Inner {
    pub(crate) fn permit(&self) -> Result<(), VramError> {
        match self.state.get() {
            ManagerState::Ready => Ok(()),
            state => Err(VramError::ManagerStopped { state }),
        }
    }

    /// Stops for good; the first reason stays. Waits for no sink, and has those go on who do: whether somebody did.
    pub(crate) fn stop(&self, reason: StopReason) -> bool {
        let newly = self.state.stop(reason);
        if newly {
            self.trail.note(EventKind::ManagerStopped { reason });
        }
        newly && self.trail.let_go()
    }

    /// What a failed device operation means for the manager as a whole.
    pub(crate) fn note_device_failure(&self, error: &VramError) {
        self.stop_after(error);
        self.trail.settle();
    }

    /// As [`note_device_failure`](Self::note_device_failure), between steps that protect.
    fn stop_after(&self, error: &VramError) {
        match error {
            VramError::DeviceUntrusted { .. } => {
                self.stop(StopReason::DeviceUntrusted);
            }
            VramError::Device(failed) | VramError::WipeFailed { source: Some(failed), .. } if is_sticky(failed) => {
                self.stop(StopReason::DeviceLost);
            }
            _ => {}
        }
    }

    /// Quarantines a shard whose bytes, or whose seal's words, are not what was sealed.
    pub(crate) fn fail_integrity(
        &self,
        record: &Record,
        reason: VerificationFailure,
        actual: Option<Digest>,
        first_bad: Option<BadRange>,
    ) -> VramError {
        let newly = self.quarantine(record, first_bad.as_ref());
        self.report_integrity(record, newly, reason, actual, first_bad)
    }

    /// Protects: nothing executes from here on. Waits for nobody and calls nobody's code. Whether shard and manager are out of service
    /// only now.
    pub(super) fn quarantine(&self, record: &Record, first_bad: Option<&BadRange>) -> (bool, bool) {
        let newly_quarantined = record.failure.set(first_bad.cloned()).is_ok();
        let newly_stopped = match self.on_failure {
            OnIntegrityFailure::Stop => self.state.stop(StopReason::IntegrityFailure),
            OnIntegrityFailure::QuarantineShard => false,
        };
        if newly_quarantined {
            self.ledger.hold_evidence(record.room);
        }
        (newly_quarantined, newly_stopped)
    }

    /// Tells what [`quarantine`](Self::quarantine) did.
    pub(super) fn report_integrity(
        &self,
        record: &Record,
        (newly_quarantined, newly_stopped): (bool, bool),
        reason: VerificationFailure,
        actual: Option<Digest>,
        first_bad: Option<BadRange>,
    ) -> VramError {
        self.report_unverified(record, newly_quarantined, reason, actual, first_bad.clone());
        if newly_quarantined {
            self.trail.note(EventKind::ShardQuarantined {
                shard: record.id.clone(),
                bytes: record.room,
                cause: QuarantineCause::Evidence,
            });
        }
        if newly_stopped {
            self.trail.note(EventKind::ManagerStopped { reason: StopReason::IntegrityFailure });
            self.trail.let_go();
        }
        self.report_memory();
        self.trail.settle();
        VramError::IntegrityFailure { shard: record.id.clone(), first_bad }
    }

    /// Wipes memory, proves it zero, frees it and gives its capacity back; or keeps it out of the pool. An engine's value goes to
    /// `owners`. Waits for no sink.
    pub(crate) fn retire(
        &self,
        id: &ShardId,
        memory: Retiring,
        mut reservation: Reservation,
        owners: &mut Owners,
    ) -> Result<WipeReport, VramError> {
        let started = Instant::now();
        let (done, kept) = match memory.wipe_and_free(owners) {
            Ok(done) => {
                drop(reservation);
                (done, None)
            }
            Err((memory, failure, done)) => {
                if !memory.holds_engine_memory() {
                    reservation.let_adopted_go();
                }
                if let Some(room) = memory.room() {
                    reservation.shrink_to(room);
                }
                let bytes = reservation.bytes();
                self.keep_residue(Residue { id: id.clone(), memory, counted: reservation.quarantine() });
                (done, Some((bytes, failure)))
            }
        };
        let duration = started.elapsed();
        self.report_wiped(id, done, duration);
        let outcome = match kept {
            None => Ok(WipeReport { shard: id.clone(), bytes: done.wiped, left_unwiped: done.left, duration }),
            Some((bytes, failure)) => Err(self.report_residue(id, bytes, failure)),
        };
        self.report_memory();
        outcome
    }

    /// A device that does not give back more than that is not to be trusted.
    fn limit_residue(&self) {
        if self.ledger.residue() > self.quarantine_limit {
            self.stop(StopReason::DeviceUntrusted);
        }
    }

    fn keep_residue(&self, residue: Residue) {
        lock(&self.kept.residue).push(residue);
    }

    /// Says what was wiped and what was given back; of an operation that failed half-way, what it came to.
    fn report_wiped(&self, id: &ShardId, retired: Retired, duration: Duration) {
        let shard = || id.clone();
        if retired.wiped > 0 {
            self.metrics.wiped(retired.wiped);
            self.trail.note(EventKind::VramWiped { shard: shard(), bytes: retired.wiped, proven: true, duration });
        }
        if retired.freed > 0 {
            self.trail.note(EventKind::VramDeallocated { shard: shard(), bytes: retired.freed });
        }
    }

    fn report_residue(&self, id: &ShardId, bytes: u64, failure: Option<DeviceFailure>) -> VramError {
        let impossible = failure.as_ref().is_some_and(DeviceFailure::is_sticky);
        let cause = if impossible { QuarantineCause::WipeImpossible } else { QuarantineCause::Residue };
        let source = match failure {
            Some(DeviceFailure::Call(error)) => Some(error),
            Some(DeviceFailure::Unproven(_)) | None => None,
        };
        let error = VramError::WipeFailed { shard: id.clone(), bytes, source };
        self.trail.note(EventKind::ShardQuarantined { shard: id.clone(), bytes, cause });
        self.stop_after(&error);
        self.limit_residue();
        error
    }

    /// Takes a record that is out of the table apart and retires its memory; an engine's value goes to `owners`.
    pub(crate) fn retire_record(&self, record: &Record, owners: &mut Owners) -> Result<WipeReport, VramError> {
        let Some(Resident { memory, reservation, .. }) = record.lock().take() else {
            return Err(VramError::StaleHandle { shard: record.id.clone() });
        };
        if record.failure.get().is_some() {
            self.ledger.let_evidence_go(record.room);
        }
        self.retire(&record.id, Retiring::Shard(Box::new(memory)), reservation, owners)
    }

    /// The end: wipes every live shard, pinned or not, and tries once more to wipe what could not be wiped before. No owner is dropped
    /// before all of that is done.
    pub(crate) fn retire_everything(&self) -> (u64, u64) {
        let mut owners = Owners::default();
        let mut wiped: u64 = 0;
        for record in self.shards.drain() {
            wiped = wiped.saturating_add(self.retire_record(&record, &mut owners).map_or(0, |report| report.bytes));
        }
        for key in self.scratch.keys() {
            let _reported = self.retire_scratch(key);
        }
        let residue = std::mem::take(&mut *lock(&self.kept.residue));
        let mut left: u64 = 0;
        for Residue { id, memory, counted } in residue {
            let started = Instant::now();
            match memory.wipe_and_free(&mut owners) {
                Ok(retired) => {
                    drop(counted);
                    self.report_wiped(&id, retired, started.elapsed());
                    wiped = wiped.saturating_add(retired.wiped);
                }
                Err((memory, _, done)) => {
                    self.report_wiped(&id, done, started.elapsed());
                    left = left.saturating_add(counted.bytes());
                    self.keep_residue(Residue { id, memory, counted });
                }
            }
        }
        self.report_memory();
        (wiped, left)
    }

    pub(crate) fn report_memory(&self) {
        self.metrics.gauges(Gauges {
            total: self.ledger.total(),
            used: self.ledger.used(),
            available: self.ledger.available(),
            quarantined: self.ledger.quarantined(),
            shards: self.shards.live_count(),
        });
    }
}

fn is_sticky(error: &DriverError) -> bool {
    DeviceFailure::Call(error.clone()).is_sticky()
}

//! How shards and managers end: release, shutdown, drop.

use std::time::{Duration, Instant};

use super::VramManager;
use crate::audit::{EventKind, Operation, PATIENCE, PATIENCE_AT_THE_END};
use crate::error::{StopReason, VramError};
use crate::id::ShardId;
use crate::manager::inner::WipeReport;
use crate::memory::Owners;
use crate::seal::SealedShard;
use crate::shards::Absent;

/// What a shutdown did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Whether every execution, and every seal and release that was under way, had ended before the deadline.
    pub drained: bool,
    /// Bytes zeroed, proven zero and given back.
    pub wiped_bytes: u64,
    /// Bytes that could not be proven wiped, now or before; they stay out of the pool.
    pub residue_bytes: u64,
    /// Bytes of shards that are still executing, of working memory that is still held, and of seals and releases that are still
    /// under way; they are wiped when those end, or the manager is dropped.
    pub busy_bytes: u64,
}

impl VramManager {
    /// Wipes a shard, proves it zero, and gives its memory back. Permitted in every state.
    ///
    /// # Errors
    /// `SHARD_BUSY` while it is used, `STALE_HANDLE`, `SEAL_VERIFICATION_FAILED` (refused), `WIPE_FAILED` when the wipe could
    /// not be proven: the memory is quarantined then and the handle is stale.
    pub fn release(&self, shard: &SealedShard) -> Result<WipeReport, VramError> {
        let mut owners = Owners::default(); // dropped after the next: an owner's drop may wait for what is under way
        let _underway = self.inner.shards.underway();
        let released = self.try_release(shard, &mut owners);
        self.inner.trail.settle();
        released.inspect_err(|error| self.inner.report_failed(Operation::Release, Some(shard.id()), error))
    }

    fn try_release(&self, shard: &SealedShard, owners: &mut Owners) -> Result<WipeReport, VramError> {
        let (inner, message) = (&self.inner, shard.message());
        inner.reap();
        inner.authenticate(shard)?;
        let absent = |absent| inner.absent(shard, absent);
        let record = inner.shards.peek(message.slot, message.generation).map_err(absent)?;
        inner.match_record(shard, &record)?;
        let record = inner.shards.remove(message.slot, message.generation).map_err(absent)?;
        inner.retire_record(&record, owners)
    }

    /// As [`release`](Self::release), for an operator who has the name but not the seal.
    ///
    /// # Errors
    /// `INVALID_PARAMS` when no live shard has this name; otherwise as there.
    pub fn release_by_id(&self, id: &ShardId) -> Result<WipeReport, VramError> {
        let mut owners = Owners::default(); // as there
        let _underway = self.inner.shards.underway();
        let released = self.try_release_by_id(id, &mut owners);
        self.inner.trail.settle();
        released.inspect_err(|error| self.inner.report_failed(Operation::Release, Some(id), error))
    }

    fn try_release_by_id(&self, id: &ShardId, owners: &mut Owners) -> Result<WipeReport, VramError> {
        self.inner.reap();
        let unknown = || VramError::InvalidParams {
            field: "shard id",
            problem: format!("{id} names no live shard; give the name of one that was sealed and not released"),
        };
        loop {
            let (slot, generation) = self.inner.shards.find(id).ok_or_else(unknown)?;
            match self.inner.shards.remove(slot, generation) {
                Ok(record) => return self.inner.retire_record(&record, owners),
                Err(Absent::Busy) => return Err(VramError::ShardBusy { shard: id.clone() }),
                // Released, or sealed anew, since it was found: where it is now, if it is, the name tells.
                Err(Absent::Stale) => {}
                Err(Absent::Unknown | Absent::Failed) => return Err(unknown()),
            }
        }
    }

    /// Refuses new work, waits up to `deadline` for executions, seals and releases that are under way to end, then stops and wipes
    /// every shard that nobody uses.
    ///
    /// An execution that was dropped without `finish` has ended once what its engine had enqueued has run. Audit sinks hold up no
    /// wipe; after the last one they have what is left of the deadline to take its events, half a second at least and five at most.
    ///
    /// It cannot fail: what could not be wiped is in the report and in the trail.
    pub fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        if self.inner.state.drain() {
            self.inner.trail.note(EventKind::ManagerDraining {});
        }
        // A deadline beyond the clock is none.
        let until = Instant::now().checked_add(deadline);
        let drained = self.inner.wait_idle(until);
        let mut report = ShutdownReport { drained, wiped_bytes: 0, residue_bytes: 0, busy_bytes: 0 };
        if self.inner.stop(StopReason::Shutdown) {
            // Whoever waited for a sink is refused now, and lets go of its shard.
            self.inner.wait_idle(Instant::now().checked_add(PATIENCE));
        }
        let mut owners = Owners::default(); // dropped when everything is wiped
        loop {
            let (idle, busy_bytes) = self.inner.shards.close();
            for record in idle {
                // What could not be wiped is residue, and in the trail.
                let wiped = self.inner.retire_record(&record, &mut owners).map_or(0, |wiped| wiped.bytes);
                report.wiped_bytes = report.wiped_bytes.saturating_add(wiped);
            }
            // A call that looked at the state before it changed may have pinned a shard since. It is refused now, and lets go.
            if busy_bytes == 0 || !report.drained {
                break;
            }
            report.drained = self.inner.wait_idle(until);
        }
        report.residue_bytes = self.inner.ledger.residue();
        report.busy_bytes = self.inner.ledger.used().saturating_sub(report.residue_bytes);
        self.inner.trail.flush_refusals();
        let (least, most) = (Instant::now().checked_add(PATIENCE), Instant::now().checked_add(PATIENCE_AT_THE_END));
        self.inner.trail.settle_until(until.or(most).max(least).min(most));
        report
    }
}

impl Drop for VramManager {
    fn drop(&mut self) {
        drop(self.patrol.take());
        self.inner.stop(StopReason::Shutdown);
        self.inner.reap_all();
        self.inner.retire_everything();
        self.inner.trail.flush_refusals();
        self.inner.trail.close();
    }
}

//! How shards and managers end: release, shutdown, drop.

use std::time::{Duration, Instant};

use super::VramManager;
use crate::audit::{EventKind, Operation};
use crate::core::WipeReport;
use crate::error::{StopReason, VramError};
use crate::names::ShardId;
use crate::seal::SealedShard;

/// What a shutdown did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Whether every execution had ended before the deadline.
    pub drained: bool,
    /// Bytes zeroed, proven zero and given back.
    pub wiped_bytes: u64,
    /// Bytes that could not be proven wiped; they stay out of the pool.
    pub residue_bytes: u64,
    /// Bytes of shards that are still executing, and of working memory that is still held; they are wiped when the manager
    /// is dropped.
    pub busy_bytes: u64,
}

impl VramManager {
    /// Wipes a shard, proves it zero, and gives its memory back. Permitted in every state.
    ///
    /// # Errors
    /// `SHARD_BUSY` while it is used, `STALE_HANDLE`, `SEAL_VERIFICATION_FAILED` (refused), `CUDA_ERROR` when the wipe could
    /// not be proven: the memory is quarantined then and the handle is stale.
    pub fn release(&self, shard: &SealedShard) -> Result<WipeReport, VramError> {
        let released = self.try_release(shard);
        released.inspect_err(|error| self.core.report_failed(Operation::Release, Some(shard.id()), error))
    }

    fn try_release(&self, shard: &SealedShard) -> Result<WipeReport, VramError> {
        let (core, message) = (&self.core, shard.message());
        core.reap();
        core.authenticate(shard)?;
        let absent = |absent| core.absent(shard, absent);
        let record = core.residents.peek(message.slot, message.generation).map_err(absent)?;
        core.match_record(shard, &record)?;
        let record = core.residents.remove(message.slot, message.generation).map_err(absent)?;
        core.retire_record(&record)
    }

    /// As [`release`](Self::release), for an operator who has the name but not the seal.
    ///
    /// # Errors
    /// `INVALID_PARAMS` when no live shard has this name; otherwise as there.
    pub fn release_by_id(&self, id: &ShardId) -> Result<WipeReport, VramError> {
        let released = self.try_release_by_id(id);
        released.inspect_err(|error| self.core.report_failed(Operation::Release, Some(id), error))
    }

    fn try_release_by_id(&self, id: &ShardId) -> Result<WipeReport, VramError> {
        self.core.reap();
        let unknown = || VramError::InvalidParams {
            field: "shard id",
            problem: format!("{id} names no live shard; give the name of one that was sealed and not released"),
        };
        let (slot, generation) = self.core.residents.find(id).ok_or_else(unknown)?;
        match self.core.residents.remove(slot, generation) {
            Ok(record) => self.core.retire_record(&record),
            Err(crate::residents::Absent::Busy) => Err(VramError::ShardBusy { shard: id.clone() }),
            Err(_) => Err(unknown()),
        }
    }

    /// Refuses new work, waits up to `deadline` for executions to end, then stops and wipes every shard that nobody uses.
    ///
    /// An execution that was dropped without `finish` has ended once what its engine had enqueued has run.
    ///
    /// # Errors
    /// None today; device failures are in the report and in the trail.
    pub fn shutdown(&self, deadline: Duration) -> Result<ShutdownReport, VramError> {
        if self.core.state.drain() {
            self.core.trail.emit(EventKind::ManagerDraining {});
        }
        // A deadline beyond the clock is none.
        let until = Instant::now().checked_add(deadline);
        let drained = self.core.wait_idle(until);
        let mut report = ShutdownReport { drained, wiped_bytes: 0, residue_bytes: 0, busy_bytes: 0 };
        self.core.stop(StopReason::Shutdown);
        loop {
            let (idle, busy_bytes) = self.core.residents.close();
            report.busy_bytes = busy_bytes;
            for record in idle {
                match self.core.retire_record(&record) {
                    Ok(wiped) => report.wiped_bytes = report.wiped_bytes.saturating_add(wiped.bytes),
                    Err(_) => report.residue_bytes = report.residue_bytes.saturating_add(record.room),
                }
            }
            // A call that looked at the state before it changed may have pinned a shard since. It is refused now, and lets go.
            if busy_bytes == 0 || !report.drained {
                break;
            }
            report.drained = self.core.wait_idle(until);
        }
        report.busy_bytes = report.busy_bytes.saturating_add(self.core.scratch.bytes());
        self.core.trail.flush_refusals();
        Ok(report)
    }
}

impl Drop for VramManager {
    fn drop(&mut self) {
        self.core.stop(StopReason::Shutdown);
        self.core.reap_all();
        self.core.retire_everything();
        self.core.trail.flush_refusals();
    }
}

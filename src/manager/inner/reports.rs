//! What must be in the trail before a step, and what the trail says of calls that came to nothing: a seal's name only where this manager made the seal, and each kind of
//! event no faster than its limit.

use std::time::Duration;

use super::Inner;
use crate::audit::{EventKind, ExecuteOutcome, Operation, VerificationFailure};
use crate::error::{BadRange, ManagerState, StopReason, VramError};
use crate::id::ShardId;
use crate::seal::SealedShard;
use crate::shards::Record;
use crate::sync::atomic::Ordering;
use crate::types::Digest;

/// Whether a presented seal was refused with an event of its own.
const fn is_refusal(error: &VramError) -> bool {
    matches!(error, VramError::SealRefused { .. } | VramError::StaleHandle { .. })
}

impl Inner {
    /// Announces a permissive step, which may only be taken on `Ok`: `AUDIT_UNAVAILABLE` when the trail did not take it as the
    /// policy requires, `MANAGER_STOPPED` when the manager stopped meanwhile.
    pub(crate) fn require(&self, kind: EventKind) -> Result<(), VramError> {
        let taken = self.trail.require(kind);
        match self.state.get() {
            state @ ManagerState::Stopped(_) => Err(VramError::ManagerStopped { state }),
            _ => taken,
        }
    }

    /// Announces that an execute begins; one that does not after all ends in the trail, too.
    pub(crate) fn announce_execute(&self, shard: &ShardId) -> Result<(), VramError> {
        let (taken, told) = self.trail.announce(EventKind::ExecuteStarted { shard: shard.clone() });
        let begun = match self.state.get() {
            state @ ManagerState::Stopped(_) => Err(VramError::ManagerStopped { state }),
            _ => taken,
        };
        if told && begun.is_err() {
            let (shard, outcome, duration) = (shard.clone(), ExecuteOutcome::Abandoned, Duration::ZERO);
            self.trail.note(EventKind::ExecuteFinished { shard, outcome, duration }); // its shard is still pinned
        }
        begun
    }

    /// Puts a failed call into the trail, unless an event of another kind has said it: of a seal that was refused, of bytes that
    /// are not the sealed ones, of a check that was not proven, of the policy, of memory that is kept.
    pub(crate) fn report_failed(&self, operation: Operation, shard: Option<&ShardId>, error: &VramError) {
        let told = match error {
            VramError::DeviceUntrusted { .. } => operation == Operation::Verify,
            VramError::IntegrityFailure { .. } | VramError::PolicyViolation { .. } | VramError::WipeFailed { .. } => {
                true
            }
            error => is_refusal(error),
        };
        if !told {
            let (shard, code) = (shard.cloned(), error.code());
            self.trail.refused(EventKind::OperationFailed { operation, shard, code, suppressed: 0 });
        }
    }

    /// Puts into the trail that work did not begin: one event, however many seals were presented. All of them were authenticated,
    /// or the error is a refusal.
    pub(crate) fn report_not_begun(&self, shards: &[&SealedShard], error: &VramError) {
        let at_fault = match error {
            VramError::IntegrityFailure { shard, .. } | VramError::ShardBusy { shard } => Some(shard),
            _ => shards.first().map(|shard| shard.id()),
        };
        if let Some(shard) = at_fault.filter(|_| !is_refusal(error)) {
            let (shard, code) = (shard.clone(), error.code());
            self.trail.refused(EventKind::ExecuteRefused { shard, code, suppressed: 0 });
        }
    }

    /// Puts into the trail that a shard was not sealed, unless it was a presented seal that was refused.
    pub(crate) fn report_not_sealed(&self, shard: &ShardId, error: &VramError) {
        if !is_refusal(error) {
            let (shard, code) = (shard.clone(), error.code());
            self.trail.refused(EventKind::VramSealFailed { shard, code, suppressed: 0 });
        }
    }

    /// Says what did not verify. What is found first is always said; who presents the seal of a shard that failed before is told
    /// of like everybody who is refused.
    pub(crate) fn report_unverified(
        &self,
        record: &Record,
        first: bool,
        reason: VerificationFailure,
        actual: Option<Digest>,
        first_bad: Option<BadRange>,
    ) {
        let found_again = !first && matches!(reason, VerificationFailure::RecordMismatch);
        let reason = if found_again { VerificationFailure::Quarantined } else { reason };
        let (shard, expected) = (record.id.clone(), record.sealed.digest);
        let weaker_checks = record.weaker.load(Ordering::Relaxed);
        let kind = EventKind::SealVerificationFailed {
            shard,
            reason,
            expected,
            actual,
            first_bad,
            weaker_checks,
            suppressed: 0,
        };
        match reason {
            VerificationFailure::Quarantined => self.trail.refused(kind),
            _ => self.trail.note(kind),
        }
    }

    /// A check whose kernel did not prove that it looked is a failed check: it says as little for the bytes as a mismatch. Once
    /// the manager has stopped for that, further ones are limited.
    pub(crate) fn report_unproven(&self, record: &Record, error: &VramError, first_bad: Option<BadRange>) {
        if !matches!(error, VramError::DeviceUntrusted { .. }) {
            return;
        }
        let kind = EventKind::SealVerificationFailed {
            shard: record.id.clone(),
            reason: VerificationFailure::DeviceUntrusted,
            expected: record.sealed.digest,
            actual: None,
            first_bad,
            weaker_checks: record.weaker.load(Ordering::Relaxed),
            suppressed: 0,
        };
        match self.state.get() {
            ManagerState::Stopped(StopReason::DeviceUntrusted) => self.trail.refused(kind),
            _ => self.trail.note(kind),
        }
    }
}

//! The events.
//!
//! Owns [`AuditEvent`] and [`EventKind`]: their names, fields and severities. Promises that events are plain data without
//! pointers, keys, tags or paths of secrets, and that foreign text in them is bounded. The table for readers is
//! `.specs/40-audit-events.md`; a test holds it to this file.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{ExecuteOutcome, Operation, QuarantineCause, Severity, VerificationFailure, text};
use crate::error::{BadRange, ErrorCode, RefusalReason, StopReason};
use crate::id::{ShardId, WorkerId};
use crate::types::{DeviceKind, DeviceUuid, Digest, Origin};

/// One step of one manager.
///
/// Serialises as one flat object: the fields here, `event` with the kind's name, then the kind's own fields. Times are
/// nanoseconds since 1970, durations nanoseconds, the epoch 32 hexadecimal digits.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Counts the manager's events from 1, without gaps, in the order in which sinks see them.
    pub sequence: u64,
    /// Wall time.
    #[serde(rename = "at_ns", serialize_with = "text::wall")]
    pub at: SystemTime,
    /// The worker.
    pub worker: WorkerId,
    /// The manager's 16 random bytes: tells its sequence from any other.
    #[serde(serialize_with = "text::hex")]
    pub epoch: [u8; 16],
    /// CUDA or mock.
    pub device_kind: DeviceKind,
    /// The device.
    #[serde(serialize_with = "text::display")]
    pub device_uuid: DeviceUuid,
    /// How loudly it should be heard.
    pub severity: Severity,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl AuditEvent {
    /// The event as one line of JSON in printable ASCII, without `=` and without a line break: whatever foreign text it
    /// quotes can neither split a record nor look like a field of one. O(length).
    #[must_use]
    pub fn to_json_line(&self) -> String {
        text::json_line(self)
    }
}

/// What happened, with its own fields. Each kind's name is its variant in snake case.
///
/// New fields and kinds come in minor versions: match with `..`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A manager serves.
    #[non_exhaustive]
    ManagerStarted {
        /// The device's marketing name.
        device_name: String,
        /// The driver's ordinal of the device.
        device_ordinal: u32,
        /// All of the device's memory, in bytes.
        total_bytes: u64,
        /// The policy's name.
        policy: String,
        /// The rules of the policy that were overridden, at most 64.
        relaxed: Vec<String>,
    },
    /// A manager was not built, for another reason than its policy.
    #[non_exhaustive]
    ManagerNotStarted {
        /// The outward code of the refusal.
        #[serde(serialize_with = "text::code")]
        code: ErrorCode,
    },
    /// Device memory was taken.
    #[non_exhaustive]
    VramAllocated {
        /// The shard.
        shard: ShardId,
        /// Bytes taken, in allocator granularity.
        bytes: u64,
    },
    /// Device memory was not to be had.
    #[non_exhaustive]
    VramAllocationFailed {
        /// The shard.
        shard: ShardId,
        /// Bytes that were asked for.
        bytes: u64,
        /// Bytes that were available to it.
        available: u64,
        /// The outward code of the refusal.
        #[serde(serialize_with = "text::code")]
        code: ErrorCode,
        /// Calls before this one that came to nothing in the same way and had no event of their own.
        suppressed: u64,
    },
    /// An image was sealed.
    #[non_exhaustive]
    VramSealed {
        /// The shard.
        shard: ShardId,
        /// The digest of the image.
        #[serde(serialize_with = "text::display")]
        digest: Digest,
        /// Bytes of the image.
        bytes: u64,
        /// Whose word the digest rests on.
        origin: Origin,
        /// Whether the driver confirmed that the memory is mapped read-only, so that nothing can write to it through its address.
        write_protected: bool,
        /// How long it took.
        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
        duration: Duration,
    },
    /// An image was not sealed; what had been taken for it was given back. A shard that was to be sealed anew lives on under
    /// the seal that it has.
    #[non_exhaustive]
    VramSealFailed {
        /// The shard.
        shard: ShardId,
        /// Why.
        #[serde(serialize_with = "text::code")]
        code: ErrorCode,
        /// Calls before this one that came to nothing in the same way and had no event of their own.
        suppressed: u64,
    },
    /// A check passed.
    #[non_exhaustive]
    SealVerified {
        /// The shard.
        shard: ShardId,
        /// The digest of the image.
        #[serde(serialize_with = "text::display")]
        digest: Digest,
        /// Bytes that were read.
        bytes: u64,
        /// How much of the image was read.
        check: String,
        /// How long it took.
        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
        duration: Duration,
    },
    /// A shard's image was digested, without a verdict.
    #[non_exhaustive]
    DigestComputed {
        /// The shard.
        shard: ShardId,
        /// What device memory holds.
        #[serde(serialize_with = "text::display")]
        digest: Digest,
        /// Bytes of the image.
        bytes: u64,
        /// How long it took.
        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
        duration: Duration,
    },
    /// A presented seal was refused.
    #[non_exhaustive]
    SealRefused {
        /// The shard, if this manager made the seal: what a forged one claims is said nowhere.
        shard: Option<ShardId>,
        /// Why.
        #[serde(serialize_with = "text::display")]
        reason: RefusalReason,
        /// Refusals before this one that had no event of their own.
        suppressed: u64,
    },
    /// Resident bytes, or an authentic seal, did not verify. Critical, unless it says again what was found before.
    #[non_exhaustive]
    SealVerificationFailed {
        /// The shard.
        shard: ShardId,
        /// The sealed digest.
        #[serde(serialize_with = "text::display")]
        expected: Digest,
        /// What device memory holds, where that was found out.
        #[serde(serialize_with = "text::display_option")]
        actual: Option<Digest>,
        /// Where the first change lies, where that was found out.
        #[serde(serialize_with = "text::range")]
        first_bad: Option<BadRange>,
        /// Why.
        reason: VerificationFailure,
        /// Calls before this one that came to nothing in the same way and had no event of their own.
        suppressed: u64,
    },
    /// Verified work begins.
    #[non_exhaustive]
    ExecuteStarted {
        /// The shard.
        shard: ShardId,
    },
    /// Verified work ended.
    #[non_exhaustive]
    ExecuteFinished {
        /// The shard.
        shard: ShardId,
        /// How it ended.
        outcome: ExecuteOutcome,
        /// How long it took.
        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
        duration: Duration,
    },
    /// A guard is held longer than its caller said it would be.
    #[non_exhaustive]
    ExecuteOverheld {
        /// The shard.
        shard: ShardId,
        /// How long it should have been held at most.
        #[serde(rename = "limit_ns", serialize_with = "text::nanos")]
        limit: Duration,
        /// How long it has been held so far.
        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
        duration: Duration,
    },
    /// Work did not begin. One event a call: of a batch it names the shard at fault, or the first.
    #[non_exhaustive]
    ExecuteRefused {
        /// The shard.
        shard: ShardId,
        /// The outward code of the refusal.
        #[serde(serialize_with = "text::code")]
        code: ErrorCode,
        /// Calls before this one that came to nothing in the same way and had no event of their own.
        suppressed: u64,
    },
    /// Memory is kept out of the pool.
    #[non_exhaustive]
    ShardQuarantined {
        /// The shard.
        shard: ShardId,
        /// Bytes kept.
        bytes: u64,
        /// Why it is kept.
        cause: QuarantineCause,
    },
    /// Memory was overwritten with zeros.
    #[non_exhaustive]
    VramWiped {
        /// The shard.
        shard: ShardId,
        /// Bytes overwritten.
        bytes: u64,
        /// It was read back as zero: always true. What is not proven is kept, and said to be quarantined.
        proven: bool,
        /// How long it took.
        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
        duration: Duration,
    },
    /// Device memory was given back.
    #[non_exhaustive]
    VramDeallocated {
        /// The shard.
        shard: ShardId,
        /// Bytes given back.
        bytes: u64,
    },
    /// The policy was enforced on demand, and is kept.
    #[non_exhaustive]
    PostureConfirmed {
        /// Live shards whose memory the driver again placed on the device and nowhere else.
        resident_shards: u64,
        /// Those of them whose memory is mapped read-only.
        write_protected_shards: u64,
    },
    /// A call did not do what it was asked to, and no other event says why.
    #[non_exhaustive]
    OperationFailed {
        /// The call.
        operation: Operation,
        /// The shard, if the call named one.
        shard: Option<ShardId>,
        /// The outward code of the failure.
        #[serde(serialize_with = "text::code")]
        code: ErrorCode,
        /// Calls before this one that came to nothing in the same way and had no event of their own.
        suppressed: u64,
    },
    /// Something broke the policy.
    #[non_exhaustive]
    PolicyViolation {
        /// The rule.
        rule: &'static str,
        /// What broke it.
        problem: String,
        /// Violations before this one that had no event of their own.
        suppressed: u64,
    },
    /// The manager takes no new work; what runs may finish.
    #[non_exhaustive]
    ManagerDraining {},
    /// The manager permits no more work.
    #[non_exhaustive]
    ManagerStopped {
        /// Why.
        #[serde(serialize_with = "text::display")]
        reason: StopReason,
    },
}

impl EventKind {
    /// The stable name, as it stands in records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ManagerStarted { .. } => "manager_started",
            Self::ManagerNotStarted { .. } => "manager_not_started",
            Self::VramAllocated { .. } => "vram_allocated",
            Self::VramAllocationFailed { .. } => "vram_allocation_failed",
            Self::VramSealed { .. } => "vram_sealed",
            Self::VramSealFailed { .. } => "vram_seal_failed",
            Self::SealVerified { .. } => "seal_verified",
            Self::DigestComputed { .. } => "digest_computed",
            Self::SealRefused { .. } => "seal_refused",
            Self::SealVerificationFailed { .. } => "seal_verification_failed",
            Self::ExecuteStarted { .. } => "execute_started",
            Self::ExecuteFinished { .. } => "execute_finished",
            Self::ExecuteOverheld { .. } => "execute_overheld",
            Self::ExecuteRefused { .. } => "execute_refused",
            Self::ShardQuarantined { .. } => "shard_quarantined",
            Self::VramWiped { .. } => "vram_wiped",
            Self::VramDeallocated { .. } => "vram_deallocated",
            Self::PostureConfirmed { .. } => "posture_confirmed",
            Self::OperationFailed { .. } => "operation_failed",
            Self::PolicyViolation { .. } => "policy_violation",
            Self::ManagerDraining { .. } => "manager_draining",
            Self::ManagerStopped { .. } => "manager_stopped",
        }
    }

    /// How loudly it should be heard.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::SealVerificationFailed { reason: VerificationFailure::Quarantined, .. } => Severity::Warning,
            Self::SealVerificationFailed { .. }
            | Self::ShardQuarantined { .. }
            | Self::PolicyViolation { .. }
            | Self::ManagerNotStarted { .. }
            | Self::ManagerStopped {
                reason:
                    StopReason::IntegrityFailure
                    | StopReason::DeviceUntrusted
                    | StopReason::DeviceLost
                    | StopReason::PolicyViolation,
            } => Severity::Critical,
            Self::VramAllocationFailed { .. }
            | Self::VramSealFailed { .. }
            | Self::SealRefused { .. }
            | Self::ExecuteOverheld { .. }
            | Self::ExecuteRefused { .. }
            | Self::OperationFailed { .. }
            | Self::ExecuteFinished { outcome: ExecuteOutcome::Discarded | ExecuteOutcome::Abandoned, .. } => {
                Severity::Warning
            }
            Self::ManagerStarted { .. }
            | Self::VramAllocated { .. }
            | Self::VramSealed { .. }
            | Self::SealVerified { .. }
            | Self::DigestComputed { .. }
            | Self::ExecuteStarted { .. }
            | Self::ExecuteFinished { outcome: ExecuteOutcome::Finished, .. }
            | Self::VramWiped { .. }
            | Self::VramDeallocated { .. }
            | Self::PostureConfirmed { .. }
            | Self::ManagerDraining { .. }
            | Self::ManagerStopped { reason: StopReason::Shutdown } => Severity::Info,
        }
    }

    /// The shard that it is about, if there is one.
    #[must_use]
    pub const fn shard(&self) -> Option<&ShardId> {
        match self {
            Self::VramAllocated { shard, .. }
            | Self::VramAllocationFailed { shard, .. }
            | Self::VramSealed { shard, .. }
            | Self::VramSealFailed { shard, .. }
            | Self::SealVerified { shard, .. }
            | Self::DigestComputed { shard, .. }
            | Self::SealVerificationFailed { shard, .. }
            | Self::ExecuteStarted { shard, .. }
            | Self::ExecuteFinished { shard, .. }
            | Self::ExecuteOverheld { shard, .. }
            | Self::ExecuteRefused { shard, .. }
            | Self::ShardQuarantined { shard, .. }
            | Self::VramWiped { shard, .. }
            | Self::VramDeallocated { shard, .. } => Some(shard),
            Self::SealRefused { shard, .. } | Self::OperationFailed { shard, .. } => shard.as_ref(),
            Self::ManagerStarted { .. }
            | Self::ManagerNotStarted { .. }
            | Self::PostureConfirmed { .. }
            | Self::PolicyViolation { .. }
            | Self::ManagerDraining { .. }
            | Self::ManagerStopped { .. } => None,
        }
    }

    /// The same with foreign text cut to a bounded length.
    pub(super) fn bounded(mut self) -> Self {
        match &mut self {
            Self::ManagerStarted { device_name, policy, relaxed, .. } => {
                text::bound(device_name);
                text::bound(policy);
                relaxed.truncate(text::MAX_ITEMS);
                relaxed.iter_mut().for_each(text::bound);
            }
            Self::SealVerificationFailed { first_bad: Some(BadRange { tensor: Some(tensor), .. }), .. } => {
                text::bound(tensor);
            }
            Self::SealVerified { check: foreign, .. } | Self::PolicyViolation { problem: foreign, .. } => {
                text::bound(foreign);
            }
            _ => {}
        }
        self
    }
}

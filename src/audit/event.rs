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
use crate::spec::Check;
use crate::types::{ChangedBit, DeviceKind, DeviceUuid, Digest, Origin};

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

/// Declares the kinds: name, how loudly it is heard (but see [`EventKind::severity`]), then what many of them have (the shard that it
/// is of, the code that it failed with, the time that it took; one that is limited counts the calls that had no event), then its own
/// fields.
macro_rules! events {
    ($(
        $(#[$about:meta])*
        $kind:ident = $name:literal: $severity:ident
        $(, of $shard:ident)? $(, with $code:ident)? $(, limited $suppressed:ident)? $(, took $duration:ident)? {
            $($(#[$what:meta])* $field:ident: $type:ty,)*
        }
    )*) => {
        /// What happened, with its own fields. Each kind's name is its variant in snake case.
        ///
        /// New fields and kinds come in minor versions: match with `..`.
        #[derive(Clone, Debug, Serialize)]
        #[serde(tag = "event", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum EventKind {
            $(
                $(#[$about])*
                #[non_exhaustive]
                $kind {
                    $(
                        /// The shard.
                        $shard: ShardId,
                    )?
                    $($(#[$what])* $field: $type,)*
                    $(
                        /// The outward code of the failure.
                        #[serde(serialize_with = "text::code")]
                        $code: ErrorCode,
                    )?
                    $(
                        /// Calls before this one that came to nothing in the same way and had no event of their own.
                        $suppressed: u64,
                    )?
                    $(
                        /// How long it took.
                        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
                        $duration: Duration,
                    )?
                },
            )*
        }

        impl EventKind {
            /// The stable name, as it stands in records.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$kind { .. } => $name,)*
                }
            }

            const fn usual_severity(&self) -> Severity {
                match self {
                    $(Self::$kind { .. } => Severity::$severity,)*
                }
            }

            /// The shard that it is about, if there is one.
            #[must_use]
            pub const fn shard(&self) -> Option<&ShardId> {
                match self {
                    $($(Self::$kind { $shard, .. } => Some($shard),)?)*
                    Self::SealRefused { shard, .. } | Self::OperationFailed { shard, .. } => shard.as_ref(),
                    _ => None,
                }
            }

            /// Of a kind that is limited: the calls that had no event of their own.
            pub(super) const fn suppressed(&mut self) -> Option<&mut u64> {
                match self {
                    $($(Self::$kind { $suppressed, .. } => Some($suppressed),)?)*
                    _ => None,
                }
            }
        }
    };
}

events! {
    /// A manager serves.
    ManagerStarted = "manager_started": Info {
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
    }
    /// A manager was not built, for another reason than its policy.
    ManagerNotStarted = "manager_not_started": Critical, with code {}
    /// Device memory was taken.
    VramAllocated = "vram_allocated": Info, of shard {
        /// Bytes taken, in allocator granularity.
        bytes: u64,
    }
    /// Device memory was not to be had.
    VramAllocationFailed = "vram_allocation_failed": Warning, of shard, with code, limited suppressed {
        /// Bytes that were asked for.
        bytes: u64,
        /// Bytes that were available to it.
        available: u64,
    }
    /// An image was sealed.
    VramSealed = "vram_sealed": Info, of shard, took duration {
        /// The digest of the image.
        digest: Digest,
        /// Bytes of the image.
        bytes: u64,
        /// Whose word the digest rests on.
        origin: Origin,
        /// Whether the driver confirmed that the memory is mapped read-only, so that nothing can write to it through its address.
        write_protected: bool,
    }
    /// An image was not sealed; what had been taken for it was given back. A shard that was to be sealed anew lives on under
    /// the seal that it has.
    VramSealFailed = "vram_seal_failed": Warning, of shard, with code, limited suppressed {}
    /// A check passed.
    SealVerified = "seal_verified": Info, of shard, took duration {
        /// The digest of the image.
        digest: Digest,
        /// Bytes of the image that were looked at.
        bytes: u64,
        /// How strong it was.
        #[serde(serialize_with = "text::display")]
        check: Check,
        /// How many subtrees it looked at …
        subtrees: u64,
        /// … of how many.
        of: u64,
        /// How many subtrees were also read back and hashed on the CPU.
        cross_checked: u64,
    }
    /// A shard's image was digested, without a verdict.
    DigestComputed = "digest_computed": Info, of shard, took duration {
        /// What device memory holds.
        digest: Digest,
        /// Bytes of the image.
        bytes: u64,
    }
    /// A shard was held against its source: which bits of it are not those that were sealed.
    DifferenceFound = "difference_found": Info, of shard, took duration {
        /// What device memory holds.
        digest: Digest,
        /// How many subtrees of the image differ …
        subtrees: u64,
        /// … of how many.
        of: u64,
        /// Bits that were 0 and are 1.
        set: u64,
        /// Bits that were 1 and are 0.
        cleared: u64,
        /// The first of them.
        first: Option<ChangedBit>,
    }
    /// A presented seal was refused.
    SealRefused = "seal_refused": Warning, limited suppressed {
        /// The shard, if this manager made the seal: what a forged one claims is said nowhere.
        shard: Option<ShardId>,
        /// Why.
        #[serde(serialize_with = "text::display")]
        reason: RefusalReason,
    }
    /// Resident bytes, or an authentic seal, did not verify. Critical, unless it says again what was found before.
    SealVerificationFailed = "seal_verification_failed": Critical, of shard, limited suppressed {
        /// The sealed digest.
        expected: Digest,
        /// What device memory holds, where that was found out.
        actual: Option<Digest>,
        /// Where the first change lies, where that was found out.
        #[serde(serialize_with = "text::range")]
        first_bad: Option<BadRange>,
        /// Why.
        reason: VerificationFailure,
        /// Weaker checks that had passed since the last good one by digest: they may have missed the change, and what ran behind them is
        /// suspect.
        weaker_checks: u64,
    }
    /// Verified work begins.
    ExecuteStarted = "execute_started": Info, of shard {}
    /// Verified work ended.
    ExecuteFinished = "execute_finished": Info, of shard, took duration {
        /// How it ended.
        outcome: ExecuteOutcome,
    }
    /// A guard is held longer than its caller said it would be.
    ExecuteOverheld = "execute_overheld": Warning, of shard {
        /// How long it should have been held at most.
        #[serde(rename = "limit_ns", serialize_with = "text::nanos")]
        limit: Duration,
        /// How long it has been held so far.
        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
        duration: Duration,
    }
    /// The patrol has been around a shard: every byte was looked at, and was as sealed.
    PatrolCompleted = "patrol_completed": Info, of shard, took duration {}
    /// A shard has not been looked at as often as it should be; said once, until it is again.
    PatrolLate = "patrol_late": Warning, of shard {
        /// How long ago the last look at every byte may be.
        #[serde(rename = "limit_ns", serialize_with = "text::nanos")]
        limit: Duration,
        /// How long ago it is.
        #[serde(rename = "duration_ns", serialize_with = "text::nanos")]
        duration: Duration,
    }
    /// Work did not begin. One event a call: of a batch it names the shard at fault, or the first.
    ExecuteRefused = "execute_refused": Warning, of shard, with code, limited suppressed {}
    /// Memory is kept out of the pool.
    ShardQuarantined = "shard_quarantined": Critical, of shard {
        /// Bytes kept.
        bytes: u64,
        /// Why it is kept.
        cause: QuarantineCause,
    }
    /// Memory was overwritten with zeros.
    VramWiped = "vram_wiped": Info, of shard, took duration {
        /// Bytes overwritten.
        bytes: u64,
        /// It was read back as zero: always true. What is not proven is kept, and said to be quarantined.
        proven: bool,
    }
    /// Device memory was given back.
    VramDeallocated = "vram_deallocated": Info, of shard {
        /// Bytes given back.
        bytes: u64,
    }
    /// The policy was enforced on demand, and is kept.
    PostureConfirmed = "posture_confirmed": Info {
        /// Live shards whose memory the driver again placed on the device and nowhere else.
        resident_shards: u64,
        /// Those of them whose memory is mapped read-only.
        write_protected_shards: u64,
    }
    /// A call did not do what it was asked to, and no other event says why.
    OperationFailed = "operation_failed": Warning, with code, limited suppressed {
        /// The call.
        operation: Operation,
        /// The shard, if the call named one.
        shard: Option<ShardId>,
    }
    /// Something broke the policy.
    PolicyViolation = "policy_violation": Critical, limited suppressed {
        /// The rule.
        rule: &'static str,
        /// What broke it.
        problem: String,
    }
    /// The manager takes no new work; what runs may finish.
    ManagerDraining = "manager_draining": Info {}
    /// The manager permits no more work.
    ManagerStopped = "manager_stopped": Critical {
        /// Why.
        #[serde(serialize_with = "text::display")]
        reason: StopReason,
    }
}

impl EventKind {
    /// How loudly it should be heard.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::SealVerificationFailed { reason: VerificationFailure::Quarantined, .. }
            | Self::ExecuteFinished { outcome: ExecuteOutcome::Discarded | ExecuteOutcome::Abandoned, .. } => {
                Severity::Warning
            }
            Self::ManagerStopped { reason: StopReason::Shutdown } => Severity::Info,
            other => other.usual_severity(),
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
            Self::DifferenceFound { first: Some(ChangedBit { tensor: Some(tensor), .. }), .. } => text::bound(tensor),
            Self::PolicyViolation { problem, .. } => text::bound(problem),
            _ => {}
        }
        self
    }
}

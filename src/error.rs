//! What can go wrong, for callers.
//!
//! Owns [`VramError`] and its outward [`ErrorCode`]s. Every variant carries the data to act on and says what to do. No
//! pointer, key, tag or path of a secret appears in any message.

use std::time::Duration;

use crate::audit::AuditError;
use crate::digest::Digest;
use crate::driver::DriverError;
use crate::names::ShardId;

/// The stable outward code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// An argument is outside its documented range.
    InvalidParams,
    /// A setting is unusable.
    ConfigError,
    /// The device, or the part of it that may be used, is full.
    VramOom,
    /// The shard is executing.
    ShardBusy,
    /// The handle speaks of a shard that is no longer there.
    StaleHandle,
    /// The seal or the sealed bytes did not verify.
    SealVerificationFailed,
    /// The policy forbids it.
    PolicyViolation,
    /// A device call failed.
    CudaError,
    /// There is no such device, or no driver for it.
    DeviceUnavailable,
    /// The model could not be read, or is not the expected one.
    ModelLoadFailed,
    /// The audit trail did not accept an event that the policy requires.
    AuditUnavailable,
    /// The manager no longer permits this.
    ManagerStopped,
    /// A defect of this crate or of the platform.
    Internal,
}

impl ErrorCode {
    /// The code as it appears in events and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidParams => "INVALID_PARAMS",
            Self::ConfigError => "CONFIG_ERROR",
            Self::VramOom => "VRAM_OOM",
            Self::ShardBusy => "SHARD_BUSY",
            Self::StaleHandle => "STALE_HANDLE",
            Self::SealVerificationFailed => "SEAL_VERIFICATION_FAILED",
            Self::PolicyViolation => "POLICY_VIOLATION",
            Self::CudaError => "CUDA_ERROR",
            Self::DeviceUnavailable => "DEVICE_UNAVAILABLE",
            Self::ModelLoadFailed => "MODEL_LOAD_FAILED",
            Self::AuditUnavailable => "AUDIT_UNAVAILABLE",
            Self::ManagerStopped => "MANAGER_STOPPED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// Who has to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCategory {
    /// The caller: the request itself is at fault.
    User,
    /// Whoever sizes the deployment.
    Capacity,
    /// Page someone: memory does not hold what was sealed.
    Integrity,
    /// Whoever runs the machine.
    Device,
    /// Whoever sets the policy.
    Policy,
    /// Nobody: the manager has stopped by design.
    State,
    /// The authors of this crate.
    Internal,
}

/// Why a presented seal was refused. The audit trail carries the same word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// Not a seal: truncated, extended, not canonical, or of an unknown version.
    Malformed,
    /// The tag does not verify and the message claims nothing foreign.
    Forged,
    /// The tag does not verify; the message names another device.
    ClaimsOtherDevice,
    /// The tag does not verify; the message names another worker.
    ClaimsOtherWorker,
    /// The tag does not verify; the message names another manager's epoch.
    ClaimsOtherEpoch,
    /// The tag verifies but the shard was released.
    Stale,
    /// The tag verifies but the message names a slot that was never given out.
    UnknownSlot,
    /// The seal is older than the caller allows.
    Expired,
}

impl RefusalReason {
    /// The word used in events and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::ClaimsOtherDevice => "claims_other_device",
            Self::ClaimsOtherWorker => "claims_other_worker",
            Self::ClaimsOtherEpoch => "claims_other_epoch",
            Self::Stale => "stale",
            Self::UnknownSlot => "unknown_slot",
            Self::Expired => "expired",
        }
    }
}

impl std::fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a manager stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// Sealed bytes changed, or an authentic seal disagreed with the record.
    IntegrityFailure,
    /// A kernel did not prove that it ran, or answered a known question wrongly.
    DeviceUntrusted,
    /// The device's context is dead.
    DeviceLost,
    /// The surroundings broke the policy.
    PolicyViolation,
    /// `shutdown` was called, or the manager was dropped.
    Shutdown,
}

impl StopReason {
    /// The word used in events and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IntegrityFailure => "integrity_failure",
            Self::DeviceUntrusted => "device_untrusted",
            Self::DeviceLost => "device_lost",
            Self::PolicyViolation => "policy_violation",
            Self::Shutdown => "shutdown",
        }
    }
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first stretch of an image whose hash is not the sealed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// Its first byte, counted from the start of the image.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The first tensor that lies in it, where the layout is known.
    pub tensor: Option<String>,
}

impl std::fmt::Display for BadRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {} to {}", self.offset, self.offset.saturating_add(self.bytes))?;
        match &self.tensor {
            Some(tensor) => write!(f, " (tensor {})", crate::names::quote(tensor)),
            None => Ok(()),
        }
    }
}

fn place(first_bad: Option<&BadRange>) -> String {
    first_bad.map_or_else(String::new, |range| format!("; first change in {range}"))
}

/// Everything that this crate's calls can fail with.
///
/// ```
/// use vram_residency::{ErrorCode, ShardId};
/// let error = ShardId::new("a/b").unwrap_err();
/// assert_eq!(error.code(), ErrorCode::InvalidParams);
/// assert!(!error.is_retriable());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VramError {
    /// An argument is outside its documented range.
    #[error("{field} {problem}")]
    InvalidParams {
        /// The argument.
        field: &'static str,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
    /// A setting, or what it names, is unusable.
    #[error("{setting} {problem}")]
    Config {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Not enough device memory.
    #[error(
        "the device has no room: {needed} bytes are needed and {available} are available; release a shard, lower the \
         headroom, or use a smaller model"
    )]
    OutOfMemory {
        /// Bytes that the request takes, in allocator granularity.
        needed: u64,
        /// Bytes that were available to it.
        available: u64,
    },
    /// The shard is executing or being checked.
    #[error("shard {shard} is in use; finish its executions, then try again")]
    ShardBusy {
        /// The shard.
        shard: ShardId,
    },
    /// The handle speaks of a past generation.
    #[error("the handle of shard {shard} is stale: that shard was released")]
    StaleHandle {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The presented seal is not one that this manager honours. Nothing was executed; the manager still serves.
    #[error("the seal was refused ({reason}); present a seal that this manager made")]
    SealRefused {
        /// Why.
        reason: RefusalReason,
    },
    /// The resident bytes, or the record, are not what was sealed. Nothing was executed.
    #[error("the sealed bytes of shard {shard} have changed{}; nothing was executed: release it and load the model again",
            place(first_bad.as_ref()))]
    IntegrityFailure {
        /// The shard.
        shard: ShardId,
        /// Where the first change lies, if the digest was what disagreed.
        first_bad: Option<BadRange>,
    },
    /// The bytes that were loaded are not the expected ones. They were wiped.
    #[error(
        "shard {shard} is not the expected model: its digest is {actual}, expected {expected}; check the file and --expect"
    )]
    DigestMismatch {
        /// The shard.
        shard: ShardId,
        /// What was vouched for, or read from the source.
        expected: Digest,
        /// What the device holds.
        actual: Digest,
    },
    /// The model could not be read.
    #[error("the model cannot be loaded: {problem}")]
    ModelLoad {
        /// What is wrong with it, naming the thing.
        problem: String,
        /// The error of the operating system, if there was one.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The policy forbids it.
    #[error("the policy forbids this ({rule}): {problem}")]
    PolicyViolation {
        /// The rule.
        rule: &'static str,
        /// What broke it, and what would satisfy it.
        problem: String,
    },
    /// A device call failed.
    #[error("the device failed: {0}")]
    Device(#[from] DriverError),
    /// A kernel did not prove that it ran over everything; its result was not used.
    #[error(
        "the device did not prove that its {operation} ran; nothing was executed: the device or its driver is faulty"
    )]
    DeviceUntrusted {
        /// The kernel.
        operation: &'static str,
    },
    /// Memory could not be wiped, not be proven zero, or not be given back; it stays out of the pool.
    #[error(
        "{bytes} bytes of shard {shard} could not be proven wiped and given back; they are quarantined and not reused"
    )]
    WipeFailed {
        /// The shard.
        shard: ShardId,
        /// Bytes kept out of the pool.
        bytes: u64,
        /// The device's error, if a call failed.
        #[source]
        source: Option<DriverError>,
    },
    /// There is no such device.
    #[error("no device: {problem}")]
    DeviceUnavailable {
        /// What was looked for, and what to do.
        problem: String,
    },
    /// The audit trail did not accept an event that the policy requires.
    #[error("the audit trail did not accept the event {event}; nothing was done: {source}")]
    AuditUnavailable {
        /// The event.
        event: &'static str,
        /// The sink's error.
        #[source]
        source: AuditError,
    },
    /// The manager is draining or stopped.
    #[error("the manager permits no new work: {state}; build a new manager")]
    ManagerStopped {
        /// What state it is in, and why.
        state: crate::core::ManagerState,
    },
    /// A defect of this crate or of the platform.
    #[error("internal error: {what}")]
    Internal {
        /// What should not have happened.
        what: &'static str,
    },
}

impl VramError {
    /// The stable outward code. O(1).
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidParams { .. } => ErrorCode::InvalidParams,
            Self::Config { .. } => ErrorCode::ConfigError,
            Self::OutOfMemory { .. } => ErrorCode::VramOom,
            Self::ShardBusy { .. } => ErrorCode::ShardBusy,
            Self::StaleHandle { .. } => ErrorCode::StaleHandle,
            Self::SealRefused { .. } | Self::IntegrityFailure { .. } => ErrorCode::SealVerificationFailed,
            Self::DigestMismatch { .. } | Self::ModelLoad { .. } => ErrorCode::ModelLoadFailed,
            Self::PolicyViolation { .. } => ErrorCode::PolicyViolation,
            Self::Device(_) | Self::DeviceUntrusted { .. } | Self::WipeFailed { .. } => ErrorCode::CudaError,
            Self::DeviceUnavailable { .. } => ErrorCode::DeviceUnavailable,
            Self::AuditUnavailable { .. } => ErrorCode::AuditUnavailable,
            Self::ManagerStopped { .. } => ErrorCode::ManagerStopped,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    /// Who has to act. O(1).
    #[must_use]
    pub const fn category(&self) -> ErrorCategory {
        match self {
            Self::InvalidParams { .. }
            | Self::Config { .. }
            | Self::ShardBusy { .. }
            | Self::StaleHandle { .. }
            | Self::SealRefused { .. }
            | Self::DigestMismatch { .. }
            | Self::ModelLoad { .. } => ErrorCategory::User,
            Self::OutOfMemory { .. } => ErrorCategory::Capacity,
            Self::IntegrityFailure { .. } => ErrorCategory::Integrity,
            Self::PolicyViolation { .. } | Self::AuditUnavailable { .. } => ErrorCategory::Policy,
            Self::Device(_)
            | Self::DeviceUntrusted { .. }
            | Self::WipeFailed { .. }
            | Self::DeviceUnavailable { .. } => ErrorCategory::Device,
            Self::ManagerStopped { .. } => ErrorCategory::State,
            Self::Internal { .. } => ErrorCategory::Internal,
        }
    }

    /// Whether the same call may succeed later without anyone changing it. O(1).
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        self.retry_after().is_some()
    }

    /// How long to wait before trying the same call again; `None` when trying again is pointless. O(1).
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        use crate::driver::DriverErrorKind::{Other, OutOfMemory};
        match self {
            Self::ShardBusy { .. } => Some(Duration::from_millis(10)),
            Self::OutOfMemory { .. } | Self::AuditUnavailable { .. } => Some(Duration::from_secs(1)),
            Self::Device(DriverError { kind: Other | OutOfMemory, .. }) => Some(Duration::from_millis(100)),
            _ => None,
        }
    }
}

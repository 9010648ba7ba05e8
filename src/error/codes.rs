//! What errors name: codes, who has to act, why a seal was refused, what a manager permits and why it stopped.

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
    /// The device did not prove that a kernel ran.
    DeviceUntrusted,
    /// Memory could not be proven wiped and given back.
    WipeFailed,
    /// There is no such device, or no driver for it.
    DeviceUnavailable,
    /// The model could not be read.
    ModelLoadFailed,
    /// The model is not the one that was expected.
    DigestMismatch,
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
            Self::DeviceUntrusted => "DEVICE_UNTRUSTED",
            Self::WipeFailed => "WIPE_FAILED",
            Self::DeviceUnavailable => "DEVICE_UNAVAILABLE",
            Self::ModelLoadFailed => "MODEL_LOAD_FAILED",
            Self::DigestMismatch => "DIGEST_MISMATCH",
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

/// What a manager permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManagerState {
    /// Everything.
    Ready,
    /// No new work; what runs may finish.
    Draining,
    /// No work, and results in flight are discarded. Final.
    Stopped(StopReason),
}

impl std::fmt::Display for ManagerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Draining => f.write_str("draining"),
            Self::Stopped(reason) => write!(f, "stopped after {reason}"),
        }
    }
}

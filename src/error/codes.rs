//! What errors name: codes, who has to act, why a seal was refused, what a manager permits and why it stopped.

words! {
    /// The stable outward code of an error.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum ErrorCode {
        /// An argument is outside its documented range.
        InvalidParams = "INVALID_PARAMS",
        /// A setting is unusable.
        ConfigError = "CONFIG_ERROR",
        /// The device, or the part of it that may be used, is full.
        VramOom = "VRAM_OOM",
        /// The shard is executing.
        ShardBusy = "SHARD_BUSY",
        /// The handle speaks of a shard that is no longer there.
        StaleHandle = "STALE_HANDLE",
        /// The seal or the sealed bytes did not verify.
        SealVerificationFailed = "SEAL_VERIFICATION_FAILED",
        /// The policy forbids it.
        PolicyViolation = "POLICY_VIOLATION",
        /// A device call failed.
        CudaError = "CUDA_ERROR",
        /// The device did not prove that a kernel ran.
        DeviceUntrusted = "DEVICE_UNTRUSTED",
        /// Memory could not be proven wiped and given back.
        WipeFailed = "WIPE_FAILED",
        /// There is no such device, or no driver for it.
        DeviceUnavailable = "DEVICE_UNAVAILABLE",
        /// The model could not be read.
        ModelLoadFailed = "MODEL_LOAD_FAILED",
        /// The model is not the one that was expected.
        DigestMismatch = "DIGEST_MISMATCH",
        /// The audit trail did not accept an event that the policy requires.
        AuditUnavailable = "AUDIT_UNAVAILABLE",
        /// The manager no longer permits this.
        ManagerStopped = "MANAGER_STOPPED",
        /// A defect of this crate or of the platform.
        Internal = "INTERNAL",
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

words! {
    /// Why a presented seal was refused. The audit trail carries the same word.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum RefusalReason: Display {
        /// Not a seal: truncated, extended, not canonical, or of an unknown version.
        Malformed = "malformed",
        /// The tag does not verify and the message claims nothing foreign.
        Forged = "forged",
        /// The tag does not verify; the message names another device.
        ClaimsOtherDevice = "claims_other_device",
        /// The tag does not verify; the message names another worker.
        ClaimsOtherWorker = "claims_other_worker",
        /// The tag does not verify; the message names another manager's epoch.
        ClaimsOtherEpoch = "claims_other_epoch",
        /// The tag verifies but the shard was released.
        Stale = "stale",
        /// The tag verifies but the message names a slot that was never given out.
        UnknownSlot = "unknown_slot",
        /// The seal is older than the caller allows.
        Expired = "expired",
    }
}

words! {
    /// Why a manager stopped.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum StopReason: Display {
        /// Sealed bytes changed, or an authentic seal disagreed with the record.
        IntegrityFailure = "integrity_failure",
        /// A kernel did not prove that it ran, or answered a known question wrongly.
        DeviceUntrusted = "device_untrusted",
        /// The device's context is dead.
        DeviceLost = "device_lost",
        /// The surroundings broke the policy.
        PolicyViolation = "policy_violation",
        /// `shutdown` was called, or the manager was dropped.
        Shutdown = "shutdown",
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

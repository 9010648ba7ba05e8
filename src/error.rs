//! What can go wrong, for callers.
//!
//! Owns [`VramError`] and its outward [`ErrorCode`]s. Every variant carries the data to act on and says what to do. No
//! pointer, key, tag or path of a secret appears in any message.

use std::time::Duration;

use crate::erase::NoHostMemory;
use crate::id::{Invalid, ShardId};
use crate::types::{Digest, DigestKind, DriverError, DriverErrorKind};

mod codes;
mod values;

pub(crate) use values::draw;

pub use codes::{ErrorCategory, ErrorCode, ManagerState, RefusalReason, StopReason};

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
            Some(tensor) => write!(f, " (tensor {})", crate::text::quote(tensor)),
            None => Ok(()),
        }
    }
}

/// A sink did not take an event.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct AuditError {
    /// What went wrong.
    pub problem: String,
    /// The error beneath, if there was one.
    #[source]
    pub source: Option<std::io::Error>,
}

fn place(first_bad: Option<&BadRange>) -> String {
    first_bad.map_or_else(String::new, |range| format!("; first change in {range}"))
}

const fn present(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Expired => "have the shard verified and sealed anew",
        RefusalReason::ClaimsOtherDevice | RefusalReason::ClaimsOtherWorker => "present it to the manager that made it",
        _ => "present a seal that this manager made",
    }
}

/// What there is no room for. The driver may refuse what its own count has room for.
fn no_room(needed: u64, available: u64) -> String {
    if needed > available {
        return format!(
            "the device has no room: {needed} bytes are needed and {available} are available; release a shard, lower the headroom, \
             end what else uses the device, or use a smaller model"
        );
    }
    format!(
        "the driver gave no {needed} bytes of device memory, although it counts {available} as available: they lie in pieces, or came \
         free just now; try again, then end what else uses the device or split the model"
    )
}

const fn recover(kind: DriverErrorKind) -> &'static str {
    match kind {
        DriverErrorKind::OutOfMemory => {
            "free memory of the device, or of the host where host memory was asked for, then try again"
        }
        DriverErrorKind::InvalidValue => "the stream, event or memory may be gone, or not be this device's",
        DriverErrorKind::Sticky => "its context is dead: end the process and look at the driver's log",
        DriverErrorKind::Unavailable => "see whether the device is still there",
        DriverErrorKind::NotSupported => "use another driver or device",
        DriverErrorKind::Other => "try again, then look at the driver's log",
    }
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
    #[error("{}", no_room(*needed, *available))]
    OutOfMemory {
        /// Bytes that the request takes, in allocator granularity.
        needed: u64,
        /// Bytes that were available to it: free, and no headroom. Not fewer than needed where the driver gave no memory although
        /// there is as much.
        available: u64,
    },
    /// The shard is executing or being checked.
    #[error("shard {shard} is in use; finish its executions, then try again")]
    ShardBusy {
        /// The shard.
        shard: ShardId,
    },
    /// The handle speaks of a past generation.
    #[error(
        "the handle of shard {shard} is stale: that shard was released or sealed anew; use its newest seal, or seal it"
    )]
    StaleHandle {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The presented seal is not one that this manager honours. Nothing was executed; the manager still serves.
    #[error("the seal was refused ({reason}); {}", present(*reason))]
    SealRefused {
        /// Why.
        reason: RefusalReason,
    },
    /// The resident bytes, or the record, are not what was sealed. Nothing was executed since that was found, and no result of work
    /// since the last good check counts.
    #[error("the sealed bytes of shard {shard} have changed{}; nothing is executed any more, and no result since the last good check \
            counts: release it and load the model again, on a new manager if this one has stopped",
            place(first_bad.as_ref()))]
    IntegrityFailure {
        /// The shard.
        shard: ShardId,
        /// Where the first change lies, if the digest was what disagreed.
        first_bad: Option<BadRange>,
    },
    /// What was loaded, or read again, is not the expected model. What was loaded was wiped.
    #[error(
        "shard {shard} is not the expected model: its digest is {}, expected {} (of {}); check the file and the digest that \
         was expected",
        of.spell(actual), of.spell(expected), of.as_str()
    )]
    DigestMismatch {
        /// The shard.
        shard: ShardId,
        /// What the digests are of.
        of: DigestKind,
        /// What was vouched for, or read from the source.
        expected: Digest,
        /// What the source or the device holds.
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
    #[error("the device failed: {}; {}", .0, recover(.0.kind))]
    Device(#[from] DriverError),
    /// A kernel did not prove that it ran over everything; its result was not used.
    #[error(
        "the device did not prove that its {operation} ran, and no result since the last good check counts: the device or its driver is faulty, \
         take it out of service"
    )]
    DeviceUntrusted {
        /// The kernel.
        operation: &'static str,
    },
    /// Memory could not be wiped, not be proven zero, or not be given back; it stays out of the pool.
    #[error(
        "{bytes} bytes of shard {shard} could not be proven wiped and given back; they are quarantined and not reused, and the \
         end of the manager tries once more"
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
    #[error(
        "the audit trail did not accept the event {event}; nothing was done: {}; mend the sink, then try again",
        crate::text::shown(&source.problem)
    )]
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
        state: ManagerState,
    },
    /// A defect of this crate or of the platform.
    #[error("internal error: {what}; report it, with the audit trail")]
    Internal {
        /// What should not have happened.
        what: &'static str,
    },
}

impl From<Invalid> for VramError {
    fn from(Invalid { field, problem }: Invalid) -> Self {
        Self::InvalidParams { field, problem }
    }
}

impl From<NoHostMemory> for VramError {
    fn from(error: NoHostMemory) -> Self {
        let error = std::io::Error::from(error);
        Self::ModelLoad { problem: format!("{error}; raise the memory limit of this process"), source: Some(error) }
    }
}

impl VramError {
    /// The stable outward code. O(1).
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.class().0
    }

    /// Who has to act. O(1).
    #[must_use]
    pub const fn category(&self) -> ErrorCategory {
        self.class().1
    }

    const fn class(&self) -> (ErrorCode, ErrorCategory) {
        use {ErrorCategory as Who, ErrorCode as Code};
        match self {
            Self::InvalidParams { .. } => (Code::InvalidParams, Who::User),
            Self::Config { .. } => (Code::ConfigError, Who::User),
            Self::OutOfMemory { .. } => (Code::VramOom, Who::Capacity),
            Self::ShardBusy { .. } => (Code::ShardBusy, Who::User),
            Self::StaleHandle { .. } => (Code::StaleHandle, Who::User),
            Self::SealRefused { .. } => (Code::SealVerificationFailed, Who::User),
            Self::IntegrityFailure { .. } => (Code::SealVerificationFailed, Who::Integrity),
            Self::DigestMismatch { .. } => (Code::DigestMismatch, Who::User),
            Self::ModelLoad { .. } => (Code::ModelLoadFailed, Who::User),
            Self::PolicyViolation { .. } => (Code::PolicyViolation, Who::Policy),
            Self::Device(_) => (Code::CudaError, Who::Device),
            Self::DeviceUntrusted { .. } => (Code::DeviceUntrusted, Who::Device),
            Self::WipeFailed { .. } => (Code::WipeFailed, Who::Device),
            Self::DeviceUnavailable { .. } => (Code::DeviceUnavailable, Who::Device),
            Self::AuditUnavailable { .. } => (Code::AuditUnavailable, Who::Policy),
            Self::ManagerStopped { .. } => (Code::ManagerStopped, Who::State),
            Self::Internal { .. } => (Code::Internal, Who::Internal),
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
        use DriverErrorKind::{Other, OutOfMemory};
        match self {
            Self::ShardBusy { .. } => Some(Duration::from_millis(10)),
            Self::OutOfMemory { .. } | Self::AuditUnavailable { .. } => Some(Duration::from_secs(1)),
            Self::Device(DriverError { kind: Other | OutOfMemory, .. }) => Some(Duration::from_millis(100)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

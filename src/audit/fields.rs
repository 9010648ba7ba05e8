//! The values of fields of events: how loud, why kept, what did not verify, how work ended, what was called.

use serde::Serialize;

words! {
    /// How loudly an event should be heard.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Severity {
        /// Work as usual.
        Info = "info",
        /// Something was refused.
        Warning = "warning",
        /// Page someone.
        Critical = "critical",
    }
}

/// Why memory is kept out of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QuarantineCause {
    /// Its bytes are not the sealed ones; it is kept to be looked at.
    Evidence,
    /// It could not be proven zero; it may still hold weights.
    Residue,
    /// The device's context is dead: nothing can be wiped any more.
    WipeImpossible,
}

/// What did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VerificationFailure {
    /// The bytes in device memory have another digest.
    DigestMismatch,
    /// The bytes in device memory have another keyed hash; the event's digest is theirs where that, too, is another.
    KeyedMismatch,
    /// What was loaded does not have the digest that was expected of it.
    NotExpected,
    /// The file that was loaded does not have the plain SHA-256 that was expected of it; the event's digests are of that kind.
    NotExpectedSha256,
    /// What was loaded does not have the layout that was expected of it; the event's digests are those of layouts.
    NotExpectedLayout,
    /// An authentic seal disagrees with the live record.
    RecordMismatch,
    /// The shard failed before and is out of service.
    Quarantined,
    /// The device did not prove that it looked.
    DeviceUntrusted,
}

/// A call that can fail without an event of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// `verify_sealed`.
    Verify,
    /// `compute_vram_digest`.
    ComputeDigest,
    /// `difference`.
    Difference,
    /// `release`, `release_by_id`.
    Release,
    /// `allocate_scratch`, refused before any memory was asked for.
    AllocateScratch,
    /// `enforce_vram_only_policy`.
    EnforcePolicy,
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExecuteOutcome {
    /// Finished; its results may be used.
    Finished,
    /// Finished after the manager stopped, or over bytes that had changed: its results must not be used.
    Discarded,
    /// Dropped without being finished.
    Abandoned,
}

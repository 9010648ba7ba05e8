//! Keeps model weights honest in GPU memory.
//!
//! One crate that answers one question, again and again: **are the bytes in VRAM, right now, the bytes we sealed?** If not,
//! nothing executes.
//!
//! ```text
//!  validate → reserve → allocate → upload → digest in VRAM → compare
//!      → map read-only, where the driver can → digest again → sign → resident
//!                                                                        │
//!       ┌─────────────────── before EVERY execute ───────────────────────┤
//!       │ seal: tag → slot and generation → equals the record            │
//!       │ VRAM: re-digest → equals the record                            │
//!       │     yes → the caller's work runs, the shard pinned             │
//!       │     no  → nothing runs; quarantine, critical event, Stopped    │
//!       └────────────────────────────────────────────────────────────────┤
//!                                                                        ▼
//!                          release: writable → wipe → prove zero → free → give back
//! ```
//!
//! Any change of sealed bytes that is there when a full check runs is found before the work runs, and before its result leaves
//! where both sides are checked; a change that comes and goes between two checks is not. Bytes are wiped while process and
//! context live; after that the driver is trusted. Not defended: a GPU driver that lies to
//! both kernels and reads, code running inside this process, whoever may read VRAM.
//!
//! Begin with [`VramManager`]; its example is the main job. The digest is the file digest of
//! [fs-verity](https://docs.kernel.org/filesystems/fsverity.html), so the stock tool can check it.
//!
//! Not yet run on a GPU: the driver has run over the mock only, which has the CUDA driver API's functions over host memory.
#![cfg_attr(
    not(any(feature = "mock", feature = "cuda")),
    allow(dead_code, reason = "without the mock and without the CUDA driver nothing can open a device")
)]

#[macro_use]
mod macros;

pub(crate) mod audit;
pub(crate) mod capacity;
pub(crate) mod clock;
pub(crate) mod digest;
pub(crate) mod driver;
pub(crate) mod environment;
pub(crate) mod erase;
pub(crate) mod error;
pub(crate) mod ffi;
pub(crate) mod id;
pub(crate) mod keys;
pub(crate) mod manager;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod panics;
pub(crate) mod policy;
pub(crate) mod seal;
pub(crate) mod shards;
pub(crate) mod source;
pub(crate) mod spec;
pub(crate) mod sync;
pub(crate) mod text;
pub(crate) mod types;

pub use audit::{
    Ack, AuditEvent, AuditRequirement, AuditSink, EventKind, ExecuteOutcome, MemorySink, Operation, QuarantineCause,
    Severity, TracingSink, VerificationFailure,
};
pub use digest::layout::{Layout, LayoutKind, TensorInfo};
pub use digest::{TreeParams, digest_bytes, digest_reader};
#[cfg(feature = "mock")]
pub use driver::mock::{Fault, FaultOrder, MockCall, MockConfig, MockStats, ResidencyLie};
pub use error::{AuditError, BadRange, ErrorCategory, ErrorCode, ManagerState, RefusalReason, StopReason, VramError};
pub use id::{ModelRef, SetId, ShardId, WorkerId};
pub use keys::{SecretFileMode, WorkerSecret};
pub use manager::adopt::{AdoptError, Adopted};
pub use manager::difference::Difference;
pub use manager::execution::{Execution, OwnedExecution, Verified, VerifiedRegion};
pub use manager::inner::{OnIntegrityFailure, WipeReport};
pub use manager::scratch::{Purpose, Scratch};
pub use manager::set::SealedSet;
pub use manager::verify::VerifyReport;
pub use manager::{DeviceSelector, Posture, ShutdownReport, VramManager, VramManagerBuilder};
#[cfg(feature = "mock")]
pub use manager::{MockControls, MockStream};
pub use policy::Policy;
pub use seal::SealedShard;
pub use source::{ImageReader, ShardSource, SourceDigest, digest_source};
pub use spec::{Check, ExecuteOptions, Expectation, ShardSpec};
pub use types::{
    ChangedBit, DeviceKind, DeviceUuid, Digest, DigestKind, DriverError, DriverErrorKind, MemoryInfo, Origin,
    RawDevicePtr, RawRegion, RawStream, SealedDevice,
};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
mod tests;

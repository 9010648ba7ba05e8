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
//! Not yet run on a GPU: the CUDA driver has run against a stand-in for the driver library only.
#![cfg_attr(
    not(any(feature = "mock", feature = "cuda")),
    allow(dead_code, reason = "without the mock and without the CUDA driver nothing can open a device")
)]

pub(crate) mod adopt;
pub(crate) mod aside;
pub(crate) mod audit;
pub(crate) mod capacity;
pub(crate) mod clock;
pub(crate) mod core;
pub(crate) mod device;
pub(crate) mod digest;
pub(crate) mod driver;
#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
mod edges;
pub(crate) mod environment;
pub(crate) mod erase;
pub(crate) mod error;
pub(crate) mod execution;
pub(crate) mod expectation;
pub(crate) mod ffi;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod manager;
pub(crate) mod names;
pub(crate) mod policy;
pub(crate) mod residents;
pub(crate) mod scratch;
pub(crate) mod seal;
pub(crate) mod set;
pub(crate) mod source;
pub(crate) mod sync;
pub(crate) mod telemetry;
pub(crate) mod tensors;
pub(crate) mod verify;

pub use adopt::{AdoptError, Adopted, RawRegion};
pub use audit::{
    Ack, AuditError, AuditEvent, AuditRequirement, AuditSink, EventKind, ExecuteOutcome, MemorySink, Operation,
    QuarantineCause, Severity, TracingSink, VerificationFailure,
};
pub use core::{ManagerState, OnIntegrityFailure, WipeReport};
pub use digest::layout::{Layout, LayoutKind, TensorInfo};
pub use digest::{Digest, TreeParams, digest_bytes, digest_reader};
#[cfg(feature = "mock")]
pub use driver::mock::{Fault, FaultOrder, MockCall, MockConfig, MockStats, ResidencyLie};
pub use driver::{DeviceKind, DeviceUuid, DriverError, DriverErrorKind, MemoryInfo};
pub use error::{BadRange, ErrorCategory, ErrorCode, RefusalReason, StopReason, VramError};
pub use execution::{ExecuteOptions, Execution, OwnedExecution, RawDevicePtr, RawStream, Verified, VerifiedRegion};
pub use expectation::{DigestKind, Expectation};
pub use identity::{Origin, SealedDevice};
pub use keys::{SecretFileMode, WorkerSecret};
pub use manager::{DeviceSelector, Posture, ShardSpec, ShutdownReport, VramManager, VramManagerBuilder};
#[cfg(feature = "mock")]
pub use manager::{MockControls, MockStream};
pub use names::{ModelRef, SetId, ShardId, WorkerId};
pub use policy::Policy;
pub use scratch::{Purpose, Scratch};
pub use seal::SealedShard;
pub use set::SealedSet;
pub use source::{ImageReader, ShardSource, SourceDigest, digest_source};
pub use verify::{Check, VerifyReport};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Keeps model weights honest in GPU memory.

pub(crate) mod audit;
pub(crate) mod clock;
pub(crate) mod core;
pub(crate) mod digest;
pub(crate) mod driver;
pub(crate) mod error;
pub(crate) mod ffi;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod seal;
pub(crate) mod telemetry;
pub(crate) mod source;
pub(crate) mod tensors;

pub use audit::{
    Ack, AuditError, AuditEvent, AuditSink, EventKind, ExecuteOutcome, MemorySink, QuarantineCause, Severity,
    TracingSink, VerificationFailure,
};
pub use core::ManagerState;
pub use digest::layout::{Layout, LayoutKind, TensorInfo};
pub use digest::{Digest, TreeParams, digest_bytes, digest_reader};
pub use digest::{Digest, TreeParams};
#[cfg(feature = "mock")]
pub use driver::mock::{Fault, FaultOrder, MockCall, MockConfig, MockStats, ResidencyLie};
pub use driver::{DeviceKind, DeviceUuid, DriverError, DriverErrorKind, MemoryInfo};
pub use error::{BadRange, ErrorCategory, ErrorCode, RefusalReason, StopReason, VramError};
pub use identity::{Origin, SealedDevice};
pub use keys::{SecretFileMode, WorkerSecret};
pub use names::{ModelRef, SetId, ShardId, WorkerId};
pub use seal::SealedShard;
pub use source::{ShardSource, SourceDigest, digest_source};

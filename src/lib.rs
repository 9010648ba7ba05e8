//! Keeps model weights honest in GPU memory.

pub(crate) mod audit;
pub(crate) mod core;
pub(crate) mod digest;
pub(crate) mod driver;
pub(crate) mod error;
pub(crate) mod ffi;
pub(crate) mod names;

pub use audit::AuditError;
pub use core::ManagerState;
pub use digest::{Digest, TreeParams};
#[cfg(feature = "mock")]
pub use driver::mock::{Fault, FaultOrder, MockCall, MockConfig, MockStats, ResidencyLie};
pub use driver::{DeviceKind, DeviceUuid, DriverError, DriverErrorKind, MemoryInfo};
pub use error::{BadRange, ErrorCategory, ErrorCode, RefusalReason, StopReason, VramError};
pub use names::{ModelRef, SetId, ShardId, WorkerId};

//! Plain data that several floors speak of: devices and their memory, digests, who seals where, what engines hand over.
//!
//! Owns no behaviour but how a value is written, read and compared.

mod address;
mod bit;
mod device;
mod digest;
mod identity;
mod launch;
mod raw;
mod uuid;

pub(crate) use address::{DevicePtr, Span, StreamId};
pub use bit::ChangedBit;
pub(crate) use device::{Access, DeviceInfo, MemoryKind, Residency};
pub use device::{DeviceKind, DriverError, DriverErrorKind, MemoryInfo};
pub use digest::{Digest, DigestKind};
pub(crate) use identity::Identity;
pub use identity::{Origin, SealedDevice};
pub(crate) use launch::{DigestJob, KeyedJob, KeyedSizes, LaunchResult};
pub use raw::{RawDevicePtr, RawRegion, RawStream};
pub use uuid::DeviceUuid;

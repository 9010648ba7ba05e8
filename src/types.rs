//! Plain data that several floors speak of: devices and those who seal on them.
//!
//! Owns no behaviour but how a value is written, read and compared.

mod identity;
mod uuid;

pub(crate) use identity::Identity;
pub use identity::{Origin, SealedDevice};
pub use uuid::DeviceUuid;

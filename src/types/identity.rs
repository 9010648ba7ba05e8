//! Who seals, where, and on whose word.
//!
//! Owns [`SealedDevice`] and [`Origin`], which seals and events both carry, and [`Identity`], what one manager is to both.
//! Plain data; knows nobody above.

use serde::{Deserialize, Serialize};

use crate::id::WorkerId;
use crate::types::{DeviceKind, DeviceUuid};

/// The device that holds a sealed shard, as the seal states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SealedDevice {
    /// CUDA or mock.
    pub kind: DeviceKind,
    /// The driver's identity of the device.
    pub uuid: DeviceUuid,
    /// The driver's ordinal of the device.
    pub ordinal: u32,
}

words! {
    /// Whose word the sealed digest rests on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Origin: Display {
        /// The caller named the digest beforehand: someone vouched for these bytes.
        Expected = "expected",
        /// The digest is that of whatever was read: the seal blesses it, nobody vouched for it.
        Measured = "measured",
    }
}

/// One manager: its worker, its epoch, its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) worker: WorkerId,
    /// 16 bytes drawn when the manager was built.
    pub(crate) epoch: [u8; 16],
    pub(crate) kind: DeviceKind,
    pub(crate) uuid: DeviceUuid,
    pub(crate) ordinal: u32,
}

//! What a driver says of its device and of its memory, and how its calls fail.

use serde::{Deserialize, Serialize};

use super::{DeviceUuid, Span};

words! {
    /// What sort of device a manager runs on. It is signed into every seal and named in every event.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    #[non_exhaustive]
    pub enum DeviceKind: Display {
        /// A CUDA GPU.
        Cuda = "cuda",
        /// Host memory that behaves like a GPU. It protects nothing.
        Mock = "mock",
    }
}

impl DeviceKind {
    /// As it is signed, and as keys are derived for it.
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Cuda => 1,
            Self::Mock => 2,
        }
    }
}

/// What a driver says of its device once, when it is opened.
#[derive(Clone, Debug)]
pub(crate) struct DeviceInfo {
    pub(crate) kind: DeviceKind,
    pub(crate) ordinal: u32,
    pub(crate) uuid: DeviceUuid,
    pub(crate) name: String,
    pub(crate) total_bytes: u64,
    /// The allocation unit: a power of two; every allocation takes a multiple of it.
    pub(crate) granularity: u64,
}

/// The driver's view of the device's memory, in bytes. Other processes count too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Free now.
    pub free: u64,
    /// On the device in all.
    pub total: u64,
}

/// Where a driver says that an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryKind {
    /// The driver gave no answer, or an all-zero one.
    Unknown,
    /// Host memory.
    Host,
    /// Memory of a device.
    Device,
    /// Managed memory, which migrates.
    Managed,
}

/// A driver's answers about one allocation. Judged in `memory/region.rs`, not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Residency {
    pub(crate) kind: MemoryKind,
    pub(crate) host_mapped: bool,
    /// Another process could be given it: it was allocated with a handle type for that.
    pub(crate) exportable: bool,
    /// Another process could be given it by CUDA's older calls, as all memory of engines' own allocators can.
    pub(crate) ipc_capable: bool,
    pub(crate) ordinal: Option<u32>,
    /// The allocation that contains the address.
    pub(crate) range: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Kernels and copies may only read.
    ReadOnly,
    /// Kernels and copies may read and write.
    ReadWrite,
}

/// Why a driver call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverErrorKind {
    /// The device has no room.
    OutOfMemory,
    /// The driver refused an argument: a bug above it, or a stale handle.
    InvalidValue,
    /// The context is dead: every later call fails, and its memory cannot be wiped.
    Sticky,
    /// The device is gone or was never there.
    Unavailable,
    /// The driver does not offer this.
    NotSupported,
    /// Anything else, transient failures included.
    Other,
}

/// A failed driver call: which, and the driver's own number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} failed with driver error {code} ({name})")]
pub struct DriverError {
    /// The driver's name of the call.
    pub operation: &'static str,
    /// The driver's number, kept even when this crate does not know it.
    pub code: u32,
    /// The driver's word for the number, or `unknown`.
    pub name: &'static str,
    /// What it means to a caller.
    pub kind: DriverErrorKind,
}

impl DriverError {
    /// The number of what cannot be done while a stream's work is recorded (`CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`).
    pub(crate) const CAPTURING: u32 = 900;
}

//! The unsafe room.
//!
//! Owns every raw pointer and every foreign call of the crate. Offers safe types to the floors above, and the few
//! `unsafe fn` whose contract only a caller can keep. Rules: one unsafe operation per block; its SAFETY comment names the
//! check or the invariant that it rests on; a foreign status is a `#[must_use]` type; no reference over memory that
//! someone else may write while it lives.
//!
//! Inventory:
//! - `table`: the functions of the CUDA driver API, from the NVIDIA driver's library or from the mock, with plain numbers for
//!   results; `types`: its structures, compared with cudarc's.
//! - `context`, `memory`, `pinned`, `stream`, `kernels`: what lives on a device. Every call runs with the device's context current
//!   and leaves the caller's stack of contexts as it was; a handle is used only while it lives. The driver checks device
//!   addresses of its own calls; those that kernels use are checked in `driver`.
//! - `host`: [`host::HostBuffer`], staging memory that a driver allocated. Its bytes are lent only after the driver has
//!   said that no copy uses them.
//! - `status`: what the driver's numbers mean; any number is fine.
//! - `mock` (feature `mock`): what the mock has besides that API. `step`: what the driver says to it, and to nobody elsewhere.
//! - `tests` (feature `mock`): the kernels' bodies compiled for the host, launched on memory that the tests own.
#![allow(unsafe_code, reason = "the one room where foreign memory and foreign calls are touched")]

mod context;
mod host;
mod kernels;
mod memory;
#[cfg(feature = "mock")]
pub(crate) mod mock;
mod pinned;
mod status;
mod step;
mod stream;
mod table;
#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;
mod types;

pub(crate) use context::{Api, Context};
pub(crate) use host::HostBuffer;
pub(crate) use kernels::{CountArgs, FinishArgs, Kernels, KeyedArgs, LeavesArgs, NodesArgs, ONE, Region};
pub(crate) use memory::{Attributes, Mapping, Unmapped};
pub(crate) use pinned::Pinned;
pub(crate) use status::{INVALID_HANDLE, INVALID_VALUE, failure};
pub(crate) use step::Operation;
pub(crate) use stream::{AnyStream, Event, Stream};
pub(crate) use table::LoadError;
#[cfg(feature = "cuda")]
pub(crate) use table::{Candidate, Needed};
#[cfg(test)]
pub(crate) use table::{OPTIONAL, REQUIRED};
pub(crate) use types::{
    ALLOCATION_PINNED, HANDLE_TYPE_NONE, LOCATION_DEVICE, MEMORY_DEVICE, MEMORY_HOST, MEMORY_UNIFIED,
};

/// `value` as the driver's `size_t`; a size that does not fit is out of any range.
fn native(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

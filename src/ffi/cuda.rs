//! The CUDA driver's library, made safe.
//!
//! Owns [`Api`] (the library, started), [`Context`] (a device's primary context, shared with engines), and what lives in it:
//! [`Mapping`] (device memory), [`Pinned`] staging, [`Stream`], [`Event`], [`Kernels`]. Promises that every call runs with the
//! device's context current and leaves the caller's stack of contexts as it was, that a handle is used only while it lives,
//! and that a number of the driver, known or not, becomes an error that carries it. Refuses to know policy: what answers mean
//! and which addresses may be used is judged in `driver/cuda`.
//!
//! Runs against a stand-in for the driver in tests; not yet run on a GPU.

mod context;
mod kernels;
mod memory;
mod pinned;
mod status;
mod stream;
mod table;
mod types;

pub(crate) use context::{Api, Context};
pub(crate) use kernels::{CountArgs, FinishArgs, Kernels, LeavesArgs, NodesArgs, ONE, Region};
pub(crate) use memory::{Attributes, Mapping, Unmapped};
pub(crate) use pinned::Pinned;
pub(crate) use status::{INVALID_HANDLE, INVALID_VALUE, failure};
pub(crate) use stream::{AnyStream, Event, Stream};
pub(crate) use table::{Candidate, LoadError, Needed};
#[cfg(test)]
pub(crate) use table::{OPTIONAL, REQUIRED};
pub(crate) use types::{
    ALLOCATION_PINNED, HANDLE_TYPE_NONE, LOCATION_DEVICE, MEMORY_DEVICE, MEMORY_HOST, MEMORY_UNIFIED,
};

/// `value` as the driver's `size_t`; a size that does not fit is out of any range.
fn native(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The driver's `size_t` as ours.
fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

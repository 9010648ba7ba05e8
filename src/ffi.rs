//! The unsafe room.
//!
//! Owns every raw pointer and every foreign call of the crate. Offers safe types to the floors above, and the few
//! `unsafe fn` whose contract only a caller can keep. Rules: one unsafe operation per block; its SAFETY comment names the
//! check or the invariant that it rests on; a foreign status is a `#[must_use]` type; no reference over memory that
//! someone else may write while it lives.
//!
//! Inventory:
//! - `host`: [`host::HostBuffer`], staging memory that a driver allocated. Its bytes are lent only after the driver has
//!   said that no copy uses them.
//! - `mock` (feature `mock`): the C mock, mirrored by `mock/abi.rs`. The C side checks every device address; this side
//!   vouches for the pointers of each call.
//! - `cuda` (feature `cuda`): the NVIDIA driver's library, loaded at run time. A table of its functions with plain numbers
//!   for results; handles that are used only while they live; structures compared with cudarc's. The driver checks device
//!   addresses of its own calls; those that kernels use are checked in `driver/cuda`.
//! - `kernels` (tests, feature `mock`): the kernels' bodies compiled for the host, launched on memory that the tests own.
#![allow(unsafe_code, reason = "the one room where foreign memory and foreign calls are touched")]

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod host;
#[cfg(test)]
#[cfg(feature = "mock")]
mod kernels;
#[cfg(feature = "mock")]
pub(crate) mod mock;

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
//! - `kernels` (tests, feature `mock`): the kernels' bodies compiled for the host, launched on memory that the tests own.
//! - `cuda` (feature `cuda`): looks whether an NVIDIA driver library is there.
#![allow(unsafe_code, reason = "the one room where foreign memory and foreign calls are touched")]

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod host;
#[cfg(test)]
#[cfg(feature = "mock")]
mod kernels;
#[cfg(feature = "mock")]
pub(crate) mod mock;

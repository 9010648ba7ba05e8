//! The unsafe room.
#![allow(unsafe_code, reason = "the one room where foreign memory and foreign calls are touched")]

pub(crate) mod host;

//! Working memory, and how a manager ends: everything is counted, everything is wiped, and nothing is wiped under its user.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod scratch;
mod shutdown;
#[path = "../support/mod.rs"]
mod support;

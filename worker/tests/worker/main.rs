//! The promises of `vram-worker`'s command line, from outside: what it takes, what it says, how it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests may fail loudly"
)]

mod bench;
mod common;
mod digest;
mod environment;
mod expect;
mod models;
mod outside;
mod parts;
mod refusals;
mod run;
mod signals;
mod streams;
mod terminal;

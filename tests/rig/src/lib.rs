//! Machines for the suites: the mock or a GPU, seen as an engine or an attacker sees them.
//!
//! Owns [`Machine`], which `VRAM_TEST_DEVICE` names (`mock` or `cuda:ORDINAL`; the mock when unset), and what a
//! suite does on it behind the library's back. The library itself never reads that variable. For the project's own suites only.

#![allow(unsafe_code, reason = "an engine, and an attacker, call the driver themselves")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a suite that cannot go on fails"
)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "a suite that overflows fails")]
#![allow(clippy::missing_panics_doc, missing_docs, reason = "for the project's own suites")]

mod attack;
mod machine;
mod measure;
mod memory;
mod raw;
mod stream;

pub use attack::{Access, Mapped};
pub use machine::{Kind, Machine};
pub use measure::Pinned;
pub use memory::Memory;
pub use raw::{Alias, EngineKernels, Raw};
pub use stream::EngineStream;

pub use raw::Foreign;

//! What the suites share: devices ([`Machine`], which `VRAM_TEST_DEVICE` names) and what engines and attackers do on them behind the
//! library's back ([`Raw`]); a manager on a mock of its own and the invariants that hold after whatever happened ([`Rig`]); numbers
//! that repeat ([`Dice`]), model files, and foreign code on order: sinks, readers, owners. The library never reads that variable.

#![allow(unsafe_code, reason = "an engine, and an attacker, call the driver themselves")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a suite fails so"
)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "a suite that overflows fails")]
#![allow(
    missing_docs,
    clippy::len_without_is_empty,
    clippy::missing_panics_doc,
    clippy::new_without_default,
    reason = "for the project's own suites"
)]

mod dice;
mod engine;
mod files;
mod foreign;
mod machine;
mod memory;
mod raw;
mod rig;
mod stream;
mod trail;
pub mod vouching;

pub use dice::{Dice, noise};
pub use engine::{Arena, Drops, Engine, adopt, adopt_bytes, image, offset, on, refused, regions, scatter};
pub use files::{model, safetensors};
pub use foreign::{Hook, OnDrop, Reads, fill, hook, never, reads, silent};
pub use machine::{Kind, Machine};
pub use memory::Memory;
pub use raw::{Access, EngineKernels, Mapping, Pinned, Raw, Refused};
pub use rig::{Counts, LIES, Rig, assert_recount, block, builder, check_bytes, execute, name, small, spec};
pub use stream::EngineStream;
pub use trail::{assert_clean, assert_contiguous, assert_paired, refusals, until, within};

/// Whether the error is this variant.
#[macro_export]
macro_rules! assert_error {
    ($result:expr, $($pattern:tt)+) => {
        match $result {
            Err($($pattern)+) => {}
            other => panic!("{other:?} is not {}", stringify!($($pattern)+)),
        }
    };
}

/// What the events of one kind say, in order: `said!(rig, EventKind::VramWiped { bytes, .. } => bytes)`.
#[macro_export]
macro_rules! said {
    ($rig:expr, $pattern:pat => $value:expr) => {
        $rig.sink
            .events()
            .into_iter()
            .filter_map(|event| match event.kind {
                $pattern => Some($value),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
}

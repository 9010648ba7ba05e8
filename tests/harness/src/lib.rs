//! What the suites share: a manager on a machine of its own and the invariants that hold after whatever happened ([`Rig`]), numbers
//! that repeat ([`Dice`]), model files, an engine's memory ([`Arena`]), and foreign code on order: sinks, readers, owners.

#![allow(unsafe_code, reason = "an engine hands over its memory and its streams")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a suite that cannot go on fails")]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "a suite that overflows fails")]
#![allow(
    missing_docs,
    clippy::len_without_is_empty,
    clippy::new_without_default,
    reason = "for the project's own suites"
)]

mod dice;
mod engine;
mod files;
mod foreign;
mod rig;
mod trail;
pub mod vouching;

pub use dice::{Dice, noise};
pub use engine::{Arena, Drops, Engine, adopt, adopt_bytes, image, offset, on, refused, regions, scatter};
pub use files::{model, safetensors};
pub use foreign::{Hook, OnDrop, Reads, fill, hook, never, reads};
pub use rig::{Counts, LIES, Rig, assert_recount, block, builder, execute, name, small, spec};
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

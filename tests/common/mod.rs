//! [`support`] in other words, for suites that name the bit of a flip.

#![allow(dead_code, unused_imports, reason = "each suite uses its own part of this file")]

#[path = "../support/mod.rs"]
mod support;

use vram_residency::{AuditEvent, MockConfig, SealedShard, VramManagerBuilder};

pub(crate) use support::*;

/// As there; a flip names its bit.
pub(crate) struct Rig(support::Rig);

impl Rig {
    pub(crate) fn new() -> Self {
        Self(support::Rig::new())
    }

    pub(crate) fn lenient() -> Self {
        Self(support::Rig::lenient())
    }

    pub(crate) fn with(config: MockConfig, choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder) -> Self {
        Self(support::Rig::with(config, choose))
    }

    pub(crate) fn flip(&self, shard: &SealedShard, byte: u64, bit: u8) {
        self.0.flip_bit(shard, byte, bit);
    }

    #[track_caller]
    pub(crate) fn close_clean(self) -> Vec<AuditEvent> {
        self.0.close_clean()
    }
}

impl std::ops::Deref for Rig {
    type Target = support::Rig;

    fn deref(&self) -> &support::Rig {
        &self.0
    }
}

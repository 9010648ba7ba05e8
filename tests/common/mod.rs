//! What the suites over the public API share: a manager on a mock machine of its own, bytes that look like weights, and
//! the invariants that must hold after whatever happened.

#![allow(dead_code, reason = "each suite uses its own part of this file")]

mod dice;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vram_residency::{
    AuditEvent, AuditRequirement, DeviceSelector, EventKind, MemorySink, MockConfig, MockStats, OnIntegrityFailure,
    Policy, SealedShard, ShardId, ShardSource, ShardSpec, TreeParams, VramError, VramManager, VramManagerBuilder,
    WorkerId, WorkerSecret,
};

#[allow(unused_imports, reason = "each suite uses its own part of this file")]
pub(crate) use dice::{Dice, noise};

/// A manager on a mock machine, with its trail.
pub(crate) struct Rig {
    pub(crate) config: MockConfig,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) manager: VramManager,
}

/// A small machine, in development.
pub(crate) fn small() -> MockConfig {
    MockConfig::new().capacity_bytes(8 << 20)
}

pub(crate) fn block(bytes: u32) -> TreeParams {
    TreeParams::new(bytes, b"").unwrap()
}

pub(crate) fn spec(name: &str) -> ShardSpec {
    ShardSpec::new(ShardId::new(name).unwrap())
}

/// Begins a manager as every suite wants it, on a clone of `config`.
pub(crate) fn builder(config: &MockConfig) -> VramManagerBuilder {
    VramManager::builder(WorkerId::new("suite").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(config.clone()))
        .policy(Policy::development())
        .headroom(0)
        .staging(64 << 10)
        .digest_threads(1)
        .tree_params(block(1024))
}

impl Rig {
    /// An integrity failure stops this one.
    pub(crate) fn new() -> Self {
        Self::with(small(), |builder| builder)
    }

    /// An integrity failure quarantines only the shard of this one.
    pub(crate) fn lenient() -> Self {
        Self::with(small(), |builder| builder.on_integrity_failure(OnIntegrityFailure::QuarantineShard))
    }

    /// This one asks for an audit trail; its sink claims to be durable.
    pub(crate) fn audited() -> Self {
        let (config, sink) = (small(), Arc::new(MemorySink::claiming_durable()));
        let policy = Policy::development().require_audit(AuditRequirement::Durable);
        let manager = builder(&config).policy(policy).audit(sink.clone()).build().unwrap();
        Self { config, sink, manager }
    }

    pub(crate) fn with(config: MockConfig, choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder) -> Self {
        let sink = Arc::new(MemorySink::default());
        let manager = choose(builder(&config).audit(sink.clone())).build().unwrap();
        Self { config, sink, manager }
    }

    pub(crate) fn seal(&self, name: &str, bytes: &[u8]) -> SealedShard {
        self.try_seal(name, bytes).unwrap()
    }

    pub(crate) fn try_seal(&self, name: &str, bytes: &[u8]) -> Result<SealedShard, VramError> {
        self.manager.seal_model(spec(name), ShardSource::bytes(bytes))
    }

    pub(crate) fn flip(&self, shard: &SealedShard, byte: u64, bit: u8) {
        self.manager.mock_controls().unwrap().flip_bit(shard, byte, bit).unwrap();
    }

    /// Executes, and says whether the work ran.
    pub(crate) fn execute(&self, shard: &SealedShard) -> (Result<(), VramError>, bool) {
        execute(&self.manager, shard)
    }

    /// Names of the events after the first `from`.
    pub(crate) fn names_since(&self, from: usize) -> Vec<&'static str> {
        self.sink.names().split_off(from)
    }

    /// Where [`Rig::names_since`] would begin now.
    pub(crate) fn mark(&self) -> usize {
        self.sink.names().len()
    }

    /// The ledger against the driver's own count.
    #[track_caller]
    pub(crate) fn assert_recount(&self) {
        assert_recount(&self.manager, &self.config);
    }

    /// Drops the manager and gives what the machine and the trail then say.
    pub(crate) fn close(self) -> (MockStats, Vec<AuditEvent>) {
        let Self { config, sink, manager } = self;
        drop(manager);
        (config.stats(), sink.events())
    }

    /// Drops the manager and asserts that nothing of it is left.
    #[track_caller]
    pub(crate) fn close_clean(self) {
        let (stats, events) = self.close();
        assert_clean(&stats);
        assert_contiguous(&events);
    }
}

pub(crate) fn execute(manager: &VramManager, shard: &SealedShard) -> (Result<(), VramError>, bool) {
    let ran = AtomicBool::new(false);
    let outcome = manager.execute(shard, |_| ran.store(true, Ordering::SeqCst));
    (outcome, ran.load(Ordering::SeqCst))
}

#[track_caller]
pub(crate) fn assert_recount(manager: &VramManager, config: &MockConfig) {
    let live = config.stats().live_bytes;
    assert_eq!(manager.used_vram(), live, "the ledger against the driver's count");
    assert_eq!(manager.available_vram(), manager.total_vram() - live, "what is left, without headroom");
}

/// Nothing lives on the machine, and nothing was freed unwiped.
#[track_caller]
pub(crate) fn assert_clean(stats: &MockStats) {
    assert_eq!((stats.live_allocations, stats.live_bytes), (0, 0), "device memory");
    assert_eq!((stats.live_streams, stats.live_events, stats.pending_operations), (0, 0, 0), "streams and events");
    assert_eq!((stats.live_host_buffers, stats.live_host_bytes), (0, 0), "host buffers");
    assert_eq!((stats.unwiped_bytes_freed, stats.unwiped_host_bytes_freed), (0, 0), "unwiped bytes");
}

/// Sequence numbers from 1, without gaps.
#[track_caller]
pub(crate) fn assert_contiguous(events: &[AuditEvent]) {
    for (event, expected) in events.iter().zip(1..) {
        assert_eq!(event.sequence, expected, "{}", event.kind.name());
    }
}

/// How many refusals the trail speaks of.
pub(crate) fn refusals(events: &[AuditEvent]) -> u64 {
    let counted = events.iter().map(|event| match &event.kind {
        EventKind::SealRefused { suppressed, .. } => 1 + suppressed,
        _ => 0,
    });
    counted.sum()
}

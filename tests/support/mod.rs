//! What the suites on the mock share: a manager on a machine of its own, bytes that look like weights, an engine's memory that can
//! be watched from outside, and the invariants that must hold after whatever happened.
//!
//! The suites that run on any device have `tests/rig` instead.

#![allow(dead_code, reason = "each suite uses its own part of this file")]

mod dice;
mod engine;
mod safetensors;
pub(crate) mod vouching;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use vram_residency::{
    AuditEvent, AuditRequirement, DeviceSelector, EventKind, FaultOrder, MemorySink, MockCall, MockConfig,
    MockControls, MockStats, OnIntegrityFailure, Policy, ResidencyLie, SealedShard, ShardId, ShardSource, ShardSpec,
    TreeParams, VramError, VramManager, VramManagerBuilder, WorkerId, WorkerSecret,
};

#[allow(unused_imports, reason = "each suite uses its own part of this file")]
pub(crate) use dice::{Dice, noise};
#[allow(unused_imports, reason = "each suite uses its own part of this file")]
pub(crate) use engine::{Arena, Drops, Engine, adopt, image, offset, refused, regions, scatter};
#[allow(unused_imports, reason = "each suite uses its own part of this file")]
pub(crate) use safetensors::safetensors;

/// A manager on a mock machine, with its trail.
pub(crate) struct Rig {
    pub(crate) config: MockConfig,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) manager: Arc<VramManager>,
}

/// A small machine.
pub(crate) fn small() -> MockConfig {
    MockConfig::new().capacity_bytes(16 << 20)
}

/// What a driver may say of memory that is not where it should be.
pub(crate) const LIES: [ResidencyLie; 7] = [
    ResidencyLie::Host,
    ResidencyLie::Managed,
    ResidencyLie::HostMapped,
    ResidencyLie::Exportable,
    ResidencyLie::WrongOrdinal,
    ResidencyLie::AllZero,
    ResidencyLie::ShortRange,
];

pub(crate) fn block(bytes: u32) -> TreeParams {
    TreeParams::new(bytes, b"").unwrap()
}

pub(crate) fn name(text: &str) -> ShardId {
    ShardId::new(text).unwrap()
}

pub(crate) fn spec(text: &str) -> ShardSpec {
    ShardSpec::new(name(text))
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

    /// An engine can write over the shards of this one: its device does not map memory read-only.
    pub(crate) fn writable() -> Self {
        Self::with(small().read_only(false), |builder| builder)
    }

    /// Writable, and lenient too.
    pub(crate) fn lenient_writable() -> Self {
        Self::with(small().read_only(false), |builder| {
            builder.on_integrity_failure(OnIntegrityFailure::QuarantineShard)
        })
    }

    /// This one asks for an audit trail; its sink claims to be durable.
    pub(crate) fn audited() -> Self {
        let policy = Policy::development().require_audit(AuditRequirement::Durable);
        Self::on(small(), Arc::new(MemorySink::claiming_durable()), |builder| builder.policy(policy))
    }

    pub(crate) fn with(config: MockConfig, choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder) -> Self {
        Self::on(config, Arc::new(MemorySink::default()), choose)
    }

    pub(crate) fn on(
        config: MockConfig,
        sink: Arc<MemorySink>,
        choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        let manager = Arc::new(choose(builder(&config).audit(sink.clone())).build().unwrap());
        Self { config, sink, manager }
    }

    pub(crate) fn seal(&self, id: &str, bytes: &[u8]) -> SealedShard {
        self.try_seal(id, bytes).unwrap()
    }

    pub(crate) fn try_seal(&self, id: &str, bytes: &[u8]) -> Result<SealedShard, VramError> {
        self.manager.seal_model(spec(id), ShardSource::bytes(bytes))
    }

    pub(crate) fn controls(&self) -> MockControls<'_> {
        self.manager.mock_controls().unwrap()
    }

    /// Changes a byte, where it does not matter which of its bits.
    pub(crate) fn flip(&self, shard: &SealedShard, byte: u64) {
        self.flip_bit(shard, byte, 3);
    }

    pub(crate) fn flip_bit(&self, shard: &SealedShard, byte: u64, bit: u8) {
        self.controls().flip_bit(shard, byte, bit).unwrap();
    }

    /// Executes, and says whether the work ran.
    pub(crate) fn execute(&self, shard: &SealedShard) -> (Result<(), VramError>, bool) {
        execute(&self.manager, shard)
    }

    /// Orders something to go wrong.
    pub(crate) fn order(&self, fault: impl Into<FaultOrder>) {
        self.config.fail(fault).unwrap();
    }

    /// Digest kernels that have run.
    pub(crate) fn digests(&self) -> u64 {
        self.config.stats().runs(MockCall::Digest)
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

    /// How many events of this name left.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.sink.names().iter().filter(|event| **event == name).count()
    }

    /// Operations on the machine that have not run yet.
    pub(crate) fn pending(&self) -> u64 {
        self.config.stats().pending_operations
    }

    /// What can be counted from outside, for a comparison of before and after.
    pub(crate) fn counts(&self) -> Counts {
        let stats = self.config.stats();
        Counts {
            used: self.manager.used_vram(),
            adopted: self.manager.adopted_vram(),
            quarantined: self.manager.quarantined_vram(),
            live_bytes: stats.live_bytes,
            live_foreign: stats.live_foreign,
            live_events: stats.live_events,
        }
    }

    /// Drops the manager and gives what the machine and the trail then say.
    #[track_caller]
    pub(crate) fn close(self) -> (MockStats, Vec<AuditEvent>) {
        let Self { config, sink, manager } = self;
        assert_eq!(Arc::strong_count(&manager), 1, "somebody still holds the manager");
        drop(manager);
        (config.stats(), sink.events())
    }

    /// Drops the manager and asserts that nothing of it is left. What its trail said comes back.
    #[track_caller]
    pub(crate) fn close_clean(self) -> Vec<AuditEvent> {
        let (stats, events) = self.close();
        assert_clean(&stats);
        assert_contiguous(&events);
        assert_paired(&events);
        events
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) used: u64,
    pub(crate) adopted: u64,
    pub(crate) quarantined: u64,
    pub(crate) live_bytes: u64,
    pub(crate) live_foreign: u64,
    pub(crate) live_events: u64,
}

pub(crate) fn execute(manager: &VramManager, shard: &SealedShard) -> (Result<(), VramError>, bool) {
    let ran = AtomicBool::new(false);
    let outcome = manager.execute(shard, |_| ran.store(true, Ordering::SeqCst));
    (outcome, ran.load(Ordering::SeqCst))
}

/// The ledger against the driver's own count, without headroom.
#[track_caller]
pub(crate) fn assert_recount(manager: &VramManager, config: &MockConfig) {
    let live = config.stats().live_bytes;
    assert_eq!(manager.used_vram(), live, "the ledger against the driver's count");
    assert_eq!(manager.available_vram(), manager.total_vram() - live, "what is left");
}

/// Nothing lives on the machine, and nothing was freed unwiped.
#[track_caller]
pub(crate) fn assert_clean(stats: &MockStats) {
    assert_eq!((stats.live_allocations, stats.live_bytes, stats.live_foreign), (0, 0, 0), "device memory");
    assert_eq!((stats.live_streams, stats.live_events, stats.pending_operations), (0, 0, 0), "streams and events");
    assert_eq!((stats.live_host_buffers, stats.live_host_bytes), (0, 0), "host buffers");
    assert_eq!((stats.unwiped_bytes_freed, stats.unwiped_host_bytes_freed), (0, 0), "unwiped bytes");
    assert_eq!(stats.unmet_faults, 0, "faults that were ordered and met no call");
}

/// Sequence numbers from 1, without gaps.
#[track_caller]
pub(crate) fn assert_contiguous(events: &[AuditEvent]) {
    for (event, expected) in events.iter().zip(1..) {
        assert_eq!(event.sequence, expected, "{}", event.kind.name());
    }
}

/// Every `execute_started` has exactly one `execute_finished` behind it.
#[track_caller]
pub(crate) fn assert_paired(events: &[AuditEvent]) {
    let mut running = std::collections::HashMap::<ShardId, i64>::new();
    for event in events {
        match &event.kind {
            EventKind::ExecuteStarted { shard, .. } => *running.entry(shard.clone()).or_default() += 1,
            EventKind::ExecuteFinished { shard, .. } => {
                let left = running.entry(shard.clone()).or_default();
                *left -= 1;
                assert!(*left >= 0, "{shard} finished before it started");
            }
            _ => {}
        }
    }
    assert!(running.values().all(|left| *left == 0), "started and never finished: {running:?}");
}

/// How many refusals the trail speaks of.
pub(crate) fn refusals(events: &[AuditEvent]) -> u64 {
    let counted = events.iter().map(|event| match &event.kind {
        EventKind::SealRefused { suppressed, .. } => 1 + suppressed,
        _ => 0,
    });
    counted.sum()
}

/// Runs `work` and ends the process, instead of hanging for ever, when it does not end.
pub(crate) fn within(limit: Duration, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let (done, ended) = mpsc::channel();
        let worker = scope.spawn(move || {
            work();
            let _ = done.send(());
        });
        if let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(limit) {
            eprintln!("deadlock: the threads did not end within {limit:?}");
            std::process::abort();
        }
        worker.join().unwrap();
    });
}

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

//! A manager on a mock machine of its own, with its trail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use vram_residency::{
    Ack, AuditEvent, AuditRequirement, DeviceSelector, EventKind, ExecuteOptions, ExecuteOutcome, Execution,
    FaultOrder, MemorySink, MockCall, MockConfig, MockControls, MockStats, MockStream, OnIntegrityFailure, Policy,
    ResidencyLie, SealedShard, ShardId, ShardSource, ShardSpec, TreeParams, VramError, VramManager, VramManagerBuilder,
    WorkerId, WorkerSecret, digest_bytes,
};

use crate::{assert_clean, assert_contiguous, assert_paired, hook, noise, vouching};

/// A manager on a mock machine, with its trail.
pub struct Rig {
    pub config: MockConfig,
    pub sink: Arc<MemorySink>,
    pub manager: Arc<VramManager>,
}

/// A small machine.
pub fn small() -> MockConfig {
    MockConfig::new().capacity_bytes(16 << 20)
}

/// What a driver may say of memory that is not where it should be.
pub const LIES: [ResidencyLie; 7] = [
    ResidencyLie::Host,
    ResidencyLie::Managed,
    ResidencyLie::HostMapped,
    ResidencyLie::Exportable,
    ResidencyLie::WrongOrdinal,
    ResidencyLie::AllZero,
    ResidencyLie::ShortRange,
];

pub fn block(bytes: u32) -> TreeParams {
    TreeParams::new(bytes, b"").unwrap()
}

/// What the checks of an image of one region take: result, table, a list of two regions, and the hashes of 1 GiB's leaves; or, where that
/// is more, a keyed hash: head, a key a level, list, and the outputs of a GiB and of the levels between.
pub fn check_bytes(bytes: u64, block: u64) -> u64 {
    let leaves = bytes.div_ceil(block);
    let digest = (1 + leaves.div_ceil(block / 32)) * 32 + 64 + leaves.min((1 << 30) / block) * 32;
    let mut levels = vec![bytes.div_ceil(4096)];
    while levels[levels.len() - 1] > 1 {
        levels.push(levels[levels.len() - 1].div_ceil(256));
    }
    let outputs = levels.iter().enumerate().map(|(level, blocks)| match (blocks, level) {
        (1, _) => 0,
        (_, 0) => 16 * blocks.min(&(1 << 18)),
        _ => 16 * blocks,
    });
    digest.max(64 + 4112 * levels.len() as u64 + 32 + outputs.sum::<u64>())
}

pub fn name(text: &str) -> ShardId {
    ShardId::new(text).unwrap()
}

pub fn spec(text: &str) -> ShardSpec {
    ShardSpec::new(name(text))
}

/// Begins a manager as every suite wants it, on a clone of `config`.
pub fn builder(config: &MockConfig) -> VramManagerBuilder {
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
    pub fn new() -> Self {
        Self::with(small(), |builder| builder)
    }

    /// An integrity failure quarantines only the shard of this one.
    pub fn lenient() -> Self {
        Self::with(small(), |builder| builder.on_integrity_failure(OnIntegrityFailure::QuarantineShard))
    }

    /// An engine can write over the shards of this one: its device does not map memory read-only.
    pub fn writable() -> Self {
        Self::with(small().read_only(false), |builder| builder)
    }

    /// Writable, and lenient too.
    pub fn lenient_writable() -> Self {
        Self::with(small().read_only(false), |builder| {
            builder.on_integrity_failure(OnIntegrityFailure::QuarantineShard)
        })
    }

    /// This one asks for an audit trail; its sink claims to be durable.
    pub fn audited() -> Self {
        let policy = Policy::development().require_audit(AuditRequirement::Durable);
        Self::on(small(), Arc::new(MemorySink::claiming_durable()), |builder| builder.policy(policy))
    }

    pub fn with(config: MockConfig, choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder) -> Self {
        Self::on(config, Arc::new(MemorySink::default()), choose)
    }

    pub fn on(
        config: MockConfig,
        sink: Arc<MemorySink>,
        choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        let manager = Arc::new(choose(builder(&config).audit(sink.clone())).build().unwrap());
        Self { config, sink, manager }
    }

    /// A manager that asks for what a development policy does not.
    pub fn of(policy: Policy) -> Self {
        Self::with(small(), |builder| builder.policy(policy))
    }

    /// Runs `then` at each event, once the manager is there. An integrity failure quarantines only its shard.
    pub fn watched(
        choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
        then: impl Fn(&Arc<VramManager>, &AuditEvent) + Send + Sync + 'static,
    ) -> Self {
        let there = Arc::new(OnceLock::<Weak<VramManager>>::new());
        let seen = Arc::clone(&there);
        let watching = hook(move |event| {
            if let Some(manager) = seen.get().and_then(Weak::upgrade) {
                then(&manager, event);
            }
            Ok(Ack::Durable)
        });
        let lenient = OnIntegrityFailure::QuarantineShard;
        let rig = Self::with(small(), |builder| choose(builder.on_integrity_failure(lenient)).audit(watching));
        there.set(Arc::downgrade(&rig.manager)).unwrap();
        rig
    }

    /// Two shards of 3,000 bytes.
    pub fn two(&self) -> (SealedShard, SealedShard) {
        (self.seal("a", &noise(3000, 1)), self.seal("b", &noise(3000, 2)))
    }

    /// A shard of these bytes, for which someone vouches.
    pub fn vouched(&self, id: &str, bytes: &[u8]) -> ShardSpec {
        let params = self.manager.tree_params();
        spec(id).expect(vouching::file(params, digest_bytes(params, bytes)))
    }

    pub fn seal(&self, id: &str, bytes: &[u8]) -> SealedShard {
        self.try_seal(id, bytes).unwrap()
    }

    pub fn try_seal(&self, id: &str, bytes: &[u8]) -> Result<SealedShard, VramError> {
        self.manager.seal_model(spec(id), ShardSource::bytes(bytes))
    }

    pub fn controls(&self) -> MockControls<'_> {
        self.manager.mock_controls().unwrap()
    }

    /// Changes a byte, where it does not matter which of its bits.
    pub fn flip(&self, shard: &SealedShard, byte: u64) {
        self.flip_bit(shard, byte, 3);
    }

    pub fn flip_bit(&self, shard: &SealedShard, byte: u64, bit: u8) {
        self.controls().flip_bit(shard, byte, bit).unwrap();
    }

    pub fn begin(&self, shard: &SealedShard) -> Execution<'_> {
        self.manager.begin(shard, ExecuteOptions::default()).unwrap()
    }

    /// A stream of an engine's own.
    pub fn stream(&self) -> MockStream<'_> {
        self.controls().engine_stream().unwrap()
    }

    /// What the device holds at a byte of the shard.
    pub fn peek(&self, shard: &SealedShard, byte: u64) -> u8 {
        let mut out = [0];
        self.controls().peek(shard, byte, &mut out).unwrap();
        out[0]
    }

    /// How the executions of the trail ended.
    pub fn outcomes(&self) -> Vec<ExecuteOutcome> {
        crate::said!(self, EventKind::ExecuteFinished { outcome, .. } => outcome)
    }

    /// The names of the events that `step` leaves.
    pub fn events_of(&self, step: impl FnOnce()) -> Vec<&'static str> {
        let mark = self.mark();
        step();
        self.names_since(mark)
    }

    /// The last event of this name.
    #[track_caller]
    pub fn event(&self, name: &str) -> AuditEvent {
        let found = self.sink.events().into_iter().rfind(|event| event.kind.name() == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    }

    /// Executes, and says whether the work ran.
    pub fn execute(&self, shard: &SealedShard) -> (Result<(), VramError>, bool) {
        execute(&self.manager, shard)
    }

    /// Orders something to go wrong.
    pub fn order(&self, fault: impl Into<FaultOrder>) {
        self.config.fail(fault).unwrap();
    }

    /// Digest kernels that have run.
    pub fn digests(&self) -> u64 {
        self.config.stats().runs(MockCall::Digest)
    }

    /// Names of the events after the first `from`.
    pub fn names_since(&self, from: usize) -> Vec<&'static str> {
        self.sink.names().split_off(from)
    }

    /// Where [`Rig::names_since`] would begin now.
    pub fn mark(&self) -> usize {
        self.sink.names().len()
    }

    /// The ledger against the driver's own count.
    #[track_caller]
    pub fn assert_recount(&self) {
        assert_recount(&self.manager, &self.config);
    }

    /// How many events of this name left.
    pub fn count(&self, name: &str) -> usize {
        self.sink.names().iter().filter(|event| **event == name).count()
    }

    /// Operations on the machine that have not run yet.
    pub fn pending(&self) -> u64 {
        self.config.stats().pending_operations
    }

    /// What can be counted from outside, for a comparison of before and after.
    pub fn counts(&self) -> Counts {
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
    pub fn close(self) -> (MockStats, Vec<AuditEvent>) {
        let Self { config, sink, manager } = self;
        assert_eq!(Arc::strong_count(&manager), 1, "somebody still holds the manager");
        drop(manager);
        (config.stats(), sink.events())
    }

    /// Drops the manager and asserts that nothing of it is left. What its trail said comes back.
    #[track_caller]
    pub fn close_clean(self) -> Vec<AuditEvent> {
        let (stats, events) = self.close();
        assert_clean(&stats);
        assert_contiguous(&events);
        assert_paired(&events);
        events
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub used: u64,
    pub adopted: u64,
    pub quarantined: u64,
    pub live_bytes: u64,
    pub live_foreign: u64,
    pub live_events: u64,
}

pub fn execute(manager: &VramManager, shard: &SealedShard) -> (Result<(), VramError>, bool) {
    let ran = AtomicBool::new(false);
    let outcome = manager.execute(shard, |_| ran.store(true, Ordering::SeqCst));
    (outcome, ran.load(Ordering::SeqCst))
}

/// The ledger against the driver's own count, without headroom.
#[track_caller]
pub fn assert_recount(manager: &VramManager, config: &MockConfig) {
    let live = config.stats().live_bytes;
    assert_eq!(manager.used_vram(), live, "the ledger against the driver's count");
    assert_eq!(manager.available_vram(), manager.total_vram() - live, "what is left");
}

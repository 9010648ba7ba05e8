//! What the suites over adoption, sets, executions, working memory and freshness share: a manager on a mock machine of its own,
//! an engine's memory that can be watched from outside, and the invariants that must hold after whatever happened.

#![allow(dead_code, reason = "each suite uses its own part of this file")]

#[path = "../common/dice.rs"]
mod dice;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use vram_residency::{
    AdoptError, Adopted, AuditEvent, DeviceSelector, EventKind, MemorySink, MockCall, MockConfig, MockControls,
    MockStats, OnIntegrityFailure, Policy, RawRegion, SealedShard, ShardId, ShardSource, ShardSpec, TreeParams,
    VramError, VramManager, VramManagerBuilder, WorkerId, WorkerSecret,
};

#[allow(unused_imports, reason = "each suite uses its own part of this file")]
pub(crate) use dice::{Dice, noise};

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
        self.manager.seal_model(spec(id), ShardSource::bytes(bytes)).unwrap()
    }

    pub(crate) fn controls(&self) -> MockControls<'_> {
        self.manager.mock_controls().unwrap()
    }

    pub(crate) fn flip(&self, shard: &SealedShard, byte: u64) {
        self.controls().flip_bit(shard, byte, 3).unwrap();
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
        let stats = self.config.stats();
        assert_eq!(self.manager.used_vram(), stats.live_bytes, "the ledger against the driver's count");
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

    /// Drops the manager and asserts that nothing of it is left.
    #[track_caller]
    pub(crate) fn close_clean(self) -> Vec<AuditEvent> {
        let Self { config, sink, manager } = self;
        assert_eq!(Arc::strong_count(&manager), 1, "somebody still holds the manager");
        drop(manager);
        assert_clean(&config.stats());
        let events = sink.events();
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

/// Nothing lives on the machine, and nothing was freed unwiped.
#[track_caller]
pub(crate) fn assert_clean(stats: &MockStats) {
    assert_eq!((stats.live_allocations, stats.live_bytes, stats.live_foreign), (0, 0, 0), "device memory");
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

/// An engine's memory: plain host bytes, which the mock takes for a device's. Cells, because the device may write them.
pub(crate) struct Arena(Box<[AtomicU8]>);

impl Arena {
    pub(crate) fn new(bytes: usize, seed: u64) -> Self {
        Self(noise(bytes, seed).into_iter().map(AtomicU8::new).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn address(&self, at: usize) -> u64 {
        self.0.as_ptr().expose_provenance() as u64 + at as u64
    }

    pub(crate) fn region(&self, at: usize, bytes: usize) -> RawRegion {
        assert!(at + bytes <= self.len());
        RawRegion::new(self.address(at), bytes as u64)
    }

    pub(crate) fn get(&self, at: usize) -> u8 {
        self.0[at].load(Ordering::SeqCst)
    }

    pub(crate) fn flip(&self, at: usize) {
        self.0[at].fetch_xor(4, Ordering::SeqCst);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        (0..self.len()).map(|at| self.get(at)).collect()
    }
}

/// What an engine hands over: its memory, and a count of how often that was given up.
pub(crate) struct Engine {
    pub(crate) arena: Arc<Arena>,
    drops: Arc<AtomicU64>,
}

/// How often an [`Engine`] was dropped.
#[derive(Clone, Default)]
pub(crate) struct Drops(Arc<AtomicU64>);

impl Drops {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Engine {
    pub(crate) fn new(arena: &Arc<Arena>) -> (Self, Drops) {
        let drops = Drops::default();
        (Self { arena: Arc::clone(arena), drops: Arc::clone(&drops.0) }, drops)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Adopts regions of an arena whose bytes no test changes while a check may run.
#[allow(unsafe_code)]
pub(crate) fn adopt(
    manager: &VramManager,
    spec: ShardSpec,
    arena: &Arc<Arena>,
    regions: &[RawRegion],
) -> (Result<Adopted<Engine>, AdoptError<Engine>>, Drops) {
    let (engine, drops) = Engine::new(arena);
    // SAFETY: every region is either refused before it is touched, or lies in `arena`, which the engine keeps alive and which
    // does not move; tests change its cells only between calls, when no check runs.
    (unsafe { manager.adopt(spec, engine, regions) }, drops)
}

/// Places in an arena: apart from each other, with gaps, in any order, of any length and alignment.
pub(crate) fn scatter(dice: &mut Dice, lengths: &[usize]) -> (Arc<Arena>, Vec<(usize, usize)>) {
    let mut at = 7;
    let mut places = Vec::new();
    let mut order: Vec<usize> = lengths.to_vec();
    dice.shuffle(&mut order);
    for bytes in order {
        at += 1 + dice.below(40) as usize;
        places.push((at, bytes));
        at += bytes;
    }
    dice.shuffle(&mut places);
    (Arc::new(Arena::new(at + 9, dice.next())), places)
}

pub(crate) fn regions(arena: &Arena, places: &[(usize, usize)]) -> Vec<RawRegion> {
    places.iter().map(|(at, bytes)| arena.region(*at, *bytes)).collect()
}

/// The image that these places stand for: each but the last padded with zeros to a block.
pub(crate) fn image(arena: &Arena, places: &[(usize, usize)], block: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, bytes) in places {
        out.resize(out.len().next_multiple_of(block), 0);
        out.extend((*at..at + bytes).map(|at| arena.get(at)));
    }
    out
}

/// Where in the image the byte at `at` of an arena lies.
pub(crate) fn offset(places: &[(usize, usize)], block: usize, at: usize) -> Option<u64> {
    let mut start = 0_usize;
    for (place, bytes) in places {
        start = start.next_multiple_of(block);
        if (*place..place + bytes).contains(&at) {
            return Some((start + at - place) as u64);
        }
        start += bytes;
    }
    None
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

/// An error whose message and type a test has already judged.
pub(crate) fn refused<M>(result: Result<Adopted<M>, AdoptError<M>>) -> (VramError, M) {
    match result {
        Ok(_) => panic!("the adoption was not refused"),
        Err(AdoptError { error, owner }) => (error, owner),
    }
}

//! What a scenario holds: a mock machine, managers on it, weights, seals, and how the last call ended.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use vram_residency::{
    AuditRequirement, DeviceSelector, Digest, ErrorCode, EventKind, ExecuteOptions, ManagerState, MemorySink, MockCall,
    MockConfig, OnIntegrityFailure, OwnedExecution, Policy, Scratch, SealedShard, ShardId, ShardSource, ShardSpec,
    ShutdownReport, TreeParams, Verification, VramError, VramManager, VramManagerBuilder, WorkerId, WorkerSecret,
    digest_bytes,
};

use crate::engine::{Engine, Stream};

/// How a scenario's main manager is made.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) capacity: u64,
    pub(crate) headroom: Option<u64>,
    pub(crate) worker: &'static str,
    pub(crate) ordinal: u32,
    pub(crate) policy: Policy,
    pub(crate) on_failure: OnIntegrityFailure,
    pub(crate) quarantine_limit: Option<u64>,
    pub(crate) durable_sink: bool,
    pub(crate) params: TreeParams,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            capacity: 8 << 20,
            headroom: Some(0),
            worker: "worker-1",
            ordinal: 0,
            policy: Policy::development(),
            on_failure: OnIntegrityFailure::Stop,
            quarantine_limit: None,
            durable_sink: false,
            params: TreeParams::new(1024, b"").unwrap(),
        }
    }
}

impl Setup {
    pub(crate) fn audited() -> Policy {
        Policy::development().require_audit(AuditRequirement::Durable)
    }
}

/// An execution that another thread holds open.
#[derive(Debug)]
pub(crate) struct Held {
    end: mpsc::Sender<()>,
    thread: JoinHandle<Result<Verification, VramError>>,
}

/// A batch of executions that another thread holds open, because its guards borrow the manager.
#[derive(Debug)]
pub(crate) struct Batch {
    end: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Result<Verification, VramError>>>,
}

impl Batch {
    /// Begins one, and gives what its checks found.
    pub(crate) fn begin(
        manager: &Arc<VramManager>,
        shards: Vec<SealedShard>,
        options: ExecuteOptions,
    ) -> Result<(Self, Vec<Verification>), VramError> {
        let manager = Arc::clone(manager);
        let ((begun, has_begun), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let shards: Vec<&SealedShard> = shards.iter().collect();
            let guards = match manager.begin_all(&shards, options) {
                Ok(guards) => guards,
                Err(error) => {
                    begun.send(Err(error)).unwrap();
                    return Vec::new();
                }
            };
            begun.send(Ok(guards.iter().map(|guard| guard.verification().clone()).collect())).unwrap();
            let _ = ended.recv();
            guards.into_iter().map(|guard| guard.finish()).collect()
        });
        match has_begun.recv().expect("the batch's thread") {
            Ok(verifications) => Ok((Self { end, thread }, verifications)),
            Err(error) => {
                thread.join().expect("the batch's thread"); // it lets go of the manager
                Err(error)
            }
        }
    }

    pub(crate) fn finish(self) -> Vec<Result<Verification, VramError>> {
        let _ = self.end.send(());
        self.thread.join().expect("the batch's thread")
    }
}

impl Held {
    /// Opens one and waits until it is open.
    pub(crate) fn begin(manager: &Arc<VramManager>, shard: &SealedShard) -> Self {
        let (manager, shard) = (Arc::clone(manager), shard.clone());
        let ((begun, has_begun), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let run = manager.begin(&shard, ExecuteOptions::default())?;
            begun.send(()).unwrap();
            let _ = ended.recv();
            run.finish()
        });
        has_begun.recv().expect("the execution began");
        Self { end, thread }
    }

    pub(crate) fn finish(self) -> Result<Verification, VramError> {
        let _ = self.end.send(());
        self.thread.join().expect("the execution's thread")
    }
}

#[derive(Debug, Default, cucumber::World)]
pub(crate) struct World {
    pub(crate) config: MockConfig,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) manager: Option<Arc<VramManager>>,
    pub(crate) second: Option<(MockConfig, Arc<VramManager>)>,
    pub(crate) weights: HashMap<String, Vec<u8>>,
    pub(crate) seals: HashMap<String, SealedShard>,
    /// Names of the seals that the second manager made.
    pub(crate) elsewhere: HashSet<String>,
    /// Seals that were replaced by sealing anew.
    pub(crate) replaced: HashMap<String, SealedShard>,
    pub(crate) held: Option<Held>,
    pub(crate) guards: Vec<OwnedExecution>,
    pub(crate) batch: Option<Batch>,
    pub(crate) scratch: Vec<Scratch>,
    pub(crate) stream: Option<Stream>,
    pub(crate) engines: HashMap<String, Engine>,
    pub(crate) ending: Option<JoinHandle<ShutdownReport>>,
    pub(crate) report: Option<ShutdownReport>,
    pub(crate) folder: Option<tempfile::TempDir>,
    /// How the last call ended; taken by the step that looks at it.
    pub(crate) outcome: Option<Result<(), VramError>>,
    pub(crate) ran: bool,
    pub(crate) read: Vec<u8>,
    pub(crate) digest: Option<Digest>,
    pub(crate) used_before: u64,
    pub(crate) mark: usize,
    /// The devices of this scenario do not map memory read-only.
    pub(crate) writable: bool,
    /// On a dead device nothing can be destroyed any more.
    pub(crate) dead: bool,
    /// A device that was told to misbehave for good is not held to what every scenario must leave.
    pub(crate) unwipeable: bool,
}

impl World {
    /// Makes the scenario's manager, or gives the error.
    pub(crate) fn try_build(&mut self, setup: Setup) -> Result<(), VramError> {
        self.config = MockConfig::new()
            .devices(2)
            .capacity_bytes(setup.capacity)
            .ordinal(setup.ordinal)
            .read_only(!self.writable);
        self.sink = Arc::new(if setup.durable_sink { MemorySink::claiming_durable() } else { MemorySink::default() });
        let sink = Arc::clone(&self.sink);
        let manager = builder(&self.config, &setup).audit(sink).build()?;
        self.manager = Some(Arc::new(manager));
        Ok(())
    }

    pub(crate) fn build(&mut self, setup: Setup) {
        self.try_build(setup).unwrap();
        assert_eq!(self.manager().state(), ManagerState::Ready);
        assert_eq!(self.sink.names(), ["manager_started"]);
    }

    pub(crate) fn manager(&self) -> &Arc<VramManager> {
        self.manager.as_ref().expect("the scenario has a manager")
    }

    /// The manager that made the seal.
    pub(crate) fn holder(&self, name: &str) -> &Arc<VramManager> {
        if self.elsewhere.contains(name) { self.second() } else { self.manager() }
    }

    pub(crate) fn second(&self) -> &Arc<VramManager> {
        self.second.as_ref().map(|(_, manager)| manager).expect("the scenario has a second manager")
    }

    pub(crate) fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("the scenario has an engine's stream")
    }

    pub(crate) fn engine(&mut self, name: &str) -> &mut Engine {
        self.engines.get_mut(name).unwrap_or_else(|| panic!("the scenario has an engine {name:?}"))
    }

    /// Digest kernels that have run.
    pub(crate) fn digests(&self) -> u64 {
        self.config.stats().runs(MockCall::Digest)
    }

    pub(crate) fn weights(&self, name: &str) -> &[u8] {
        self.weights.get(name).unwrap_or_else(|| panic!("the scenario has weights {name:?}"))
    }

    pub(crate) fn seal_of(&self, name: &str) -> &SealedShard {
        self.seals.get(name).unwrap_or_else(|| panic!("the scenario has a seal {name:?}"))
    }

    /// The digest of named weights under the manager's tree.
    pub(crate) fn digest_of(&self, weights: &str) -> Digest {
        digest_bytes(self.manager().tree_params(), self.weights(weights))
    }

    /// Marks the trail and the ledger, so that later steps can say what this step changed.
    pub(crate) fn before_call(&mut self) {
        assert!(!matches!(self.outcome, Some(Err(_))), "an earlier step failed unseen: {:?}", self.outcome);
        self.mark = self.sink.names().len();
        self.used_before = self.manager.as_ref().map_or(0, |manager| manager.used_vram());
        self.ran = false;
    }

    /// Keeps how a call ended.
    pub(crate) fn note<T>(&mut self, outcome: Result<T, VramError>) -> Option<T> {
        let (value, outcome) = match outcome {
            Ok(value) => (Some(value), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.outcome = Some(outcome);
        value
    }

    pub(crate) fn seal(&mut self, name: &str, spec: ShardSpec, weights: &str) {
        self.before_call();
        let sealed = self.manager().seal_model(spec, ShardSource::bytes(self.weights(weights)));
        if let Some(seal) = self.note(sealed) {
            self.seals.insert(name.to_owned(), seal);
        }
    }

    /// The error of the last call, which must have failed.
    pub(crate) fn error(&self) -> &VramError {
        match &self.outcome {
            Some(Err(error)) => error,
            other => panic!("the last call did not fail: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: &str) {
        let found: ErrorCode = self.error().code();
        assert_eq!(found.as_str(), code, "{}", self.error());
    }

    /// Names of the events since the last call began.
    pub(crate) fn new_events(&self) -> Vec<&'static str> {
        self.sink.names().split_off(self.mark)
    }

    /// The ledger against the driver's count.
    pub(crate) fn assert_recount(&self) {
        let mut used = self.manager.as_ref().map_or(0, |manager| manager.used_vram());
        if let Some((config, second)) = &self.second {
            let other = second.used_vram();
            assert_eq!(config.stats().live_bytes, used + other, "both ledgers against the machine they share");
            used += other;
        }
        assert_eq!(self.config.stats().live_bytes, used, "the ledger against the driver's count");
    }

    /// Ends what may still be open, streams last: guards and working memory may follow them.
    fn end_everything(&mut self) {
        if let Some(held) = self.held.take() {
            let _ = held.finish();
        }
        self.guards.drain(..).for_each(|guard| drop(guard.finish()));
        if let Some(batch) = self.batch.take() {
            let _ = batch.finish();
        }
        self.scratch.clear();
        self.stream = None;
        if let Some(ending) = self.ending.take() {
            ending.join().expect("the shutdown's thread");
        }
    }

    /// What holds after every scenario: an exact ledger, a trail without gaps, and nothing unwiped when the manager is gone.
    pub(crate) fn assert_invariants(&mut self, scenario: &str) {
        self.end_everything();
        self.sink.failing(false);
        self.assert_recount();
        let allocated = !self.sink.names().contains(&"vram_allocation_failed");
        self.second = None;
        if let Some(manager) = self.manager.take() {
            Arc::into_inner(manager).unwrap_or_else(|| panic!("{scenario}: someone still holds the manager"));
        }
        let stats = self.config.stats();
        assert_eq!(stats.live_foreign, 0, "{scenario}: the device still knows an engine's memory");
        for (name, engine) in &mut self.engines {
            (engine.adopted, engine.returned) = (None, None);
            assert!(!engine.is_held(), "{scenario}: somebody still holds the memory of {name}");
        }
        if !self.unwipeable {
            assert_eq!((stats.live_bytes, stats.live_allocations), (0, 0), "{scenario}: device memory is left");
        }
        if !self.dead {
            assert_eq!((stats.live_streams, stats.live_events), (0, 0), "{scenario}: streams or events are left");
        }
        assert_eq!(stats.live_host_buffers, 0, "{scenario}: host buffers are left");
        assert_eq!(stats.unwiped_host_bytes_freed, 0, "{scenario}: staging was freed unwiped");
        if allocated {
            // Memory that could not be allocated whole never held weights.
            assert_eq!(stats.unwiped_bytes_freed, 0, "{scenario}: memory was freed unwiped");
        }
        let events = self.sink.events();
        let refused = events.iter().any(|event| matches!(event.kind, EventKind::SealRefused { suppressed: 1.., .. }));
        assert!(!refused, "{scenario}: refusals were suppressed");
    }
}

pub(crate) fn builder(config: &MockConfig, setup: &Setup) -> VramManagerBuilder {
    let worker = WorkerId::new(setup.worker).unwrap();
    let begun = VramManager::builder(worker, WorkerSecret::from_bytes(&[7; 32]).unwrap())
        .device(DeviceSelector::Mock(config.clone()))
        .policy(setup.policy.clone())
        .tree_params(setup.params.clone())
        .staging(64 << 10)
        .digest_threads(1)
        .on_integrity_failure(setup.on_failure);
    let begun = match setup.headroom {
        Some(bytes) => begun.headroom(bytes),
        None => begun,
    };
    match setup.quarantine_limit {
        Some(bytes) => begun.quarantine_limit(bytes),
        None => begun,
    }
}

pub(crate) fn spec(name: &str) -> ShardSpec {
    ShardSpec::new(ShardId::new(name).unwrap())
}

/// Bytes that look like weights; the same for the same name.
pub(crate) fn noise(bytes: usize, name: &str) -> Vec<u8> {
    let mut state = name
        .bytes()
        .fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(bytes)
    .collect()
}

/// The device that the suite runs on, in words.
pub(crate) fn device() -> String {
    let manager = builder(&MockConfig::new().devices(2), &Setup::default()).build().unwrap();
    format!("{} ({}, {})", manager.device_kind(), manager.device_name(), manager.device_uuid())
}

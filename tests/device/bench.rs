//! What the cases share: a manager on a machine of its own, and where cases cannot be asked.

use std::sync::{Arc, OnceLock};

use vram_residency::{
    Adopted, Digest, ErrorCode, ExecuteOptions, MemorySink, OnIntegrityFailure, Policy, RawRegion, SealedShard,
    ShardSource, ShardSpec, StopReason, TreeParams, VramError, VramManager, VramManagerBuilder, WorkerId, WorkerSecret,
};
use vram_residency_harness::{EngineStream, Kind, Machine, Mapping, Memory};

pub(crate) use vram_residency_harness::{Dice, image, noise, safetensors, spec, vouching};

/// Memory of a mock. A GPU has what it has; no case takes more than this of it.
const CAPACITY: u64 = 256 << 20;

/// A case for every device.
pub(crate) fn everywhere(_kind: Kind) -> Option<&'static str> {
    None
}

/// A case that runs kernels of an engine's.
pub(crate) fn kernels(kind: Kind) -> Option<&'static str> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let built = BUILT.get_or_init(|| Machine::new(kind, CAPACITY).raw.engine_kernels().is_some());
    (!built).then_some("no engine kernels were built for this device")
}

/// A case that only a GPU can answer.
pub(crate) fn gpu(kind: Kind) -> Option<&'static str> {
    (!matches!(kind, Kind::Cuda(_)))
        .then_some("a mock has no UUID that the system knows, and no memory that other processes get")
}

/// A case that takes more memory and time than a device has for every run.
pub(crate) fn large(_kind: Kind) -> Option<&'static str> {
    let asked = std::env::var_os("VRAM_TEST_LARGE").is_some_and(|value| value == "1");
    (!asked).then_some("an image of more than 1 GiB, which VRAM_TEST_LARGE=1 asks for")
}

/// A case that looks up where memory is mapped.
pub(crate) fn mock(kind: Kind) -> Option<&'static str> {
    (kind != Kind::Mock).then_some("only the mock lists its mappings")
}

/// A manager on a machine, with its trail.
pub(crate) struct Bench {
    // The manager goes before the machine.
    pub(crate) manager: Arc<VramManager>,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) machine: Machine,
}

pub(crate) fn machine() -> Machine {
    Machine::from_env(CAPACITY)
}

pub(crate) fn builder(machine: &Machine) -> VramManagerBuilder {
    VramManager::builder(WorkerId::new("suite").unwrap(), WorkerSecret::random().unwrap())
        .device(machine.selector())
        .policy(Policy::development())
        .headroom(0)
        .staging(1 << 20)
        .digest_threads(1)
}

impl Bench {
    /// An integrity failure stops this one.
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    /// An integrity failure quarantines only the shard of this one.
    pub(crate) fn lenient() -> Self {
        Self::with(|builder| builder.on_integrity_failure(OnIntegrityFailure::QuarantineShard))
    }

    pub(crate) fn of(params: TreeParams) -> Self {
        Self::with(|builder| builder.tree_params(params))
    }

    pub(crate) fn with(choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder) -> Self {
        Self::on(machine(), choose)
    }

    pub(crate) fn on(machine: Machine, choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder) -> Self {
        let sink = Arc::new(MemorySink::default());
        let manager = Arc::new(choose(builder(&machine).audit(sink.clone())).build().unwrap());
        Self { manager, sink, machine }
    }

    pub(crate) fn seal(&self, id: &str, bytes: &[u8]) -> SealedShard {
        self.manager.seal_model(spec(id), ShardSource::bytes(bytes)).unwrap()
    }

    /// Seals what someone vouched for by this digest.
    pub(crate) fn seal_vouched(
        &self,
        id: &str,
        digest: Digest,
        source: ShardSource<'_>,
    ) -> Result<SealedShard, VramError> {
        self.manager.seal_model(spec(id).expect(vouching::file(self.manager.tree_params(), digest)), source)
    }

    /// Where the first byte of a shard lies.
    pub(crate) fn address(&self, shard: &SealedShard) -> u64 {
        // SAFETY: cases use the address behind the library's back on purpose, on memory that is live then.
        self.manager.execute(shard, |weights| unsafe { weights.regions()[0].device_ptr() }.as_u64()).unwrap()
    }

    pub(crate) fn flip(&self, address: u64, bit: u8) {
        self.machine.flip(address, bit);
    }

    pub(crate) fn peek(&self, address: u64, bytes: usize) -> Vec<u8> {
        self.machine.peek(&self.manager, address, bytes)
    }

    pub(crate) fn stream(&self) -> EngineStream {
        self.machine.stream()
    }

    /// An attacker's second mapping of what lies at an address.
    pub(crate) fn alias(&self, address: u64) -> Mapping {
        self.machine.raw.alias(address).unwrap()
    }

    /// The shard executes, and its bytes are these.
    #[track_caller]
    pub(crate) fn assert_good(&self, shard: &SealedShard, bytes: &[u8]) {
        let read = self.manager.try_execute(shard, |weights| {
            let mut read = vec![0; bytes.len()];
            weights.read_at(0, &mut read)?;
            Ok::<_, VramError>(read)
        });
        assert!(read.unwrap() == bytes, "other bytes than were sealed");
    }

    /// The next execution of the shard is refused for its bytes; gives the place of the change.
    #[track_caller]
    pub(crate) fn assert_refused(&self, shard: &SealedShard) -> (u64, u64) {
        let refusal = self.manager.execute(shard, |_| panic!("it ran on changed bytes")).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::SealVerificationFailed, "{refusal}");
        match refusal {
            VramError::IntegrityFailure { first_bad: Some(range), .. } => (range.offset, range.bytes),
            other => panic!("{other:?} names no place"),
        }
    }

    /// Drops the manager and asserts that nothing of it is left.
    #[track_caller]
    pub(crate) fn close(self) {
        let Self { manager, sink: _, machine } = self;
        assert_eq!(Arc::strong_count(&manager), 1, "somebody still holds the manager");
        drop(manager);
        machine.assert_clean();
    }
}

/// Whether the manager was stopped by an integrity failure.
pub(crate) fn stopped(manager: &VramManager) -> bool {
    manager.state() == vram_residency::ManagerState::Stopped(StopReason::IntegrityFailure)
}

/// An engine's memory that holds these bytes.
pub(crate) fn memory(machine: &Machine, bytes: &[u8]) -> Arc<Memory> {
    let memory = machine.alloc(bytes.len());
    memory.write(0, bytes);
    Arc::new(memory)
}

/// Adopts places of an engine's memory, or gives the error.
pub(crate) fn adopt(
    manager: &VramManager,
    spec: ShardSpec,
    memory: &Arc<Memory>,
    places: &[(usize, usize)],
) -> Result<Adopted<Arc<Memory>>, VramError> {
    memory.adopt(manager, spec, places).map_err(|refused| refused.error)
}

/// Tries to adopt regions that are nobody's memory, and gives the refusal.
#[track_caller]
pub(crate) fn refused_regions(manager: &VramManager, regions: &[RawRegion]) -> VramError {
    // SAFETY: none of the regions may be adopted; a library that refuses them touches none.
    let adopted = unsafe { manager.adopt(spec("nobodys"), "the owner", regions) };
    let refused = adopted.map(drop).unwrap_err();
    assert_eq!(refused.owner, "the owner");
    refused.error
}

/// Options for work on an engine's stream.
pub(crate) fn on(stream: &EngineStream) -> ExecuteOptions {
    // SAFETY: the stream is of the manager's device, and every case keeps it until its executions have ended.
    unsafe { ExecuteOptions::default().on_stream(stream.raw()) }
}

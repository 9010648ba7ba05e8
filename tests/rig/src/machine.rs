//! Which machine a suite runs on.

mod beside;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_residency::{DeviceSelector, MockConfig, VramManager};

use crate::{EngineStream, Memory, Raw, StandIn};

/// What `VRAM_TEST_DEVICE` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Mock,
    StandIn,
    Cuda(u32),
}

impl Kind {
    /// The kind that the environment names; the mock when it names none.
    pub fn from_env() -> Self {
        match std::env::var("VRAM_TEST_DEVICE").as_deref() {
            Err(_) | Ok("" | "mock") => Self::Mock,
            Ok("stand-in") => Self::StandIn,
            Ok(other) => match other.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()) {
                Some(ordinal) => Self::Cuda(ordinal),
                None => panic!("VRAM_TEST_DEVICE is `{other}`; allowed are mock, stand-in and cuda:ORDINAL"),
            },
        }
    }

    /// The word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mock => "mock",
            Self::StandIn => "stand-in",
            Self::Cuda(_) => "cuda",
        }
    }
}

/// One machine. A mock or a stand-in is shared with nobody; a GPU is the same one each time.
#[derive(Debug)]
pub enum Machine {
    Mock(MockConfig),
    Gpu(Gpu),
}

/// A GPU, or the stand-in for one.
#[derive(Debug)]
pub struct Gpu {
    /// The driver as an engine calls it. Dropped before the stand-in.
    pub raw: Arc<Raw>,
    /// Its controls, where it is the stand-in.
    pub stand_in: Option<Arc<StandIn>>,
    library: PathBuf,
    ordinal: u32,
}

impl Machine {
    /// A machine of the kind that the environment names. `capacity` bytes on the mock and the stand-in.
    pub fn from_env(capacity: u64) -> Self {
        Self::new(Kind::from_env(), capacity)
    }

    pub fn new(kind: Kind, capacity: u64) -> Self {
        match kind {
            Kind::Mock => Self::Mock(MockConfig::new().capacity_bytes(capacity)),
            Kind::StandIn => {
                let stand_in = StandIn::new();
                stand_in.set("capacity", capacity);
                let library = stand_in.path().to_path_buf();
                let raw = Raw::open(&library, 0, true).unwrap();
                Self::Gpu(Gpu { raw, stand_in: Some(Arc::new(stand_in)), library, ordinal: 0 })
            }
            Kind::Cuda(ordinal) => {
                let library = PathBuf::from("libcuda.so.1");
                let raw = Raw::open(&library, i32::try_from(ordinal).unwrap(), false)
                    .unwrap_or_else(|problem| panic!("no CUDA device {ordinal}: {problem}"));
                Self::Gpu(Gpu { raw, stand_in: None, library, ordinal })
            }
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Mock(_) => Kind::Mock,
            Self::Gpu(Gpu { stand_in: Some(_), .. }) => Kind::StandIn,
            Self::Gpu(gpu) => Kind::Cuda(gpu.ordinal),
        }
    }

    /// How a manager is told to open it.
    pub fn selector(&self) -> DeviceSelector {
        match self {
            Self::Mock(config) => DeviceSelector::Mock(config.clone()),
            Self::Gpu(gpu) => gpu.selector(),
        }
    }

    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Mock(_) => None,
            Self::Gpu(gpu) => Some(gpu),
        }
    }

    /// Memory that an engine allocated itself.
    pub fn alloc(&self, bytes: usize) -> Memory {
        match self {
            Self::Mock(_) => Memory::host(bytes),
            Self::Gpu(gpu) => Memory::device(&gpu.raw, bytes),
        }
    }

    /// A stream of an engine's own, which the device does not order against anything by itself.
    pub fn stream<'a>(&'a self, manager: &'a VramManager) -> EngineStream<'a> {
        match self {
            Self::Mock(_) => EngineStream::mock(manager.mock_controls().expect("the manager runs on the mock")),
            Self::Gpu(gpu) => EngineStream::gpu(&gpu.raw),
        }
    }

    /// Flips one bit of the byte at an address of sealed or adopted memory, past every protection, as a rowhammer attack would.
    pub fn flip(&self, manager: &VramManager, address: u64, bit: u8) {
        match self {
            Self::Mock(_) => manager.mock_controls().unwrap().flip_address(address, bit).unwrap(),
            Self::Gpu(gpu) => gpu.write(address, &[gpu.raw.read(address, 1)[0] ^ (1 << bit)]),
        }
    }

    /// Writes sealed or adopted memory past every protection.
    pub fn tamper(&self, manager: &VramManager, address: u64, bytes: &[u8]) {
        match self {
            Self::Mock(_) => {
                for (at, (old, new)) in (address..).zip(self.peek(manager, address, bytes.len()).iter().zip(bytes)) {
                    (0..8).filter(|bit| ((old ^ new) >> bit) & 1 == 1).for_each(|bit| self.flip(manager, at, bit));
                }
            }
            Self::Gpu(gpu) => gpu.write(address, bytes),
        }
    }

    /// Reads device memory past every check.
    pub fn peek(&self, manager: &VramManager, address: u64, bytes: usize) -> Vec<u8> {
        match self {
            Self::Mock(_) => {
                let mut out = vec![0; bytes];
                manager.mock_controls().unwrap().peek_address(address, &mut out).unwrap();
                out
            }
            Self::Gpu(gpu) => gpu.raw.read(address, bytes),
        }
    }

    /// Bytes that are allocated now, by whoever it is, as far as the machine can tell exactly; `None` on a GPU.
    pub fn live_bytes(&self) -> Option<u64> {
        match self {
            Self::Mock(config) => Some(config.stats().live_bytes),
            Self::Gpu(gpu) => gpu.stand_in.as_ref().map(|stand_in| stand_in.get("used")),
        }
    }

    /// Asserts that nothing of a manager is left, as far as the machine can tell; call it when the manager is gone.
    #[track_caller]
    pub fn assert_clean(&self) {
        match self {
            Self::Mock(config) => {
                let stats = config.stats();
                assert_eq!((stats.live_allocations, stats.live_bytes, stats.live_foreign), (0, 0, 0), "device memory");
                assert_eq!((stats.live_streams, stats.live_events, stats.pending_operations), (0, 0, 0), "streams");
                assert_eq!((stats.live_host_buffers, stats.unwiped_host_bytes_freed), (0, 0), "host buffers");
                assert_eq!(stats.unwiped_bytes_freed, 0, "bytes freed unwiped");
            }
            Self::Gpu(gpu) => gpu.assert_clean(),
        }
    }
}

impl Gpu {
    fn selector(&self) -> DeviceSelector {
        match &self.stand_in {
            Some(_) => DeviceSelector::StandIn { library: self.library.clone(), ordinal: self.ordinal },
            None => DeviceSelector::Cuda(self.ordinal),
        }
    }

    /// The primary context once more, as another part of an engine would retain it.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn open_again(&self) -> Result<Arc<Raw>, String> {
        Raw::open(&self.library, i32::try_from(self.ordinal).unwrap(), self.stand_in.is_some())
    }

    /// Where the driver's library is.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Through another mapping, where there can be one: the first may be read-only, and a GPU may take a write there for a fault
    /// that ends every context of the process.
    fn write(&self, address: u64, bytes: &[u8]) {
        match self.raw.alias(address) {
            Ok(alias) => alias.write(address, bytes),
            // An engine's own allocation.
            Err(_) => self.raw.write(address, bytes),
        }
        assert_eq!(self.raw.read(address, bytes.len()), bytes, "the bytes were not written");
    }

    #[track_caller]
    fn assert_clean(&self) {
        let Some(stand_in) = &self.stand_in else { return };
        for what in ["reservations", "physical", "streams", "events", "pinned", "used", "depth"] {
            assert_eq!(stand_in.get(what), 0, "{what}");
        }
        // The engine's own hold on the primary context.
        assert_eq!(stand_in.get("retained"), 1, "contexts");
        assert_eq!(
            (stand_in.get("violations"), stand_in.get("unwiped host"), stand_in.get("unwiped")),
            (0, 0, 0),
            "violations, unwiped host bytes, device memory freed unwiped"
        );
    }
}

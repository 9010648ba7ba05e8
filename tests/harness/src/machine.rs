//! Which machine a suite runs on.

use std::ffi::c_void;
use std::sync::Arc;

use vram_residency::{DeviceSelector, MockConfig, VramManager};

use crate::raw::Driver;
use crate::{EngineStream, Memory, Raw, Refused};

/// What `VRAM_TEST_DEVICE` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Mock,
    Cuda(u32),
}

impl Kind {
    /// The kind that the environment names; the mock when it names none.
    pub fn from_env() -> Self {
        match std::env::var("VRAM_TEST_DEVICE").as_deref() {
            Err(_) | Ok("" | "mock") => Self::Mock,
            Ok(other) => match other.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()) {
                Some(ordinal) => Self::Cuda(ordinal),
                None => panic!("VRAM_TEST_DEVICE is `{other}`; allowed are mock and cuda:ORDINAL"),
            },
        }
    }

    /// The word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mock => "mock",
            Self::Cuda(_) => "cuda",
        }
    }
}

/// In which GPUs give out memory.
const GRANULE: u64 = 2 << 20;
/// VRAM_MOCK_STRICT, VRAM_MOCK_BACKWARDS and VRAM_MOCK_OVERHEAD.
const STRICT: u32 = 7;
const BACKWARDS: u32 = 9;
const OVERHEAD: u32 = 10;

unsafe extern "C" {
    fn vram_mock_set(machine: *mut c_void, setting: u32, value: u64);
    fn vram_mock_mapping(machine: *mut c_void, n: u64, bytes: *mut u64, access: *mut u32) -> u64;
}

/// One device of a machine. A mock is shared with nobody; a GPU is the same one each time.
#[derive(Debug)]
pub struct Machine {
    /// The driver as an engine calls it.
    pub raw: Arc<Raw>,
    /// What the machine is made of, where it is the mock.
    pub mock: Option<MockConfig>,
    ordinal: u32,
}

impl Machine {
    /// A machine of the kind that the environment names. `capacity` bytes on the mock.
    pub fn from_env(capacity: u64) -> Self {
        Self::new(Kind::from_env(), capacity)
    }

    /// A machine of a kind. The mock is as like a GPU as it can be: it runs the bodies of the GPU's kernels, its contexts die of an
    /// illegal access, and host memory is none of its own.
    pub fn new(kind: Kind, capacity: u64) -> Self {
        match kind {
            Kind::Mock => {
                let config = MockConfig::new().devices(2).capacity_bytes(capacity).granularity(GRANULE);
                let machine = Self::mock(config.kernel_bodies(true));
                machine.set(STRICT, 1);
                machine.set(BACKWARDS, 1);
                machine
            }
            Kind::Cuda(ordinal) => Self::open(Driver::system(), None, ordinal),
        }
    }

    /// A mock with these settings.
    pub fn mock(config: MockConfig) -> Self {
        Self::open(Ok(Driver::Mock(config.clone())), Some(config), 0)
    }

    fn open(driver: Result<Driver, String>, mock: Option<MockConfig>, ordinal: u32) -> Self {
        let open = |driver| Raw::open(driver, i32::try_from(ordinal).unwrap()).map_err(|refused| refused.to_string());
        let raw = driver.and_then(open);
        let raw = raw.unwrap_or_else(|problem| panic!("no device {ordinal}: {problem}"));
        Self { raw, mock, ordinal }
    }

    pub fn kind(&self) -> Kind {
        if self.mock.is_some() { Kind::Mock } else { Kind::Cuda(self.ordinal) }
    }

    /// How a manager is told to open it.
    pub fn selector(&self) -> DeviceSelector {
        self.selector_of(self.ordinal)
    }

    /// How a manager is told to open another device of this machine, there or not.
    pub fn selector_of(&self, ordinal: u32) -> DeviceSelector {
        match &self.mock {
            Some(config) => DeviceSelector::Mock(config.clone().ordinal(ordinal)),
            None => DeviceSelector::Cuda(ordinal),
        }
    }

    /// Another device of this machine, as an engine there sees it.
    pub fn beside(&self, ordinal: u32) -> Self {
        Self::open(Ok(self.raw.driver.clone()), self.mock.clone(), ordinal)
    }

    /// The primary context once more, as another part of an engine would retain it.
    pub fn open_again(&self) -> Result<Arc<Raw>, Refused> {
        Raw::open(self.raw.driver.clone(), i32::try_from(self.ordinal).unwrap())
    }

    /// Memory that an engine allocated itself.
    pub fn alloc(&self, bytes: usize) -> Memory {
        Memory::new(&self.raw, bytes)
    }

    /// A stream of an engine's own, which the device does not order against anything by itself.
    pub fn stream(&self) -> EngineStream {
        EngineStream::new(&self.raw)
    }

    /// Flips one bit of the byte at an address of sealed or adopted memory, past every protection, as a rowhammer attack would.
    pub fn flip(&self, address: u64, bit: u8) {
        self.tamper(address, &[self.raw.read(address, 1)[0] ^ (1 << bit)]);
    }

    /// Writes sealed or adopted memory past every protection: through another mapping, where there can be one. The first may be
    /// read-only, and a GPU may take a write there for a fault that ends every context of the process.
    pub fn tamper(&self, address: u64, bytes: &[u8]) {
        match self.raw.alias(address) {
            Ok(alias) => alias.write(address, bytes),
            // An engine's own allocation.
            Err(_) => self.raw.write(address, bytes),
        }
        assert_eq!(self.raw.read(address, bytes.len()), bytes, "the bytes were not written");
    }

    /// Reads device memory past every check. On the mock it runs nothing.
    pub fn peek(&self, manager: &VramManager, address: u64, bytes: usize) -> Vec<u8> {
        let Some(controls) = manager.mock_controls() else { return self.raw.read(address, bytes) };
        let mut out = vec![0; bytes];
        controls.peek_address(address, &mut out).unwrap();
        out
    }

    /// Bytes that are allocated now, by whoever it is but for engines' allocators, as far as the machine can tell exactly; `None`
    /// on a GPU.
    pub fn live_bytes(&self) -> Option<u64> {
        self.mock.as_ref().map(|config| config.stats().live_bytes)
    }

    /// How many devices there are.
    pub fn devices(&self) -> u32 {
        self.raw.devices()
    }

    /// The unit in which the device gives out memory, in bytes.
    pub fn granularity(&self) -> u64 {
        self.raw.granularity()
    }

    /// Places and lengths of all mappings on the mock.
    pub fn mappings(&self) -> Vec<(u64, u64)> {
        let machine = self.mock.as_ref().expect("a mock").raw_machine().unwrap();
        let one = |n| {
            let (mut bytes, mut access) = (0, 0);
            // SAFETY: the machine lives as long as the config; the C side writes to the locals.
            let place = unsafe { vram_mock_mapping(machine, n, &raw mut bytes, &raw mut access) };
            (place != 0).then_some((place, bytes))
        };
        (0..).map_while(one).collect()
    }

    /// A GPU never has all of its memory free: contexts and code take some of it. The mock takes what it is told.
    pub fn set_overhead(&self, bytes: u64) {
        self.set(OVERHEAD, bytes);
    }

    fn set(&self, setting: u32, value: u64) {
        if let Some(config) = &self.mock {
            // SAFETY: the machine lives as long as the config; the rest are numbers.
            unsafe { vram_mock_set(config.raw_machine().unwrap(), setting, value) };
        }
    }

    /// Asserts that nothing of a manager is left, as far as the machine can tell; call it when the manager is gone.
    #[track_caller]
    pub fn assert_clean(&self) {
        let Some(config) = &self.mock else { return };
        let stats = config.stats();
        crate::assert_clean(&stats);
        assert_eq!(stats.violations, 0, "misuse of the driver");
    }
}

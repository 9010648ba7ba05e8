//! The device of a scenario, and what can be counted on it.

use std::sync::Arc;

use vram_residency::{MockConfig, MockStats};
use vram_residency_harness::{Kind, Machine};

use crate::setup::Setup;

/// Bytes of a mock whose size no scenario chose.
const MOCK_BYTES: u64 = 8 << 20;
/// The mock's unit where a scenario counts in units: so large that a few of them hold what every device is asked first.
const MOCK_UNIT: u64 = 128 << 10;

/// A device that nobody else uses, but for a GPU's, of which there is one.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) machine: Arc<Machine>,
    /// In which it gives out memory, in bytes.
    pub(crate) unit: u64,
    /// Free on a GPU before there was a manager.
    free: u64,
}

/// The ordinal of the device that the suite was told to use.
pub(crate) fn first() -> u32 {
    match Kind::from_env() {
        Kind::Cuda(ordinal) => ordinal,
        Kind::Mock => 0,
    }
}

impl Device {
    /// A device of so many units, where that can be chosen.
    pub(crate) fn new(units: Option<u64>) -> Self {
        let machine = match (Kind::from_env(), units) {
            (Kind::Mock, None) => Machine::mock(MockConfig::new().devices(2).capacity_bytes(MOCK_BYTES)),
            (Kind::Mock, Some(units)) => {
                Machine::mock(MockConfig::new().devices(2).granularity(MOCK_UNIT).capacity_bytes(units * MOCK_UNIT))
            }
            (gpu, None) => Machine::new(gpu, 0),
            _ => panic!("a GPU's size cannot be chosen; the scenario needs the tag @capacity"),
        };
        let (unit, free) = (machine.granularity(), machine.raw.memory_info().0);
        Self { machine: Arc::new(machine), unit, free }
    }

    /// What the mock counts; a GPU counts nothing for us.
    fn count(&self, mock: impl Fn(&MockStats) -> u64) -> Option<u64> {
        self.machine.mock.as_ref().map(|config| mock(&config.stats()))
    }

    /// Allocated bytes.
    pub(crate) fn live_bytes(&self) -> Option<u64> {
        self.machine.live_bytes()
    }

    /// A GPU's driver says no more than how much is free: at least what the ledger says is taken.
    #[track_caller]
    pub(crate) fn assert_taken(&self, used: u64) {
        let free = self.machine.raw.memory_info().0;
        assert!(free + used <= self.free, "{free} bytes are free, {} were, the ledger says {used}", self.free);
    }

    /// The driver has free again what was free before there was a manager, but for what a GPU's may hold on to itself.
    #[track_caller]
    pub(crate) fn assert_free_again(&self) {
        let free = self.machine.raw.memory_info().0;
        assert!(free + SLACK >= self.free, "{free} bytes are free, {} were", self.free);
    }

    /// Nothing that was staged was freed unwiped.
    #[track_caller]
    pub(crate) fn assert_staging_wiped(&self) {
        let unwiped = self.count(|stats| stats.unwiped_host_bytes_freed);
        assert_eq!(unwiped.unwrap_or(0), 0, "staging was freed unwiped");
    }

    /// Nothing on the device was freed unwiped.
    #[track_caller]
    pub(crate) fn assert_wiped(&self) {
        let unwiped = self.count(|stats| stats.unwiped_bytes_freed).unwrap_or(0);
        assert_eq!(unwiped, 0, "bytes of device memory were freed unwiped");
    }

    /// What must hold when all managers are gone: nothing is left, but on a device that died. Memory that was not allocated whole
    /// never held weights, and needed no wipe.
    #[track_caller]
    pub(crate) fn assert_left(&self, scenario: &str, dead: bool, whole: bool) {
        let unmet = self.count(|stats| stats.unmet_faults).unwrap_or(0);
        assert_eq!(unmet, 0, "{scenario}: the device was told to misbehave and did not");
        self.assert_staging_wiped();
        if !dead {
            assert_eq!(self.live_bytes().unwrap_or(0), 0, "{scenario}: device memory is left");
        }
        if !dead && whole {
            self.machine.assert_clean();
        }
    }
}

/// What the driver may hold on to on a GPU, for the code and the local memory of kernels: less than a run that leaks loses.
const SLACK: u64 = 64 << 20;

/// The device for the whole run: on a GPU it keeps the context, which each scenario would make anew.
#[derive(Debug)]
pub(crate) struct Anchor(Device);

impl Anchor {
    pub(crate) fn new() -> Self {
        Self(Device::new(None))
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        let Self(device) = self;
        let selector = device.machine.selector_of(first());
        let manager = Setup::default().build(selector, device.unit, None).unwrap();
        let kind = device.machine.kind().as_str();
        format!("{kind} ({}, {})", manager.device_name(), manager.device_uuid())
    }

    /// Bytes that were free when the run began and are not at its end, when no manager lives any more.
    pub(crate) fn lost(&self) -> Option<u64> {
        let Self(device) = self;
        Some(device.free.saturating_sub(device.machine.raw.memory_info().0)).filter(|lost| *lost > SLACK)
    }
}

//! The device of a scenario, and what can be counted on it.

use std::sync::Arc;

use vram_residency::{MockConfig, MockStats};
use vram_residency_rig::{Kind, Machine, StandIn};

use crate::setup::Setup;

/// Bytes of a mock or a stand-in whose size no scenario chose.
const MOCK_BYTES: u64 = 8 << 20;
/// The mock's unit where a scenario counts in units: so large that a few of them hold what every device is asked first.
const MOCK_UNIT: u64 = 128 << 10;
const STAND_IN_BYTES: u64 = 64 << 20;

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
        Kind::Mock | Kind::StandIn => 0,
    }
}

impl Device {
    /// A device of so many units, where that can be chosen.
    pub(crate) fn new(units: Option<u64>) -> Self {
        let kind = Kind::from_env();
        let machine = match kind {
            Kind::Mock => Machine::Mock(MockConfig::new().devices(2)),
            _ => Machine::new(kind, STAND_IN_BYTES),
        };
        let unit = match (&machine, units) {
            (Machine::Mock(_), Some(_)) => MOCK_UNIT,
            _ => machine.granularity(),
        };
        let bytes = units.map(|units| units * unit);
        let machine = match machine {
            Machine::Mock(config) => {
                Machine::Mock(config.granularity(unit).capacity_bytes(bytes.unwrap_or(MOCK_BYTES)))
            }
            Machine::Gpu(gpu) => {
                match (&gpu.stand_in, bytes) {
                    (Some(stand_in), Some(bytes)) => stand_in.set("capacity", bytes),
                    (None, Some(_)) => panic!("a GPU's size cannot be chosen; the scenario needs the tag @capacity"),
                    (_, None) => {}
                }
                Machine::Gpu(gpu)
            }
        };
        let free = machine.gpu().map_or(0, |gpu| gpu.raw.memory_info().0);
        Self { machine: Arc::new(machine), unit, free }
    }

    fn stats(&self) -> Option<MockStats> {
        match &*self.machine {
            Machine::Mock(config) => Some(config.stats()),
            Machine::Gpu(_) => None,
        }
    }

    pub(crate) fn stand_in(&self) -> Option<&StandIn> {
        self.machine.gpu().and_then(|gpu| gpu.stand_in.as_deref())
    }

    /// What the mock or the stand-in counts; a GPU counts nothing for us.
    fn count(&self, mock: impl Fn(&MockStats) -> u64, stand_in: &str) -> Option<u64> {
        self.stats().map(|stats| mock(&stats)).or_else(|| self.stand_in().map(|counts| counts.get(stand_in)))
    }

    /// Allocated bytes.
    pub(crate) fn live_bytes(&self) -> Option<u64> {
        self.machine.live_bytes()
    }

    /// A GPU's driver says no more than how much is free: at least what the ledger says is taken.
    #[track_caller]
    pub(crate) fn assert_taken(&self, used: u64) {
        let free = self.machine.gpu().expect("a GPU").raw.memory_info().0;
        assert!(free + used <= self.free, "{free} bytes are free, {} were, the ledger says {used}", self.free);
    }

    /// A GPU's driver has free again what was free before there was a manager, but for what it may hold on to itself. The
    /// others count exactly, and are asked for that instead.
    #[track_caller]
    pub(crate) fn assert_free_again(&self) {
        if let Some(gpu) = self.machine.gpu().filter(|gpu| gpu.stand_in.is_none()) {
            let free = gpu.raw.memory_info().0;
            assert!(free + SLACK >= self.free, "{free} bytes are free, {} were", self.free);
        }
    }

    /// Nothing that was staged was freed unwiped.
    #[track_caller]
    pub(crate) fn assert_staging_wiped(&self) {
        let unwiped = self.count(|stats| stats.unwiped_host_bytes_freed, "unwiped host");
        assert_eq!(unwiped.unwrap_or(0), 0, "staging was freed unwiped");
    }

    /// Nothing on the device was freed unwiped.
    #[track_caller]
    pub(crate) fn assert_wiped(&self) {
        let unwiped = self.count(|stats| stats.unwiped_bytes_freed, "unwiped").unwrap_or(0);
        assert_eq!(unwiped, 0, "bytes of device memory were freed unwiped");
    }

    /// What must hold when all managers are gone: nothing is left, but on a device that died. Memory that was not allocated whole
    /// never held weights, and needed no wipe.
    #[track_caller]
    pub(crate) fn assert_left(&self, scenario: &str, dead: bool, whole: bool) {
        let unmet = self.count(|stats| stats.unmet_faults, "unmet").unwrap_or(0);
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

    /// Bytes of a GPU that were free when the run began and are not at its end, when no manager lives any more.
    pub(crate) fn lost(&self) -> Option<u64> {
        let Self(device) = self;
        let gpu = device.machine.gpu().filter(|gpu| gpu.stand_in.is_none())?;
        Some(device.free.saturating_sub(gpu.raw.memory_info().0)).filter(|lost| *lost > SLACK)
    }
}

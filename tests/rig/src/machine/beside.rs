//! The other devices of a machine.

use super::{Gpu, Kind, Machine};
use crate::Raw;
use vram_residency::DeviceSelector;

/// The allocation unit of a mock that nobody gave another.
const MOCK_UNIT: u64 = 256;

impl Machine {
    /// How many devices a machine of this kind has. A mock has as many as it is told.
    pub fn devices(&self) -> Option<u32> {
        self.gpu().map(|gpu| gpu.raw.devices())
    }

    /// The unit in which the device gives out memory, in bytes.
    pub fn granularity(&self) -> u64 {
        self.gpu().map_or(MOCK_UNIT, |gpu| gpu.raw.granularity())
    }

    /// The device's UUID, as its driver says it. The mock tells its own to nobody but a manager.
    pub fn uuid(&self) -> Option<[u8; 16]> {
        self.gpu().map(|gpu| gpu.raw.uuid())
    }

    /// How a manager is told to open another device of this machine, there or not.
    pub fn selector_of(&self, ordinal: u32) -> DeviceSelector {
        match self {
            Self::Mock(config) => DeviceSelector::Mock(config.clone().ordinal(ordinal)),
            Self::Gpu(gpu) => match self.kind() {
                Kind::StandIn => DeviceSelector::StandIn { library: gpu.library.clone(), ordinal },
                _ => DeviceSelector::Cuda(ordinal),
            },
        }
    }

    /// Another device of this machine, as an engine there sees it.
    pub fn beside(&self, ordinal: u32) -> Self {
        match self {
            Self::Mock(config) => Self::Mock(config.clone().ordinal(ordinal)),
            Self::Gpu(Gpu { stand_in, library, .. }) => {
                let raw = Raw::open(library, i32::try_from(ordinal).unwrap(), stand_in.is_some());
                let raw = raw.unwrap_or_else(|problem| panic!("no CUDA device {ordinal}: {problem}"));
                Self::Gpu(Gpu { raw, stand_in: stand_in.clone(), library: library.clone(), ordinal })
            }
        }
    }
}

//! What a mock machine is made of, and what can be seen of it from outside.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::MockDevice;
use super::fault::{self, FaultOrder, MockCall};
use crate::driver::open_mock;
use crate::error::VramError;
use crate::ffi::mock::{Machine, OPERATIONS, RawStats, Setting};

/// What a machine is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    devices: u32,
    capacity_bytes: u64,
    granularity: u64,
    late_streams: bool,
    poison: bool,
    read_only: bool,
    sparse: bool,
    kernel_bodies: bool,
}

impl Settings {
    /// CUDA_ERROR_NOT_SUPPORTED, with which a device that cannot map memory read-only refuses.
    const NOT_SUPPORTED: u64 = 801;

    fn machine(&self, seed: [u8; 16]) -> Result<Arc<Machine>, VramError> {
        let machine = Machine::new(self.devices, seed)?;
        for (setting, value) in [
            (Setting::Capacity, self.capacity_bytes),
            (Setting::Granularity, self.granularity),
            (Setting::Late, u64::from(self.late_streams)),
            (Setting::Poison, u64::from(self.poison)),
            (Setting::Sparse, u64::from(self.sparse)),
            (Setting::RefuseReadOnly, if self.read_only { 0 } else { Self::NOT_SUPPORTED }),
            (Setting::Bodies, u64::from(self.kernel_bodies)),
        ] {
            machine.set(setting, value);
        }
        Ok(machine)
    }
}

/// The machine, once it is made, and what it was made of.
type Made = Option<(Settings, Arc<Machine>)>;

/// What a mock machine is made of, and which of its devices to use.
///
/// Clones share one machine, which is made when it is first needed; so two managers with clones of one `MockConfig` meet on
/// the same devices, and tests can watch the machine when the managers are gone. Once the machine is made, only the
/// [`ordinal`](Self::ordinal) can still be chosen: a clone with other settings cannot be opened.
///
/// ```
/// use vram_residency::MockConfig;
/// let first = MockConfig::new().devices(2).capacity_bytes(64 << 20);
/// let second = first.clone().ordinal(1);
/// assert_eq!(second.stats().live_allocations, 0);
/// ```
#[derive(Clone)]
pub struct MockConfig {
    settings: Settings,
    ordinal: u32,
    machine: Arc<Mutex<Made>>,
}

impl MockConfig {
    /// One device of 1 GiB, 256-byte granularity, late streams, poison on, which can map memory read-only.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings {
            devices: 1,
            capacity_bytes: 1 << 30,
            granularity: 256,
            late_streams: true,
            poison: true,
            read_only: true,
            sparse: false,
            kernel_bodies: false,
        };
        Self { settings, ordinal: 0, machine: Arc::default() }
    }

    /// How many devices the machine has; at least 1.
    #[must_use]
    pub fn devices(mut self, devices: u32) -> Self {
        self.settings.devices = devices;
        self
    }

    /// Bytes of memory of each device.
    #[must_use]
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.settings.capacity_bytes = bytes;
        self
    }

    /// Which device this clone uses, from 0.
    #[must_use]
    pub fn ordinal(mut self, ordinal: u32) -> Self {
        self.ordinal = ordinal;
        self
    }

    /// Whether operations run only when something orders them (the default), or at once.
    #[must_use]
    pub fn late_streams(mut self, late: bool) -> Self {
        self.settings.late_streams = late;
        self
    }

    /// The allocation unit in bytes: a power of two from 256 to 1 GiB.
    #[must_use]
    pub fn granularity(mut self, bytes: u64) -> Self {
        self.settings.granularity = bytes;
        self
    }

    /// Whether fresh memory is filled with garbage (the default). Without it large devices cost nothing until written.
    #[must_use]
    pub fn poison(mut self, poison: bool) -> Self {
        self.settings.poison = poison;
        self
    }

    /// Whether memory can be mapped read-only (the default). Without it sealed memory stays writable, as it does under a
    /// driver that refuses, and a stray write is found by the next check only.
    #[must_use]
    pub fn read_only(mut self, offered: bool) -> Self {
        self.settings.read_only = offered;
        self
    }

    /// Whether memory that is zero costs nothing (not the default): neither room nor time of the host, so that a device and a
    /// shard can be larger than both. Fresh memory is then poisoned only in its first and its last MiB. Digests, proofs and
    /// counts are those of any other device; but a write from outside, past the driver, to memory that holds zeros is not seen.
    #[must_use]
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.settings.sparse = sparse;
        self
    }

    /// Whether digests and counts run the bodies of the GPU's kernels (not the default), instead of the host's own, faster hash. What
    /// they find is the same.
    #[must_use]
    pub fn kernel_bodies(mut self, run: bool) -> Self {
        self.settings.kernel_bodies = run;
        self
    }

    /// What has happened on all devices of the machine so far; all zero while there is none.
    #[must_use]
    pub fn stats(&self) -> MockStats {
        let mut sum = MockStats::default();
        // Copied out first, so that a slow kernel delays only this caller.
        let machine = self.lock().clone();
        if let Some((settings, machine)) = machine {
            (0..settings.devices).for_each(|ordinal| sum.add(&MockStats::of(&machine.stats(ordinal))));
        }
        sum
    }

    /// Orders a fault on this clone's device, making the machine if there is none yet.
    ///
    /// # Errors
    /// `CONFIG_ERROR` and `DEVICE_UNAVAILABLE` as for opening the device, `INVALID_PARAMS` when the order makes no sense
    /// (zero times, a failure with code zero), `CUDA_ERROR` when the device is dead.
    pub fn fail(&self, order: impl Into<FaultOrder>) -> Result<(), VramError> {
        fault::order(&*self.machine()?, self.ordinal, order.into())
    }

    /// Opens this clone's device, making the machine if there is none yet.
    pub(crate) fn open(&self) -> Result<MockDevice, VramError> {
        let machine = self.machine()?;
        let driver = open_mock(&machine, self.ordinal)?;
        Ok(MockDevice { machine, ordinal: self.ordinal, driver })
    }

    /// The machine in C, for a make-believe engine of the project's own suites; it lives as long as a clone of this.
    #[doc(hidden)]
    pub fn raw_machine(&self) -> Result<*mut std::ffi::c_void, VramError> {
        Ok(self.machine()?.as_ptr())
    }

    pub(crate) fn machine(&self) -> Result<Arc<Machine>, VramError> {
        self.check()?;
        let mut slot = self.lock();
        match slot.as_ref() {
            Some((settings, machine)) if *settings == self.settings => Ok(Arc::clone(machine)),
            Some(_) => Err(VramError::Config {
                setting: "mock",
                problem:
                    "was changed after its machine was made; set everything but the ordinal before the first use, \
                          or start from MockConfig::new()"
                        .to_owned(),
            }),
            None => {
                let mut seed = [0; 16];
                getrandom::fill(&mut seed)
                    .map_err(|_| VramError::Internal { what: "the operating system gave no random bytes" })?;
                let machine = self.settings.machine(seed)?;
                *slot = Some((self.settings, Arc::clone(&machine)));
                Ok(machine)
            }
        }
    }

    fn check(&self) -> Result<(), VramError> {
        let Settings { devices, capacity_bytes, granularity, .. } = self.settings;
        let config = |setting, problem| Err(VramError::Config { setting, problem });
        if devices == 0 || devices > 4096 {
            return config("mock devices", format!("are {devices}; allowed are 1 to 4096"));
        }
        if capacity_bytes == 0 {
            return config("mock capacity_bytes", "is 0; give a device some memory".to_owned());
        }
        if !granularity.is_power_of_two() || !(256..=1 << 30).contains(&granularity) {
            return config(
                "mock granularity",
                format!("is {granularity}; allowed are powers of two from 256 to 1073741824"),
            );
        }
        if self.ordinal >= devices {
            return Err(VramError::DeviceUnavailable {
                problem: format!(
                    "the mock machine has {devices} device{}, numbered from 0; there is no device {}: give one that is there, or ask for more",
                    if devices == 1 { "" } else { "s" },
                    self.ordinal
                ),
            });
        }
        Ok(())
    }

    /// The slot is always whole: nothing that holds the lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Made> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MockConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MockConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockConfig")
            .field("devices", &self.settings.devices)
            .field("capacity_bytes", &self.settings.capacity_bytes)
            .field("ordinal", &self.ordinal)
            .field("late_streams", &self.settings.late_streams)
            .field("granularity", &self.settings.granularity)
            .field("poison", &self.settings.poison)
            .field("read_only", &self.settings.read_only)
            .field("sparse", &self.settings.sparse)
            .field("kernel_bodies", &self.settings.kernel_bodies)
            .finish_non_exhaustive()
    }
}

/// What has happened on a mock machine: how much lives, and what was run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MockStats {
    /// Allocations not yet freed.
    pub live_allocations: u64,
    /// Bytes of them.
    pub live_bytes: u64,
    /// Stretches of adopted memory.
    pub live_foreign: u64,
    /// Streams not yet destroyed.
    pub live_streams: u64,
    /// Events not yet destroyed, but for those by which staging buffers know that their copies have run.
    pub live_events: u64,
    /// Host staging buffers not yet freed.
    pub live_host_buffers: u64,
    /// Bytes of them.
    pub live_host_bytes: u64,
    /// Operations enqueued that have not run.
    pub pending_operations: u64,
    /// Faults that were ordered, not forgotten, and that no call has met.
    pub unmet_faults: u64,
    /// Bytes of device memory that were written, and not zero when they were freed.
    pub unwiped_bytes_freed: u64,
    /// Bytes of host staging that were not zero when they were freed.
    pub unwiped_host_bytes_freed: u64,
    /// Misuse of the driver that a GPU's would take amiss without saying so: memory given back while work uses it, a call without a
    /// context.
    pub violations: u64,
    runs: [u64; OPERATIONS],
}

impl MockStats {
    /// How often a call succeeded; for copies, fills and kernels: how many have run. One that a fault made do nothing counts
    /// too: the driver believes that it ran.
    #[must_use]
    pub fn runs(&self, call: MockCall) -> u64 {
        usize::try_from(call.number()).ok().and_then(|at| self.runs.get(at)).copied().unwrap_or(0)
    }

    pub(super) fn of(raw: &RawStats) -> Self {
        Self {
            live_allocations: raw.live_allocations,
            live_bytes: raw.live_bytes,
            live_foreign: raw.live_foreign,
            live_streams: raw.live_streams,
            live_events: raw.live_events,
            live_host_buffers: raw.live_host_buffers,
            live_host_bytes: raw.live_host_bytes,
            pending_operations: raw.pending_operations,
            unmet_faults: raw.unmet_faults,
            unwiped_bytes_freed: raw.unwiped_device_bytes,
            unwiped_host_bytes_freed: raw.unwiped_host_bytes,
            violations: raw.violations,
            runs: raw.runs,
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.live_allocations, other.live_allocations),
            (&mut self.live_bytes, other.live_bytes),
            (&mut self.live_foreign, other.live_foreign),
            (&mut self.live_streams, other.live_streams),
            (&mut self.live_events, other.live_events),
            (&mut self.live_host_buffers, other.live_host_buffers),
            (&mut self.live_host_bytes, other.live_host_bytes),
            (&mut self.pending_operations, other.pending_operations),
            (&mut self.unmet_faults, other.unmet_faults),
            (&mut self.unwiped_bytes_freed, other.unwiped_bytes_freed),
            (&mut self.unwiped_host_bytes_freed, other.unwiped_host_bytes_freed),
            (&mut self.violations, other.violations),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in self.runs.iter_mut().zip(other.runs) {
            *sum = sum.saturating_add(more);
        }
    }
}

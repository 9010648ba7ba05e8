//! What a mock machine is made of, and what can be seen of it from outside.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::MockDevice;
use super::fault::{self, FaultOrder, MockCall};
use crate::driver::open_mock;
use crate::error::{VramError, draw};
use crate::ffi::mock::{Machine, OPERATIONS, RawStats, Setting};

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
#[must_use]
pub struct MockConfig {
    settings: Settings,
    ordinal: u32,
    machine: Arc<Mutex<Made>>,
}

impl MockConfig {
    /// One device of 1 GiB, 256-byte granularity, late streams, poison on, which can map memory read-only.
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

    setters! {
        /// How many devices the machine has; at least 1.
        fn devices(devices: u32) => settings.devices = devices;
        /// Bytes of memory of each device.
        fn capacity_bytes(bytes: u64) => settings.capacity_bytes = bytes;
        /// Which device this clone uses, from 0.
        fn ordinal(ordinal: u32) => ordinal = ordinal;
        /// Whether operations run only when something orders them (the default), or at once.
        fn late_streams(late: bool) => settings.late_streams = late;
        /// The allocation unit in bytes: a power of two from 256 to 1 GiB.
        fn granularity(bytes: u64) => settings.granularity = bytes;
        /// Whether fresh memory is filled with garbage (the default). Without it large devices cost nothing until written.
        fn poison(poison: bool) => settings.poison = poison;
        /// Whether memory can be mapped read-only (the default). Without it sealed memory stays writable, as it does under a
        /// driver that refuses, and a stray write is found by the next check only.
        fn read_only(offered: bool) => settings.read_only = offered;
        /// Whether memory that is zero costs nothing (not the default): neither room nor time of the host, so that a device and a
        /// shard can be larger than both. Fresh memory is then poisoned only in its first and its last MiB. Digests, proofs and
        /// counts are those of any other device; but a write from outside, past the driver, to memory that holds zeros is not seen.
        fn sparse(sparse: bool) => settings.sparse = sparse;
        /// Whether digests and counts run the bodies of the GPU's kernels (not the default), instead of the host's own, faster hash. What
        /// they find is the same.
        fn kernel_bodies(run: bool) => settings.kernel_bodies = run;
    }

    /// What has happened on all devices of the machine so far; all zero while there is none.
    #[must_use]
    pub fn stats(&self) -> MockStats {
        let mut sum = MockStats::default();
        // Copied out first, so that a slow kernel delays only this caller.
        let machine = self.lock().clone();
        if let Some((settings, machine)) = machine {
            (0..settings.devices).for_each(|ordinal| sum.add(&machine.stats(ordinal)));
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
                draw(&mut seed)?;
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
        let (settings, ordinal) = (&self.settings, &self.ordinal);
        f.debug_struct("MockConfig").field("settings", settings).field("ordinal", ordinal).finish_non_exhaustive()
    }
}

macro_rules! stats {
    ($($(#[$about:meta])* $field:ident = $raw:ident;)*) => {
        /// What has happened on a mock machine: how much lives, and what was run.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct MockStats {
            $($(#[$about])* pub $field: u64,)*
            runs: [u64; OPERATIONS],
        }

        impl MockStats {
            pub(super) fn add(&mut self, raw: &RawStats) {
                $(self.$field = self.$field.saturating_add(raw.$raw);)*
                for (sum, more) in self.runs.iter_mut().zip(raw.runs) {
                    *sum = sum.saturating_add(more);
                }
            }
        }
    };
}

stats! {
    /// Allocations not yet freed.
    live_allocations = live_allocations;
    /// Bytes of them.
    live_bytes = live_bytes;
    /// Stretches of adopted memory.
    live_foreign = live_foreign;
    /// Streams not yet destroyed.
    live_streams = live_streams;
    /// Events not yet destroyed, but for those by which staging buffers know that their copies have run.
    live_events = live_events;
    /// Host staging buffers not yet freed.
    live_host_buffers = live_host_buffers;
    /// Bytes of them.
    live_host_bytes = live_host_bytes;
    /// Operations enqueued that have not run.
    pending_operations = pending_operations;
    /// Faults that were ordered, not forgotten, and that no call has met.
    unmet_faults = unmet_faults;
    /// Bytes of device memory that were written, and not zero when they were freed.
    unwiped_bytes_freed = unwiped_device_bytes;
    /// Bytes of host staging that were not zero when they were freed.
    unwiped_host_bytes_freed = unwiped_host_bytes;
    /// Misuse of the driver that a GPU's would take amiss without saying so: memory given back while work uses it, a call without a
    /// context.
    violations = violations;
}

impl MockStats {
    /// How often a call succeeded; for copies, fills and kernels: how many have run. One that a fault made do nothing counts
    /// too: the driver believes that it ran.
    #[must_use]
    #[allow(clippy::as_conversions, reason = "the number of a call in C")]
    pub fn runs(&self, call: MockCall) -> u64 {
        self.runs.get(call as usize).copied().unwrap_or(0)
    }
}

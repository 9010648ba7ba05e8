//! A manager for one command, from the choice of the device to the proof that nothing is left.
//!
//! Owns how the options become a manager, and [`Session`], which whoever ran a command ends with [`Session::end`]: every shard is
//! released, the manager shut down, and the memory in use compared with what it was.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use vram_residency::{
    DeviceKind, DeviceSelector, Policy, SealedShard, TreeParams, VramError, VramManager, WorkerId, WorkerSecret,
};

use crate::cli::{Device, Place, SecretMode};
use crate::exit::Failure;

/// The name under which the worker seals.
const WORKER: &str = "vram-worker";

/// How long an orderly end waits for executions. The worker has none left by then.
const DRAIN: Duration = Duration::from_secs(5);

/// What is said wherever the device is named.
pub(crate) const MOCK_WARNING: &str = "MOCK DEVICE: host memory, protects nothing";

/// The least capacity of the mock.
#[cfg(feature = "mock")]
const MOCK_BYTES: u64 = 1 << 30;

/// A manager and what the device held before it did anything.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) manager: VramManager,
    pub(crate) used_before: u64,
}

/// What has to be known before a manager can be built.
pub(crate) struct Wishes<'a> {
    pub(crate) place: &'a Place,
    /// What is demanded on a CUDA device.
    pub(crate) policy: Policy,
    pub(crate) params: TreeParams,
    /// The file of the worker's secret, if it has one, and how that is judged.
    pub(crate) secret: Option<(&'a Path, SecretMode)>,
    /// Device memory that must stay free, if that is said.
    pub(crate) headroom: Option<u64>,
    /// Bytes of the image: the mock is made large enough for it.
    #[cfg_attr(not(feature = "mock"), expect(dead_code, reason = "only the mock has to be made"))]
    pub(crate) model_bytes: u64,
}

impl Session {
    /// Builds the manager: on the device that was asked for, else on CUDA, else on the mock.
    pub(crate) fn open(wishes: &Wishes<'_>) -> Result<Self, Failure> {
        let manager = match wishes.place.device {
            Some(device) => wishes.build(device),
            None => wishes.build_on_any(),
        }?;
        if manager.device_kind() == DeviceKind::Mock {
            let _nobody_listens = writeln!(io::stderr(), "warning: {MOCK_WARNING}");
        }
        let used_before = manager.used_vram();
        Ok(Self { manager, used_before })
    }

    /// Wipes and releases everything. Returns the bytes that are in use afterwards, and what went wrong.
    pub(crate) fn end(&self, shards: &[SealedShard]) -> (u64, Result<(), VramError>) {
        let mut released = Ok(());
        for shard in shards {
            // The first failure is told; the others are released all the same.
            released = released.and(self.manager.release(shard).map(drop));
        }
        // Also wipes what could not be released just now.
        self.manager.shutdown(DRAIN);
        let used = self.manager.used_vram();
        let left = if used == self.used_before {
            Ok(())
        } else {
            Err(VramError::Internal { what: "device memory is still in use after everything was released" })
        };
        (used, released.and(left))
    }
}

/// How a command ends whose work came to this, and its release to that.
pub(crate) fn ended<T>(worked: Result<T, Failure>, released: Result<(), VramError>) -> Result<T, Failure> {
    // Memory that stays behind is the graver news than an interruption.
    match (worked, released.map_err(Failure::from)) {
        (Err(Failure::Interrupted(signal)), released) => released.and(Err(Failure::Interrupted(signal))),
        (Err(failure), Err(behind)) => {
            behind.tell(); // both are news; there is room for one
            Err(failure)
        }
        (worked, released) => released.and(worked),
    }
}

impl Wishes<'_> {
    fn build(&self, device: Device) -> Result<VramManager, VramError> {
        match device {
            Device::Auto => self.build_on(DeviceSelector::Auto, self.policy.clone()),
            Device::Cuda(ordinal) => self.build_on(DeviceSelector::Cuda(ordinal), self.policy.clone()),
            Device::CudaUuid(uuid) => self.build_on(DeviceSelector::CudaUuid(uuid), self.policy.clone()),
            #[cfg(feature = "mock")]
            Device::Mock => {
                let wanted = self.model_bytes.saturating_mul(2).saturating_add(64 << 20).max(MOCK_BYTES);
                let bytes = wanted.checked_next_multiple_of(1 << 20).unwrap_or(wanted);
                let config = vram_residency::MockConfig::new().capacity_bytes(bytes);
                self.build_on(DeviceSelector::Mock(config), Policy::development())
            }
        }
    }

    #[cfg(all(feature = "mock", feature = "cuda"))]
    const fn names_a_library(&self) -> bool {
        self.place.driver_library.is_some()
    }

    #[cfg(all(feature = "mock", not(feature = "cuda")))]
    const fn names_a_library(&self) -> bool {
        false
    }

    #[cfg(feature = "mock")]
    fn build_on_any(&self) -> Result<VramManager, VramError> {
        match self.build(Device::Auto) {
            // Who names a library does not mean the mock.
            Err(error @ VramError::DeviceUnavailable { .. }) if !self.names_a_library() => {
                let _nobody_listens = writeln!(io::stderr(), "warning: {error}; going on with the mock");
                self.build(Device::Mock)
            }
            built => built,
        }
    }

    #[cfg(not(feature = "mock"))]
    fn build_on_any(&self) -> Result<VramManager, VramError> {
        self.build(Device::Auto)
    }

    fn build_on(&self, device: DeviceSelector, policy: Policy) -> Result<VramManager, VramError> {
        // Before the secret is read: foreign code in this process could take it.
        policy.check_environment()?;
        let secret = match self.secret {
            Some((path, mode)) => WorkerSecret::from_file_with(path, mode.into()),
            None => WorkerSecret::random(),
        }?;
        let builder = VramManager::builder(WorkerId::new(WORKER)?, secret)
            .device(device)
            .policy(policy)
            .tree_params(self.params.clone());
        #[cfg(feature = "cuda")]
        let builder = match &self.place.driver_library {
            Some(path) => builder.driver_library(path),
            None => builder,
        };
        match self.headroom {
            Some(bytes) => builder.headroom(bytes),
            None => builder,
        }
        .build()
    }
}

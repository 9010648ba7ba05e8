//! Building a manager: every choice is checked here, before anything is sealed.

mod admission;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::VramManager;
use super::patrol::Patrol;
use crate::audit::{AuditSink, AuditTrail, EventKind, TracingSink};
use crate::capacity::{Ledger, default_headroom};
use crate::clock::Clock;
use crate::digest::TreeParams;
use crate::digest::pool::default_threads;
use crate::driver::{Driver, DriverLibrary, Wanted};
use crate::error::{VramError, draw};
use crate::id::WorkerId;
use crate::keys::{SealKey, WorkerSecret};
use crate::manager::inner::{Inner, Kept, OnIntegrityFailure, ScratchTable, StateCell};
use crate::memory::{DEFAULT_STAGING_BYTES, Device};
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::spec::Check;
use crate::types::{DeviceKind, DeviceUuid, Identity};

const LEAST_STAGING_BYTES: usize = 4 << 10;
const LEAST_PATROL: Duration = Duration::from_millis(1);
const MOST_STAGING_BYTES: usize = 1 << 30;

/// Which device a manager runs on.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum DeviceSelector {
    /// The first CUDA device. Never the mock.
    #[default]
    Auto,
    /// The first CUDA device, else a mock, said loudly.
    #[cfg(feature = "mock")]
    AutoOrMock,
    /// The CUDA device of this ordinal.
    Cuda(u32),
    /// The CUDA device, or MIG instance, of this identity.
    CudaUuid(DeviceUuid),
    /// The mock: host memory that behaves like a GPU and protects nothing.
    #[cfg(feature = "mock")]
    Mock(crate::driver::mock::MockConfig),
}

impl DeviceSelector {
    const fn kind(&self) -> DeviceKind {
        match self {
            #[cfg(feature = "mock")]
            Self::Mock(_) => DeviceKind::Mock,
            _ => DeviceKind::Cuda,
        }
    }
}

struct OpenDevice {
    driver: Arc<Driver>,
    #[cfg(feature = "mock")]
    mock: Option<crate::driver::mock::MockDevice>,
}

impl OpenDevice {
    fn cuda(wanted: Wanted, library: &DriverLibrary) -> Result<Self, VramError> {
        Ok(Self {
            driver: crate::driver::open(wanted, library)?,
            #[cfg(feature = "mock")]
            mock: None,
        })
    }

    #[cfg(feature = "mock")]
    fn mock(config: &crate::driver::mock::MockConfig) -> Result<Self, VramError> {
        let mock = config.open()?;
        Ok(Self { driver: Arc::clone(mock.driver()), mock: Some(mock) })
    }
}

impl DeviceSelector {
    fn open(self, library: &DriverLibrary) -> Result<OpenDevice, VramError> {
        match self {
            Self::Auto => OpenDevice::cuda(Wanted::First, library),
            #[cfg(feature = "mock")]
            Self::AutoOrMock => OpenDevice::cuda(Wanted::First, library).or_else(|error| {
                // What the policy forbids is no missing device; who names a library does not mean the mock.
                if matches!(error, VramError::PolicyViolation { .. }) || library.told.is_some() {
                    return Err(error);
                }
                crate::panics::aside!(|| {
                    tracing::warn!(%error, "no CUDA device can be used: running on the mock, which protects nothing");
                });
                OpenDevice::mock(&crate::driver::mock::MockConfig::new())
            }),
            Self::Cuda(ordinal) => OpenDevice::cuda(Wanted::Ordinal(ordinal), library),
            Self::CudaUuid(uuid) => OpenDevice::cuda(Wanted::Uuid(uuid), library),
            #[cfg(feature = "mock")]
            Self::Mock(config) => OpenDevice::mock(&config),
        }
    }
}

/// Collects the choices for a [`VramManager`].
#[must_use]
pub struct VramManagerBuilder {
    worker: WorkerId,
    secret: WorkerSecret,
    device: DeviceSelector,
    policy: Policy,
    sinks: Vec<Arc<dyn AuditSink>>,
    headroom: Option<u64>,
    params: TreeParams,
    staging_bytes: usize,
    threads: Option<usize>,
    on_failure: OnIntegrityFailure,
    check: Check,
    cross_check: u32,
    patrol: Option<Duration>,
    quarantine_limit: Option<u64>,
    #[cfg(feature = "cuda")]
    driver_library: Option<std::path::PathBuf>,
}

shown!(VramManagerBuilder, this: worker = this.worker, device = this.device, policy = this.policy, sinks = this.sinks.len());

impl VramManagerBuilder {
    pub(super) fn new(worker: WorkerId, secret: WorkerSecret) -> Self {
        Self {
            worker,
            secret,
            device: DeviceSelector::default(),
            policy: Policy::default(),
            sinks: Vec::new(),
            headroom: None,
            params: TreeParams::default(),
            staging_bytes: DEFAULT_STAGING_BYTES,
            threads: None,
            on_failure: OnIntegrityFailure::default(),
            check: Check::default(),
            cross_check: 0,
            patrol: None,
            quarantine_limit: None,
            #[cfg(feature = "cuda")]
            driver_library: None,
        }
    }

    /// The device; [`DeviceSelector::Auto`] when not set.
    pub fn device(mut self, device: DeviceSelector) -> Self {
        self.device = device;
        self
    }

    /// The policy; [`Policy::production`] when not set.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// A sink for audit events. Repeatable; [`TracingSink`] when none is given.
    pub fn audit(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.sinks.push(sink);
        self
    }

    /// Block size and salt of the digests; 4096 bytes and none when not set.
    pub fn tree_params(mut self, params: TreeParams) -> Self {
        self.params = params;
        self
    }

    setters! {
        /// Device memory that stays free, in bytes; the smaller of 10 % and 4 GiB when not set.
        fn headroom(bytes: u64) => headroom = Some(bytes);
        /// Bytes of each of the two staging buffers, from 4 KiB to 1 GiB; 16 MiB when not set.
        fn staging(bytes: usize) => staging_bytes = bytes;
        /// Threads that hash sources on the host, from 1 on; the machine's cores when not set.
        fn digest_threads(threads: usize) => threads = Some(threads);
        /// What an integrity failure does besides quarantining the shard; [`OnIntegrityFailure::Stop`] when not set.
        fn on_integrity_failure(choice: OnIntegrityFailure) => on_failure = choice;
        /// How executes are checked that do not choose; [`Check::Digest`] when not set.
        fn check(check: Check) => check = check;
        /// How many random subtrees each check reads back through the copy engine and hashes on the CPU, against the sealed table; none when
        /// not set. A kernel that hides f of N subtrees is caught with probability 1 − C(N − f, k) / C(N, k), k / N for one, and the manager
        /// stops with `DEVICE_UNTRUSTED`; a kernel that hides nothing because nothing has changed is not.
        fn cross_check(subtrees: u32) => cross_check = subtrees;
        /// Has every byte of every resident shard looked at in the background within `bound`, whether it executes or not; nobody does when not
        /// set. Shards that executes check in full are left alone; the others are read in 16 parts a round, three rounds a bound, and an
        /// execute waits for one part at most. A change is acted on as in any check.
        fn patrol(bound: Duration) => patrol = Some(bound);
        /// How many bytes may stay in quarantine because they could not be proven wiped; a quarter of the device when not set. A
        /// manager that has to keep more stops: its device cannot be trusted.
        fn quarantine_limit(bytes: u64) => quarantine_limit = Some(bytes);
    }

    /// The file of the NVIDIA driver's library (`libcuda.so.1`), an absolute path; when not set, the one that the loader's cache
    /// names or that lies in a usual folder. `LD_LIBRARY_PATH` never chooses it.
    #[cfg(feature = "cuda")]
    pub fn driver_library(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.driver_library = Some(path.into());
        self
    }

    /// Opens the device, asks it questions whose answers are known, derives the seal key, and starts the trail. Blocks.
    ///
    /// # Errors
    /// `CONFIG_ERROR`, `POLICY_VIOLATION`, `DEVICE_UNAVAILABLE`, `CUDA_ERROR`, `AUDIT_UNAVAILABLE`.
    pub fn build(mut self) -> Result<VramManager, VramError> {
        let threads = self.threads()?;
        self.admit_staging()?;
        self.admit_patrol()?;
        self.admit_start()?;
        let library = self.library()?;
        let opened = self.device.clone().open(&library).inspect_err(|error| self.report_violation(error))?;
        self.build_on(opened, threads)
    }

    /// A manager on a driver that a test of this crate opened itself.
    #[cfg(all(test, feature = "mock"))]
    pub(crate) fn build_with(mut self, driver: Arc<Driver>) -> Result<VramManager, VramError> {
        let threads = self.threads()?;
        self.admit_start()?;
        self.build_on(OpenDevice { driver, mock: None }, threads)
    }

    fn build_on(mut self, opened: OpenDevice, threads: NonZeroUsize) -> Result<VramManager, VramError> {
        let info = opened.driver.info().clone();
        let mut salt = [0; 32];
        draw(&mut salt)?;
        let identity = self.identity(info.kind, info.uuid, info.ordinal)?;
        let metrics = Metrics::new(&identity);
        let clock = Clock::system();
        let trail = self.trail(&identity, &clock, &metrics)?;
        // Loading and starting a driver loads more libraries.
        let admitted = self.policy.admit_device(info.kind).and_then(|()| self.policy.check_environment());
        if let Err(VramError::PolicyViolation { rule, problem }) = &admitted {
            trail.emit(EventKind::PolicyViolation { rule, problem: problem.clone(), suppressed: 0 });
        }
        admitted?;
        let prepared = (|| {
            let key = SealKey::derive(&self.secret, &salt, info.kind, &info.uuid)?;
            let headroom = self.headroom.unwrap_or_else(|| default_headroom(info.total_bytes));
            let ledger = Ledger::new(info.total_bytes, headroom, info.granularity)?;
            let device = Device::open(opened.driver, self.params, self.staging_bytes, threads)?;
            trail.require(EventKind::ManagerStarted {
                device_name: info.name,
                device_ordinal: info.ordinal,
                total_bytes: info.total_bytes,
                policy: self.policy.name().to_owned(),
                relaxed: self.policy.relaxed_here().into_iter().map(str::to_owned).collect(),
            })?;
            Ok((key, ledger, device))
        })();
        let failed = |error: &VramError| {
            trail.emit(match error {
                VramError::PolicyViolation { rule, problem } => {
                    EventKind::PolicyViolation { rule, problem: problem.clone(), suppressed: 0 }
                }
                _ => EventKind::ManagerNotStarted { code: error.code() },
            });
        };
        let (key, ledger, device) = prepared.inspect_err(failed)?;
        let inner = Inner {
            identity,
            key,
            secret: self.secret,
            enrolments: 0.into(),
            policy: self.policy,
            on_failure: self.on_failure,
            check: self.check,
            cross_check: self.cross_check,
            device,
            ledger,
            trail,
            metrics,
            clock,
            quarantine_limit: self.quarantine_limit.unwrap_or(info.total_bytes.wrapping_shr(2)),
            shards: Arc::default(),
            state: StateCell::default(),
            scratch: ScratchTable::default(),
            kept: Kept::default(),
        };
        inner.report_memory();
        let inner = Arc::new(inner);
        Ok(VramManager {
            patrol: self.patrol.map(|bound| Patrol::start(&inner, bound)).transpose()?,
            inner,
            #[cfg(feature = "mock")]
            mock: opened.mock,
        })
    }

    fn identity(&self, kind: DeviceKind, uuid: DeviceUuid, ordinal: u32) -> Result<Identity, VramError> {
        let mut epoch = [0; 16];
        draw(&mut epoch)?;
        Ok(Identity { worker: self.worker.clone(), epoch, kind, uuid, ordinal })
    }

    /// Takes the sinks out: the trail drops them where a panic of theirs ends.
    fn trail(&mut self, identity: &Identity, clock: &Clock, metrics: &Metrics) -> Result<AuditTrail, VramError> {
        let mut sinks = std::mem::take(&mut self.sinks);
        if sinks.is_empty() {
            sinks.push(Arc::new(TracingSink));
        }
        let requirement = self.policy.audit_requirement();
        AuditTrail::new(sinks, requirement, identity.clone(), clock.clone(), metrics.clone())
    }

    fn admit_staging(&self) -> Result<(), VramError> {
        if (LEAST_STAGING_BYTES..=MOST_STAGING_BYTES).contains(&self.staging_bytes) {
            return Ok(());
        }
        Err(VramError::Config {
            setting: "staging",
            problem: format!("of {} bytes is not between 4 KiB and 1 GiB; give a size that is", self.staging_bytes),
        })
    }

    fn admit_patrol(&self) -> Result<(), VramError> {
        if self.patrol.is_none_or(|bound| bound >= LEAST_PATROL) {
            return Ok(());
        }
        let problem = "is less than a millisecond; give the time within which every byte is to be looked at".to_owned();
        Err(VramError::Config { setting: "patrol", problem })
    }

    fn threads(&self) -> Result<NonZeroUsize, VramError> {
        match self.threads {
            Some(threads) => NonZeroUsize::new(threads).ok_or_else(|| VramError::Config {
                setting: "digest threads",
                problem: "is 0; give at least 1".to_owned(),
            }),
            None => Ok(default_threads()),
        }
    }
}

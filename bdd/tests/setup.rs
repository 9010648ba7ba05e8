//! How managers, shards and weights are made.

use std::sync::Arc;

use vram_residency::{
    AuditRequirement, AuditSink, DeviceSelector, OnIntegrityFailure, Policy, TreeParams, VramError, VramManager,
    WorkerId, WorkerSecret,
};

/// Bytes of a shard for which a scenario chose no other number.
pub(crate) const BYTES: usize = 70_000;

/// How a manager is made.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The device's size in its own units, where the scenario chooses it.
    pub(crate) units: Option<u64>,
    /// Headroom in the device's units; the library's own choice when there is none.
    pub(crate) headroom: Option<u64>,
    pub(crate) worker: &'static str,
    /// A random one when there is none.
    pub(crate) secret: Option<WorkerSecret>,
    pub(crate) ordinal: u32,
    pub(crate) policy: Policy,
    pub(crate) on_failure: OnIntegrityFailure,
    pub(crate) quarantine_limit: Option<u64>,
    pub(crate) durable_sink: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            units: None,
            headroom: Some(0),
            worker: "worker-1",
            secret: Some(WorkerSecret::from_bytes(&[7; 32]).unwrap()),
            ordinal: 0,
            policy: Policy::development(),
            on_failure: OnIntegrityFailure::Stop,
            quarantine_limit: None,
            durable_sink: false,
        }
    }
}

impl Setup {
    pub(crate) fn audited() -> Self {
        let policy = Policy::development().require_audit(AuditRequirement::Durable);
        Self { policy, durable_sink: true, ..Self::default() }
    }

    /// The manager, on the device that `selector` names, whose unit is `unit`.
    pub(crate) fn build(
        self,
        selector: DeviceSelector,
        unit: u64,
        sink: Option<Arc<dyn AuditSink>>,
    ) -> Result<VramManager, VramError> {
        let secret = self.secret.map_or_else(WorkerSecret::random, Ok)?;
        let mut builder = VramManager::builder(WorkerId::new(self.worker).unwrap(), secret)
            .device(selector)
            .policy(self.policy)
            .tree_params(TreeParams::new(1024, b"").unwrap())
            .staging(64 << 10)
            .digest_threads(1)
            .on_integrity_failure(self.on_failure);
        if let Some(units) = self.headroom {
            builder = builder.headroom(units * unit);
        }
        if let Some(bytes) = self.quarantine_limit {
            builder = builder.quarantine_limit(bytes);
        }
        if let Some(sink) = sink {
            builder = builder.audit(sink);
        }
        builder.build()
    }
}

/// Bytes that look like weights; the same for the same name.
pub(crate) fn noise(bytes: usize, name: &str) -> Vec<u8> {
    let seed = name.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(257).wrapping_add(u64::from(byte)));
    vram_residency_harness::noise(bytes, seed)
}

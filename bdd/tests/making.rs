//! How managers, shards and weights are made.

use vram_residency::{
    AuditRequirement, DeviceSelector, Digest, Expectation, Layout, OnIntegrityFailure, Policy, RawRegion, ShardId,
    ShardSpec, TreeParams, VramManager, VramManagerBuilder, WorkerId, WorkerSecret,
};

/// How a scenario's main manager is made.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The device's size in its own units, where the scenario chooses it.
    pub(crate) units: Option<u64>,
    /// Headroom in the device's units; the library's own choice when there is none.
    pub(crate) headroom: Option<u64>,
    pub(crate) worker: &'static str,
    pub(crate) ordinal: u32,
    pub(crate) policy: Policy,
    pub(crate) on_failure: OnIntegrityFailure,
    pub(crate) quarantine_limit: Option<u64>,
    pub(crate) durable_sink: bool,
    pub(crate) params: TreeParams,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            units: None,
            headroom: Some(0),
            worker: "worker-1",
            ordinal: 0,
            policy: Policy::development(),
            on_failure: OnIntegrityFailure::Stop,
            quarantine_limit: None,
            durable_sink: false,
            params: TreeParams::new(1024, b"").unwrap(),
        }
    }
}

impl Setup {
    pub(crate) fn audited() -> Policy {
        Policy::development().require_audit(AuditRequirement::Durable)
    }
}

/// Bytes or a file of which someone vouched for this digest.
pub(crate) fn file_of(manager: &VramManager, digest: Digest) -> Expectation {
    Expectation::FsVerityWith { digest, params: manager.tree_params().clone() }
}

/// An engine's memory of whose image someone vouched for this digest.
pub(crate) fn regions_of(manager: &VramManager, regions: &[RawRegion], digest: Digest) -> Expectation {
    let lengths: Vec<u64> = regions.iter().map(RawRegion::byte_len).collect();
    Expectation::Image { digest, layout: Layout::of_regions(manager.tree_params(), &lengths).unwrap().digest() }
}

/// The secret of managers for which a scenario chose none.
pub(crate) fn usual_secret() -> WorkerSecret {
    WorkerSecret::from_bytes(&[7; 32]).unwrap()
}

/// A manager to be, on the device that `selector` names, whose unit is `unit`.
pub(crate) fn builder(selector: DeviceSelector, unit: u64, setup: &Setup) -> VramManagerBuilder {
    builder_of(usual_secret(), selector, unit, setup)
}

/// The same of another secret.
pub(crate) fn builder_of(
    secret: WorkerSecret,
    selector: DeviceSelector,
    unit: u64,
    setup: &Setup,
) -> VramManagerBuilder {
    let worker = WorkerId::new(setup.worker).unwrap();
    let begun = VramManager::builder(worker, secret)
        .device(selector)
        .policy(setup.policy.clone())
        .tree_params(setup.params.clone())
        .staging(64 << 10)
        .digest_threads(1)
        .on_integrity_failure(setup.on_failure);
    let begun = match setup.headroom {
        Some(units) => begun.headroom(units * unit),
        None => begun,
    };
    match setup.quarantine_limit {
        Some(bytes) => begun.quarantine_limit(bytes),
        None => begun,
    }
}

/// Bytes of device memory that parts of these lengths take, each in whole units.
pub(crate) fn taken(unit: u64, parts: &[u64]) -> u64 {
    parts.iter().map(|bytes| bytes.next_multiple_of(unit)).sum()
}

/// Bytes of the check space of an image in blocks of 1024 bytes: a hash for each block, for each 32 of them, a result,
/// and a list of one region.
pub(crate) fn check_space(image: u64) -> u64 {
    let blocks = image.div_ceil(1024);
    32 * (blocks + blocks.div_ceil(32) + 2)
}

pub(crate) fn spec(name: &str) -> ShardSpec {
    ShardSpec::new(ShardId::new(name).unwrap())
}

/// Bytes that look like weights; the same for the same name.
pub(crate) fn noise(bytes: usize, name: &str) -> Vec<u8> {
    let mut state = name
        .bytes()
        .fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(bytes)
    .collect()
}

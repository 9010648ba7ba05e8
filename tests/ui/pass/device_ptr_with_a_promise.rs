//! Whoever keeps its contract gets the address.
use vram_residency::{ExecuteOptions, SealedShard, VramManager};

fn rig() -> (VramManager, SealedShard) {
    use vram_residency::{DeviceSelector, MockConfig, Policy, ShardId, ShardSource, ShardSpec, WorkerId, WorkerSecret};
    let manager = VramManager::builder(WorkerId::new("ui").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(8 << 20)))
        .policy(Policy::development())
        .build()
        .unwrap();
    let spec = ShardSpec::new(ShardId::new("one").unwrap());
    let shard = manager.seal_model(spec, ShardSource::bytes(&[1, 2, 3, 4])).unwrap();
    (manager, shard)
}

fn main() {
    let (manager, shard) = rig();
    let run = manager.begin(&shard, ExecuteOptions::default()).unwrap();
    // SAFETY: the address is only printed as a number, never used.
    let address = unsafe { run.regions()[0].device_ptr() }.as_u64();
    assert_ne!(address, 0);
    run.finish().unwrap();
}

//! Verified bytes within the closure, and what was copied out of them.
use vram_residency::{SealedShard, VramManager};

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
    let copied = manager.execute(&shard, |verified| {
        let mut out = [0; 4];
        verified.read_at(0, &mut out).map(|()| (out, verified.byte_len()))
    });
    assert_eq!(copied.unwrap().unwrap(), ([1, 2, 3, 4], 4));
}

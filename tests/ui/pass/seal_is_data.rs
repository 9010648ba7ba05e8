//! A seal is cloned, encoded and asked for what it claims.
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
    let same = SealedShard::from_bytes(&shard.clone().to_bytes()).unwrap();
    assert_eq!((same.id(), same.digest(), same.byte_len()), (shard.id(), shard.digest(), 4));
    let report = manager.verify_sealed(&same).unwrap();
    assert_eq!(report.bytes, 4);
}

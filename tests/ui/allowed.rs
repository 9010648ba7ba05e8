//! The twins: what differs from the forbidden in one thing compiles and runs.
use vram_residency::{
    DeviceSelector, ExecuteOptions, MockConfig, Policy, SealedShard, ShardId, ShardSource, ShardSpec, VramManager,
    WorkerId, WorkerSecret,
};

fn main() {
    let secret = WorkerSecret::random().unwrap();
    assert_eq!(format!("{secret:?}"), "WorkerSecret(..)");
    let manager = VramManager::builder(WorkerId::new("ui").unwrap(), secret)
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(8 << 20)))
        .policy(Policy::development())
        .build()
        .unwrap();
    let spec = ShardSpec::new(ShardId::new("one").unwrap());
    let shard = manager.seal_model(spec, ShardSource::bytes(&[1, 2, 3, 4])).unwrap();
    // A seal is cloned, encoded and asked for what it claims; a report says how many bytes were checked.
    let same = SealedShard::from_bytes(&shard.clone().to_bytes()).unwrap();
    assert_eq!((same.id(), same.digest(), same.byte_len()), (shard.id(), shard.digest(), 4));
    assert_eq!(manager.verify_sealed(&same).unwrap().bytes, 4);
    // Verified bytes within the closure, and what was copied out of them.
    let copied = manager.execute(&shard, |verified| {
        let mut out = [0; 4];
        verified.read_at(0, &mut out).map(|()| (out, verified.byte_len()))
    });
    assert_eq!(copied.unwrap().unwrap(), ([1, 2, 3, 4], 4));
    // Verified bytes, regions and, with a promise, the address, before the guard ends.
    let run = manager.begin(&shard, ExecuteOptions::default()).unwrap();
    let mut out = [0; 2];
    run.verified().read_at(2, &mut out).unwrap();
    assert_eq!((out, run.regions().len()), ([3, 4], 1));
    // SAFETY: the address is only looked at as a number, never used.
    assert_ne!(unsafe { run.regions()[0].device_ptr() }.as_u64(), 0);
    // A guard moves, also to another thread, and ends once.
    std::thread::scope(|scope| {
        let moved = run;
        scope.spawn(move || moved.finish().unwrap());
    });
    drop(manager);
}

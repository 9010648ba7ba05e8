use std::sync::LazyLock;

use vram_residency::{
    DeviceSelector, ErrorCode, ManagerState, MockConfig, Policy, RefusalReason, SealedShard, ShardId, ShardSource,
    ShardSpec, VramError, VramManager, WorkerId, WorkerSecret,
};

/// A manager, and the seal of its only shard.
static RIG: LazyLock<(VramManager, SealedShard)> = LazyLock::new(|| {
    let manager = VramManager::builder(WorkerId::new("fuzz").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(8 << 20)))
        .policy(Policy::development())
        .headroom(0)
        .staging(64 << 10)
        .digest_threads(1)
        .build()
        .unwrap();
    let spec = ShardSpec::new(ShardId::new("shard").unwrap());
    let seal = manager.seal_model(spec, ShardSource::bytes(b"weights")).unwrap();
    (manager, seal)
});

/// Takes a manager's own seal and changes it as the input says: every three bytes are a place (two bytes) and what is xored
/// there. The manager verifies what equals its seal, refuses all else by its tag, and goes on serving.
pub fn forgery(data: &[u8]) {
    let (manager, genuine) = &*RIG;
    let genuine = genuine.to_bytes();
    let mut bytes = genuine.clone();
    for edit in data.chunks_exact(3).take(64) {
        let length = bytes.len();
        bytes[usize::from(u16::from_le_bytes([edit[0], edit[1]])) % length] ^= edit[2];
    }
    let changed = bytes != genuine;
    match SealedShard::from_bytes(&bytes).and_then(|seal| manager.verify_sealed(&seal)) {
        Ok(_) => assert!(!changed, "verified: {}", hex::encode(&bytes)),
        Err(error) => {
            assert!(changed, "the manager's own seal: {error}");
            assert_eq!(error.code(), ErrorCode::SealVerificationFailed);
            let VramError::SealRefused { reason } = error else { panic!("{error:?}") };
            use RefusalReason::{ClaimsOtherDevice, ClaimsOtherEpoch, ClaimsOtherWorker, Forged, Malformed};
            assert!(
                [Malformed, Forged, ClaimsOtherDevice, ClaimsOtherEpoch, ClaimsOtherWorker].contains(&reason),
                "refused as {reason}"
            );
        }
    }
    assert!(matches!(manager.state(), ManagerState::Ready), "{:?}", manager.state());
}

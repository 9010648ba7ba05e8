//! Four programs that users of the crate write. They must keep compiling against its public API with the features
//! `cuda` and `mock` (dev-dependencies: tokio, thiserror) and, run on the mock device, must succeed.

use std::sync::Arc;
use vram_residency::{
    Adopted, Coverage, DeviceSelector, ExecuteOptions, Expectation, MockConfig, OwnedExecution, Policy, RawRegion,
    SealedShard, SetId, ShardId, ShardSource, ShardSpec, VramError, VramManager, WorkerId, WorkerSecret, check_set,
};

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Vram(#[from] VramError),
    #[error("the weights hold a NaN at byte {0}")]
    Nan(u64),
}

pub fn manager(name: &str) -> Result<VramManager, VramError> {
    VramManager::builder(WorkerId::new(name)?, WorkerSecret::random()?)
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(64 << 20)))
        .policy(Policy::development())
        .build()
}

/// 1. One model: seal it under the digest that someone vouched for, use it, release it.
pub fn one_model(weights: &[u8], expected: Expectation) -> Result<f32, AppError> {
    let manager = manager("worker-1")?;
    let spec = ShardSpec::new(ShardId::new("model-a")?).expect(expected);
    let shard: SealedShard = manager.seal_model(spec, ShardSource::bytes(weights))?;
    let first = manager.try_execute(&shard, |verified| {
        let mut word = [0; 4];
        verified.read_at(0, &mut word)?;
        let value = f32::from_le_bytes(word);
        if value.is_nan() { Err(AppError::Nan(0)) } else { Ok(value) }
    })?;
    manager.release(&shard)?;
    Ok(first)
}

/// 2. Tensor parallelism: every rank is verified, in parallel, before any rank launches.
pub fn tensor_parallel(parts: &[&[u8]]) -> Result<u64, AppError> {
    let set = SetId::random()?;
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let mut ranks = Vec::new();
    for (index, part) in (0u32..).zip(parts) {
        let manager = manager(&format!("rank-{index}"))?;
        let spec = ShardSpec::new(ShardId::new("model-b")?).part(set, index, count);
        let shard = manager.seal_model(spec, ShardSource::bytes(part))?;
        ranks.push((manager, shard));
    }
    let pairs: Vec<_> = ranks.iter().map(|(manager, shard)| (manager, shard)).collect();
    check_set(&pairs)?;
    let options = || ExecuteOptions::default().coverage(Coverage::Full).bracket(true);
    let executions = std::thread::scope(|scope| {
        let begun: Vec<_> =
            pairs.iter().map(|(manager, shard)| scope.spawn(move || manager.begin(shard, options()))).collect();
        begun.into_iter().map(|rank| rank.join().expect("no rank panics")).collect::<Result<Vec<_>, _>>()
    })?;
    let mut bytes = 0;
    for execution in executions {
        bytes += execution.byte_len(); // a real worker launches its collective here
        execution.finish()?;
    }
    Ok(bytes)
}

/// 3. Memory that an engine owns: sealed, verified and wiped where it lies.
pub fn adopted(manager: &VramManager, tensors: Vec<Vec<f32>>) -> Result<f32, AppError> {
    let regions: Vec<RawRegion> =
        tensors.iter().map(|t| RawRegion::new(t.as_ptr() as u64, 4 * t.len() as u64)).collect();
    let spec = ShardSpec::new(ShardId::new("engine-weights")?); // read only: `.wipe_adopted(true)` would need `*mut`
    // SAFETY: the vectors live in `tensors`, which moves into `adopt` without moving their contents; nobody else writes them.
    let engine: Adopted<Vec<Vec<f32>>> =
        unsafe { manager.adopt(spec, tensors, &regions) }.map_err(|refused| refused.error)?;
    let execution = manager.begin(engine.shard(), ExecuteOptions::default())?;
    let sum = engine.owner().iter().flatten().sum(); // the engine's forward pass
    execution.finish()?;
    manager.release(engine.shard())?;
    Ok(sum)
}

/// 4. An async service: checks block, so they run on the blocking pool; the guard may be held across awaits.
pub async fn handler(manager: Arc<VramManager>, shard: SealedShard) -> Result<u64, AppError> {
    let execution: OwnedExecution =
        tokio::task::spawn_blocking(move || manager.begin_owned(&shard, ExecuteOptions::default()))
            .await
            .expect("the check does not panic")?;
    tokio::task::yield_now().await;
    let bytes = execution.byte_len();
    tokio::task::spawn_blocking(move || execution.finish()).await.expect("finishing does not panic")?;
    Ok(bytes)
}

const fn is_shareable<T: Send + Sync + 'static>() {}
const _: () = {
    is_shareable::<VramManager>();
    is_shareable::<SealedShard>();
    is_shareable::<VramError>();
};

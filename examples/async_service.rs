//! An async service: checks block, so they run on the blocking pool; the guard may be held across awaits.
#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    dead_code,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

#[path = "../tests/contract/programs.rs"]
mod programs;

#[tokio::main]
async fn main() -> Result<(), programs::AppError> {
    use vram_residency::{ShardId, ShardSource, ShardSpec};
    let manager = std::sync::Arc::new(programs::manager("service")?);
    let shard = manager.seal_model(ShardSpec::new(ShardId::new("model-a")?), ShardSource::bytes(&[7; 10_000]))?;
    println!("{} bytes served", programs::handler(manager, shard).await?);
    Ok(())
}

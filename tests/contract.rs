//! The five programs that users of the crate write keep compiling and running against its public API.
// covers: VER-12 VER-15 RES-9 SEAL-8
#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

#[path = "contract/programs.rs"]
mod programs;

use std::sync::Arc;

use programs::AppError;
use vram_residency::{ErrorCode, Expectation, ShardId, ShardSource, ShardSpec, TreeParams, VramError, digest_bytes};

fn weights(seed: u8, floats: u16) -> Vec<u8> {
    (0..floats).flat_map(|at| f32::from(at.wrapping_mul(7).wrapping_add(seed.into())).to_le_bytes()).collect()
}

#[test]
fn one_model_runs() {
    let weights = weights(3, 5000);
    let digest = digest_bytes(&TreeParams::default(), &weights);
    assert_eq!(programs::one_model(&weights, Expectation::FsVerity(digest)).unwrap(), 3.0);
}

#[test]
fn one_model_refuses_other_weights_and_its_own_nan() {
    let mut weights = weights(3, 5000);
    let digest = digest_bytes(&TreeParams::default(), &weights);
    *weights.last_mut().unwrap() ^= 1;
    let error = programs::one_model(&weights, Expectation::FsVerity(digest)).unwrap_err();
    assert!(matches!(error, AppError::Vram(VramError::DigestMismatch { .. })), "{error}");
    weights[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let digest = digest_bytes(&TreeParams::default(), &weights);
    assert!(matches!(programs::one_model(&weights, Expectation::FsVerity(digest)), Err(AppError::Nan(0))));
}

#[test]
fn tensor_parallel_runs() {
    let parts = [weights(1, 100), weights(2, 3000), weights(3, 1)];
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    assert_eq!(programs::tensor_parallel(&parts).unwrap(), 400 + 12_000 + 4);
}

#[test]
fn adopted_tensors_run() {
    let manager = programs::manager("engine").unwrap();
    let tensors = vec![vec![1.0_f32; 300], vec![2.0; 5], vec![0.5; 4000]];
    assert_eq!(programs::adopted(&manager, tensors).unwrap(), 300.0 + 10.0 + 2000.0);
    assert_eq!((manager.used_vram(), manager.adopted_vram()), (0, 0));
}

#[tokio::test]
async fn an_async_handler_runs() {
    let manager = Arc::new(programs::manager("service").unwrap());
    let spec = ShardSpec::new(ShardId::new("model-a").unwrap());
    let shard = manager.seal_model(spec, ShardSource::bytes(&weights(9, 1000))).unwrap();
    assert_eq!(programs::handler(Arc::clone(&manager), shard.clone()).await.unwrap(), 4000);
    manager.mock_controls().unwrap().flip_bit(&shard, 17, 0).unwrap();
    let AppError::Vram(error) = programs::handler(manager, shard).await.unwrap_err() else { panic!("not a VramError") };
    assert_eq!(error.code(), ErrorCode::SealVerificationFailed);
}

#[test]
fn a_token_loop_runs_and_gives_no_token_over_changed_weights() {
    let manager = programs::manager("tokens").unwrap();
    let shard =
        manager.seal_model(ShardSpec::new(ShardId::new("model-a").unwrap()), ShardSource::bytes(b"weights")).unwrap();
    assert_eq!(programs::token_loop(&manager, &shard, 7).unwrap(), b"weights");
    manager.mock_controls().unwrap().flip_bit(&shard, 6, 0).unwrap();
    let AppError::Vram(error) = programs::token_loop(&manager, &shard, 7).unwrap_err() else {
        panic!("not a VramError")
    };
    assert_eq!(error.code(), ErrorCode::SealVerificationFailed);
}

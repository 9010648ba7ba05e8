//! Tensor parallelism: every rank is verified, in parallel, before any rank launches.
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

fn main() -> Result<(), programs::AppError> {
    println!("{} bytes verified on three ranks", programs::tensor_parallel(&[&[1; 9000], &[2; 4096], &[3; 1]])?);
    Ok(())
}

//! One model: seal it under the digest that someone vouched for, use it, release it.
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
    let weights: Vec<u8> = (0..1024_u16).flat_map(|at| f32::from(at).to_le_bytes()).collect();
    let vouched_for = vram_residency::digest_bytes(&vram_residency::TreeParams::default(), &weights);
    println!(
        "the first weight is {}",
        programs::one_model(&weights, vram_residency::Expectation::FsVerity(vouched_for))?
    );
    Ok(())
}

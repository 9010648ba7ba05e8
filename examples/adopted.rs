//! Memory that an engine owns: sealed, verified and wiped where it lies.
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
    let manager = programs::manager("engine")?;
    println!("the engine says {}", programs::adopted(&manager, vec![vec![1.0; 300], vec![2.0; 5]])?);
    Ok(())
}

//! Whoever takes a raw address says that they keep its contract.
use vram_residency::Execution;

fn reach(run: &Execution<'_>) -> u64 {
    run.regions()[0].device_ptr().as_u64()
}

fn main() {}

//! An `Execution` comes from a manager only.
use vram_residency::Execution;

fn main() {
    let _forge = Execution::new();
}

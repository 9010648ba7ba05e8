//! An `Execution` comes from `VramManager::begin` only.
use vram_residency::Execution;

fn main() {
    let _forge = Execution::begin;
}

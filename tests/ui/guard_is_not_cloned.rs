//! A guard cannot be cloned.
use vram_residency::Execution;

fn twice(run: Execution<'_>) {
    let other = run.clone();
    drop((run, other));
}

fn main() {}

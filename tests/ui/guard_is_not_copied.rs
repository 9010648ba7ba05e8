//! A guard cannot be copied.
use vram_residency::Execution;

fn twice(run: Execution<'_>) {
    let other = run;
    drop((run, other));
}

fn main() {}

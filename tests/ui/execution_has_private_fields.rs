//! What an `Execution` holds is its own.
use vram_residency::Execution;

fn reach(run: Execution<'_>) {
    let _ = run.scope;
}

fn main() {}

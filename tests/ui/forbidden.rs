//! No bytes without a check, and nothing that would forge one. `allowed.rs` has the twin of each line.
use vram_residency::{Execution, SealedShard, VerifyReport, Verified, WorkerSecret};

/// A `Verified` and an `Execution` come from a check only, and what they hold is their own.
fn forged(shard: &SealedShard, run: Execution<'_>) {
    let _: Verified<'_> = Verified::new(shard);
    let _: Execution<'_> = Execution::new();
    let _ = run.scope;
}

fn written_down<'a>() -> Verified<'a> {
    Verified {}
}

/// A seal leads to no memory, nor to its tag, which would be compared in ordinary time.
fn from_a_seal(shard: &SealedShard, other: &SealedShard) {
    shard.device_ptr();
    shard.read_at(0, &mut [0]);
    shard.tag();
    let _ = shard == other;
}

/// A report is data: it opens nothing.
fn from_a_report(report: VerifyReport) {
    report.read_at(0, &mut [0]);
}

/// Whoever takes a raw address says that they keep its contract.
fn safely(run: &Execution<'_>) -> u64 {
    run.regions()[0].device_ptr().as_u64()
}

/// A guard ends once, so there is one of it; a secret is not cloned.
fn twice(run: Execution<'_>, secret: &WorkerSecret) {
    run.clone();
    let _: WorkerSecret = secret.clone();
}

fn main() {}

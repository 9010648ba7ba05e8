//! Nothing that was checked outlives its scope, and no guard is used twice. `allowed.rs` has the twin of each function.
use vram_residency::{ExecuteOptions, Execution, SealedShard, VerifyReport, Verified, VramError, VramManager};

type Finish<'a> = fn(Execution<'a>) -> Result<VerifyReport, VramError>;

fn a_copied_guard(run: Execution<'_>) {
    let other = run;
    drop((run, other));
}

fn a_finished_guard<'a>(run: Execution<'a>, finish: Finish<'a>) {
    finish(run).unwrap();
    let _ = run.read_at(0, &mut [0]);
    finish(run).unwrap();
}

fn a_guard_without_its_manager(manager: VramManager, shard: &SealedShard) {
    let run = manager.begin(shard, ExecuteOptions::default()).unwrap();
    drop(manager);
    run.finish().unwrap();
}

fn regions_without_their_guard(run: Execution<'_>) {
    let regions = run.regions();
    drop(run);
    let _ = regions.len();
}

fn verified_without_its_guard(run: Execution<'_>) {
    let verified = run.verified();
    run.finish().unwrap();
    let _ = verified.read_at(0, &mut [0]);
}

fn verified_beyond_the_closure(manager: &VramManager, shard: &SealedShard) {
    let _kept = manager.execute(shard, |verified| *verified).unwrap();
}

fn verified_by_the_back_door(manager: &VramManager, shard: &SealedShard) {
    let mut kept: Option<Verified<'_>> = None;
    manager.execute(shard, |verified| kept = Some(*verified)).unwrap();
    let _ = kept.map(|verified| verified.byte_len());
}

fn main() {}

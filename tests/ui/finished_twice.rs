//! A guard ends once.
use vram_residency::{ExecuteOptions, Execution, SealedShard, VerifyReport, VramError, VramManager};

fn twice<'a>(manager: &'a VramManager, shard: &SealedShard) {
    let finish: fn(Execution<'a>) -> Result<VerifyReport, VramError> = Execution::finish;
    let run = manager.begin(shard, ExecuteOptions::default()).unwrap();
    finish(run).unwrap();
    finish(run).unwrap();
}

fn main() {}

//! Executions: guards that travel, batches, chains, engine streams, holding times, and checks that are shared.

mod batches;
mod chains;
mod endings;
mod guards;
mod sharing;
mod streams;

use crate::*;

fn options() -> ExecuteOptions {
    ExecuteOptions::default()
}

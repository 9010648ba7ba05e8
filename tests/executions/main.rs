//! Executions: guards that travel, batches, chains, engine streams, holding times, and checks that are shared.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod batches;
mod chains;
mod endings;
mod guards;
mod sharing;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use support::Rig;
use vram_residency::{EventKind, ExecuteOptions, ExecuteOutcome, MockStream};

fn options() -> ExecuteOptions {
    ExecuteOptions::default()
}

/// Options for work on an engine's stream.
fn on(stream: &MockStream<'_>) -> ExecuteOptions {
    // SAFETY: the stream is of the manager's own mock device, and every test keeps it until its manager is dropped.
    unsafe { options().on_stream(stream.raw()) }
}

/// How the executions of the trail ended.
fn outcomes(rig: &Rig) -> Vec<ExecuteOutcome> {
    let events = rig.sink.events();
    events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::ExecuteFinished { outcome, .. } => Some(*outcome),
            _ => None,
        })
        .collect()
}

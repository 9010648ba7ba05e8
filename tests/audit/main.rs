//! The trail: which events each operation and each failure leaves, in which order, and what happens when the trail itself
//! fails.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

#[path = "../support/mod.rs"]
mod support;

mod blocking;
mod failures;
mod floods;
mod required;
mod steps;

use support::Rig;
use vram_residency::AuditEvent;

/// The names of the events that `step` leaves.
#[track_caller]
fn events_of(rig: &Rig, step: impl FnOnce(&Rig)) -> Vec<&'static str> {
    let mark = rig.mark();
    step(rig);
    rig.names_since(mark)
}

fn event_named(rig: &Rig, name: &str) -> AuditEvent {
    rig.sink.events().into_iter().rfind(|event| event.kind.name() == name).unwrap_or_else(|| panic!("no {name}"))
}

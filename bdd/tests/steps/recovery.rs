//! What is left of a failure, and what is not.

use cucumber::then;
use vram_residency::{ErrorCategory, EventKind, QuarantineCause};

use crate::world::World;

#[then("it is the device's failure and no integrity failure")]
fn of_the_device(world: &mut World) {
    assert_eq!(world.error().category(), ErrorCategory::Device, "{:?}", world.error());
    for event in world.sink.events() {
        let evidence = matches!(event.kind, EventKind::ShardQuarantined { cause: QuarantineCause::Evidence, .. });
        assert!(!evidence && !matches!(event.kind, EventKind::SealVerificationFailed { .. }), "{event:?}");
    }
}

#[then("its memory is still quarantined as residue")]
fn still_residue(world: &mut World) {
    let kept: u64 = world.sink.events().iter().map(|event| residue(&event.kind)).sum();
    assert!(kept > 0);
    assert_eq!(world.manager().quarantined_vram(), kept);
    world.assert_recount();
}

/// Bytes that an event says were kept as residue.
fn residue(kind: &EventKind) -> u64 {
    match kind {
        EventKind::ShardQuarantined { bytes, cause: QuarantineCause::Residue, .. } => *bytes,
        _ => 0,
    }
}

#[then(expr = "the numbers of the trail say that {int} event(s) were lost")]
fn lost(world: &mut World, wanted: u64) {
    let events = world.sink.events();
    let steps: Vec<u64> = events.windows(2).map(|pair| pair[1].sequence - pair[0].sequence).collect();
    assert_eq!(events[0].sequence, 1);
    assert_eq!(steps.iter().filter(|step| **step > 1).count(), 1, "one gap: {steps:?}");
    assert_eq!(steps.iter().map(|step| step - 1).sum::<u64>(), wanted, "{steps:?}");
}

#[then("nothing was wiped and all of it is counted")]
fn nothing_wiped(world: &mut World) {
    let report = world.report.clone().expect("there was a shutdown");
    assert!(report.wiped_bytes == 0 && report.residue_bytes > 0 && report.busy_bytes == 0, "{report:?}");
    assert_eq!(world.manager().used_vram(), report.residue_bytes);
    assert_eq!(world.manager().quarantined_vram(), report.residue_bytes);
    let impossible = |kind| matches!(kind, EventKind::ShardQuarantined { cause: QuarantineCause::WipeImpossible, .. });
    assert!(world.sink.events().into_iter().any(|event| impossible(event.kind)), "the trail says why");
}

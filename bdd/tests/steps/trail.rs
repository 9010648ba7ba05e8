//! The audit trail.

use cucumber::then;
use vram_residency::{EventKind, ExecuteOutcome, Severity};

use crate::world::World;

#[then(expr = "the trail has, in this order: {}")]
fn events(world: &mut World, wanted: String) {
    assert_eq!(world.new_events(), wanted.split(", ").collect::<Vec<_>>());
}

#[then(expr = "the trail has {int} time(s) {word}")]
fn trail_has(world: &mut World, times: usize, event: String) {
    let all = world.new_events();
    assert_eq!(all.iter().filter(|name| **name == event).count(), times, "{all:?}");
}

#[then("the trail has no gaps")]
fn no_gaps(world: &mut World) {
    let events = world.sink.events();
    assert!(!events.is_empty());
    for (event, sequence) in events.iter().zip(1_u64..) {
        assert_eq!(event.sequence, sequence);
        assert_eq!((event.device_uuid, event.epoch), (events[0].device_uuid, events[0].epoch));
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

#[then(expr = "{word} is a critical event")]
fn critical(world: &mut World, name: String) {
    let event = world.sink.events().into_iter().find(|event| event.kind.name() == name);
    let event = event.unwrap_or_else(|| panic!("no {name} in the trail"));
    assert_eq!(event.severity, Severity::Critical);
    assert!(event.to_json_line().contains("\"severity\":\"critical\""), "{}", event.to_json_line());
}

#[then(expr = "the trail says whether {word} is write-protected: {word}")]
fn write_protected(world: &mut World, name: String, wanted: bool) {
    let said = world.sink.events().into_iter().rev().find_map(|event| match event.kind {
        EventKind::VramSealed { shard, write_protected, .. } if shard.as_str() == name => Some(write_protected),
        _ => None,
    });
    assert_eq!(said, Some(wanted));
    assert_eq!(world.manager().enforce_vram_only_policy().unwrap().write_protected_shards, u64::from(wanted));
}

#[then(expr = "the executions ended as: {}")]
fn ended_as(world: &mut World, wanted: String) {
    let all = world.sink.events().split_off(world.mark);
    let ended = all.iter().filter_map(|event| match &event.kind {
        EventKind::ExecuteFinished { outcome, .. } => Some(match outcome {
            ExecuteOutcome::Finished => "finished",
            ExecuteOutcome::Discarded => "discarded",
            ExecuteOutcome::Abandoned => "abandoned",
            other => panic!("another outcome: {other:?}"),
        }),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), wanted.split(", ").collect::<Vec<_>>());
}

//! The trail.

use cucumber::{given, then, when};
use vram_residency::Severity;

use crate::world::World;

#[given("the audit sink fails")]
fn sink_fails(world: &mut World) {
    world.sink_fails = true;
    world.sink.failing(true);
}

#[when("the audit sink works again")]
fn sink_works(world: &mut World) {
    world.sink_fails = false;
    world.sink.failing(false);
    world.outcome = None;
}

#[then(expr = "the trail has, in this order: {}")]
fn events(world: &mut World, wanted: String) {
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
    assert_eq!(world.new_events(), wanted);
}

#[then("the trail has no gaps")]
fn no_gaps(world: &mut World) {
    let events = world.sink.events();
    assert!(!events.is_empty());
    for (event, sequence) in events.iter().zip(1_u64..) {
        assert_eq!(event.sequence, sequence);
        assert_eq!(event.device_uuid, events[0].device_uuid);
        assert_eq!(event.epoch, events[0].epoch);
    }
}

#[then(expr = "{word} is a critical event")]
fn critical(world: &mut World, name: String) {
    let event = world.sink.events().into_iter().find(|event| event.kind.name() == name);
    let event = event.unwrap_or_else(|| panic!("no {name} in the trail"));
    assert_eq!(event.severity, Severity::Critical);
    assert!(event.to_json_line().contains("\"severity\":\"critical\""), "{}", event.to_json_line());
}

#[then("no event shows a key, a tag or an address")]
fn nothing_secret(world: &mut World) {
    let secret = "07".repeat(32);
    let tags: Vec<String> = world
        .seals
        .values()
        .map(|seal| {
            let bytes = seal.to_bytes();
            bytes[bytes.len() - 32..].iter().map(|byte| format!("{byte:02x}")).collect()
        })
        .collect();
    assert!(!tags.is_empty());
    for event in world.sink.events() {
        let (line, debug) = (event.to_json_line(), format!("{event:?}"));
        for text in [&line, &debug] {
            assert!(!text.contains(&secret) && !text.contains("0x"), "{text}");
            assert!(tags.iter().all(|tag| !text.contains(tag)), "{text}");
        }
    }
}

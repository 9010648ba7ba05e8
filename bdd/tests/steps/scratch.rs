//! Working memory.

use cucumber::{then, when};
use vram_residency::{Purpose, ShardId};

use crate::engine::address_of;
use crate::world::World;

#[when(expr = "I allocate {int} bytes of scratch for {word}")]
fn allocate(world: &mut World, bytes: u64, purpose: String) {
    let purpose = match purpose.as_str() {
        "kv_cache" => Purpose::KvCache,
        "activations" => Purpose::Activations,
        "workspace" => Purpose::Workspace,
        other => panic!("no such purpose: {other}"),
    };
    world.before_call();
    let allocated = world.manager().allocate_scratch(purpose, bytes);
    if let Some(scratch) = world.note(allocated) {
        assert_eq!((scratch.purpose(), scratch.byte_len()), (purpose, bytes));
        assert!(world.manager().used_vram() >= world.used_before + bytes, "it is counted");
        world.assert_recount();
        world.scratch.push(scratch);
    } else {
        assert_eq!(world.manager().used_vram(), world.used_before);
        world.assert_recount();
    }
}

#[when(expr = "I allocate {int} units of scratch for {word}")]
fn allocate_units(world: &mut World, units: u64, purpose: String) {
    let bytes = units * world.device().unit;
    allocate(world, bytes, purpose);
}

#[when("I release the scratch")]
fn release(world: &mut World) {
    world.before_call();
    let released = world.scratch.pop().expect("the scenario has scratch").release();
    world.note(released);
}

#[when("the scratch is dropped")]
fn dropped(world: &mut World) {
    world.before_call();
    drop(world.scratch.pop().expect("the scenario has scratch"));
    world.outcome = Some(Ok(()));
}

/// The name that the trail gave the working memory.
fn name(world: &World) -> ShardId {
    let events = world.sink.events();
    let named =
        events.iter().rev().find_map(|event| event.kind.shard().filter(|id| id.as_str().starts_with("scratch.")));
    named.expect("the trail names the scratch").clone()
}

#[when("I release by the name that the trail gives the scratch")]
fn release_by_name(world: &mut World) {
    let name = name(world);
    world.before_call();
    let released = world.manager().release_by_id(&name);
    world.note(released);
}

#[then(expr = "the trail names it as scratch for {word}")]
fn named(world: &mut World, purpose: String) {
    let name = name(world);
    assert!(name.as_str().starts_with(&format!("scratch.{purpose}.")), "{name:?}");
}

#[then(expr = "the scratch holds {int} everywhere")]
fn holds(world: &mut World, value: u8) {
    let scratch = world.scratch.last().expect("the scenario has scratch");
    let bytes = usize::try_from(scratch.byte_len()).unwrap();
    let bytes = world.device().machine.peek(world.manager(), address_of(scratch), bytes);
    assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == value));
}

#[then(expr = "{int} shard(s) is/are resident")]
fn resident(world: &mut World, shards: u64) {
    assert_eq!(world.manager().enforce_vram_only_policy().unwrap().resident_shards, shards);
}

//! An engine's stream: what it holds runs when something orders it, and not before.

use std::time::{Duration, Instant};

use cucumber::{given, then, when};
use vram_residency::VramError;

use crate::engine::{Stream, address_of};
use crate::world::World;

/// Operations that have not run, where the device counts them.
fn pending(world: &World) -> Option<u64> {
    world.device().pending()
}

/// The engine has enqueued one thing more than `before`, and it has not run.
fn assert_enqueued(world: &World, before: Option<u64>) {
    assert_eq!(pending(world), before.map(|before| before + 1), "the stream is late");
}

#[given("an engine's stream")]
fn a_stream(world: &mut World) {
    assert!(world.stream.is_none());
    world.stream = Some(Stream::open(&world.device().machine, world.manager()));
    assert_eq!(pending(world).unwrap_or(0), 0);
}

#[when(expr = "the engine enqueues {int} over {int} byte(s) at {int} of {word}")]
fn enqueue(world: &mut World, value: u8, bytes: usize, offset: u64, name: String) {
    assert!(offset + bytes as u64 <= world.seal_of(&name).byte_len());
    let (at, before) = (world.place_of(&name) + offset, pending(world));
    world.stream().ask(move |stream| stream.fill(at, bytes, value));
    assert_enqueued(world, before);
}

#[when(expr = "the engine tries to enqueue {int} over {int} byte(s) at {int} of {word}")]
fn try_to_enqueue(world: &mut World, value: u8, bytes: usize, offset: u64, name: String) {
    let at = world.place_of(&name) + offset;
    world.before_call();
    let enqueued = world.stream().ask(move |stream| stream.try_fill(at, bytes, value));
    world.note(enqueued);
}

#[when(expr = "the engine enqueues {int} over all of the scratch")]
fn enqueue_scratch(world: &mut World, value: u8) {
    let (scratch, before) = (world.scratch.last().expect("the scenario has scratch"), pending(world));
    let (at, bytes) = (address_of(scratch), usize::try_from(scratch.byte_len()).unwrap());
    world.stream().ask(move |stream| stream.fill(at, bytes, value));
    assert_enqueued(world, before);
}

#[when("the scratch is told of the engine's stream")]
fn used_on(world: &mut World) {
    let mut scratch = world.scratch.pop().expect("the scenario has scratch");
    world.stream().uses(&mut scratch);
    world.scratch.push(scratch);
}

#[when("the engine closes its stream")]
fn close(world: &mut World) {
    world.stream().ask(|stream| stream.synchronize()).unwrap();
    world.stream = None;
    assert_eq!(pending(world).unwrap_or(0), 0, "closing finishes its work");
}

#[when(expr = "I release {word} as soon as the engine is done")]
fn release_when_done(world: &mut World, name: String) {
    assert!(pending(world) > Some(0), "the engine has something to do");
    world.before_call();
    let (shard, started, mut busy) = (world.seal_of(&name).clone(), Instant::now(), 0);
    while let Err(error) = world.manager().release(&shard) {
        assert!(matches!(error, VramError::ShardBusy { .. }), "{error:?}");
        assert!(pending(world) > Some(0), "busy although the queue has run");
        assert!(started.elapsed() < Duration::from_secs(30), "the shard is pinned for ever");
        busy += 1;
    }
    assert!(busy > 0, "it was released under the engine's work");
    world.outcome = Some(Ok(()));
}

#[then(expr = "the engine has {int} operation(s) to do")]
fn has_to_do(world: &mut World, operations: u64) {
    let Some(pending) = pending(world) else {
        assert_eq!(operations, 0, "a GPU does not count: the scenario needs the tag @late");
        let idle = world.stream.as_ref().is_none_or(|stream| stream.ask(|stream| stream.is_idle()) == Some(true));
        return assert!(idle, "the engine has something to do");
    };
    assert_eq!(pending, operations);
}

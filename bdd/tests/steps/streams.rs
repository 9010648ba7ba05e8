//! An engine's stream: what it holds runs when something orders it, and not before.

use std::time::{Duration, Instant};

use cucumber::{given, then, when};
use vram_residency::VramError;

use crate::engine::Stream;
use crate::world::World;

fn pending(world: &World) -> u64 {
    world.config.stats().pending_operations
}

#[given("an engine's stream")]
fn a_stream(world: &mut World) {
    assert!(world.stream.is_none());
    world.stream = Some(Stream::open(world.manager()));
    assert_eq!(pending(world), 0);
}

#[when(expr = "the engine enqueues {int} over {int} byte(s) at {int} of {word}")]
fn enqueue(world: &mut World, value: u8, bytes: u64, offset: u64, name: String) {
    let (shard, before) = (world.seal_of(&name).clone(), pending(world));
    world.stream().ask(move |stream| stream.enqueue_write(&shard, offset, bytes, value)).unwrap();
    assert_eq!(pending(world), before + 1, "the stream is late");
}

#[when(expr = "the engine tries to enqueue {int} over {int} byte(s) at {int} of {word}")]
fn try_to_enqueue(world: &mut World, value: u8, bytes: u64, offset: u64, name: String) {
    world.before_call();
    let shard = world.seal_of(&name).clone();
    let enqueued = world.stream().ask(move |stream| stream.enqueue_write(&shard, offset, bytes, value));
    world.note(enqueued);
}

#[when(expr = "the engine enqueues {int} over all of the scratch")]
fn enqueue_scratch(world: &mut World, value: u8) {
    let (scratch, before) = (world.scratch.pop().expect("the scenario has scratch"), pending(world));
    let (scratch, enqueued) = world.stream().ask(move |stream| {
        let enqueued = stream.enqueue_scratch_write(&scratch, scratch.byte_len(), value);
        (scratch, enqueued)
    });
    enqueued.unwrap();
    world.scratch.push(scratch);
    assert_eq!(pending(world), before + 1, "the stream is late");
}

#[when("the scratch is told of the engine's stream")]
fn used_on(world: &mut World) {
    let mut scratch = world.scratch.pop().expect("the scenario has scratch");
    world.stream().uses(&mut scratch);
    world.scratch.push(scratch);
}

#[when("the engine closes its stream")]
fn close(world: &mut World) {
    assert!(world.stream.take().is_some());
    assert_eq!(pending(world), 0, "closing finishes its work");
}

#[when(expr = "I release {word} as soon as the engine is done")]
fn release_when_done(world: &mut World, name: String) {
    assert!(pending(world) > 0, "the engine has something to do");
    world.before_call();
    let (shard, started, mut busy) = (world.seal_of(&name).clone(), Instant::now(), 0);
    while let Err(error) = world.manager().release(&shard) {
        assert!(matches!(error, VramError::ShardBusy { .. }), "{error:?}");
        assert!(pending(world) > 0, "busy although the queue has run");
        assert!(started.elapsed() < Duration::from_secs(30), "the shard is pinned for ever");
        busy += 1;
    }
    assert!(busy > 0, "it was released under the engine's work");
    world.outcome = Some(Ok(()));
}

#[then(expr = "the engine has {int} operation(s) to do")]
fn has_to_do(world: &mut World, operations: u64) {
    assert_eq!(pending(world), operations);
}

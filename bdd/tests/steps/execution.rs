//! Executing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cucumber::{given, then, when};

use crate::holding::Held;
use crate::world::World;

#[when(expr = "I execute {word}")]
fn execute(world: &mut World, name: String) {
    world.before_call();
    let (mut ran, mut read) = (false, Vec::new());
    let outcome = world.manager().try_execute(world.seal_of(&name), |verified| {
        ran = true;
        read = vec![0; usize::try_from(verified.byte_len()).unwrap()];
        verified.read_at(0, &mut read)
    });
    (world.ran, world.read) = (ran, read);
    world.note(outcome);
}

#[when(expr = "I execute {word} with work that panics")]
fn execute_panicking(world: &mut World, name: String) {
    world.before_call();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        world.manager().execute(world.seal_of(&name), |_| panic!("as the scenario wants"))
    }));
    assert!(panicked.is_err(), "the panic reaches the caller");
}

#[when(expr = "I read {int} bytes at {int} of {word}")]
fn read_at(world: &mut World, bytes: usize, offset: u64, name: String) {
    world.before_call();
    let mut out = vec![0; bytes];
    let outcome = world.manager().try_execute(world.seal_of(&name), |verified| verified.read_at(offset, &mut out));
    world.read = out;
    world.note(outcome);
}

#[given(expr = "an execution of {word} is held open")]
fn held(world: &mut World, name: String) {
    assert!(world.held.is_none());
    world.held = Some(Held::begin(world.manager(), world.seal_of(&name)));
}

#[when("the held execution finishes")]
fn finish(world: &mut World) {
    world.before_call();
    let outcome = world.held.take().expect("an execution is held open").finish();
    world.note(outcome);
}

#[when(expr = "I drop an execution of {word} without finishing it")]
fn abandon(world: &mut World, name: String) {
    world.before_call();
    let begun = world.manager().begin(world.seal_of(&name), vram_residency::ExecuteOptions::default()).map(drop);
    world.note(begun);
}

#[then("the work ran")]
fn ran(world: &mut World) {
    assert!(world.ran);
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
}

#[then("the work did not run")]
fn did_not_run(world: &mut World) {
    world.error();
    assert!(!world.ran);
}

#[then(expr = "it read the weights {word}")]
fn read_weights(world: &mut World, weights: String) {
    assert!(!world.read.is_empty());
    assert_eq!(world.read, world.weights(&weights));
}

#[then(expr = "it read bytes {int} to {int} of {word}")]
fn read_range(world: &mut World, from: usize, to: usize, weights: String) {
    assert_eq!(world.read, &world.weights(&weights)[from..to]);
}

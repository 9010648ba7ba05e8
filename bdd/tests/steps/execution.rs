//! Verifying, executing, and the changes in VRAM that both must find.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cucumber::{then, when};
use vram_residency::{ExecuteOptions, SealedShard, VramError};

use crate::world::{World, place};

/// How long anything may take that nobody else waits for.
const LIMIT: Duration = Duration::from_secs(60);

#[when(expr = "I verify {word}")]
fn verify(world: &mut World, name: String) {
    world.before_call();
    let verified = world.manager().verify_sealed(world.seal_of(&name));
    world.digest = world.note(verified).map(|verification| verification.digest);
}

#[then(expr = "{word} still verifies")]
fn still_verifies(world: &mut World, name: String) {
    let verification = world.manager().verify_sealed(world.seal_of(&name)).unwrap();
    assert_eq!(verification.digest, world.seal_of(&name).digest());
}

#[when(expr = "I take the digest of {word} in VRAM")]
fn digest(world: &mut World, name: String) {
    world.before_call();
    let digest = world.manager().compute_vram_digest(world.seal_of(&name));
    world.digest = world.note(digest);
}

#[then(regex = r"^the digest is (not )?that of (\S+)$")]
fn digest_is(world: &mut World, not: String, weights: String) {
    let digest = world.digest.expect("the last call gave a digest");
    assert_eq!(digest == world.digest_of(&weights), not.is_empty());
}

#[when(expr = "bit {int} of byte {int} of {word} flips in VRAM")]
fn flip(world: &mut World, bit: u8, byte: u64, name: String) {
    assert!(byte < world.seal_of(&name).byte_len());
    let at = world.place_of(&name) + byte;
    let (machine, manager) = (world.machine_of(&name), world.holder(&name));
    let before = machine.peek(manager, at, 1)[0];
    machine.flip(manager, at, bit);
    assert_eq!(before ^ machine.peek(manager, at, 1)[0], 1 << bit);
}

#[when(regex = r"^I execute (\S+)( on the second manager)?$")]
fn execute(world: &mut World, name: String, second: String) {
    world.before_call();
    let (mut ran, mut read) = (false, Vec::new());
    let outcome = world.on(&second).try_execute(world.seal_of(&name), |verified| {
        ran = true;
        read = vec![0; usize::try_from(verified.byte_len()).unwrap()];
        verified.read_at(0, &mut read)
    });
    (world.ran, world.read) = (ran, read);
    world.note(outcome);
}

#[when(expr = "I read {int} bytes at {int} of {word}")]
fn read_at(world: &mut World, bytes: usize, offset: u64, name: String) {
    world.before_call();
    let mut out = vec![0; bytes];
    let outcome = world.manager().try_execute(world.seal_of(&name), |verified| verified.read_at(offset, &mut out));
    world.read = out;
    world.note(outcome);
}

#[then(expr = "it read bytes {int} to {int} of {word}")]
fn read_range(world: &mut World, from: usize, to: usize, weights: String) {
    assert_eq!(world.read, world.weights(&weights)[from..to]);
}

#[then(expr = "the work read the weights of {word}")]
fn read_weights(world: &mut World, weights: String) {
    assert!(world.ran && matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
    assert!(world.read == world.weights(&weights));
}

#[then("the work did not run")]
fn did_not_run(world: &mut World) {
    world.error();
    assert!(!world.ran);
}

#[when(expr = "I execute the batch {}")]
fn batch(world: &mut World, names: String) {
    world.before_call();
    let names: Vec<&str> = names.split(", ").collect();
    let shards: Vec<SealedShard> = names.iter().map(|name| world.seal_of(name).clone()).collect();
    let begun = world.manager().begin_all(&shards.iter().collect::<Vec<_>>(), ExecuteOptions::default());
    let started = world.new_events().iter().filter(|event| **event == "execute_started").count();
    assert_eq!(started, if begun.is_ok() { shards.len() } else { 0 }, "all begin, or none");
    let outcome = begun.and_then(|executions| {
        let begun = executions.iter().map(|execution| &execution.verification().shard);
        assert!(begun.eq(shards.iter().map(SealedShard::id)), "in order");
        let places: Vec<u64> = executions.iter().map(|execution| place(&execution.regions())).collect();
        let ended = executions.into_iter().try_for_each(|execution| execution.finish().map(drop));
        ended.map(|()| places)
    });
    if let Some(places) = world.note(outcome) {
        world.places.extend(names.iter().map(|name| (*name).to_owned()).zip(places));
    }
}

#[when(
    regex = r"^I begin an execution of (\S+)( on the engine's stream)?( that is checked afterwards)?(?: for at most (\d+) ms)?$"
)]
fn begin(world: &mut World, name: String, stream: String, after: String, most: String) {
    world.before_call();
    let mut options = if stream.is_empty() { ExecuteOptions::default() } else { world.stream().options() };
    options = options.verify_after(!after.is_empty());
    if let Ok(most) = most.parse() {
        options = options.max_hold(Duration::from_millis(most));
    }
    let begun = world.manager().begin_owned(world.seal_of(&name), options);
    let started = world.new_events().iter().filter(|event| **event == "execute_started").count();
    assert_eq!(started, usize::from(begun.is_ok()), "work starts with its execution, and not without");
    if let Some(execution) = world.note(begun) {
        world.executions.push(execution);
    }
}

#[when("the execution finishes")]
fn finish(world: &mut World) {
    world.before_call();
    let finished = world.executions.pop().expect("an execution is open").finish();
    world.note(finished);
}

#[when("the execution is dropped")]
fn drop_it(world: &mut World) {
    world.before_call();
    let started = Instant::now();
    drop(world.executions.pop().expect("an execution is open"));
    assert!(started.elapsed() < Duration::from_secs(5), "a drop does not wait");
}

#[when("I let go of the manager")]
fn let_go_of_manager(world: &mut World) {
    world.manager = None;
    assert!(world.device().live_bytes().is_none_or(|live| live > 0), "the execution keeps the manager alive");
}

#[when(expr = "the execution travels to another thread and reads {word} there")]
fn travels(world: &mut World, weights: String) {
    let (execution, wanted) = (world.executions.pop().expect("an execution is open"), world.weights(&weights));
    let thread = std::thread::spawn(move || {
        let mut out = vec![0; wanted.len()];
        execution.read_at(0, &mut out).unwrap();
        (execution, out == wanted)
    });
    let (execution, same) = thread.join().unwrap();
    assert!(same, "it read what was sealed");
    world.executions.push(execution);
}

#[when(expr = "I wait {int} ms")]
fn wait(_: &mut World, time: u64) {
    std::thread::sleep(Duration::from_millis(time));
}

#[when(
    expr = "{word} is executed while an older check of it is under way, and bit {int} of byte {int} flips between the two"
)]
fn execute_behind_a_check(world: &mut World, name: String, bit: u8, byte: u64) {
    let at = world.place_of(&name) + byte;
    world.before_call();
    let (manager, shard, before) =
        (Arc::clone(world.manager()), world.seal_of(&name).clone(), world.device().digests());
    let ((begins, has_begun), (ended, has_ended)) = (mpsc::channel(), mpsc::channel());
    let thread = std::thread::spawn(move || {
        begins.send(()).unwrap();
        let checked = manager.verify_sealed(&shard);
        drop(manager);
        ended.send(checked).unwrap();
    });
    has_begun.recv().unwrap();
    let started = Instant::now();
    // Until its digest has begun, where that can be seen.
    while before.is_some() && world.device().digests() == before && !thread.is_finished() {
        assert!(started.elapsed() < LIMIT, "the older check does not begin");
        std::thread::yield_now();
    }
    world.machine_of(&name).flip(world.manager(), at, bit);
    let mut ran = false;
    let executed = world.manager().execute(world.seal_of(&name), |_| ran = true);
    world.ran = ran;
    // It saw the bytes before the change or after it.
    let older = has_ended.recv_timeout(LIMIT).expect("the older check ends");
    assert!(matches!(older, Ok(_) | Err(VramError::IntegrityFailure { .. })), "{older:?}");
    thread.join().unwrap();
    world.note(executed);
}

#[when(expr = "the engine enqueues a write of {int} byte(s) at {int} of {word}")]
fn enqueue_on_shard(world: &mut World, bytes: usize, offset: u64, name: String) {
    assert!(offset + bytes as u64 <= world.seal_of(&name).byte_len());
    let (at, pending) = (world.place_of(&name) + offset, world.device().pending());
    let value = !world.device().machine.peek(world.manager(), at, 1)[0];
    world.stream().ask(move |stream| stream.fill(at, bytes, value));
    assert_eq!(world.device().pending(), pending.map(|before| before + 1), "the stream is late");
}

#[when(expr = "the engine tries to write {int} byte(s) at {int} of {word}")]
fn try_to_write(world: &mut World, bytes: usize, offset: u64, name: String) {
    let at = world.place_of(&name) + offset;
    world.before_call();
    let enqueued = world.stream().ask(move |stream| stream.try_fill(at, bytes, 8));
    world.note(enqueued);
}

#[then(expr = "the engine has {int} operation(s) to do")]
fn has_to_do(world: &mut World, operations: u64) {
    let Some(pending) = world.device().pending() else {
        assert_eq!(operations, 0, "a GPU does not count: the scenario needs the tag @late");
        let idle = world.stream.as_ref().is_none_or(|stream| stream.ask(|stream| stream.is_idle()) == Some(true));
        return assert!(idle, "the engine has something to do");
    };
    assert_eq!(pending, operations);
}

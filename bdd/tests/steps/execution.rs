//! Verifying, executing, and the changes in VRAM that both must find.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use cucumber::{then, when};
use vram_residency::{ExecuteOptions, SealedShard};

use crate::world::{World, place};

#[when(expr = "I verify {word}")]
fn verify(world: &mut World, name: String) {
    world.before_call();
    let verified = world.manager().verify_sealed(world.seal_of(&name));
    world.digest = world.note(verified).map(|verification| verification.digest);
}

#[when(expr = "{int} threads verify {word} at once")]
fn verify_at_once(world: &mut World, threads: usize, name: String) {
    world.before_call();
    let (manager, shard, start) = (world.manager(), world.seal_of(&name), Barrier::new(threads));
    let verify = || {
        start.wait();
        manager.verify_sealed(shard).map(drop)
    };
    world.outcomes = thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(verify)).collect();
        all.into_iter().map(|one| one.join().expect("a thread that does not panic")).collect()
    });
}

#[then(regex = r"^all of them (?:succeed|fail with (\S+))$")]
fn all_ended(world: &mut World, code: String) {
    let codes = world.outcomes.iter().map(|ended| ended.as_ref().map_or_else(|error| error.code().as_str(), |()| ""));
    assert_eq!(codes.collect::<Vec<_>>(), vec![code.as_str(); world.outcomes.len()]);
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
    machine.flip(at, bit);
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

#[when(regex = r"^I begin an execution of (\S+)( that is checked afterwards)?$")]
fn begin(world: &mut World, name: String, after: String) {
    world.before_call();
    let begun =
        world.manager().begin_owned(world.seal_of(&name), ExecuteOptions::default().verify_after(!after.is_empty()));
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

#[when(expr = "I wait {int} ms")]
fn wait(_: &mut World, time: u64) {
    std::thread::sleep(Duration::from_millis(time));
}

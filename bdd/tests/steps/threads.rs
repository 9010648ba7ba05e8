//! Many threads on one manager, which begin together and must end within a time limit.

use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use cucumber::{then, when};
use vram_residency::{ExecuteOptions, ShardSource, VramError, VramManager};

use crate::setup::{noise, spec};
use crate::world::World;

/// How long the threads may take together: far more than they need on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

type Outcome = Result<(), VramError>;

/// Lets so many threads do the same at once, and keeps how each ended.
fn at_once(world: &mut World, threads: usize, work: impl Fn(&VramManager, usize) -> Outcome + Send + Sync + 'static) {
    world.before_call();
    let (work, start) = (Arc::new(work), Arc::new(Barrier::new(threads)));
    let (ended, all) = mpsc::channel();
    let handles: Vec<_> = (0..threads)
        .map(|thread| {
            let (manager, work) = (Arc::clone(world.manager()), Arc::clone(&work));
            let (start, ended) = (Arc::clone(&start), ended.clone());
            std::thread::spawn(move || {
                start.wait();
                let outcome = work(&manager, thread);
                drop(manager);
                ended.send(outcome).expect("somebody waits");
            })
        })
        .collect();
    let one = |_| all.recv_timeout(LIMIT).expect("the threads end, without a panic");
    world.outcomes = (0..threads).map(one).collect();
    handles.into_iter().for_each(|handle| handle.join().expect("it has ended"));
}

/// One shard from its seal to its release, with an execution that is finished and one that is dropped.
fn life(manager: &VramManager, name: &str) -> Outcome {
    let weights = noise(20_000, name);
    let shard = manager.seal_model(spec(name), ShardSource::bytes(&weights))?;
    let run = manager.begin(&shard, ExecuteOptions::default())?;
    let mut read = vec![0; weights.len()];
    run.read_at(0, &mut read)?;
    assert_eq!(read, weights, "it reads its own");
    let busy = manager.release(&shard);
    assert!(matches!(&busy, Err(VramError::ShardBusy { shard: named }) if named == shard.id()), "{busy:?}");
    run.finish()?;
    drop(manager.begin(&shard, ExecuteOptions::default())?);
    manager.release(&shard).map(drop)
}

#[when(expr = "{int} threads live with a shard of their own, {int} times each")]
fn lives(world: &mut World, threads: usize, times: usize) {
    at_once(world, threads, move |manager, thread| {
        (0..times).try_for_each(|_| life(manager, &format!("own-{thread}")))
    });
}

#[when(regex = r"^(\d+) threads (verify|release) (\S+) at once$")]
fn verify_or_release(world: &mut World, threads: usize, verb: String, name: String) {
    let shard = world.seal_of(&name).clone();
    at_once(world, threads, move |manager, _| match verb.as_str() {
        "verify" => manager.verify_sealed(&shard).map(drop),
        _ => manager.release(&shard).map(drop),
    });
}

#[when(expr = "{int} threads seal shards of {int} units at once")]
fn seal(world: &mut World, threads: usize, units: usize) {
    let bytes = units * usize::try_from(world.device().unit).unwrap();
    at_once(world, threads, move |manager, thread| {
        let name = format!("own-{thread}");
        manager.seal_model(spec(&name), ShardSource::bytes(&noise(bytes, &name))).map(drop)
    });
    world.assert_recount();
}

#[then("all of them succeeded")]
fn all_succeeded(world: &mut World) {
    assert!(!world.outcomes.is_empty() && world.outcomes.iter().all(Result::is_ok), "{:?}", world.outcomes);
}

#[then(expr = "{int} of them succeeded and {int} failed with {word}")]
fn some_succeeded(world: &mut World, succeeded: usize, failed: usize, code: String) {
    let refused = world.outcomes.iter().filter_map(|ended| ended.as_ref().err());
    let codes: Vec<&str> = refused.map(|error| error.code().as_str()).collect();
    assert_eq!(codes, vec![code.as_str(); failed], "{:?}", world.outcomes);
    assert_eq!(world.outcomes.len(), succeeded + failed);
}

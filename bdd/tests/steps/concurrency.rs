//! Many threads on one manager.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use cucumber::{then, when};
use vram_residency::{EventKind, ExecuteOptions, SealedShard, ShardSource, ShutdownReport, VramError, VramManager};

use crate::making::spec;
use crate::threads::{all_at_once, at_once};
use crate::world::World;

fn own(thread: usize) -> String {
    format!("own-{thread}")
}

fn shared(world: &mut World, weights: &str) -> (Arc<VramManager>, Arc<[u8]>) {
    world.before_call();
    (Arc::clone(world.manager()), world.weights(weights).into())
}

/// One shard from its seal to its release, with an execution that is finished and one that is dropped.
fn life(manager: &VramManager, name: &str, weights: &[u8]) -> Result<(), VramError> {
    let shard = manager.seal_model(spec(name), ShardSource::bytes(weights))?;
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

#[when(expr = "{int} threads live with a shard of {word} of their own, {int} times each")]
fn lives(world: &mut World, threads: usize, weights: String, times: usize) {
    let (manager, bytes) = shared(world, &weights);
    let work = move |thread| (0..times).try_for_each(|_| life(&manager, &own(thread), &bytes));
    world.outcomes = all_at_once(threads, work);
}

#[when(expr = "{int} threads verify {word} at once, {int} time(s) each")]
fn verify(world: &mut World, threads: usize, name: String, times: usize) {
    world.before_call();
    let (manager, shard, before) =
        (Arc::clone(world.manager()), world.seal_of(&name).clone(), world.device().digests());
    world.outcomes = all_at_once(threads, move |_| {
        (0..times).try_for_each(|_| {
            let found = manager.verify_sealed(&shard)?;
            assert_eq!((&found.shard, found.digest, found.bytes), (shard.id(), shard.digest(), shard.byte_len()));
            Ok(())
        })
    });
    // A check that began after a call may serve it; the calls of one thread do not overlap, so each of them had another.
    if let Some((before, after)) = before.zip(world.device().digests()) {
        let taken = usize::try_from(after - before).unwrap();
        assert!(taken <= threads * times, "{taken} digests");
        assert!(taken >= times || world.outcomes.iter().any(Result::is_err), "{taken} digests");
    }
}

#[when(expr = "{int} threads execute, {int} time(s) each and in opposite orders, the batch {}")]
fn batches(world: &mut World, threads: usize, times: usize, names: String) {
    world.before_call();
    let shards: Vec<SealedShard> = names.split(',').map(|name| world.seal_of(name.trim()).clone()).collect();
    let manager = Arc::clone(world.manager());
    world.outcomes = all_at_once(threads, move |thread| {
        let mut order: Vec<&SealedShard> = shards.iter().collect();
        if thread % 2 == 1 {
            order.reverse();
        }
        // Half of each order looks once more at the end.
        let options = || ExecuteOptions::default().verify_after(thread % 4 > 1);
        (0..times).try_for_each(|_| {
            let guards = manager.begin_all(&order, options())?;
            assert_eq!(guards.len(), order.len(), "all begin");
            guards.into_iter().try_for_each(|guard| guard.finish().map(drop))
        })
    });
}

#[when(expr = "{word} is sealed from {word}, begun by one thread and released by another at once, {int} times")]
fn begin_or_release(world: &mut World, name: String, weights: String, times: usize) {
    let (manager, bytes) = shared(world, &weights);
    for round in 1..=times {
        let shard = manager.seal_model(spec(&name), ShardSource::bytes(&bytes)).unwrap();
        let (used, both) = (Arc::clone(&manager), shard.clone());
        let (answered, has_begun) = (Barrier::new(2), AtomicBool::new(false));
        let ends = all_at_once(2, move |thread| {
            if thread == 0 {
                let begun = used.begin(&both, ExecuteOptions::default());
                has_begun.store(true, Ordering::SeqCst);
                answered.wait(); // held until the release was answered
                begun.and_then(|run| run.finish().map(drop))
            } else {
                // A little later each time, and the last time too late.
                std::thread::sleep(Duration::from_micros(50 * (round as u64 - 1)));
                while round == times && !has_begun.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                let released = used.release(&both).map(drop);
                answered.wait();
                released
            }
        });
        match ends.as_slice() {
            [Ok(()), Err(VramError::ShardBusy { .. })] => drop(manager.release(&shard).unwrap()),
            [Err(VramError::StaleHandle { .. }), Ok(())] => {}
            other => panic!("neither of the two was served alone: {other:?}"),
        }
    }
    world.outcome = Some(Ok(()));
}

#[when(expr = "{int} threads release {word} at once")]
fn release(world: &mut World, threads: usize, name: String) {
    world.before_call();
    let (manager, shard) = (Arc::clone(world.manager()), world.seal_of(&name).clone());
    world.outcomes = all_at_once(threads, move |_| manager.release(&shard).map(drop));
}

/// Keeps the seals, and how each thread ended.
fn keep(world: &mut World, ended: Vec<(String, Result<SealedShard, VramError>)>) {
    world.outcomes.clear();
    for (name, sealed) in ended {
        world.outcomes.push(sealed.map(|seal| drop(world.seals.insert(name, seal))));
    }
}

#[when(expr = "{int} threads seal shards of {word} at once")]
fn seal(world: &mut World, threads: usize, weights: String) {
    let (manager, bytes) = shared(world, &weights);
    let ended = all_at_once(threads, move |thread| {
        (own(thread), manager.seal_model(spec(&own(thread)), ShardSource::bytes(&bytes)))
    });
    keep(world, ended);
}

#[when(expr = "{int} threads seal {word} at once under the name {word}")]
fn seal_one_name(world: &mut World, threads: usize, weights: String, name: String) {
    let (manager, bytes) = shared(world, &weights);
    let ended =
        all_at_once(threads, move |_| (name.clone(), manager.seal_model(spec(&name), ShardSource::bytes(&bytes))));
    keep(world, ended);
}

/// A source that breaks off with a panic.
struct Panics;

impl Read for Panics {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("as the scenario wants")
    }
}

#[when(expr = "{int} threads seal shards of {word} at once, and the source of every other one panics")]
fn seal_panicking(world: &mut World, threads: usize, weights: String) {
    let (manager, bytes) = shared(world, &weights);
    let ended = at_once(threads, move |thread| {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let rest: Box<dyn Read + Send + '_> = if thread % 2 == 1 { Box::new(Panics) } else { Box::new(rest) };
        (
            own(thread),
            manager.seal_model(spec(&own(thread)), ShardSource::reader(bytes.len() as u64, first.chain(rest))),
        )
    });
    assert!(ended.iter().enumerate().all(|(thread, ended)| ended.is_none() == (thread % 2 == 1)), "who panicked");
    world.assert_recount();
    keep(world, ended.into_iter().flatten().collect());
}

#[when(expr = "{int} threads work on {word} at once, and every other one panics")]
fn work_panicking(world: &mut World, threads: usize, name: String) {
    world.before_call();
    let (manager, shard, all) = (Arc::clone(world.manager()), world.seal_of(&name).clone(), Barrier::new(threads));
    let ended = at_once(threads, move |thread| {
        manager.execute(&shard, |_| {
            all.wait(); // every one of them is at work
            assert!(thread % 2 == 0, "as the scenario wants");
        })
    });
    assert!(ended.iter().enumerate().all(|(thread, ended)| ended.is_none() == (thread % 2 == 1)), "who panicked");
    world.outcomes = ended.into_iter().flatten().collect();
}

#[when(expr = "{int} threads execute {word} over and over, and one shuts down within {int} ms")]
fn shut_down(world: &mut World, threads: usize, name: String, deadline: u64) {
    world.before_call();
    let (manager, shard) = (Arc::clone(world.manager()), world.seal_of(&name).clone());
    let done = AtomicUsize::new(0);
    // What each came to: the error that ended its executions, or the report.
    let ended = all_at_once(threads + 1, move |thread| -> Result<ShutdownReport, VramError> {
        if thread == threads {
            while done.load(Ordering::SeqCst) < 3 * threads {
                std::thread::yield_now();
            }
            return Ok(manager.shutdown(Duration::from_millis(deadline)));
        }
        loop {
            manager.execute(&shard, |_| done.fetch_add(1, Ordering::SeqCst))?;
        }
    });
    for ended in ended {
        match ended {
            Ok(report) => world.report = Some(report),
            Err(error) => world.outcomes.push(Err(error)),
        }
    }
    assert_eq!(world.outcomes.len(), threads);
}

#[then("every one of them was refused in the end")]
fn refused(world: &mut World) {
    assert!(!world.outcomes.is_empty());
    for ended in world.outcomes.drain(..) {
        // Whoever had looked at the state before the end comes too late for the shard.
        let refused = matches!(ended, Err(VramError::ManagerStopped { .. } | VramError::StaleHandle { .. }));
        assert!(refused, "{ended:?}");
    }
}

#[then("all of them succeeded")]
#[then("all others succeeded")]
fn all_succeeded(world: &mut World) {
    assert!(!world.outcomes.is_empty());
    assert!(world.outcomes.iter().all(Result::is_ok), "{:?}", world.outcomes);
}

#[then(expr = "{int} of them succeeded and {int} failed with {word}")]
fn some_succeeded(world: &mut World, succeeded: usize, failed: usize, code: String) {
    let refused = world.outcomes.iter().filter_map(|ended| ended.as_ref().err());
    let codes: Vec<&str> = refused.map(|error| error.code().as_str()).collect();
    assert_eq!(codes, vec![code.as_str(); failed], "{:?}", world.outcomes);
    assert_eq!(world.outcomes.len(), succeeded + failed);
}

#[then("those that were sealed verify")]
fn sealed_verify(world: &mut World) {
    assert!(!world.seals.is_empty());
    for seal in world.seals.values() {
        assert_eq!(world.manager().verify_sealed(seal).unwrap().digest, seal.digest());
    }
    assert_eq!(world.manager().enforce_vram_only_policy().unwrap().resident_shards, world.seals.len() as u64);
}

#[when("those that were sealed are released")]
fn release_sealed(world: &mut World) {
    world.before_call();
    for (name, seal) in std::mem::take(&mut world.seals) {
        world.manager().release(&seal).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[then(expr = "the trail has {int} time(s) {word}")]
fn trail_has(world: &mut World, times: usize, event: String) {
    let all = world.new_events();
    assert_eq!(all.iter().filter(|name| **name == event).count(), times, "{all:?}");
}

#[then(expr = "for each of their {int} shards the trail has {int} times, in this order: {}")]
fn trail_of_each(world: &mut World, shards: usize, times: usize, wanted: String) {
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for event in world.sink.events().split_off(world.mark) {
        let shard = event.kind.shard().expect("an event of a shard").to_string();
        found.entry(shard).or_default().push(event.kind.name());
    }
    assert_eq!(found.len(), shards);
    for (shard, events) in found {
        assert_eq!(events, wanted.repeat(times), "{shard}");
    }
}

#[then("the trail pairs each beginning of work with its end")]
fn pairs(world: &mut World) {
    let mut open: BTreeMap<String, i64> = BTreeMap::new();
    let mut begun = 0;
    for event in world.sink.events() {
        let step = match event.kind {
            EventKind::ExecuteStarted { .. } => 1,
            EventKind::ExecuteFinished { .. } => -1,
            _ => continue,
        };
        let shard = event.kind.shard().expect("an event of a shard").to_string();
        let open = open.entry(shard).or_default();
        *open += step;
        begun += step.max(0);
        assert!(*open >= 0, "work ended that had not begun: {event:?}");
    }
    assert!(begun > 0, "work has begun");
    assert!(open.values().all(|open| *open == 0), "work that has no end: {open:?}");
}

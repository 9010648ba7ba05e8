//! Guards that own their manager: held across threads and awaits, bracketed, followed on streams, and timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cucumber::{then, when};
use vram_residency::{EventKind, ExecuteOptions, ExecuteOutcome, VramError};

use crate::world::World;

fn begin(world: &mut World, name: &str, options: ExecuteOptions) {
    world.before_call();
    let begun = world.manager().begin_owned(world.seal_of(name), options);
    let started = world.new_events().iter().filter(|event| **event == "execute_started").count();
    assert_eq!(started, usize::from(begun.is_ok()), "work starts with its guard, and not without");
    if let Some(guard) = world.note(begun) {
        assert!(Arc::ptr_eq(guard.manager(), world.manager()));
        assert_eq!(guard.verification().digest, world.seal_of(name).digest());
        world.guards.push(guard);
    }
}

#[when(expr = "I take a guard of {word}")]
fn take(world: &mut World, name: String) {
    begin(world, &name, ExecuteOptions::default());
}

#[when(expr = "I take a bracketed guard of {word}")]
fn take_bracketed(world: &mut World, name: String) {
    begin(world, &name, ExecuteOptions::default().verify_after(true));
}

#[when(expr = "I take a guard of {word} on the engine's stream")]
fn take_on_stream(world: &mut World, name: String) {
    let options = world.stream().options();
    begin(world, &name, options);
}

#[when(expr = "I take a bracketed guard of {word} on the engine's stream")]
fn take_bracketed_on_stream(world: &mut World, name: String) {
    let options = world.stream().options().verify_after(true);
    begin(world, &name, options);
}

#[when(expr = "I take a guard of {word} for at most {int} ms")]
fn take_for(world: &mut World, name: String, most: u64) {
    begin(world, &name, ExecuteOptions::default().max_hold(Duration::from_millis(most)));
}

#[when("the guard finishes")]
fn finishes(world: &mut World) {
    world.before_call();
    let finished = world.guards.pop().expect("a guard is held").finish();
    world.note(finished);
}

#[when("the guard is dropped")]
fn dropped(world: &mut World) {
    world.before_call();
    let started = Instant::now();
    drop(world.guards.pop().expect("a guard is held"));
    assert!(started.elapsed() < Duration::from_secs(5), "a drop does not wait");
    assert!(world.new_events().contains(&"execute_finished"));
    world.outcome = Some(Ok(()));
}

#[when(expr = "the guard travels to another thread and reads {word} there")]
fn travels(world: &mut World, weights: String) {
    let (guard, wanted) = (world.guards.pop().expect("a guard is held"), world.weights(&weights).to_vec());
    let thread = std::thread::spawn(move || {
        let mut out = vec![0; usize::try_from(guard.byte_len()).unwrap()];
        guard.read_at(0, &mut out).unwrap();
        (guard, out == wanted)
    });
    let (guard, same) = thread.join().unwrap();
    assert!(same, "it read what was sealed");
    world.guards.push(guard);
}

#[when("I let go of the manager while the guard lives")]
fn let_go_of_manager(world: &mut World) {
    let guard = world.guards.last().expect("a guard is held");
    assert_eq!(Arc::strong_count(guard.manager()), 2, "the scenario's and the guard's");
    world.manager = None;
    let live = world.device().live_bytes();
    assert!(live.is_none_or(|live| live > 0), "the guard keeps the manager alive");
}

#[when(expr = "{int} tasks execute {word} at once and hold their guards across awaits")]
async fn tasks(world: &mut World, count: usize, name: String) {
    world.before_call();
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (manager, shard) = (Arc::clone(world.manager()), world.seal_of(&name).clone());
            tokio::spawn(async move {
                let begin = move || manager.begin_owned(&shard, ExecuteOptions::default());
                let guard = tokio::task::spawn_blocking(begin).await.unwrap()?;
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                tokio::task::spawn_blocking(move || guard.finish()).await.unwrap()
            })
        })
        .collect();
    let (mut finished, mut failed) = (0, Vec::new());
    for task in tasks {
        match task.await.unwrap() {
            Ok(verification) => {
                assert_eq!(verification.digest, world.seal_of(&name).digest());
                finished += 1;
            }
            Err(error) => failed.push(error),
        }
    }
    assert!(finished == count || failed.len() == count, "{finished} of {count} finished: {failed:?}");
    assert_eq!(Arc::strong_count(world.manager()), 1, "no task holds the manager any more");
    world.outcome = Some(failed.pop().map_or(Ok(()), Err));
}

#[when(expr = "I wait {int} ms")]
fn wait(_: &mut World, time: u64) {
    let started = Instant::now();
    std::thread::sleep(Duration::from_millis(time));
    assert!(started.elapsed() >= Duration::from_millis(time));
}

#[then("there is no guard")]
fn no_guard(world: &mut World) {
    world.error();
    assert!(world.guards.is_empty() && world.batch.is_none());
}

#[then(expr = "the executions ended as: {}")]
fn ended_as(world: &mut World, wanted: String) {
    let ended: Vec<&str> = world
        .sink
        .events()
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::ExecuteFinished { outcome: ExecuteOutcome::Finished, .. } => Some("finished"),
            EventKind::ExecuteFinished { outcome: ExecuteOutcome::Discarded, .. } => Some("discarded"),
            EventKind::ExecuteFinished { outcome: ExecuteOutcome::Abandoned, .. } => Some("abandoned"),
            EventKind::ExecuteFinished { outcome, .. } => panic!("another outcome: {outcome:?}"),
            _ => None,
        })
        .collect();
    assert_eq!(ended, wanted.split(',').map(str::trim).collect::<Vec<_>>());
}

#[then(expr = "{word} is busy")]
fn busy(world: &mut World, name: String) {
    let (shard, used) = (world.seal_of(&name), world.manager().used_vram());
    for refused in [world.manager().release(shard), world.manager().release_by_id(shard.id())] {
        assert!(matches!(refused, Err(VramError::ShardBusy { .. })), "{refused:?}");
    }
    assert_eq!(world.manager().used_vram(), used);
}

#[then(expr = "it was reported {int} time(s) that a guard of {word} is held too long")]
fn overheld(world: &mut World, times: usize, name: String) {
    let reports: Vec<_> = world
        .sink
        .events()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::ExecuteOverheld { shard, limit, duration, .. } => Some((shard, limit, duration)),
            _ => None,
        })
        .collect();
    assert_eq!(reports.len(), times);
    for (shard, limit, duration) in reports {
        assert_eq!(shard.as_str(), name);
        assert!(duration > limit, "{duration:?} against {limit:?}");
    }
}

//! Batches: several shards verified at once, all or none.

use cucumber::{then, when};
use vram_residency::{ExecuteOptions, SealedShard};

use crate::holding::Batch;
use crate::world::World;

fn begin(world: &mut World, names: &str, options: ExecuteOptions) {
    let shards: Vec<SealedShard> = names.split(',').map(|name| world.seal_of(name.trim()).clone()).collect();
    assert!(world.batch.is_none());
    world.before_call();
    let digests = world.device().digests();
    let begun = Batch::begin(world.manager(), shards.clone(), options);
    let started = world.new_events().iter().filter(|event| **event == "execute_started").count();
    assert_eq!(started, if begun.is_ok() { shards.len() } else { 0 }, "all begin, or none");
    if let Some((batch, verifications)) = world.note(begun) {
        world.assert_digests_since(digests, shards.len() as u64, "one launch each");
        for (verification, shard) in verifications.iter().zip(&shards) {
            assert_eq!((&verification.shard, verification.digest), (shard.id(), shard.digest()), "in order");
        }
        assert_eq!(verifications.len(), shards.len());
        world.batch = Some(batch);
    }
}

#[when(expr = "I begin the batch {}")]
fn begin_batch(world: &mut World, names: String) {
    begin(world, &names, ExecuteOptions::default());
}

#[when(expr = "I begin on the engine's stream the batch {}")]
fn begin_on_stream(world: &mut World, names: String) {
    let options = world.stream().options();
    begin(world, &names, options);
}

#[when(expr = "I begin bracketed the batch {}")]
fn begin_bracketed(world: &mut World, names: String) {
    begin(world, &names, ExecuteOptions::default().verify_after(true));
}

#[when("the batch finishes")]
fn finishes(world: &mut World) {
    world.before_call();
    let mut ended = world.batch.take().expect("a batch is open").finish();
    let failed = ended.iter().position(Result::is_err);
    world.outcome = Some(match failed {
        Some(first) => ended.remove(first).map(drop),
        None => Ok(()),
    });
}

#[then(expr = "{int} digest(s) was/were taken since")]
fn digests_since(world: &mut World, wanted: usize) {
    world.assert_digests_since(world.digests_before, wanted as u64, "the device's own count");
    // Every digest of a check that found its bytes as sealed leaves its event.
    let verified = world.new_events().iter().filter(|event| **event == "seal_verified").count();
    assert_eq!(verified, wanted);
}

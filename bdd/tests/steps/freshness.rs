//! The age of seals, and sealing anew.

use std::time::Duration;

use cucumber::{given, then, when};
use vram_residency::{ExecuteOptions, VramError};

use crate::making::spec;
use crate::world::World;

#[given(expr = "the shard {word} is sealed from {word} for {int} ms")]
fn sealed_for(world: &mut World, name: String, weights: String, most: u64) {
    world.seal(&name, spec(&name).max_age(Duration::from_millis(most)), &weights);
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
    assert_eq!(world.seal_of(&name).digest(), world.digest_of(&weights));
}

#[when(expr = "I reseal {word}")]
fn reseal(world: &mut World, name: String) {
    world.before_call();
    let (old, digests) = (world.seal_of(&name).clone(), world.device().digests());
    let renewed = world.manager().reseal(&old);
    assert_eq!(world.manager().used_vram(), world.used_before, "nothing is allocated and nothing given back");
    assert_eq!(world.new_events().contains(&"vram_sealed"), renewed.is_ok(), "a seal is announced if it exists");
    if let Some(renewed) = world.note(renewed) {
        world.assert_digests_since(digests, 1, "the shard was verified in full");
        assert_eq!((renewed.id(), renewed.digest(), renewed.byte_len()), (old.id(), old.digest(), old.byte_len()));
        assert_eq!((renewed.origin(), renewed.is_adopted()), (old.origin(), old.is_adopted()));
        assert!(renewed.sealed_at() > old.sealed_at());
        world.replaced.insert(name.clone(), old);
        world.seals.insert(name, renewed);
    }
}

#[then(expr = "the old seal of {word} is stale whatever it is used for")]
fn old_is_stale(world: &mut World, name: String) {
    let old = world.replaced.get(&name).expect("the shard was sealed anew");
    let manager = world.manager();
    for stale in [
        manager.begin(old, ExecuteOptions::default()).map(drop),
        manager.verify_sealed(old).map(drop),
        manager.compute_vram_digest(old).map(drop),
        manager.reseal(old).map(drop),
        manager.release(old).map(drop),
    ] {
        assert!(matches!(stale, Err(VramError::StaleHandle { .. })), "{stale:?}");
    }
}

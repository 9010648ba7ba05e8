//! An engine's memory under seal.

use cucumber::{given, then, when};
use vram_residency::{RawRegion, digest_bytes};
use vram_residency_harness::{image, spec, vouching};

use crate::engine::Engine;
use crate::world::World;

#[given(expr = "an engine {word} that holds {word} in regions of {} bytes")]
fn an_engine(world: &mut World, name: String, weights: String, lengths: String) {
    let lengths: Vec<usize> = lengths.split(", ").map(|length| length.parse().unwrap()).collect();
    let bytes = &world.weights(&weights)[..lengths.iter().sum()];
    let engine = Engine::new(&world.device().machine, bytes, &lengths);
    world.engines.insert(name, engine);
}

#[when(regex = r"^I adopt the memory of (\S+) as ([^\s,]+)(, to be wiped)?(?:, expecting the digest of (\S+))?$")]
fn adopt_all(world: &mut World, engine: String, name: String, wiped: String, expected: String) {
    let engine_side = world.engine(&engine);
    let regions: Vec<_> =
        engine_side.places.iter().map(|(at, length)| engine_side.memory.region(*at, *length)).collect();
    let mut spec = spec(&name).wipe_adopted(!wiped.is_empty());
    if !expected.is_empty() {
        let params = world.manager().tree_params();
        spec = spec.expect(vouching::regions(params, &regions, world.digest_of(&expected)));
    }
    world.before_call();
    let manager = world.manager().clone();
    let adopted_before = manager.adopted_vram();
    let asked = world.engine(&engine);
    (asked.returned, asked.before) = (None, asked.bytes());
    let handed_over = asked.memory.adopt(&manager, spec, &asked.places);
    assert_eq!(asked.before, asked.bytes(), "sealing writes nothing");
    let outcome = match handed_over {
        Ok(adopted) => {
            let seal = adopted.shard().clone();
            assert!(seal.is_adopted(), "the seal says so");
            let bytes: u64 = regions.iter().map(RawRegion::byte_len).sum();
            assert_eq!(manager.adopted_vram(), adopted_before + bytes, "regions are counted, padding is not");
            asked.adopted = Some(adopted);
            Ok(seal)
        }
        Err(refused) => {
            assert_eq!(manager.adopted_vram(), adopted_before);
            asked.returned = Some(refused.owner);
            Err(refused.error)
        }
    };
    if let Some(seal) = world.note(outcome) {
        world.seals.insert(name, seal);
    }
}

#[when(expr = "{word} changes byte {int} of its memory")]
fn changes(world: &mut World, engine: String, byte: usize) {
    let engine = world.engine(&engine);
    engine.memory.flip(engine.place(byte), 2);
}

#[when(expr = "{word} changes the bytes beside its regions")]
fn changes_beside(world: &mut World, engine: String) {
    let engine = world.engine(&engine);
    for (at, length) in &engine.places {
        engine.memory.flip(at - 1, 2);
        engine.memory.flip(at + length, 2);
    }
}

#[when(expr = "{word} lets go of its handle")]
fn lets_go(world: &mut World, engine: String) {
    assert!(world.engine(&engine).adopted.take().is_some(), "it had one");
}

/// The image of an engine's memory.
fn image_of(world: &mut World, engine: &str) -> Vec<u8> {
    let block = world.manager().tree_params().block_size() as usize;
    let engine = world.engine(engine);
    image(&engine.bytes(), &engine.places, block)
}

#[then(expr = "the seal of {word} speaks of the memory of {word}")]
fn seal_of_memory(world: &mut World, name: String, engine: String) {
    let image = image_of(world, &engine);
    let (seal, digest) = (world.seal_of(&name), digest_bytes(world.manager().tree_params(), &image));
    assert_eq!((seal.id().as_str(), seal.digest(), seal.byte_len()), (name.as_str(), digest, image.len() as u64));
}

#[then(expr = "the work read the memory of {word}")]
fn read_memory(world: &mut World, engine: String) {
    let image = image_of(world, &engine);
    assert!(world.ran && world.read == image);
}

#[then(expr = "{word} has its memory back, untouched")]
fn has_it_back(world: &mut World, engine: String) {
    world.error();
    assert!(world.engine(&engine).is_returned(), "the owner came back");
    assert_eq!(world.manager().used_vram(), world.used_before, "nothing was sealed");
    untouched(world, engine);
}

#[then(regex = r"^the memory of (\S+) is (not )?held$")]
fn held(world: &mut World, engine: String, not: String) {
    let engine = world.engine(&engine);
    assert!(engine.adopted.is_none(), "the manager alone can hold it");
    assert_eq!(engine.is_held(), not.is_empty());
}

#[then(expr = "{word} cannot take its memory back")]
fn cannot_take(world: &mut World, engine: String) {
    let engine = world.engine(&engine);
    let handle = engine.adopted.take().expect("it has its handle");
    engine.adopted = Some(handle.into_owner().expect_err("the record owns the memory too"));
}

#[then(expr = "{word} can take its memory back")]
fn can_take(world: &mut World, engine: String) {
    let engine = world.engine(&engine);
    let handle = engine.adopted.take().expect("it has its handle");
    engine.returned = Some(handle.into_owner().expect("nobody else owns the memory"));
    assert!(engine.is_returned());
}

#[then(expr = "the memory of {word} is untouched")]
fn untouched(world: &mut World, engine: String) {
    let engine = world.engine(&engine);
    assert!(engine.bytes() == engine.before);
}

#[then(expr = "exactly the regions of {word} are zero")]
fn wiped(world: &mut World, engine: String) {
    let engine = world.engine(&engine);
    assert!(engine.bytes() == engine.wiped(), "nothing else changed");
}

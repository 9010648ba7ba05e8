//! An engine's memory under seal.

use cucumber::{given, then, when};
use vram_residency::{Digest, RawRegion, ShardSpec, digest_bytes};

use crate::engine::{Arena, Engine};
use crate::making::{regions_of, spec};
use crate::world::World;

#[given(expr = "an engine {word} that holds {word} in regions of {} bytes")]
fn an_engine(world: &mut World, name: String, weights: String, lengths: String) {
    let lengths: Vec<usize> = lengths.split(',').map(|length| length.trim().parse().unwrap()).collect();
    let machine = world.device().machine.clone();
    let engine = Engine::new(Arena::new(&machine, world.weights(&weights), &lengths));
    assert_eq!((engine.arena.regions().len(), engine.is_held()), (lengths.len(), false));
    world.engines.insert(name, engine);
}

/// Adopts, and keeps what came of it on the engine's side.
fn adopt(world: &mut World, engine: &str, spec: ShardSpec, name: &str, regions: &[RawRegion]) {
    world.before_call();
    let manager = world.manager().clone();
    let (adopted_before, known_before) = (manager.adopted_vram(), world.device().foreign());
    let asked = world.engine(engine);
    asked.returned = None;
    match asked.hand_over(&manager, spec, regions) {
        Ok(adopted) => {
            let seal = adopted.shard().clone();
            assert!(seal.is_adopted(), "the seal says so");
            assert_eq!(asked.before, asked.arena.bytes(), "sealing writes nothing");
            let bytes: u64 = regions.iter().map(RawRegion::byte_len).sum();
            asked.adopted = Some(adopted);
            assert_eq!(manager.adopted_vram(), adopted_before + bytes, "regions are counted, padding is not");
            world.seals.insert(name.to_owned(), seal);
            world.outcome = Some(Ok(()));
        }
        Err(refused) => {
            asked.returned = Some(refused.owner);
            assert_eq!(manager.adopted_vram(), adopted_before);
            assert_eq!(world.device().foreign(), known_before, "the device knows no more memory than before");
            world.outcome = Some(Err(refused.error));
        }
    }
}

fn image_digest(world: &mut World, engine: &str) -> Digest {
    let params = world.manager().tree_params().clone();
    digest_bytes(&params, &world.engine(engine).arena.image(params.block_size()))
}

#[when(expr = "I adopt the memory of {word} as {word}")]
fn adopt_all(world: &mut World, engine: String, name: String) {
    let regions = world.engine(&engine).arena.regions();
    adopt(world, &engine, spec(&name), &name, &regions);
}

#[when(expr = "I adopt the memory of {word} as {word}, to be wiped")]
fn adopt_wiping(world: &mut World, engine: String, name: String) {
    let regions = world.engine(&engine).arena.regions();
    adopt(world, &engine, spec(&name).wipe_adopted(true), &name, &regions);
}

#[when(expr = "I adopt the memory of {word} as {word} for {int} ms")]
fn adopt_for(world: &mut World, engine: String, name: String, most: u64) {
    let regions = world.engine(&engine).arena.regions();
    let spec = spec(&name).max_age(std::time::Duration::from_millis(most));
    adopt(world, &engine, spec, &name, &regions);
}

#[when(expr = "I adopt the memory of {word} as {word}, to be wiped, expecting the digest of its image")]
fn adopt_expecting(world: &mut World, engine: String, name: String) {
    let (regions, digest) = (world.engine(&engine).arena.regions(), image_digest(world, &engine));
    let vouched = regions_of(world.manager(), &regions, digest);
    adopt(world, &engine, spec(&name).wipe_adopted(true).expect(vouched), &name, &regions);
}

#[when(expr = "I adopt the memory of {word} as {word}, to be wiped, expecting the digest of {word}")]
fn adopt_expecting_other(world: &mut World, engine: String, name: String, vouched: String) {
    let (regions, digest) = (world.engine(&engine).arena.regions(), world.digest_of(&vouched));
    let vouched = regions_of(world.manager(), &regions, digest);
    adopt(world, &engine, spec(&name).wipe_adopted(true).expect(vouched), &name, &regions);
}

#[when(expr = "I adopt regions of {word} that are {}")]
fn adopt_unusable(world: &mut World, engine: String, how: String) {
    let arena = world.engine(&engine).arena.clone();
    let (at, length) = arena.places[0];
    let one = || arena.region(at, length);
    let odd = (at..at + 4).find(|at| arena.address(*at) % 4 == 1).unwrap();
    let regions = match how.as_str() {
        "none" => vec![],
        "null" => vec![RawRegion::new(0, 100)],
        "empty" => vec![one(), arena.region(at + length, 0)],
        "the same twice" => vec![one(), one()],
        "overlapping by one byte" => vec![one(), arena.region(at + length - 1, 10)],
        "misaligned for their elements" => vec![arena.region(odd, 16).element_bytes(4)],
        "not whole elements" => vec![arena.region(odd - 1, 15).element_bytes(4)],
        "beyond the address space" => vec![one(), RawRegion::new(u64::MAX - 10, 11)],
        other => panic!("no such regions: {other}"),
    };
    adopt(world, &engine, spec("unusable"), "unusable", &regions);
}

#[when(expr = "{word} changes byte {int} of its memory")]
fn changes(world: &mut World, engine: String, byte: usize) {
    let arena = &world.engine(&engine).arena;
    let before = arena.bytes();
    arena.flip(arena.place(byte));
    assert_ne!(arena.bytes(), before);
}

#[when(expr = "{word} changes the bytes beside its regions")]
fn changes_beside(world: &mut World, engine: String) {
    let arena = &world.engine(&engine).arena;
    let (before, image) = (arena.bytes(), arena.image(1024));
    for (at, length) in &arena.places {
        arena.flip(at - 1);
        arena.flip(at + length);
    }
    assert_ne!(arena.bytes(), before);
    assert_eq!(arena.image(1024), image, "the regions are as they were");
}

#[when(expr = "{word} lets go of its handle")]
fn lets_go(world: &mut World, engine: String) {
    let handle = world.engine(&engine).adopted.take();
    assert!(handle.is_some(), "it had one");
}

#[then(expr = "the seal {word} speaks of the memory of {word}")]
fn seal_of_memory(world: &mut World, name: String, engine: String) {
    let digest = image_digest(world, &engine);
    let block = world.manager().tree_params().block_size();
    let bytes = world.engine(&engine).arena.image(block).len() as u64;
    let seal = world.seal_of(&name);
    assert_eq!((seal.id().as_str(), seal.digest(), seal.byte_len()), (name.as_str(), digest, bytes));
}

#[then(expr = "it read the memory of {word}")]
fn read_memory(world: &mut World, engine: String) {
    let block = world.manager().tree_params().block_size();
    let image = world.engine(&engine).arena.image(block);
    assert!(!image.is_empty() && world.read == image);
}

#[then(expr = "adopted VRAM is {int} bytes")]
fn adopted_is(world: &mut World, bytes: u64) {
    assert_eq!(world.manager().adopted_vram(), bytes);
    assert!(world.device().foreign().is_none_or(|known| (known > 0) == (bytes > 0)));
    world.assert_recount();
}

#[then(expr = "{word} has its memory back, untouched")]
fn has_it_back(world: &mut World, engine: String) {
    world.error();
    let engine = world.engine(&engine);
    assert!(engine.is_returned(), "the owner came back");
    assert!(engine.arena.bytes() == engine.before, "its bytes are as they were");
}

#[then(expr = "the memory of {word} is still held")]
fn still_held(world: &mut World, engine: String) {
    let engine = world.engine(&engine);
    assert!(engine.adopted.is_none(), "the manager alone can hold it");
    assert!(engine.is_held());
}

#[then(expr = "the memory of {word} is let go")]
fn let_go(world: &mut World, engine: String) {
    assert!(!world.engine(&engine).is_held());
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
    assert!(engine.arena.bytes() == engine.before);
}

#[then(expr = "exactly the regions of {word} are zero")]
fn wiped(world: &mut World, engine: String) {
    let engine = world.engine(&engine);
    assert!(engine.arena.region_bytes() > 0);
    assert!(
        engine.arena.bytes() == engine.arena.wiped(&engine.before),
        "the regions are zero and nothing else changed"
    );
}

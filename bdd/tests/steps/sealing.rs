//! Sealing.

use std::io::Read;

use cucumber::{then, when};
use vram_residency::{ErrorCode, EventKind, ModelRef, Origin, ShardId, ShardSource, TreeParams};

use crate::making::{file_of, spec};
use crate::world::World;

#[when(expr = "I seal {word} from {word}")]
fn seal(world: &mut World, name: String, weights: String) {
    world.seal(&name, spec(&name), &weights);
}

#[when(expr = "I seal {word} from {word} expecting the digest of {word}")]
fn seal_expecting(world: &mut World, name: String, weights: String, vouched: String) {
    let vouched = file_of(world.manager(), world.digest_of(&vouched));
    world.seal(&name, spec(&name).expect(vouched), &weights);
}

#[when(expr = "I seal {word} from {word} as a part of the model {word}")]
fn seal_with_reference(world: &mut World, name: String, weights: String, model: String) {
    world.seal(&name, spec(&name).model_ref(ModelRef::new(model).unwrap()), &weights);
}

#[when(expr = "I seal {word} from a file with the weights {word}")]
fn seal_file(world: &mut World, name: String, weights: String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::write(&path, world.weights(&weights)).unwrap();
    world.before_call();
    let sealed = ShardSource::file(&path).and_then(|source| world.manager().seal_model(spec(&name), source));
    if let Some(seal) = world.note(sealed) {
        world.seals.insert(name, seal);
    }
    world.folder = Some(folder);
}

#[when(expr = "I seal {word} from a file that shrinks to {int} bytes after it was opened")]
fn seal_shrinking(world: &mut World, name: String, left: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::write(&path, vec![1; 100_000]).unwrap();
    world.before_call();
    let source = ShardSource::file(&path).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
    let sealed = world.manager().seal_model(spec(&name), source);
    world.note(sealed);
    world.folder = Some(folder);
}

#[when(expr = "I seal {word} from a reader that says {int} bytes and has {int}")]
fn seal_reader(world: &mut World, name: String, said: u64, has: u64) {
    world.before_call();
    let source = ShardSource::reader(said, std::io::repeat(7).take(has));
    let sealed = world.manager().seal_model(spec(&name), source);
    world.note(sealed);
}

#[when(expr = "I open a missing file")]
fn open_missing(world: &mut World) {
    let folder = tempfile::tempdir().unwrap();
    world.before_call();
    let opened = ShardSource::file(folder.path().join("nowhere.bin")).map(drop);
    world.note(opened);
    assert!(world.error().to_string().contains("nowhere.bin"), "{}", world.error());
}

#[when(expr = "I name a shard {string}")]
fn name_a_shard(world: &mut World, name: String) {
    world.before_call();
    let named = ShardId::new(name.replace("[NUL]", "\0").replace("[LF]", "\n")).map(drop);
    world.note(named);
}

#[when(expr = "I choose blocks of {int} bytes and a salt of {int} bytes")]
fn choose_params(world: &mut World, block: u32, salt: usize) {
    world.before_call();
    let chosen = TreeParams::new(block, &vec![1; salt]).map(drop);
    world.note(chosen);
}

#[then(expr = "the trail says whether {word} is write-protected: {word}")]
fn trail_says_write_protected(world: &mut World, name: String, wanted: bool) {
    let said = world.sink.events().into_iter().rev().find_map(|event| match event.kind {
        EventKind::VramSealed { shard, write_protected, .. } if shard.as_str() == name => Some(write_protected),
        _ => None,
    });
    assert_eq!(said, Some(wanted));
}

#[then(expr = "the manager counts {int} write-protected shard(s)")]
fn counts_write_protected(world: &mut World, shards: u64) {
    assert_eq!(world.manager().enforce_vram_only_policy().unwrap().write_protected_shards, shards);
}

#[then(expr = "the seal {word} speaks of {int} bytes with the digest of {word}")]
fn seal_speaks_of(world: &mut World, name: String, bytes: u64, weights: String) {
    let seal = world.seal_of(&name);
    assert_eq!((seal.id().as_str(), seal.byte_len()), (name.as_str(), bytes));
    assert_eq!(seal.digest(), world.digest_of(&weights));
    assert_eq!(seal.device().uuid, world.manager().device_uuid());
    assert_eq!(seal.worker().as_str(), "worker-1");
    assert!(seal.to_bytes().len() <= 2048);
}

#[then(expr = "the seal {word} says {word}")]
fn seal_origin(world: &mut World, name: String, origin: String) {
    let found: Origin = world.seal_of(&name).origin();
    assert_eq!(found.as_str(), origin);
}

#[then(expr = "the seal {word} names the model {word}")]
fn seal_model(world: &mut World, name: String, model: String) {
    assert_eq!(world.seal_of(&name).model_ref().map(ModelRef::as_str), Some(model.as_str()));
}

#[then(expr = "nothing was sealed and nothing is left of it")]
fn nothing_sealed(world: &mut World) {
    world.error();
    assert_eq!(world.manager().used_vram(), world.used_before, "the ledger is as before");
    assert!(!world.new_events().contains(&"vram_sealed"));
    world.assert_recount();
    world.device().assert_staging_wiped();
}

#[then(expr = "{word} can be sealed from {word} after all")]
fn sealed_after_all(world: &mut World, name: String, weights: String) {
    world.outcome = None;
    world.seal(&name, spec(&name), &weights);
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
    let verified = world.manager().verify_sealed(world.seal_of(&name)).unwrap();
    assert_eq!(verified.digest, world.digest_of(&weights));
}

#[then("the error tells the expected digest from the actual one")]
fn both_digests(world: &mut World) {
    match world.error() {
        vram_residency::VramError::DigestMismatch { expected, actual, .. } => assert_ne!(expected, actual),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.error().code(), ErrorCode::DigestMismatch);
    let message = world.error().to_string();
    assert_eq!(message.matches("sha256:").count(), 2, "{message}");
}

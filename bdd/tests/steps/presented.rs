//! Seals that someone presents.

use cucumber::{then, when};
use vram_residency::{RefusalReason, SealedShard, VramError};

use crate::world::World;

fn kept(world: &mut World, name: &str, parsed: Result<SealedShard, VramError>) {
    if let Some(seal) = world.note(parsed) {
        world.seals.insert(name.to_owned(), seal);
    }
}

#[when(expr = "the seal {word} comes back as bytes")]
fn comes_back(world: &mut World, name: String) {
    let bytes = world.seal_of(&name).to_bytes();
    world.before_call();
    let parsed = SealedShard::from_bytes(&bytes);
    assert_eq!(parsed.as_ref().map(SealedShard::to_bytes).unwrap(), bytes);
    kept(world, &name, parsed);
}

#[when(expr = "bit {int} of byte {int} from the end of the seal {word} is flipped")]
fn flipped(world: &mut World, bit: u8, from_end: usize, name: String) {
    let mut bytes = world.seal_of(&name).to_bytes();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1 << bit;
    world.before_call();
    let parsed = SealedShard::from_bytes(&bytes);
    kept(world, &name, parsed);
}

#[when(expr = "the seal {word} is cut by {int} byte(s)")]
fn cut(world: &mut World, name: String, bytes: usize) {
    let whole = world.seal_of(&name).to_bytes();
    world.before_call();
    let parsed = SealedShard::from_bytes(&whole[..whole.len() - bytes]);
    kept(world, &name, parsed);
}

#[when(expr = "the seal {word} is extended by {int} byte(s)")]
fn extended(world: &mut World, name: String, bytes: usize) {
    let mut whole = world.seal_of(&name).to_bytes();
    whole.resize(whole.len() + bytes, 0);
    world.before_call();
    let parsed = SealedShard::from_bytes(&whole);
    kept(world, &name, parsed);
}

#[when(expr = "I present {word} to the second manager")]
fn present_elsewhere(world: &mut World, name: String) {
    let seal = world.seal_of(&name).clone();
    world.before_call();
    let mut ran = false;
    let outcome = world.second().execute(&seal, |_| ran = true);
    world.ran = ran;
    world.note(outcome);
}

#[then(expr = "the seal is refused as {word}")]
fn refused_as(world: &mut World, reason: String) {
    match world.error() {
        VramError::SealRefused { reason: found } => assert_eq!(found.as_str(), reason),
        other => panic!("not a refusal: {other:?}"),
    }
    world.assert_code("SEAL_VERIFICATION_FAILED");
    assert!(!world.ran, "the work did not run");
}

#[then(expr = "the trail says refused as {word}")]
fn trail_says(world: &mut World, reason: String) {
    let said = world.sink.events().split_off(world.mark).into_iter().any(|event| match event.kind {
        vram_residency::EventKind::SealRefused { reason: found, .. } => found.as_str() == reason,
        _ => false,
    });
    assert!(said, "no refusal as {reason} in {:?}", world.new_events());
    assert_ne!(reason, RefusalReason::Malformed.as_str(), "what is no seal reaches no manager");
}

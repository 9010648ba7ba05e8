//! Verifying and tampering.

use cucumber::{then, when};
use vram_residency::VramError;

use crate::world::World;

#[when(expr = "I verify {word}")]
fn verify(world: &mut World, name: String) {
    world.before_call();
    let verified = world.manager().verify_sealed(world.seal_of(&name));
    let verified = world.note(verified);
    world.digest = verified.map(|verification| verification.digest);
}

#[when(expr = "I take the digest of {word} in VRAM")]
fn digest(world: &mut World, name: String) {
    world.before_call();
    let digest = world.manager().compute_vram_digest(world.seal_of(&name));
    world.digest = world.note(digest);
}

#[when(expr = "bit {int} of byte {int} of {word} flips in VRAM")]
fn flip(world: &mut World, bit: u8, byte: u64, name: String) {
    assert!(byte < world.seal_of(&name).byte_len());
    let at = world.place_of(&name) + byte;
    let (machine, manager) = (world.machine_of(&name), world.holder(&name));
    let before = machine.peek(manager, at, 1)[0];
    machine.flip(manager, at, bit);
    assert_eq!(before ^ machine.peek(manager, at, 1)[0], 1 << bit);
}

#[then(expr = "the digest is that of {word}")]
fn digest_is(world: &mut World, weights: String) {
    assert_eq!(world.digest, Some(world.digest_of(&weights)));
}

#[then(expr = "the digest is not that of {word}")]
fn digest_is_not(world: &mut World, weights: String) {
    let digest = world.digest.expect("the last call gave a digest");
    assert_ne!(digest, world.digest_of(&weights));
}

#[then(expr = "it is an integrity failure of {word} that covers byte {int}")]
fn integrity_failure(world: &mut World, name: String, byte: u64) {
    match world.error() {
        VramError::IntegrityFailure { shard, first_bad: Some(range) } => {
            assert_eq!(shard.as_str(), name);
            assert!(range.offset <= byte && byte < range.offset + range.bytes, "{range}");
        }
        other => panic!("not an integrity failure with a place: {other:?}"),
    }
    world.assert_code("SEAL_VERIFICATION_FAILED");
    assert_eq!(world.error().category(), vram_residency::ErrorCategory::Integrity);
}

#[then(expr = "{word} is quarantined as evidence")]
fn quarantined(world: &mut World, name: String) {
    assert!(world.manager().quarantined_vram() >= world.seal_of(&name).byte_len());
    let said = world.sink.events().into_iter().any(|event| match event.kind {
        vram_residency::EventKind::ShardQuarantined { shard, cause, .. } => {
            shard.as_str() == name && cause == vram_residency::QuarantineCause::Evidence
        }
        _ => false,
    });
    assert!(said, "the quarantine is in the trail");
}

#[then(expr = "{word} still verifies")]
fn still_verifies(world: &mut World, name: String) {
    let verification = world.manager().verify_sealed(world.seal_of(&name)).unwrap();
    assert_eq!(verification.digest, world.seal_of(&name).digest());
}

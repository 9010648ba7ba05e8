//! Sealing, what seals say, seals that come back, and sets of them.

use std::path::PathBuf;

use cucumber::{given, then, when};
use vram_residency::{ModelRef, SealedSet, SealedShard, SetId, ShardSource, VramError, VramManager, digest_bytes};

use vram_residency_harness::{spec, vouching};

use crate::setup::{Setup, noise};
use crate::world::World;

#[when(regex = r"^I seal (\S+)(?: expecting the digest of (\S+))?$")]
fn seal(world: &mut World, name: String, expected: String) {
    let mut spec = spec(&name);
    if !expected.is_empty() {
        spec = spec.expect(vouching::file(world.manager().tree_params(), world.digest_of(&expected)));
    }
    world.seal(&name, spec, "");
}

/// A safetensors file with these weights as its one tensor.
fn safetensors(weights: &[u8]) -> Vec<u8> {
    let bytes = weights.len();
    let header = format!(r#"{{"t":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), weights].concat()
}

#[given(expr = "a safetensors file with the weights of {word}, whose digest I know")]
fn a_file(world: &mut World, weights: String) {
    world.digest = Some(digest_bytes(world.manager().tree_params(), &safetensors(&world.weights(&weights))));
    world.folder = Some(tempfile::tempdir().unwrap());
    overwrite(world, weights);
}

/// The scenario's file.
fn path(world: &World) -> PathBuf {
    world.folder.as_ref().expect("the scenario has a file").path().join("model.safetensors")
}

#[when(expr = "the file is overwritten with the weights of {word}")]
fn overwrite(world: &mut World, weights: String) {
    std::fs::write(path(world), safetensors(&world.weights(&weights))).unwrap();
}

#[when(expr = "I seal {word} from the file, expecting its digest")]
fn seal_file(world: &mut World, name: String) {
    let expected = vouching::file(world.manager().tree_params(), world.digest.expect("its digest is known"));
    let source = ShardSource::safetensors(path(world)).unwrap();
    world.seal_from(spec(&name).expect(expected), source, &name, "");
}

#[then(expr = "the seal of {word} says how many bytes of which digest are on this device")]
fn seal_speaks(world: &mut World, name: String) {
    let seal = world.seal_of(&name);
    assert_eq!((seal.id().as_str(), seal.byte_len()), (name.as_str(), world.weights(&name).len() as u64));
    assert_eq!((seal.digest(), seal.device().uuid), (world.digest_of(&name), world.manager().device_uuid()));
    assert_eq!(seal.worker().as_str(), "worker-1");
    assert!(seal.to_bytes().len() <= 2048);
}

#[then(regex = "^the seal of (\\S+) says (measured|expected)$")]
fn seal_origin(world: &mut World, name: String, origin: String) {
    assert_eq!(world.seal_of(&name).origin().as_str(), origin);
}

#[when(regex = r"^I seal (\S+) anew$")]
fn reseal(world: &mut World, name: String) {
    world.before_call();
    let old = world.seal_of(&name).clone();
    let renewed = world.manager().reseal(&old);
    assert_eq!(world.manager().used_vram(), world.used_before, "nothing is allocated and nothing given back");
    if let Some(renewed) = world.note(renewed) {
        assert_eq!((renewed.id(), renewed.digest(), renewed.origin()), (old.id(), old.digest(), old.origin()));
        assert!(renewed.sealed_at() > old.sealed_at());
        world.seals.insert(name, renewed);
    }
}

#[when(expr = "I keep the seal of {word} as {word}")]
fn keep(world: &mut World, name: String, kept: String) {
    let seal = world.seal_of(&name).clone();
    world.seals.insert(kept, seal);
}

fn comes_back(world: &mut World, name: String, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = world.seal_of(&name).to_bytes();
    change(&mut bytes);
    world.before_call();
    if let Some(seal) = world.note::<SealedShard>(SealedShard::from_bytes(&bytes)) {
        assert_eq!(seal.to_bytes(), bytes, "one encoding");
        world.seals.insert(name, seal);
    }
}

#[when(regex = r"^the seal of (\S+) comes back (as it is|one byte short|with one byte added)$")]
fn comes_back_resized(world: &mut World, name: String, how: String) {
    comes_back(world, name, |bytes| match how.as_str() {
        "one byte short" => drop(bytes.pop()),
        "with one byte added" => bytes.push(0),
        _ => {}
    });
}

#[when(expr = "the seal of {word} comes back with bit {int} of byte {int} from the end flipped")]
fn comes_back_flipped(world: &mut World, name: String, bit: u8, from_end: usize) {
    comes_back(world, name, |bytes| {
        let at = bytes.len() - from_end;
        bytes[at] ^= 1 << bit;
    });
}

/// The id of a set that the scenario calls by name.
fn set_id(name: &str) -> SetId {
    SetId::from_bytes(noise(16, name).try_into().unwrap())
}

#[given(regex = r"^(\S+) is sealed as part (\d+) of (\d+) of the set (\S+) of version (\d+)( on the second manager)?$")]
fn a_part(world: &mut World, name: String, index: u32, count: u32, set: String, version: String, second: String) {
    if world.manager.is_none() {
        world.build(Setup::default());
    }
    let model = ModelRef::new(format!("{set}.r{version}")).unwrap();
    world.seal(&name, spec(&name).part(set_id(&set), index, count).model_ref(model.clone()), &second);
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
    let seal = world.seal_of(&name);
    assert_eq!((seal.part(), seal.model_ref()), (Some((set_id(&set), index, count)), Some(&model)));
}

#[when(expr = "I check the set of {}")]
fn check_set(world: &mut World, names: String) {
    world.before_call();
    let names: Vec<&str> = names.split(", ").collect();
    let parts: Vec<(&VramManager, &SealedShard)> =
        names.iter().map(|name| (&**world.holder(name), world.seal_of(name))).collect();
    let bytes: u64 = parts.iter().map(|(_, seal)| seal.byte_len()).sum();
    let checked: Result<_, VramError> = SealedSet::check(&parts);
    if let Some(found) = world.note(checked) {
        assert_eq!(found.parts.iter().map(|part| part.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(found.bytes, bytes);
    }
}

//! Sets: a model of several shards.

use cucumber::{given, then, when};
use vram_residency::{ModelRef, SealedSet, SealedShard, SetId, ShardSource, VramManager};

use crate::making::{noise, spec};
use crate::world::World;

/// The id of a set that the scenario calls by name.
fn set_id(name: &str) -> SetId {
    SetId::from_bytes(noise(16, name).try_into().unwrap())
}

#[given(expr = "{word} is sealed from {word} as part {int} of {int} of the set {word}")]
fn a_part(world: &mut World, name: String, weights: String, index: u32, count: u32, set: String) {
    world.seal(&name, spec(&name).part(set_id(&set), index, count), &weights);
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
    assert_eq!(world.seal_of(&name).part(), Some((set_id(&set), index, count)), "the seal says so");
}

#[given(expr = "{word} is sealed from {word} as part {int} of {int} of the set {word} of the model {word}")]
fn a_versioned_part(
    world: &mut World,
    name: String,
    weights: String,
    index: u32,
    count: u32,
    set: String,
    model: String,
) {
    let spec = spec(&name).part(set_id(&set), index, count).model_ref(ModelRef::new(model.clone()).unwrap());
    world.seal(&name, spec, &weights);
    assert!(matches!(world.outcome, Some(Ok(()))), "{:?}", world.outcome);
    assert_eq!(world.seal_of(&name).model_ref().map(ModelRef::as_str), Some(model.as_str()));
}

#[given(expr = "{word} is sealed from {word} as part {int} of {int} of the set {word} on the second manager")]
fn a_part_elsewhere(world: &mut World, name: String, weights: String, index: u32, count: u32, set: String) {
    let (part, source) = (spec(&name).part(set_id(&set), index, count), ShardSource::bytes(world.weights(&weights)));
    let seal = world.second().seal_model(part, source).unwrap();
    assert_eq!(seal.part(), Some((set_id(&set), index, count)));
    world.seals.insert(name.clone(), seal);
    world.elsewhere.insert(name);
}

#[when(expr = "I seal {word} from {word} as part {int} of {int} of the set {word}")]
fn seal_part(world: &mut World, name: String, weights: String, index: u32, count: u32, set: String) {
    world.seal(&name, spec(&name).part(set_id(&set), index, count), &weights);
}

fn check(world: &mut World, names: &str, holder: impl for<'w> Fn(&'w World, &str) -> &'w VramManager) {
    let names: Vec<&str> = if names == "nothing" { Vec::new() } else { names.split(',').map(str::trim).collect() };
    world.before_call();
    let digests = world.device().digests();
    let parts: Vec<(&VramManager, &SealedShard)> =
        names.iter().map(|name| (holder(world, name), world.seal_of(name))).collect();
    let checked = SealedSet::check(&parts);
    let bytes: u64 = parts.iter().map(|(_, seal)| seal.byte_len()).sum();
    world.assert_digests_since(digests, 0, "the check reads no VRAM");
    if let Some(found) = world.note(checked) {
        assert_eq!(found.parts.iter().map(|part| part.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(found.bytes, bytes);
        assert_eq!(Some(found.set), world.seal_of(names[0]).part().map(|(set, ..)| set));
        assert_eq!(found.model_ref.as_ref(), world.seal_of(names[0]).model_ref());
    }
}

#[when(expr = "I check the set of {}")]
fn check_parts(world: &mut World, names: String) {
    check(world, &names, |world, name| &**world.holder(name));
}

#[when(expr = "I check as if all were on the first manager the set {}")]
fn check_with_the_wrong_manager(world: &mut World, names: String) {
    check(world, &names, |world, _| &**world.manager());
}

#[then(expr = "the set is refused because it {string}")]
fn set_refused(world: &mut World, why: String) {
    world.assert_code("INVALID_PARAMS");
    let message = world.error().to_string();
    assert!(message.starts_with("set ") && message.contains(&why), "{message}");
}

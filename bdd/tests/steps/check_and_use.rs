//! What changes between a check and what follows it, on the device and on the host.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cucumber::{given, when};
use vram_residency::{Expectation, LayoutKind, ShardSource, VramError, digest_source};

use crate::making::{file_of, spec};
use crate::world::World;

/// How long a check may take that nobody else waits for.
const LIMIT: Duration = Duration::from_secs(60);

const PLAIN: &str = "model.bin";
const TENSORS: &str = "model.safetensors";

/// Executes a shard after another thread has begun to check it, and after `between`.
fn execute_behind_a_check(world: &mut World, name: &str, between: impl FnOnce(&World, u64)) {
    let place = world.place_of(name);
    world.before_call();
    let (manager, shard, before) = (Arc::clone(world.manager()), world.seal_of(name).clone(), world.device().digests());
    let ((begins, has_begun), (ended, has_ended)) = (mpsc::channel(), mpsc::channel());
    let thread = std::thread::spawn(move || {
        begins.send(()).unwrap();
        let checked = manager.verify_sealed(&shard);
        drop(manager);
        ended.send(checked).unwrap();
    });
    has_begun.recv().unwrap();
    let started = Instant::now();
    // Until its digest has begun, where that can be seen.
    while before.is_some() && world.device().digests() == before && !thread.is_finished() {
        assert!(started.elapsed() < LIMIT, "the older check does not begin");
        std::thread::yield_now();
    }
    between(world, place);
    let mut ran = false;
    let executed = world.manager().execute(world.seal_of(name), |_| ran = true);
    world.ran = ran;
    let older = has_ended.recv_timeout(LIMIT).expect("the older check ends");
    thread.join().unwrap();
    // It saw the bytes before the change or after it.
    assert!(matches!(older, Ok(_) | Err(VramError::IntegrityFailure { .. })), "{older:?}");
    if older.is_ok() && executed.is_ok() {
        world.assert_digests_since(before, 2, "each has its own");
    }
    world.note(executed);
}

#[when(expr = "{word} is executed while an older check of it is under way")]
fn behind_a_check(world: &mut World, name: String) {
    execute_behind_a_check(world, &name, |_, _| ());
}

#[when(
    expr = "{word} is executed while an older check of it is under way, and bit {int} of byte {int} flips between the two"
)]
fn behind_a_check_and_a_flip(world: &mut World, name: String, bit: u8, byte: u64) {
    let holder = name.clone();
    execute_behind_a_check(world, &name, move |world, place| {
        world.machine_of(&holder).flip(world.holder(&holder), place + byte, bit);
    });
}

#[given(expr = "weights {word} that are those of {word}")]
fn same_weights(world: &mut World, name: String, like: String) {
    let bytes = world.weights(&like).to_vec();
    world.weights.insert(name, bytes);
}

#[when("the host's copy is overwritten")]
fn overwritten(world: &mut World) {
    let copy = world.weights.get_mut("copy").expect("the scenario has a copy");
    copy.iter_mut().for_each(|byte| *byte = !*byte);
}

/// Writes weights over the file that the folder has, or to a new one of that name.
fn write(folder: &Path, name: &str, weights: &[u8]) -> PathBuf {
    let path = folder.join(name);
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, weights.len());
    let bytes = match name {
        TENSORS => [&(header.len() as u64).to_le_bytes(), header.as_bytes(), weights].concat(),
        _ => weights.to_vec(),
    };
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Makes the folder, and the file in it.
fn place(world: &mut World, name: &str, weights: &str) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), name, world.weights(weights));
    world.folder = Some(folder);
}

/// The file that the scenario has.
fn file(world: &World) -> PathBuf {
    let folder = world.folder.as_ref().expect("the scenario has a file").path();
    let found = [PLAIN, TENSORS].map(|name| folder.join(name)).into_iter().find(|path| path.exists());
    found.expect("the file is there")
}

fn open(path: &Path) -> Result<ShardSource<'static>, VramError> {
    if path.ends_with(TENSORS) { ShardSource::safetensors(path) } else { ShardSource::file(path) }
}

#[when(expr = "I seal {word} from a safetensors file with the weights {word}")]
fn seal_tensors(world: &mut World, name: String, weights: String) {
    place(world, TENSORS, &weights);
    world.before_call();
    let sealed = open(&file(world)).and_then(|source| world.manager().seal_model(spec(&name), source));
    if let Some(seal) = world.note(sealed) {
        assert_eq!(seal.digest(), world.digest_of(&weights), "one tensor at the image's begin");
        world.seals.insert(name, seal);
    }
}

#[when(expr = "the file is overwritten with the weights {word}")]
fn overwrite(world: &mut World, weights: String) {
    let path = file(world);
    let before = std::fs::read(&path).unwrap();
    write(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap(), world.weights(&weights));
    let after = std::fs::read(&path).unwrap();
    assert!(after != before && after.len() == before.len());
}

#[when("the file is removed")]
fn remove(world: &mut World) {
    let path = file(world);
    std::fs::remove_file(&path).unwrap();
    assert!(!path.exists());
}

#[when(regex = r"^I take the digest of a (safetensors )?file with the weights (\S+)$")]
fn take_digest(world: &mut World, tensors: String, weights: String) {
    place(world, if tensors.is_empty() { PLAIN } else { TENSORS }, &weights);
    let found = digest_source(open(&file(world)).unwrap(), world.manager().tree_params(), NonZeroUsize::MIN).unwrap();
    assert_eq!(found.digest, world.digest_of(&weights));
    world.digest = Some(found.digest);
}

#[when(expr = "I seal {word} from that file expecting that digest")]
fn seal_expecting(world: &mut World, name: String) {
    seal_between(world, &name, |_| ());
}

#[when(expr = "I open that file, it is overwritten with {word}, and I seal {word} expecting that digest")]
fn seal_swapped(world: &mut World, weights: String, name: String) {
    seal_between(world, &name, |world| overwrite(world, weights));
}

fn seal_between(world: &mut World, name: &str, between: impl FnOnce(&mut World)) {
    let digest = world.digest.expect("the digest was taken");
    world.before_call();
    let source = || open(&file(world)).unwrap();
    let image = source().into_image(world.manager().tree_params()).unwrap();
    let vouched = match image.layout().kind() {
        LayoutKind::File => file_of(world.manager(), digest),
        _ => Expectation::Image { digest, layout: image.layout().digest() },
    };
    let source = source();
    between(world);
    let sealed = world.manager().seal_model(spec(name).expect(vouched), source);
    if let Some(seal) = world.note(sealed) {
        assert_eq!(seal.digest(), digest);
        world.seals.insert(name.to_owned(), seal);
    }
}

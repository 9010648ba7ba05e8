//! Secrets, where they come from, and what must not be shown of them.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use cucumber::{given, then, when};
use vram_residency::{SealedShard, VramError, WorkerSecret};

use crate::making::Setup;
use crate::world::World;

/// The first word of this suite's command line where it is to be a service with a credential.
const TAKE: &str = "--take-credential";
const NAME: &str = "secret.key";
const TAG: usize = 32;

/// Bytes of a secret that text would show as they are.
fn characters(bytes: usize) -> Vec<u8> {
    b"Never.shown:"
        .iter()
        .copied()
        .cycle()
        .zip(0_u32..)
        .map(|(byte, at)| byte ^ (at / 12 % 2) as u8)
        .take(bytes)
        .collect()
}

fn keep(world: &mut World, bytes: Vec<u8>, taken: Result<WorkerSecret, VramError>) {
    world.before_call();
    world.secret_bytes = bytes;
    world.secret = world.note(taken);
}

#[when(expr = "I take a secret of {int} bytes from memory")]
fn from_memory(world: &mut World, bytes: usize) {
    let bytes = characters(bytes);
    let taken = WorkerSecret::from_bytes(&bytes);
    keep(world, bytes, taken);
}

#[when("I draw a secret at random")]
fn at_random(world: &mut World) {
    keep(world, Vec::new(), WorkerSecret::random());
    assert!(world.secret.is_some());
}

#[given(expr = "a secret file of {int} bytes with the permissions {word}")]
fn a_file(world: &mut World, bytes: usize, permissions: String) {
    let folder = tempfile::tempdir().unwrap();
    let (path, mode) = (folder.path().join(NAME), u32::from_str_radix(&permissions, 8).unwrap());
    world.secret_bytes = characters(bytes);
    std::fs::write(&path, &world.secret_bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    symlink(&path, folder.path().join("link")).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
    world.folder = Some(folder);
}

fn folder(world: &World) -> PathBuf {
    world.folder.as_ref().expect("the scenario has a secret file").path().to_path_buf()
}

#[when(regex = "^I take the secret from (the file|a link|the folder|nowhere)( as mounted)?$")]
fn from_file(world: &mut World, place: String, mounted: String) {
    let path = match place.as_str() {
        "the file" => folder(world).join(NAME),
        "a link" => folder(world).join("link"),
        "the folder" => folder(world),
        _ => folder(world).join("nowhere"),
    };
    let strict = mounted.is_empty();
    let taken = if strict { WorkerSecret::from_file(path) } else { WorkerSecret::from_file_mounted(path) };
    let bytes = world.secret_bytes.clone();
    keep(world, bytes, taken);
}

/// What this suite does when it is called as the service: takes the credential, and says what came of it.
pub(crate) fn take_credential() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next()? != TAKE {
        return None;
    }
    match WorkerSecret::from_systemd_credential(&words.next().expect("a credential's name")) {
        Ok(secret) => println!("{secret:?}"),
        Err(error) => {
            println!("{error} {error:?}");
            return Some(ExitCode::FAILURE);
        }
    }
    Some(ExitCode::SUCCESS)
}

#[when(regex = r"^a process that was given (its|no) folder takes the credential (\S+)$")]
fn in_a_process(world: &mut World, given: String, name: String) {
    world.before_call();
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args([TAKE, &name]).env_remove("CREDENTIALS_DIRECTORY");
    if given == "its" {
        process.env("CREDENTIALS_DIRECTORY", folder(world));
    }
    let output = process.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.success(), said == "WorkerSecret(..)\n", "{said}");
    assert!(!said.is_empty());
    hides_the_place(world, &String::from_utf8_lossy(&output.stderr));
    world.outcome = output.status.success().then_some(Ok(()));
    world.said.push(said);
}

#[then(regex = "^the process says that the (worker secret .+)$")]
fn process_says(world: &mut World, problem: String) {
    let said = world.said.last().expect("a process ran");
    assert!(world.outcome.is_none() && said.contains(&problem), "{said}");
    hides_the_place(world, said);
}

fn hides_the_place(world: &World, said: &str) {
    assert!(!shows(said, &world.secret_bytes), "{said}");
    if let Some(folder) = &world.folder {
        let folder = folder.path().to_str().unwrap();
        assert!(!said.contains(folder) && !said.contains(NAME) && !said.contains("nowhere"), "{said}");
    }
}

#[then("the message shows neither the secret nor its place")]
fn hides(world: &mut World) {
    world.error();
    assert!(world.secret.is_none());
    hides_the_place(world, world.said.last().expect("the error was kept"));
}

#[when("I build a manager of that secret")]
fn build(world: &mut World) {
    assert!(world.secret.is_some(), "a secret was taken");
    world.build(Setup::default());
    assert!(world.secret.is_none(), "the manager has it");
}

#[when(expr = "the seal {word} carries the tag of {word}")]
fn another_tag(world: &mut World, name: String, other: String) {
    let (own, foreign) = (world.seal_of(&name).clone(), world.seal_of(&other).to_bytes());
    let mut bytes = own.to_bytes();
    let at = bytes.len() - TAG;
    assert_ne!(bytes[at..], foreign[foreign.len() - TAG..]);
    bytes[at..].copy_from_slice(&foreign[foreign.len() - TAG..]);
    world.seals.insert(name.clone(), SealedShard::from_bytes(&bytes).unwrap());
    world.replaced.insert(name, own);
}

#[when(expr = "the seal {word} carries its own tag again")]
fn own_tag(world: &mut World, name: String) {
    let own = world.replaced.remove(&name).expect("its tag was replaced");
    assert_ne!(own.to_bytes(), world.seal_of(&name).to_bytes());
    world.seals.insert(name, own);
}

/// Whether a text shows these bytes, or eight of them in a row, as they are, in hexadecimal or as numbers.
fn shows(text: &str, bytes: &[u8]) -> bool {
    let lower = text.to_lowercase();
    bytes.windows(8).any(|window| {
        let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers = format!("{window:?}");
        let plain = std::str::from_utf8(window).is_ok_and(|plain| text.contains(plain));
        plain || lower.contains(&hex) || text.contains(numbers.trim_matches(['[', ']']))
    })
}

/// Whether a text has 32 bytes in hexadecimal or as numbers, and does not call them a digest: so a key would look.
fn shows_some_key(text: &str) -> bool {
    // `sha256:` leaves its colon with the digits.
    let words = text.split(|c: char| !c.is_ascii_hexdigit() && c != ':');
    let in_hexadecimal = words.filter(|word| !word.contains(':')).any(|word| word.len() >= 2 * TAG);
    let lists = text.split('[').zip(text.split('[').skip(1)).filter(|(before, _)| !before.ends_with("Digest("));
    let as_numbers = lists.filter_map(|(_, list)| list.split_once(']')).any(|(list, _)| {
        list.split(',').count() >= TAG && list.split(',').all(|item| item.trim().parse::<u8>().is_ok())
    });
    in_hexadecimal || as_numbers
}

#[then("nothing that was said or can be shown holds the secret, a key or a tag")]
fn nothing_secret(world: &mut World) {
    assert!(shows(&format!("a {:?}", world.secret_bytes), &world.secret_bytes), "it would be seen");
    assert!(shows_some_key(&"5a".repeat(TAG)) && shows_some_key(&format!("{:?}", [9; TAG])), "it would be seen");
    let mut texts = world.said.clone();
    for event in world.sink.events() {
        texts.extend([event.to_json_line(), format!("{event:?}")]);
    }
    let manager = world.manager();
    texts.push(format!("{:?} {:?} {:?}", world.outcome, world.report, manager.enforce_vram_only_policy()));
    texts.push(format!("{:?} {:?}", world.seals, world.replaced));
    texts.push(format!("{manager:?} {:?}", world.guards));
    assert!(texts.iter().all(|text| !shows_some_key(text)), "what may be a key: {texts:?}");
    let seals: Vec<Vec<u8>> = world.seals.values().chain(world.replaced.values()).map(SealedShard::to_bytes).collect();
    assert!(world.secret_bytes.len() >= TAG && seals.len() > 1 && texts.len() > 10);
    for text in &texts {
        assert!(!shows(text, &world.secret_bytes), "a part of the secret: {text}");
        assert!(seals.iter().all(|seal| !shows(text, &seal[seal.len() - TAG..])), "a part of a tag: {text}");
    }
}

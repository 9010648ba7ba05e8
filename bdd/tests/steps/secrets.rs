//! Secrets, where they come from, and what must not be shown of them.

use std::os::unix::fs::{PermissionsExt, symlink};

use cucumber::{given, then, when};
use vram_residency::{Policy, SealedShard, WorkerSecret};

use crate::setup::Setup;
use crate::world::World;

const NAME: &str = "secret.key";
const TAG: usize = 32;

#[given(expr = "a secret file of {int} bytes with the permissions {word}")]
fn a_file(world: &mut World, bytes: usize, permissions: String) {
    let folder = tempfile::tempdir().unwrap();
    let (path, mode) = (folder.path().join(NAME), u32::from_str_radix(&permissions, 8).unwrap());
    // Text would show them as they are.
    world.secret_bytes = b"Never.shown:".iter().copied().cycle().take(bytes).collect();
    std::fs::write(&path, &world.secret_bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    symlink(&path, folder.path().join("link")).unwrap();
    world.folder = Some(folder);
}

#[when(regex = "^I take the secret from (the file|a link|nowhere)( as mounted)?$")]
fn from_file(world: &mut World, place: String, mounted: String) {
    let name = match place.as_str() {
        "the file" => NAME,
        "a link" => "link",
        _ => "nowhere",
    };
    let path = world.folder.as_ref().expect("the scenario has a secret file").path().join(name);
    let strict = mounted.is_empty();
    let taken = if strict { WorkerSecret::from_file(path) } else { WorkerSecret::from_file_mounted(path) };
    world.before_call();
    world.secret = world.note(taken);
}

#[then("the message shows neither the secret nor its place")]
fn hides(world: &mut World) {
    world.error();
    assert!(world.secret.is_none());
    let said = world.said.last().expect("something was said");
    let folder = world.folder.as_ref().expect("the scenario has a secret file").path().to_str().unwrap();
    assert!(!shows(said, &world.secret_bytes), "{said}");
    assert!(!said.contains(folder) && !said.contains(NAME) && !said.contains("nowhere"), "{said}");
}

#[when(regex = "^I build a manager of (that|a random) secret( whose policy demands a stored one)?$")]
fn build(world: &mut World, which: String, stored: String) {
    world.before_call();
    let secret = world.secret.take();
    assert_eq!(secret.is_some(), which == "that");
    let policy = Policy::development().require_stored_secret(!stored.is_empty());
    let built = world.try_build(Setup { secret, policy, ..Setup::default() });
    world.note(built);
}

/// Whether a text shows eight of these bytes in a row, as they are, in hexadecimal or as numbers.
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

#[then("nothing that was said or can be shown holds the secret, a key, a tag or an address")]
fn nothing_secret(world: &mut World) {
    assert!(shows(&format!("a {:?}", world.secret_bytes), &world.secret_bytes), "it would be seen");
    assert!(shows_some_key(&"5a".repeat(TAG)) && shows_some_key(&format!("{:?}", [9; TAG])), "it would be seen");
    let mut texts = world.said.clone();
    for event in world.sink.events() {
        texts.extend([event.to_json_line(), format!("{event:?}")]);
    }
    let manager = world.manager();
    texts.push(format!("{manager:?} {:?} {:?}", manager.enforce_vram_only_policy(), world.report));
    texts.push(format!("{:?}", world.seals));
    let seals: Vec<Vec<u8>> = world.seals.values().map(SealedShard::to_bytes).collect();
    assert!(seals.len() > 1 && texts.len() > 10);
    for text in &texts {
        assert!(!shows_some_key(text) && !text.contains("0x"), "what may be a key or an address: {text}");
        assert!(!shows(text, &world.secret_bytes), "a part of the secret: {text}");
        assert!(seals.iter().all(|seal| !shows(text, &seal[seal.len() - TAG..])), "a part of a tag: {text}");
    }
}

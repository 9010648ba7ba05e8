//! Calls of `vram-worker`, and what whoever makes them sees.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use serde_json::Value;

use crate::world::World;

#[given(expr = "a small model {word}")]
fn a_small_model(world: &mut World, name: String) {
    let header = r#"{"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"a":{"dtype":"I64","shape":[2],"data_offsets":[16,32]}}"#;
    world.shell.write(&name, &[&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[7; 32]].concat());
}

#[given(expr = "a file {word} of {int} bytes that are all {int}")]
fn an_even_file(world: &mut World, name: String, bytes: usize, value: u8) {
    world.shell.write(&name, &vec![value; bytes]);
}

#[given(expr = "a secret of {int} bytes in {word} with the permissions {word}")]
fn a_secret(world: &mut World, bytes: usize, name: String, permissions: String) {
    let path = world.shell.write(&name, &b"swordfish-".iter().copied().cycle().take(bytes).collect::<Vec<u8>>());
    fs::set_permissions(path, fs::Permissions::from_mode(u32::from_str_radix(&permissions, 8).unwrap())).unwrap();
}

#[when(expr = "I call {string}")]
fn call(world: &mut World, line: String) {
    world.shell.call(&line);
}

#[then(expr = "the exit code is {int}")]
fn exit_code(world: &mut World, code: i32) {
    assert_eq!(world.shell.code, Some(code), "{}{}", world.shell.stderr, world.shell.stdout);
}

#[then(regex = r#"^standard (output|error) says "(.*)"$"#)]
fn says(world: &mut World, stream: String, wanted: String) {
    let said = if stream == "output" { &world.shell.stdout } else { &world.shell.stderr };
    assert!(said.contains(&wanted), "{wanted:?} in {said}");
}

#[then(expr = "the error says {string}")]
fn error_says(world: &mut World, said: String) {
    let errors: Vec<_> = world.shell.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [sentence] = errors[..] else { panic!("not one error: {}", world.shell.stderr) };
    assert!(sentence.contains(&said), "{said:?} in {sentence:?}");
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[then(expr = "the report gives {word} as {string}")]
fn report_gives(world: &mut World, path: String, wanted: String) {
    let report = world.shell.report();
    let found = report.pointer(&format!("/{}", path.replace('.', "/"))).map(text);
    assert_eq!(found, Some(wanted), "{path} in {report}");
}

#[then(expr = "neither the secret nor its place {word} is shown")]
fn secret_hidden(world: &mut World, place: String) {
    let said = format!("{}{}", world.shell.stdout, world.shell.stderr);
    let hex: String = b"swordf".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(![place.as_str(), "swordf", &hex].iter().any(|hidden| said.contains(hidden)), "{said}");
}

#[then("no device was opened")]
fn no_device(world: &mut World) {
    assert!(world.shell.trail().is_empty() && world.shell.stdout.is_empty(), "{}", world.shell.stderr);
}

#[then("nothing is left but this trail")]
fn nothing_left(world: &mut World, step: &Step) {
    let (shell, trail) = (&world.shell, world.shell.trail());
    let events: Vec<_> = trail.iter().map(|record| text(&record["event"])).collect();
    assert_eq!(events, step.docstring.as_deref().expect("events").split_whitespace().collect::<Vec<_>>());
    let counted = trail.iter().map(|record| record["sequence"].as_u64());
    assert!(counted.eq((1..).take(trail.len()).map(Some)), "an event is missing: {}", shell.stderr);
    let of = |event: &str| -> Vec<_> {
        let named = trail.iter().filter(|record| record["event"] == event);
        named.map(|record| (text(&record["shard"]), record["bytes"].as_u64())).collect()
    };
    let allocated = of("vram_allocated");
    assert_eq!((of("vram_wiped"), of("vram_deallocated")), (allocated.clone(), allocated));
    let mut wipes = trail.iter().filter(|record| record["event"] == "vram_wiped");
    assert!(wipes.all(|record| record["proven"] == true), "{}", shell.stderr);
    if shell.code == Some(0) {
        assert_eq!(shell.report()["vram"]["used_after"], shell.report()["vram"]["used_before"]);
    }
}

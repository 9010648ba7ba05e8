//! Calls of `vram-worker`, and what whoever makes them sees.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use rustix::process::Signal;

use crate::shell::{safetensors, small, text};
use crate::world::World;

#[given(expr = "a small model {word}")]
fn a_small_model(world: &mut World, name: String) {
    world.shell.write(&name, &small());
}

#[given(expr = "a file {word} of {int} bytes that are all {int}")]
fn an_even_file(world: &mut World, name: String, bytes: usize, value: u8) {
    world.shell.write(&name, &vec![value; bytes]);
}

#[given(expr = "a model {word} that {}")]
fn a_broken_model(world: &mut World, name: String, flaw: String) {
    let whole = small();
    let bytes = match flaw.as_str() {
        "is not asked for" => whole,
        "ends one byte early" => whole[..whole.len() - 1].to_vec(),
        "has tensors that overlap" => safetensors(
            r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[6],"data_offsets":[2,8]}}"#,
            &[0; 8],
        ),
        other => panic!("no such flaw: {other}"),
    };
    world.shell.write(&name, &bytes);
}

#[given(expr = "a secret of {int} bytes in {word} with the permissions {word}")]
fn a_secret(world: &mut World, bytes: usize, name: String, permissions: String) {
    world.shell.write(&name, &b"swordfish-".iter().copied().cycle().take(bytes).collect::<Vec<u8>>());
    let mode = u32::from_str_radix(&permissions, 8).unwrap();
    fs::set_permissions(world.shell.folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[when(expr = "I call {string}")]
fn call(world: &mut World, line: String) {
    let running = world.shell.start(&line);
    world.shell.end(running);
}

#[when(expr = "I call {string} and send it {word} after {int} executes")]
fn call_and_interrupt(world: &mut World, line: String, signal: String, executes: u32) {
    let signal = match signal.as_str() {
        "SIGINT" => Signal::INT,
        "SIGTERM" => Signal::TERM,
        other => panic!("no such signal: {other}"),
    };
    let running = world.shell.start(&line);
    running.signal_after(executes, signal);
    world.shell.end(running);
}

#[then(expr = "the exit code is {int}")]
fn exit_code(world: &mut World, code: i32) {
    world.shell.looked = true;
    let ended = world.shell.ended();
    assert_eq!(ended.code, Some(code), "{}{}", ended.stderr, ended.stdout);
}

#[then(expr = "standard output is the line {string}")]
fn output_is(world: &mut World, line: String) {
    assert_eq!(world.shell.ended().stdout, format!("{}\n", world.shell.expand(&line)));
}

#[then(expr = "standard output says {string}")]
fn output_says(world: &mut World, said: String) {
    assert!(world.shell.ended().stdout.contains(&said), "{said:?} in {}", world.shell.ended().stdout);
}

#[then(expr = "standard error says {string}")]
fn errors_say(world: &mut World, said: String) {
    assert!(world.shell.ended().stderr.contains(&said), "{said:?} in {}", world.shell.ended().stderr);
}

#[then(expr = "the error says {string}")]
fn error_says(world: &mut World, said: String) {
    let (said, sentence) = (world.shell.expand(&said), world.shell.ended().error());
    assert!(sentence.contains(&said), "{said:?} in {sentence:?}");
}

#[then(expr = "asked for JSON it ends alike, with the same sentence and the code {word}")]
fn as_json(world: &mut World, code: String) {
    let (wanted, sentence) = (world.shell.ended().code, world.shell.ended().error());
    assert!(world.shell.looked && world.shell.ended().stdout.is_empty(), "a person gets no half of an answer");
    let line = format!("{} --json", world.shell.line);
    call(world, line);
    world.shell.looked = true;
    assert_eq!(world.shell.ended().code, wanted);
    let said = ["error.code", "error.message", "executed", "shard"].map(|path| world.shell.field(path));
    assert_eq!(said, [Some(code), Some(sentence), Some("0".to_owned()), None]);
    assert!(!world.shell.ended().stderr.contains("error: "), "it is said once");
    nothing_left(world);
}

#[then(expr = "the report gives {word} as {string}")]
fn report_gives(world: &mut World, path: String, wanted: String) {
    let wanted = world.shell.expand(&wanted);
    assert_eq!(world.shell.field(&path), Some(wanted), "{path} in {}", world.shell.ended().stdout);
}

#[then("the trail is")]
fn trail_is(world: &mut World, step: &Step) {
    let events: Vec<_> = world.shell.ended().trail().iter().map(|record| text(&record["event"])).collect();
    assert_eq!(events, step.docstring.as_deref().expect("events").split_whitespace().collect::<Vec<_>>());
}

#[then(expr = "neither the secret nor its place {word} is shown")]
fn secret_hidden(world: &mut World, place: String) {
    let said = format!("{}{}", world.shell.ended().stdout, world.shell.ended().stderr);
    let hex: String = b"swordf".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(![place.as_str(), "swordf", &hex].iter().any(|hidden| said.contains(hidden)), "{said}");
}

#[then("no device was opened and nothing is left")]
fn no_device(world: &mut World) {
    assert!(world.shell.ended().trail().is_empty(), "{}", world.shell.ended().stderr);
    nothing_left(world);
}

#[then("nothing is left")]
fn nothing_left(world: &mut World) {
    let shell = &world.shell;
    assert_eq!(fs::read_dir(&shell.temporary).unwrap().count(), 0, "a temporary file is left");
    let files = fs::read_dir(&shell.folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), shell.files, "another file is left");
    let (ended, trail) = (shell.ended(), shell.ended().trail());
    if ended.stdout.starts_with('{') {
        let report = ended.report();
        assert_eq!(report["vram"]["used_after"], report["vram"]["used_before"], "{report}");
    }
    let counted = trail.iter().map(|record| record["sequence"].as_u64());
    assert!(counted.eq((1..).take(trail.len()).map(Some)), "an event is missing: {}", ended.stderr);
    let of = |event: &str| -> Vec<_> {
        let named = trail.iter().filter(|record| record["event"] == event);
        named.map(|record| (text(&record["shard"]), record["bytes"].as_u64())).collect()
    };
    let allocated = of("vram_allocated");
    assert_eq!((of("vram_wiped"), of("vram_deallocated")), (allocated.clone(), allocated));
    let mut wipes = trail.iter().filter(|record| record["event"] == "vram_wiped");
    assert!(wipes.all(|record| record["proven"] == true), "{}", ended.stderr);
}

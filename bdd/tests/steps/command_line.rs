//! Calls of `vram-worker`, and what whoever makes them sees.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use rustix::process::Signal;
use serde_json::Value;

use crate::shell::{safetensors, small, text, with_second};
use crate::world::World;

#[given("the audit trail is shown")]
fn audited(world: &mut World) {
    world.shell.audited = true;
}

#[given(expr = "a small model {word}")]
fn a_small_model(world: &mut World, name: String) {
    world.shell.write(&name, &small());
}

#[given(expr = "a file {word} of {int} bytes that are all {int}")]
fn an_even_file(world: &mut World, name: String, bytes: usize, value: u8) {
    world.shell.write(&name, &vec![value; bytes]);
}

#[given(expr = "a model {word} with a tensor named {string}")]
fn a_named_tensor(world: &mut World, name: String, tensor: String) {
    let tensor = Value::from(world.shell.expand(&tensor));
    let header = format!(r#"{{{tensor}:{{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}}}"#);
    world.shell.write(&name, &safetensors(&header, &[3, 5, 4]));
}

#[given(expr = "a model {word} that {}")]
fn a_broken_model(world: &mut World, name: String, flaw: String) {
    let whole = small();
    let bytes = match flaw.as_str() {
        "is empty" => Vec::new(),
        "is plain text" => b"This is plain text, not a model at all.".to_vec(),
        "ends one byte early" => whole[..whole.len() - 1].to_vec(),
        "claims a header of 2^64 - 1 bytes" => [&[0xff; 8][..], &whole[8..]].concat(),
        "has tensors that overlap" => with_second(r#""b":{"dtype":"U8","shape":[6],"data_offsets":[2,8]}"#),
        "has a gap between tensors" => with_second(r#""b":{"dtype":"U8","shape":[2],"data_offsets":[6,8]}"#),
        "has bytes behind its tensors" => with_second(r#""b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}"#),
        "has a tensor beyond 2^64 bytes" => {
            with_second(r#""b":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[4,8]}"#)
        }
        "names a tensor twice" => with_second(
            r#""b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},"a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}"#,
        ),
        other => panic!("no such flaw: {other}"),
    };
    world.shell.write(&name, &bytes);
}

#[given(expr = "a secret of {int} bytes in {word} with the permissions {word}")]
fn a_secret(world: &mut World, bytes: usize, name: String, permissions: String) {
    let secret: Vec<u8> = b"swordfish-".iter().copied().cycle().take(bytes).collect();
    world.shell.write(&name, &secret);
    let mode = u32::from_str_radix(&permissions, 8).unwrap();
    fs::set_permissions(world.shell.folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    world.shell.secret = secret;
}

#[when(expr = "I call {string}")]
fn call(world: &mut World, line: String) {
    let running = world.shell.start(&line, false);
    world.shell.end(running);
}

#[when(expr = "I call {string} and do not read its output")]
fn call_unread(world: &mut World, line: String) {
    let running = world.shell.start(&line, true);
    world.shell.end(running);
}

#[when(expr = "I call {string} and send it {word} after {int} executes")]
fn call_and_interrupt(world: &mut World, line: String, signal: String, executes: u32) {
    assert!(world.shell.audited, "the executes are counted in the trail");
    let signal = match signal.as_str() {
        "SIGINT" => Signal::INT,
        "SIGTERM" => Signal::TERM,
        other => panic!("no such signal: {other}"),
    };
    let running = world.shell.start(&line, false);
    running.signal_after(executes, signal);
    world.shell.end(running);
}

#[then(expr = "the exit code is {int}")]
fn exit_code(world: &mut World, code: i32) {
    world.shell.looked = true;
    let ended = world.shell.ended();
    assert_eq!(ended.code, Some(code), "{}{}", ended.stderr, ended.stdout);
}

#[then("standard output is empty")]
fn no_output(world: &mut World) {
    assert_eq!(world.shell.ended().stdout, "");
}

#[then("standard error is empty")]
fn no_errors(world: &mut World) {
    assert_eq!(world.shell.ended().stderr, "");
}

#[then(expr = "standard output is the line {string}")]
fn output_is(world: &mut World, line: String) {
    assert_eq!(world.shell.ended().stdout, format!("{}\n", world.shell.expand(&line)));
}

#[then(expr = "standard error is the line {string}")]
fn errors_are(world: &mut World, line: String) {
    assert_eq!(world.shell.ended().stderr, format!("{line}\n"));
}

#[then("standard output is")]
fn output_is_all(world: &mut World, step: &Step) {
    let wanted = step.docstring.as_deref().expect("the lines").trim_matches('\n');
    assert_eq!(world.shell.ended().stdout, format!("{}\n", world.shell.expand(wanted)));
}

#[then(expr = "standard output says {string}")]
fn output_says(world: &mut World, said: String) {
    let said = world.shell.expand(&said);
    assert!(world.shell.ended().stdout.contains(&said), "{said:?} in {}", world.shell.ended().stdout);
}

#[then(expr = "standard error says {string}")]
fn errors_say(world: &mut World, said: String) {
    assert!(world.shell.ended().stderr.contains(&said), "{said:?} in {}", world.shell.ended().stderr);
}

#[then(expr = "standard output names the options {string}")]
fn output_names(world: &mut World, options: String) {
    let words: Vec<_> = world.shell.ended().stdout.split_whitespace().collect();
    let found: Vec<_> = words.iter().filter(|word| word.starts_with("--") && **word != "--help").copied().collect();
    for option in options.split(' ') {
        assert!(found.contains(&option), "{option} in {found:?}");
    }
}

#[then(expr = "the error says {string}")]
fn error_says(world: &mut World, said: String) {
    let (said, sentence) = (world.shell.expand(&said), world.shell.sentence("error"));
    assert!(sentence.contains(&said), "{said:?} in {sentence:?}");
}

#[then("no error is told")]
fn no_error(world: &mut World) {
    assert!(world.shell.ended().sentences("error").is_empty(), "{}", world.shell.ended().stderr);
}

#[then(expr = "nothing is said but an interruption by {word}")]
fn interruption(world: &mut World, signal: String) {
    let told = world.shell.sentence("interrupted");
    assert_eq!(told, format!("ended by {signal}; every shard was wiped and released"));
    assert!(world.shell.ended().sentences("error").is_empty());
}

#[then(expr = "asked for JSON it ends alike, with the same sentence and the code {word}")]
fn as_json(world: &mut World, code: String) {
    let (wanted, sentence) = (world.shell.ended().code, world.shell.sentence("error"));
    assert!(world.shell.looked && world.shell.ended().stdout.is_empty(), "a person gets no half of an answer");
    let line = format!("{} --json", world.shell.line);
    call(world, line);
    world.shell.looked = true;
    assert_eq!(world.shell.ended().code, wanted);
    let said = ["error.code", "error.message", "executed"].map(|path| world.shell.field(path));
    assert_eq!(said, [code, sentence, "0".to_owned()].map(Some));
    assert!(world.shell.ended().sentences("error").is_empty(), "it is said once");
}

#[then(expr = "the report gives {word} as {string}")]
fn report_gives(world: &mut World, path: String, wanted: String) {
    let wanted = world.shell.expand(&wanted);
    assert_eq!(world.shell.field(&path), Some(wanted), "{path} in {}", world.shell.ended().stdout);
}

#[then(expr = "the report has no {word}")]
fn report_lacks(world: &mut World, path: String) {
    assert_eq!(world.shell.field(&path), None);
}

#[then(expr = "the report counts {int} to {int} executes")]
fn report_counts(world: &mut World, least: u64, most: u64) {
    let executed: u64 = world.shell.field("executed").unwrap().parse().unwrap();
    assert!((least..=most).contains(&executed), "{executed}");
}

#[then("the report's tensors are")]
fn report_tensors(world: &mut World, step: &Step) {
    let rows = &step.table.as_ref().expect("a table").rows;
    let report = world.shell.ended().report();
    let tensors = report["tensors"].as_array().unwrap().iter();
    let found = tensors.map(|tensor| rows[0].iter().map(|field| text(&tensor[field])).collect::<Vec<_>>());
    assert_eq!(found.collect::<Vec<_>>(), rows[1..]);
}

#[then(expr = "the table gives {string} as {string}")]
fn table_gives(world: &mut World, row: String, wanted: String) {
    let rows = world.shell.ended().stdout.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix('│')?.strip_suffix('│')?.split_once('┆')?;
        (name.trim() == row).then(|| value.trim())
    });
    assert_eq!(rows.collect::<Vec<_>>(), [world.shell.expand(&wanted)], "{}", world.shell.ended().stdout);
}

#[then("the trail is")]
fn trail_is(world: &mut World, step: &Step) {
    let events: Vec<_> = world.shell.ended().trail().iter().map(|record| text(&record["event"])).collect();
    assert_eq!(events, step.docstring.as_deref().expect("events").split_whitespace().collect::<Vec<_>>());
}

#[then(expr = "neither the secret nor its place {word} is shown")]
fn secret_hidden(world: &mut World, place: String) {
    let said = format!("{}{}", world.shell.ended().stdout, world.shell.ended().stderr);
    assert!(!said.contains(&place), "{said}");
    assert!(world.shell.secret.len() >= 8 && !said.contains("swordf"), "{said}");
    let hex: String = world.shell.secret[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!said.to_lowercase().contains(&hex), "{said}");
}

#[then("no line of it is forged")]
fn not_forged(world: &mut World) {
    for said in [&world.shell.ended().stdout, &world.shell.ended().stderr] {
        assert!(!said.contains('\u{1b}') && !said.lines().any(|line| line.starts_with("forged")), "{said:?}");
    }
}

#[then("no device was opened and nothing is left")]
fn no_device(world: &mut World) {
    assert!(world.shell.audited, "the trail would tell of a device");
    assert!(world.shell.ended().trail().is_empty(), "{}", world.shell.ended().stderr);
    nothing_left(world);
}

#[then("nothing is left")]
fn nothing_left(world: &mut World) {
    let shell = &world.shell;
    assert_eq!(fs::read_dir(&shell.temporary).unwrap().count(), 0, "a temporary file is left");
    let files = fs::read_dir(&shell.folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), shell.files, "another file is left");
    let ended = shell.ended();
    if ended.stdout.starts_with('{') {
        let report = ended.report();
        if let Some(vram) = report.get("vram") {
            assert!(vram["used_after"].is_u64() && vram["used_after"] == vram["used_before"], "{vram}");
        }
    }
    let trail = ended.trail();
    if trail.is_empty() {
        // Nobody asked for it, or no device was opened.
        return;
    }
    let counted = trail.iter().map(|record| record["sequence"].as_u64());
    assert!(counted.eq((1..).take(trail.len()).map(Some)), "an event is missing: {}", ended.stderr);
    assert_eq!(trail.iter().filter(|record| record["event"] == "manager_stopped").count(), 1, "{}", ended.stderr);
    let of = |event: &str| -> Vec<_> {
        let named = trail.iter().filter(|record| record["event"] == event);
        named.map(|record| (text(&record["shard"]), record["bytes"].as_u64())).collect()
    };
    let allocated = of("vram_allocated");
    assert_eq!((of("vram_wiped"), of("vram_deallocated")), (allocated.clone(), allocated));
    let wipes = trail.iter().filter(|record| record["event"] == "vram_wiped");
    assert!(wipes.into_iter().all(|record| record["proven"] == true), "{}", ended.stderr);
}

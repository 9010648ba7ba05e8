//! Files that people have: what is taken for a model, models of several files, headers of unusual size.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests may fail loudly"
)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Files, command, end, model, safetensors, worker};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 90868376\n";

#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) {
    let ended = worker(arguments);
    assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
    assert!(ended.stdout.is_empty(), "{}", ended.text());
    let sentence = ended.sentence();
    assert!(sentence.len() < 2000, "{sentence}");
    for part in parts {
        assert!(sentence.contains(part), "{part:?} in {sentence:?}");
    }
}

#[test]
fn a_pointer_is_told_wherever_a_model_is_read() {
    // covers: VAL-3
    let files = Files::new();
    let path = files.with("model.safetensors", POINTER);
    let path = path.to_str().unwrap();
    for more in
        [&[][..], &["--layout", "file"], &["--part-bytes", "4096"], &["--layout", "file", "--part-bytes", "4096"]]
    {
        refused(&[&["run", path], more].concat(), &[path, "git-lfs pointer", "git lfs pull"]);
    }
    refused(&["digest", "--layout", "tensors", path], &[path, "git-lfs pointer", "git lfs pull"]);
    let digest = worker(["digest", path]);
    assert_eq!(digest.code, Some(0), "its digest is that of any file: {}", digest.stderr);
}

#[test]
fn headers_that_the_reference_refuses_are_refused_by_every_command() {
    // covers: VAL-3
    let files = Files::new();
    for (field, reason) in [(r#","x":1e999"#, "number out of range"), (r#","x":"\ud800""#, "escape"), ("", "")] {
        let header = format!(r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]{field}}}}}"#);
        let path = files.with("model.safetensors", &safetensors(&header, &[7]));
        for arguments in [&["run", "--device", "mock"][..], &["digest", "--layout", "tensors"]] {
            let ended = worker(arguments.iter().copied().chain([path.to_str().unwrap()]));
            assert_eq!(ended.code, Some(if reason.is_empty() { 0 } else { 2 }), "{}", ended.stderr);
            assert!(ended.stderr.contains(reason), "{}", ended.stderr);
        }
    }
}

/// A file of byte tensors of four bytes each.
fn file_of(tensors: &[&str]) -> Vec<u8> {
    let entry = |(at, name): (usize, &&str)| {
        format!(r#"{}:{{"dtype":"U8","shape":[4],"data_offsets":[{},{}]}}"#, json!(name), at * 4, at * 4 + 4)
    };
    let header = format!("{{{}}}", tensors.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
    let data: Vec<u8> = tensors.iter().flat_map(|name| [1, 2, 3, name.as_bytes()[0]]).collect();
    safetensors(&header, &data)
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

/// A model of two files, whose index is the returned path.
fn two_files(files: &Files) -> String {
    files.with(FIRST, &file_of(&["a", "b"]));
    files.with(SECOND, &file_of(&["c"]));
    let map = json!({ "metadata": { "total_size": 99 }, "weight_map": { "c": SECOND, "a": FIRST, "b": FIRST } });
    index(files, &map.to_string())
}

fn index(files: &Files, text: &str) -> String {
    files.with("model.safetensors.index.json", text.as_bytes()).to_str().unwrap().to_owned()
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let ended = worker(arguments.iter().chain(&["--json"]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.json()
}

#[test]
fn the_files_of_a_model_are_one_set() {
    // covers: SEAL-8 VER-1
    let files = Files::new();
    let path = two_files(&files);
    for layout in ["tensors", "file"] {
        let found = json(&["run", "--device", "mock", "--layout", layout, &path]);
        assert_eq!((&found["shard"]["id"], found["shard"].get("digest")), (&"model".into(), None));
        assert_eq!((&found["shard"]["origin"], &found["executed"]), (&"measured".into(), &3.into()));
        for (at, file) in [FIRST, SECOND].iter().enumerate() {
            let alone = json(&["run", "--device", "mock", "--layout", layout, files.path(file).to_str().unwrap()]);
            let part = &found["parts"][at];
            assert_eq!((&part["id"], &part["file"]), (&format!("model.part-{at}").into(), &Value::from(*file)));
            assert_eq!((&part["digest"], &part["bytes"]), (&alone["shard"]["digest"], &alone["shard"]["bytes"]));
        }
        let names: Vec<_> = found["tensors"].as_array().unwrap().iter().map(|tensor| tensor["name"].clone()).collect();
        let wanted = if layout == "tensors" { vec!["a", "b", "c"] } else { vec!["(file)"; 2] };
        assert_eq!(names, wanted);
        assert_eq!(found["vram"]["used_after"], found["vram"]["used_before"]);
        if layout == "tensors" {
            // The last byte of each tensor is its name.
            assert_eq!((&found["tensors"][1]["max"], &found["tensors"][2]["max"]), (&98.into(), &99.into()));
        }
    }
    let table = worker(["run", "--device", "mock", &path]);
    for part in [FIRST, SECOND, "sha256:"] {
        assert!(table.text().contains(part), "{part} in {}", table.text());
    }

    // All are verified, in one batch, before and behind each execute.
    let arguments = ["run", "--device", "mock", "--executes", "2", path.as_str()];
    let ended = end(command(arguments).env("RUST_LOG", "vram_residency::audit=info").spawn().unwrap());
    const VERIFIED: &str = "seal_verified";
    let order: Vec<_> = ended
        .stderr
        .lines()
        .filter_map(|line| [VERIFIED, "execute_finished"].into_iter().find(|event| line.contains(*event)))
        .collect();
    assert_eq!(
        order,
        [[VERIFIED; 2], [VERIFIED; 2], ["execute_finished"; 2], [VERIFIED; 2], ["execute_finished"; 2]].concat()
    );
}

#[test]
fn the_digest_of_a_model_is_a_line_for_each_file() {
    // covers: DIG-3
    let files = Files::new();
    let path = two_files(&files);
    let whole = worker(["digest", "--layout", "tensors", &path]);
    let each = worker([
        "digest".as_ref(),
        "--layout=tensors".as_ref(),
        files.path(FIRST).as_os_str(),
        files.path(SECOND).as_os_str(),
    ]);
    assert_eq!((whole.code, whole.text()), (Some(0), each.text()));
    assert_eq!(whole.text().lines().count(), 2);
    let short = files.path("index.json");
    std::fs::copy(&path, &short).unwrap();
    assert_eq!(worker(["digest", "--layout=tensors", short.to_str().unwrap()]).text(), whole.text());
    let plain = worker(["digest", &path]);
    assert_eq!((plain.code, plain.text().lines().count()), (Some(0), 1), "a file like any other");
}

#[test]
fn a_file_that_is_missing_is_named() {
    // covers: SEAL-8
    let files = Files::new();
    let path = two_files(&files);
    for command in [&["run", "--device", "mock"][..], &["digest", "--layout", "tensors"]] {
        std::fs::remove_file(files.path(SECOND)).unwrap();
        refused(&[command, &[&path]].concat(), &[&path, "missing", SECOND]);
        std::fs::remove_file(files.path(FIRST)).unwrap();
        refused(&[command, &[&path]].concat(), &["missing", FIRST, SECOND]);
        two_files(&files);
    }
    // One that only the other's name speaks of.
    let short = index(&files, &json!({ "weight_map": { "a": FIRST, "b": FIRST } }).to_string());
    refused(&["run", &short], &["missing", "no tensor in the index", SECOND]);
    // A pointer in place of a file.
    let path = two_files(&files);
    files.with(SECOND, POINTER);
    refused(&["run", &path], &[SECOND, "git lfs pull"]);
}

#[test]
fn files_that_are_not_the_index_s_are_named() {
    // covers: SEAL-8
    let files = Files::new();
    let path = two_files(&files);
    for (first, second, parts) in [
        (&["a"][..], &["c"][..], &["tensor \"b\"", FIRST, "none of that name"][..]),
        (&["a", "b", "x\n"], &["c"], &["tensor \"x\\n\"", FIRST, "does not name"]),
        (&["a", "b"], &["c", "a"], &["tensor \"a\"", SECOND, "puts in", FIRST]),
    ] {
        files.with(FIRST, &file_of(first));
        files.with(SECOND, &file_of(second));
        refused(&["run", &path], parts);
        refused(&["digest", "--layout", "tensors", &path], parts);
    }
}

#[test]
fn an_index_that_is_none_is_refused() {
    // covers: SEAL-8 VAL-3
    let files = Files::new();
    files.with("a.safetensors", &file_of(&["a"]));
    for name in ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", "sub\\\\a", "a\\u0000"] {
        let path = index(&files, &format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#));
        refused(&["run", &path], &[&path, "no plain name"]);
    }
    for (text, reason) in [
        (r#"{"weight_map":{"a":"a.safetensors","a":"a.safetensors"}}"#, "names tensor \"a\" twice"),
        (r#"{"weight_map":{"a":"a.safetensors","\u0061":"b.safetensors"}}"#, "names tensor \"a\" twice"),
        (r#"{"weight_map":{"a":"a.safetensors"},"weight_map":{}}"#, "duplicate field `weight_map`"),
        (r#"{"metadata":{},"metadata":{},"weight_map":{"a":"a.safetensors"}}"#, "duplicate field `metadata`"),
        (r#"{"metadata":{}}"#, "missing field `weight_map`"),
        (r#"{"weight_map":{}}"#, "names no tensor"),
        (r#"{"weight_map":{"a":7}}"#, "expected a string"),
        (r#"{"weight_map":["a"]}"#, "an object with the file of each tensor"),
        (r#"{"weight_map":{"a":"a.safetensors"}} x"#, "trailing characters"),
        ("", "EOF"),
        ("<!DOCTYPE html>", "expected value"),
    ] {
        let path = index(&files, text);
        refused(&["run", &path], &[&path, reason]);
    }
    let path = index(&files, std::str::from_utf8(POINTER).unwrap());
    refused(&["run", &path], &["git lfs pull"]);
    // The honest twin: sizes that are wrong, fields that nobody knows.
    let path = index(&files, r#"{"metadata":{"total_size":1e99},"x":[],"weight_map":{"a":"a.safetensors"}}"#);
    assert_eq!(worker(["run", "--device", "mock", &path]).code, Some(0));
}

#[test]
fn what_speaks_of_one_file_is_refused_with_an_index() {
    // covers: SEAL-8
    let files = Files::new();
    let path = two_files(&files);
    let digest = format!("sha256:{}", "0".repeat(64));
    refused(&["run", &path, "--expect", &digest], &["an index names several files", "--expect-file"]);
    refused(&["run", &path, "--part-bytes", "4096"], &["its files are the parts"]);
}

#[test]
fn many_dimensions_are_shown_by_their_number() {
    // covers: VAL-3
    let files = Files::new();
    let with_shape = |dimensions: usize| {
        let shape = vec!["1"; dimensions].join(",");
        let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#);
        files.with("model.safetensors", &safetensors(&header, &[7]))
    };
    let began = Instant::now();
    let path = with_shape(320_000);
    let path = path.to_str().unwrap();
    let table = worker(["run", "--device", "mock", path]);
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    assert!(table.text().contains("(320000 dimensions)") && table.text().len() < 10_000, "{}", table.text());
    let found = worker(["run", "--device", "mock", "--json", path]);
    assert!(found.stdout.len() < 10_000);
    let tensor = &found.json()["tensors"][0];
    assert_eq!((&tensor["shape"], &tensor["dimensions"]), (&Value::Null, &320_000.into()));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    with_shape(8);
    assert!(worker(["run", "--device", "mock", path]).text().contains("1×1×1×1×1×1×1×1"));
    with_shape(64);
    let found = json(&["run", "--device", "mock", path]);
    assert_eq!(found["tensors"][0]["shape"].as_array().unwrap().len(), 64);
    assert!(found["tensors"][0].get("dimensions").is_none());
}

/// A header of so many bytes, most of them tensors of nothing.
fn large_header(bytes: usize) -> Vec<u8> {
    let mut header = String::from("{");
    while header.len() < bytes {
        let at = header.len();
        header.push_str(&format!(r#""t{at}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},"#));
    }
    header.push_str(r#""last":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#);
    safetensors(&header, &[7])
}

#[test]
fn a_header_that_memory_does_not_suffice_for_is_an_error() {
    // covers: VAL-3
    let files = Files::new();
    let limited = |path: &Path| {
        let mut shell = std::process::Command::new("sh");
        let script = r#"ulimit -v 1000000 && exec "$0" digest --layout tensors "$1""#;
        shell.args(["-c", script, env!("CARGO_BIN_EXE_vram-worker")]).arg(path);
        shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        end(shell.spawn().unwrap())
    };
    let large = files.with("large.safetensors", &large_header(99_000_000));
    let ended = limited(&large);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.sentence().contains("bytes of memory, more than there are"), "{}", ended.stderr);
    assert_eq!(limited(&files.with("small.safetensors", &model())).code, Some(0));
}

#[test]
fn a_signal_is_answered_while_a_large_header_or_an_empty_pipe_is_read() {
    // covers: SCR-1
    let files = Files::new();
    let path = files.with("large.safetensors", &large_header(60_000_000));
    let small = files.with("tiny.safetensors", &model());
    let pipe = files.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (path, small, pipe) = (path.to_str().unwrap(), small.to_str().unwrap(), pipe.to_str().unwrap());
    for model in [&[path][..], &[small, "--expect-file", pipe]] {
        let child = command([&["run", "--device", "mock", "--json"], model].concat()).spawn().unwrap();
        // Until it listens.
        let caught = |pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            u64::from_str_radix(&mask, 16).unwrap() & (1 << (15 - 1)) != 0
        };
        while !caught(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ended = end(child);
        let took = began.elapsed();
        assert_eq!(ended.code, Some(143), "{}", ended.stderr);
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(ended.json()["error"]["code"], "INTERRUPTED");
    }
}

//! Files that people have: what is taken for a model, models of several files, headers of unusual size.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Files, LOAD, PARAMS, WORKER, end, model, safetensors};

const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 90868376\n";

#[test]
fn a_pointer_is_told_wherever_a_model_is_read() {
    // covers: VAL-3
    let files = Files::new();
    files.with("pointer", POINTER);
    for line in [
        "run pointer",
        "run pointer --layout file",
        "run pointer --part-bytes 4096",
        "run pointer --layout file --part-bytes 4096",
        "digest --layout tensors pointer",
    ] {
        files.refused(line, 2, LOAD, &["pointer", "git-lfs pointer", "git lfs pull"]);
    }
    files.call("digest pointer").assert_ok();
}

/// A file of byte tensors of four bytes each, the last of which is the name.
fn file_of(tensors: &[&str]) -> Vec<u8> {
    let entry = |(at, name): (usize, &&str)| {
        format!(r#"{}:{{"dtype":"U8","shape":[4],"data_offsets":[{},{}]}}"#, json!(name), at * 4, at * 4 + 4)
    };
    let header = format!("{{{}}}", tensors.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
    safetensors(&header, &tensors.iter().flat_map(|name| [1, 2, 3, name.as_bytes()[0]]).collect::<Vec<u8>>())
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const RUN: &str = "run --device mock model.safetensors.index.json";
const DIGEST: &str = "digest --layout tensors model.safetensors.index.json";

/// A model of two files.
fn two_files(files: &Files) {
    files.with(FIRST, &file_of(&["a", "b"]));
    files.with(SECOND, &file_of(&["c"]));
    let map = json!({ "metadata": { "total_size": 99 }, "weight_map": { "c": SECOND, "a": FIRST, "b": FIRST } });
    files.with(INDEX, map.to_string().as_bytes());
}

#[test]
fn the_files_of_a_model_are_one_set() {
    // covers: SEAL-8 VER-1
    let files = Files::new();
    two_files(&files);
    for layout in ["tensors", "file"] {
        let found = files.json(&format!("{RUN} --layout {layout}"));
        assert_eq!((&found["shard"]["id"], found["shard"].get("digest")), (&"model".into(), None));
        assert_eq!((&found["shard"]["origin"], &found["executed"]), (&"measured".into(), &3.into()));
        for (at, file) in [FIRST, SECOND].iter().enumerate() {
            let alone = files.json(&format!("run --device mock --layout {layout} {file}"));
            let part = &found["parts"][at];
            assert_eq!((&part["id"], &part["file"]), (&format!("model.part-{at}").into(), &Value::from(*file)));
            assert_eq!((&part["digest"], &part["bytes"]), (&alone["shard"]["digest"], &alone["shard"]["bytes"]));
        }
        let names: Vec<_> = found["tensors"].as_array().unwrap().iter().map(|tensor| tensor["name"].clone()).collect();
        assert_eq!(names, if layout == "tensors" { vec!["a", "b", "c"] } else { vec!["(file)"; 2] });
        if layout == "tensors" {
            assert_eq!((&found["tensors"][1]["max"], &found["tensors"][2]["max"]), (&98.into(), &99.into()));
        }
    }
    let table = files.call(RUN);
    assert!([FIRST, SECOND, "sha256:"].iter().all(|part| table.text().contains(part)), "{}", table.text());

    // All are verified, in one batch, before and behind each execute.
    let ended = files.logged(&format!("{RUN} --executes 2"), "vram_residency::audit=info");
    let events = ["seal_verified", "execute_finished"];
    let order = ended.stderr.lines().filter_map(|line| events.into_iter().find(|event| line.contains(event)));
    let [checked, done] = events.map(|event| [event; 2]);
    assert_eq!(order.collect::<Vec<_>>(), [checked, checked, done, checked, done].concat());
}

#[test]
fn the_digest_of_a_model_is_a_line_for_each_file() {
    // covers: DIG-3
    let files = Files::new();
    two_files(&files);
    let whole = files.call(DIGEST).assert_ok();
    assert_eq!(whole.text(), files.call(&format!("digest --layout tensors {FIRST} {SECOND}")).text());
    assert_eq!(whole.text().lines().count(), 2);
    std::fs::copy(files.path(INDEX), files.path("index.json")).unwrap();
    assert_eq!(files.call("digest --layout tensors index.json").text(), whole.text());
    let plain = files.call(&format!("digest {INDEX}")).assert_ok();
    assert_eq!(plain.text().lines().count(), 1, "a file like any other");
}

#[test]
fn an_index_and_its_files_agree_or_are_refused_by_name() {
    // covers: SEAL-8
    let files = Files::new();
    for line in [RUN, DIGEST] {
        let refused = |parts: &[&str]| drop(files.refused(line, 2, LOAD, parts));
        two_files(&files);
        std::fs::remove_file(files.path(SECOND)).unwrap();
        refused(&[INDEX, "missing", SECOND]);
        std::fs::remove_file(files.path(FIRST)).unwrap();
        refused(&["missing", FIRST, SECOND]);
        // Tensors that are not the index's.
        for (first, second, parts) in [
            (&["a"][..], &["c"][..], &["tensor \"b\"", FIRST, "none of that name"][..]),
            (&["a", "b", "x\n"], &["c"], &["tensor \"x\\n\"", FIRST, "does not name"]),
            (&["a", "b"], &["c", "a"], &["tensor \"a\"", SECOND, "puts in", FIRST]),
        ] {
            files.with(FIRST, &file_of(first));
            files.with(SECOND, &file_of(second));
            refused(parts);
        }
        // A file that only the other's name speaks of, and a pointer in place of a file.
        two_files(&files);
        files.with(SECOND, POINTER);
        refused(&[SECOND, "git lfs pull"]);
        files.with(INDEX, json!({ "weight_map": { "a": FIRST, "b": FIRST } }).to_string().as_bytes());
        std::fs::remove_file(files.path(SECOND)).unwrap();
        refused(&["missing", "no tensor in the index", SECOND]);
    }
    // What speaks of one file.
    two_files(&files);
    let expected = format!("{RUN} --expect sha256:{}", "0".repeat(64));
    files.refused(&expected, 2, PARAMS, &["an index names several files", "--expect-file"]);
    files.refused(&format!("{RUN} --part-bytes 4096"), 2, PARAMS, &["its files are the parts"]);
}

#[test]
fn an_index_that_is_none_is_refused() {
    // covers: SEAL-8 VAL-3
    let files = Files::new();
    files.with("a.safetensors", &file_of(&["a"]));
    for name in ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", "sub\\\\a", "a\\u0000"] {
        files.with(INDEX, format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#).as_bytes());
        files.refused(RUN, 2, LOAD, &[INDEX, "no plain name"]);
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
        (std::str::from_utf8(POINTER).unwrap(), "git lfs pull"),
    ] {
        files.with(INDEX, text.as_bytes());
        files.refused(RUN, 2, LOAD, &[INDEX, reason]);
    }
    // The honest twin: sizes that are wrong, fields that nobody knows.
    files.with(INDEX, br#"{"metadata":{"total_size":1e99},"x":[],"weight_map":{"a":"a.safetensors"}}"#);
    files.json(RUN);
}

#[test]
fn many_dimensions_are_shown_by_their_number() {
    // covers: VAL-3
    let files = Files::new();
    let with_shape = |dimensions: usize| {
        let shape = vec!["1"; dimensions].join(",");
        let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#);
        files.with("m", &safetensors(&header, &[7]));
        let tensor = files.json("run --device mock m")["tensors"][0].clone();
        (files.call("run --device mock m").text().to_owned(), tensor)
    };
    let began = Instant::now();
    let (table, tensor) = with_shape(320_000);
    assert!(table.contains("(320000 dimensions)") && table.len() < 10_000, "{table}");
    assert_eq!((&tensor["shape"], &tensor["dimensions"]), (&Value::Null, &320_000.into()));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(with_shape(8).0.contains("1×1×1×1×1×1×1×1"));
    let (_, tensor) = with_shape(64);
    assert!(tensor["shape"].as_array().unwrap().len() == 64 && tensor.get("dimensions").is_none());
}

/// A header of so many bytes, most of them tensors of nothing.
pub(crate) fn large_header(bytes: usize) -> Vec<u8> {
    let mut header = String::from("{");
    while header.len() < bytes {
        let at = header.len();
        header.push_str(&format!(r#""t{at}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},"#));
    }
    header.push_str(r#""last":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#);
    safetensors(&header, &[7])
}

#[test]
fn too_little_host_memory_is_an_error_and_no_abort() {
    // covers: VAL-3 ERR-1 ERR-2
    let files = Files::new();
    let limited = |kib: u32, line: &str| {
        let script = format!("ulimit -v {kib} && exec {WORKER} {line}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).current_dir(files.path(""));
        end(shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap())
    };
    files.with("header", &large_header(99_000_000));
    let header = limited(1_000_000, "digest --layout tensors header");
    header.assert_refused(2, &["bytes of memory, more than there are"]);
    files.with("small", &model());
    limited(1_000_000, "digest --layout tensors small").assert_ok();
    files.with("large.bin", &vec![7; 24 << 20]);
    // Enough to start, too little for the two buffers of 8 MiB.
    for kib in [16_000, 20_000, 24_000] {
        for line in ["digest large.bin", "run --layout file --device mock --part-bytes 1048576 large.bin"] {
            let ended = limited(kib, line);
            assert!(matches!(ended.code, Some(0..=4)), "{kib}: {:?} {}", ended.code, ended.stderr);
            let memory = ended.stderr.contains("raise the memory limit of this process");
            assert_eq!(ended.code != Some(0), memory, "{kib}: {}", ended.stderr);
        }
    }
}

#[test]
fn the_mock_is_made_large_enough_for_the_image() {
    // covers: RES-6
    let files = Files::new();
    let tensor = |at: usize| format!(r#""t{at}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#, at + 1);
    let header = (0..9000).map(tensor).collect::<Vec<_>>().join(",");
    files.with("many", &safetensors(&format!("{{{header}}}"), &[7; 9000]));
    let json = files.json("run many --device mock --block-size 65536 --executes 1");
    assert!(json["shard"]["bytes"].as_u64().unwrap() > 500 << 20);
}

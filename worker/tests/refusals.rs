//! `vram-worker run`, when something is wrong: one clear sentence, the documented exit code, and nothing left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod common;

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{Files, model, safetensors, worker};

/// Runs it once for people and once for programs; both must refuse alike, in a sentence that contains all `parts`.
#[track_caller]
fn refused(arguments: &[&str], code: i32, word: &str, parts: &[&str]) -> serde_json::Value {
    let told = worker(arguments);
    assert_eq!(told.code, Some(code), "{}", told.stderr);
    assert!(told.stdout.is_empty(), "{}", told.text());
    let sentence = told.sentence();
    for part in parts {
        assert!(sentence.contains(part), "{part:?} in {sentence:?}");
    }
    for foreign in ["VramError", "Some(", "{ ", "panicked"] {
        assert!(!told.stderr.contains(foreign), "{foreign:?} in {}", told.stderr);
    }
    let data = worker(arguments.iter().chain(&["--json"]));
    assert_eq!(data.code, Some(code), "{}", data.stderr);
    let json = data.json();
    assert_eq!((&json["error"]["code"], &json["executed"]), (&word.into(), &0.into()), "{json}");
    assert!(!json["error"]["category"].as_str().unwrap().is_empty());
    for part in parts {
        assert!(json["error"]["message"].as_str().unwrap().contains(part), "{part:?} in {json}");
    }
    if let Some(vram) = json.get("vram") {
        assert_eq!(vram["used_after"], vram["used_before"], "{json}");
    }
    json
}

#[track_caller]
fn bad_model(path: &Path, parts: &[&str]) {
    let path = path.to_str().unwrap();
    refused(&["run", path], 2, "MODEL_LOAD_FAILED", &[parts, &[path]].concat());
}

#[test]
fn what_cannot_be_read_is_named() {
    // covers: SEAL-6 ERR-2
    let files = Files::new();
    bad_model(&files.path("absent.safetensors"), &["there is no such file", "check the path"]);
    bad_model(files.0.path(), &["directory"]);
    let fifo = files.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    bad_model(&fifo, &["no regular file"]);
}

#[test]
fn malformed_models_are_refused_with_what_is_wrong() {
    // covers: VAL-3
    let files = Files::new();
    let tensors = |second: &str| {
        let header = format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},"b":{second}}}"#);
        safetensors(&header, &[0; 8])
    };
    let whole = model();
    let (cut, header_cut) = (&whole[..whole.len() - 1], &whole[..20]);
    for (name, bytes, parts) in [
        ("empty", vec![], &["0 bytes long", "too short"][..]),
        ("short", vec![1; 7], &["too short"]),
        ("cut", cut.to_vec(), &["tensor \"a\"", "download is complete"]),
        ("header-cut", header_cut.to_vec(), &["header"]),
        ("oversize", [&u64::MAX.to_le_bytes()[..], &[0; 100]].concat(), &["claims a header"]),
        ("text", b"This is plain text, not a model at all.".to_vec(), &["claims a header"]),
        ("json", safetensors("[1, 2]", &[]), &["header"]),
        (
            "overlap",
            tensors(r#"{"dtype":"U8","shape":[6],"data_offsets":[2,8]}"#),
            &["\"b\"", "inside the tensor before it"],
        ),
        ("gap", tensors(r#"{"dtype":"U8","shape":[2],"data_offsets":[6,8]}"#), &["\"b\"", "gaps"]),
        (
            "overflow",
            tensors(r#"{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[4,8]}"#),
            &["\"b\"", "larger than 2^64"],
        ),
        ("shape", tensors(r#"{"dtype":"F32","shape":[2],"data_offsets":[4,8]}"#), &["\"b\"", "shape"]),
        ("surplus", tensors(r#"{"dtype":"U8","shape":[2],"data_offsets":[4,6]}"#), &["2 bytes follow"]),
        (
            "twice",
            tensors(
                r#"{"dtype":"U8","shape":[4],"data_offsets":[4,8]},"a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}"#,
            ),
            &["twice"],
        ),
        ("type", tensors(r#"{"dtype":"F33","shape":[1],"data_offsets":[4,8]}"#), &["\"b\""]),
    ] {
        bad_model(&files.with(name, &bytes), parts);
    }
}

#[test]
fn there_is_nothing_to_seal_in_nothing() {
    // covers: VAL-2
    let files = Files::new();
    let empty = files.with("empty", &[]);
    let path = empty.to_str().unwrap();
    refused(&["run", path, "--layout", "file"], 2, "INVALID_PARAMS", &["shard length", "0 bytes", path]);
    let bare = files.with("bare.safetensors", &safetensors("{}", &[]));
    refused(&["run", bare.to_str().unwrap()], 2, "INVALID_PARAMS", &["shard length", "0 bytes"]);
}

#[test]
fn block_sizes_are_judged() {
    // covers: VAL-2
    for size in ["3000", "512", "131072", "0"] {
        let parts = ["block size", size, "power of two from 1024 to 65536"];
        refused(&["run", "--block-size", size], 2, "INVALID_PARAMS", &parts);
    }
}

#[test]
fn digests_are_judged() {
    // covers: DIG-5
    let short = format!("sha256:{}", "0".repeat(63));
    let upper = format!("sha256:{}A", "0".repeat(63));
    for (text, part) in [("md5:00", "character 1"), ("", "ends"), (&short, "character 70"), (&upper, "character 71")] {
        refused(&["run", "--expect", text], 2, "INVALID_PARAMS", &["digest", part]);
    }
}

#[test]
fn another_digest_than_expected_is_status_3_and_tells_both() {
    // covers: SEAL-1
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let digest = worker(["digest", "--layout", "tensors", path.to_str().unwrap()]);
    let actual = digest.text().split_once(' ').unwrap().0;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let arguments = ["run", path.to_str().unwrap(), "--expect", &wrong];
    let json = refused(&arguments, 3, "MODEL_LOAD_FAILED", &["not the expected model", actual, &wrong]);
    assert_eq!(json["vram"]["used_after"], 0, "it was wiped and given back");
    assert!(json.get("shard").is_none());
    refused(&["run", "--expect", &wrong], 3, "MODEL_LOAD_FAILED", &["sample", &wrong]);
}

#[test]
fn too_little_memory_is_status_4_and_tells_how_much() {
    // covers: RES-4 RES-6
    let most = ((1u64 << 30) - (1 << 20)).to_string();
    let parts = ["no room", "bytes are needed", "1048576 are available", "lower the headroom"];
    let json = refused(&["run", "--device", "mock", "--headroom", &most], 4, "VRAM_OOM", &parts);
    assert_eq!(json["error"]["category"], "capacity");
    refused(
        &["run", "--device", "mock", "--headroom", "1073741824"],
        2,
        "CONFIG_ERROR",
        &["headroom", "leaves nothing"],
    );
}

#[test]
fn loosely_kept_secrets_are_refused_without_naming_their_place() {
    // covers: KEY-1 ERR-2
    let files = Files::new();
    let secret = |name: &str, bytes: &[u8], mode: u32| {
        let path = files.with(name, bytes);
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    for (path, part) in [
        (secret("loose-secret", &[7; 32], 0o644), "chmod 600"),
        (secret("short-secret", &[7; 31], 0o600), "31 bytes long"),
        (files.path("absent-secret"), "cannot be read"),
        (files.0.path().to_owned(), "not a regular file"),
    ] {
        let path = path.to_str().unwrap();
        let json = refused(&["run", "--secret-file", path], 2, "CONFIG_ERROR", &["worker secret", part]);
        assert!(!json.to_string().contains("secret-") && !json.to_string().contains(path), "{json}");
        assert!(!worker(["run", "--secret-file", path]).stderr.contains(path));
    }
}

#[test]
fn a_device_that_is_not_there_is_status_4_and_tells_what_to_do() {
    // covers: ERR-2
    // A machine with a CUDA device would take it for `auto`; no machine has this many.
    refused(&["run", "--device", "cuda:4000"], 4, "DEVICE_UNAVAILABLE", &["CUDA device 4000", "--device mock"]);
    if Path::new("/dev/nvidiactl").exists() {
        println!("SKIPPED: a_device_that_is_not_there (auto, cuda): this machine has an NVIDIA driver");
        return;
    }
    refused(&["run", "--device", "auto"], 4, "DEVICE_UNAVAILABLE", &["CUDA device", "--device mock"]);
    refused(&["run", "--device", "cuda"], 4, "DEVICE_UNAVAILABLE", &["CUDA device 0", "--device mock"]);
    refused(&["run", "--device", "cuda:7"], 4, "DEVICE_UNAVAILABLE", &["CUDA device 7", "--device mock"]);
}

#[test]
fn usage_errors_are_status_2() {
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["run", "--device", "gpu"],
        &["run", "--executes", "0"],
        &["run", "--executes", "many"],
        &["run", "--headroom", "-1"],
        &["run", "--layout", "flat"],
        &["run", "a", "b"],
        &["serve"],
        &["digest"],
        &[],
    ] {
        let told = worker(arguments);
        assert_eq!(told.code, Some(2), "{arguments:?}: {}", told.stderr);
        assert!(told.stdout.is_empty() && !told.stderr.is_empty(), "{arguments:?}");
    }
    let json = worker(["run", "--no-such-flag", "--json"]);
    assert_eq!(json.code, Some(2));
    assert_eq!(json.json()["error"]["code"], "INVALID_PARAMS");
    assert!(json.json()["error"]["message"].as_str().unwrap().contains("--no-such-flag"));
    assert!(json.stderr.is_empty(), "{}", json.stderr);
}

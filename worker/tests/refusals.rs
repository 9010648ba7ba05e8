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
        ("text", b"This is plain text, not a model at all.".to_vec(), &["plain text", "download the model again"]),
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
    let digest = worker(["digest", path.to_str().unwrap()]);
    let actual = digest.text().split_once(' ').unwrap().0;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let arguments = ["run", path.to_str().unwrap(), "--expect", &wrong];
    let json = refused(&arguments, 3, "DIGEST_MISMATCH", &["not the expected model", actual, &wrong]);
    assert_eq!(json["vram"]["used_after"], 0, "it was wiped and given back");
    assert!(json.get("shard").is_none());
    refused(&["run", "--expect", &wrong], 3, "DIGEST_MISMATCH", &["sample", &wrong]);
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
    for kind in ["GPU", "MIG"] {
        let uuid = format!("{kind}-09090909-0909-0909-0909-090909090909");
        let parts = ["the CUDA device GPU-09090909-0909-0909-0909-090909090909", "--device mock"];
        refused(&["run", "--device", &uuid], 4, "DEVICE_UNAVAILABLE", &parts);
        refused(
            &["run", "--device", &uuid[..12]],
            2,
            "INVALID_PARAMS",
            &["--device", "in whole, as nvidia-smi -L prints it"],
        );
    }
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

#[test]
fn a_wrong_number_of_executes_says_what_to_give() {
    // covers: ERR-2
    for wrong in ["0", "-1", "x", "18446744073709551616"] {
        let option = format!("--executes={wrong}");
        refused(&["run", &option], 2, "INVALID_PARAMS", &["--executes", "give a whole number from 1"]);
    }
}

#[test]
fn an_argument_forges_no_line() {
    // covers: VAL-1 AUD-6
    for arguments in [
        &["run", "--device", "x\nerror: forged\u{1b}[2J"][..],
        &["run", "--device=x\nerror: forged\u{1b}[2J"],
        &["run", "--layout", "x\nerror: forged\u{1b}[2J"],
        &["run", "--x\nerror: forged\u{1b}[2J"],
        &["x\nerror: forged\u{1b}[2J"],
    ] {
        let told = worker(arguments);
        assert_eq!(told.code, Some(2));
        assert!(told.sentence().contains("x\\nerror: forged\\u{1b}[2J"), "{}", told.stderr);
    }
    let long = format!("--device={}", "y".repeat(100_000));
    assert!(worker(["run", &long]).stderr.len() < 2000);
}

#[test]
fn a_command_without_json_does_not_answer_in_it() {
    // covers: ERR-2
    let told = worker(["digest", "--json", "/dev/null"]);
    assert_eq!((told.code, told.stdout.len()), (Some(2), 0));
    assert!(told.sentence().contains("'--json'"), "{}", told.stderr);
}

#[test]
fn injected_libraries_are_refused_before_any_driver_is_loaded() {
    // covers: ERR-2
    let run = |value: &str| {
        let mut command = common::command(["run", "--device", "cuda"]);
        common::end(command.env("CUDA_INJECTION64_PATH", value).spawn().unwrap())
    };
    // On a machine without a driver the other answer would be that there is none.
    let told = run("/nowhere/inject.so");
    assert_eq!(told.code, Some(4), "{}", told.stderr);
    assert!(told.sentence().contains("(clean_environment): CUDA_INJECTION64_PATH is set"), "{}", told.stderr);
    // The twin: without it the driver is looked for.
    assert!(!run("").stderr.contains("clean_environment"));
}

/// Where writing fails: there is never room.
fn full() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_log_that_takes_nothing_changes_no_outcome() {
    // covers: SCR-3 ERR-1 ERR-2
    let files = Files::new();
    let path = files.with("model.safetensors", &model());
    let path = path.to_str().unwrap();
    let wrong = format!("sha256:{}", "00".repeat(32));
    let arguments: [(&[&str], i32); 3] = [
        (&["run", path, "--device", "mock", "--json"], 0),
        (&["run", path, "--device", "mock", "--json", "--expect", &wrong], 3),
        (&["run", "/none", "--device", "mock", "--json"], 2),
    ];
    for (arguments, code) in arguments {
        for log in ["", "vram_residency=trace"] {
            let mut full_log = common::command(arguments);
            let ended = common::end(full_log.env("RUST_LOG", log).stderr(full()).spawn().unwrap());
            assert_eq!(ended.code, Some(code), "{arguments:?} {log:?}");
            let json = ended.json();
            assert_eq!(json.get("error").is_some(), code != 0, "{json}");
            if let Some(vram) = json.get("vram") {
                assert_eq!(vram["used_after"], vram["used_before"], "{json}");
            }
            // A reader that goes away in the middle.
            let mut broken = common::command(arguments);
            let mut child = broken.env("RUST_LOG", log).spawn().unwrap();
            drop(child.stderr.take());
            assert_eq!(common::end(child).code, Some(code), "{arguments:?} {log:?}");
        }
    }
}

#[test]
fn a_failure_that_standard_output_does_not_take_is_told_on_the_other() {
    // covers: ERR-2
    for arguments in [&["run", "/none", "--json"][..], &["run", "--frob", "--json"]] {
        let ended = common::end(common::command(arguments).stdout(full()).spawn().unwrap());
        assert_eq!(ended.code, Some(2));
        assert!(!ended.sentence().is_empty());
    }
    let help = common::end(common::command(["--help"]).stdout(full()).spawn().unwrap());
    assert_eq!(help.code, Some(1));
    assert!(help.sentence().contains("standard output"), "{}", help.stderr);
    // Digests that nobody takes are not computed.
    let none = common::end(common::command(["digest", "/dev/null", "/none", "/none"]).stdout(full()).spawn().unwrap());
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    let files = Files::new();
    let one = files.with("one", b"1");
    let many = ["digest".as_ref(), one.as_os_str(), one.as_os_str(), one.as_os_str()];
    let ended = common::end(common::command(many).stdout(full()).spawn().unwrap());
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
}

#[test]
fn critical_events_are_seen_whatever_other_targets_are_asked_for() {
    // covers: AUD-1
    let files = Files::new();
    let path = files.with("model.safetensors", &model());
    let wrong = format!("sha256:{}", "00".repeat(32));
    let arguments = ["run", path.to_str().unwrap(), "--device", "mock", "--expect", &wrong];
    for filter in ["", "hyper=debug", "warn", "off", "error,vram_residency=off", "vram_residency::audit=off"] {
        let ended = common::end(common::command(arguments).env("RUST_LOG", filter).spawn().unwrap());
        assert_eq!(ended.code, Some(3));
        assert!(ended.stderr.contains("seal_verification_failed"), "{filter:?}: {}", ended.stderr);
        assert!(ended.sentence().contains("`vram-worker digest` prints it"), "{}", ended.stderr);
    }
    let ended = common::end(common::command(arguments).env("RUST_LOG", "===x\nforged").spawn().unwrap());
    assert_eq!(ended.code, Some(2));
    assert!(ended.sentence().contains("RUST_LOG is no filter") && !ended.stderr.contains("forged"), "{}", ended.stderr);
}

#[test]
fn numbers_that_are_none_say_what_to_give() {
    // covers: ERR-2
    for (option, advice) in [
        ("--part-bytes=-1", "give a whole number of bytes"),
        ("--part-bytes=4k", "give a whole number of bytes"),
        ("--headroom=18446744073709551616", "give a whole number of bytes"),
        ("--block-size=4294967296", "give a power of two from 1024 to 65536"),
        ("--block-size=-1", "give a power of two from 1024 to 65536"),
    ] {
        refused(&["run", option], 2, "INVALID_PARAMS", &[advice]);
        let (name, value) = option.split_once('=').unwrap();
        refused(&["run", name, value], 2, "INVALID_PARAMS", &[advice]);
    }
}

#[test]
fn the_mock_is_made_large_enough_for_the_image() {
    // covers: RES-6
    let files = Files::new();
    let tensor = |at: usize| format!(r#""t{at}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#, at + 1);
    let header: Vec<String> = (0..9000).map(tensor).collect();
    let path = files.with("many.safetensors", &safetensors(&format!("{{{}}}", header.join(",")), &[7; 9000]));
    let ended = worker([
        "run",
        path.to_str().unwrap(),
        "--device",
        "mock",
        "--block-size",
        "65536",
        "--executes",
        "1",
        "--json",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.json()["shard"]["bytes"].as_u64().unwrap() > 500 << 20);
}

#[test]
fn what_is_no_text_is_shown_escaped() {
    // covers: VAL-1 AUD-6
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let odd = OsStr::from_bytes(b"/no\xff\x1b[2J\xc2\x9b31m\xe2\x80\xae\x9b");
    let words =
        |arguments: &[&str]| arguments.iter().map(OsStr::new).chain([odd]).map(OsStr::to_owned).collect::<Vec<_>>();
    for (arguments, code) in [
        (words(&["run"]), 2),
        (words(&["digest"]), 2),
        (words(&["run", "--device"]), 2),
        (words(&["run", "--layout"]), 2),
        (words(&["run", "--expect"]), 2),
        (words(&["run", "--json"]), 2),
        (words(&["run", "--json", "--device"]), 2),
        (words(&["run", "a"]), 2),
        (words(&[]), 2),
    ] {
        let told = worker(&arguments);
        assert_eq!(told.code, Some(code), "{arguments:?}: {}", told.stderr);
        let said = format!("{}{}", told.text(), told.stderr);
        let raw =
            |character: char| character.is_control() && character != '\n' || "\u{202e}\u{fffd}".contains(character);
        assert!(!said.contains(raw), "{arguments:?}: {said:?}");
        assert!(said.contains("xff") || arguments[1] == "--expect", "{said}");
    }
}

#[test]
fn too_little_host_memory_is_an_error_and_no_abort() {
    // covers: ERR-1 ERR-2
    let files = Files::new();
    let path = files.with("large.bin", &vec![7; 24 << 20]);
    // KiB of address space: enough to start, too little for the two buffers of 8 MiB.
    for limit in [16_000, 20_000, 24_000] {
        for arguments in [&["digest"][..], &["run", "--layout", "file", "--device", "mock", "--part-bytes", "1048576"]]
        {
            let script = format!("ulimit -v {limit} && exec \"$0\" \"$@\"");
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &script, env!("CARGO_BIN_EXE_vram-worker")]).args(arguments).arg(&path);
            let ended = command.output().unwrap();
            let told = String::from_utf8(ended.stderr).unwrap();
            assert!(matches!(ended.status.code(), Some(0..=4)), "{limit}: {:?} {told}", ended.status);
            let memory = told.contains("raise the memory limit of this process");
            assert_eq!(ended.status.success(), !memory, "{limit}: {told}");
        }
    }
}

//! When something is wrong: one clear sentence, the documented exit code, and nothing left behind.

use std::path::Path;
use std::process::Command;

use crate::common::{Files, LOAD, PARAMS, model, safetensors};

#[test]
fn a_model_that_cannot_be_read_is_told_by_name_and_flaw() {
    // covers: SEAL-6 VAL-3 ERR-2
    let files = Files::tiny();
    let whole = model();
    let second = |second: &str| {
        safetensors(&format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},"b":{second}}}"#), &[0; 8])
    };
    let byte = |field: &str| {
        safetensors(&format!(r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]{field}}}}}"#), &[7])
    };
    for (bytes, parts) in [
        (vec![], &["0 bytes long", "too short"][..]),
        (vec![1; 7], &["too short"]),
        (whole[..whole.len() - 1].to_vec(), &["tensor \"a\"", "download is complete"]),
        (whole[..20].to_vec(), &["header"]),
        ([&u64::MAX.to_le_bytes()[..], &[0; 100]].concat(), &["claims a header"]),
        (b"This is plain text, not a model at all.".to_vec(), &["plain text", "download the model again"]),
        (safetensors("[1, 2]", &[]), &["header"]),
        (second(r#"{"dtype":"U8","shape":[6],"data_offsets":[2,8]}"#), &["\"b\"", "inside the tensor before it"]),
        (second(r#"{"dtype":"U8","shape":[2],"data_offsets":[6,8]}"#), &["\"b\"", "gaps"]),
        (
            second(r#"{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[4,8]}"#),
            &["\"b\"", "larger than 2^64"],
        ),
        (second(r#"{"dtype":"F32","shape":[2],"data_offsets":[4,8]}"#), &["\"b\"", "shape"]),
        (second(r#"{"dtype":"U8","shape":[2],"data_offsets":[4,6]}"#), &["2 bytes follow"]),
        (
            second(
                r#"{"dtype":"U8","shape":[4],"data_offsets":[4,8]},"a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}"#,
            ),
            &["twice"],
        ),
        (second(r#"{"dtype":"F33","shape":[1],"data_offsets":[4,8]}"#), &["\"b\""]),
        (byte(r#","x":1e999"#), &["number out of range"]),
        (byte(r#","x":"\ud800""#), &["escape"]),
    ] {
        files.with("flawed", &bytes);
        let parts = [parts, &["flawed"]].concat();
        files.refused("run flawed", 2, LOAD, &parts);
        files.refused("digest --layout tensors flawed", 2, LOAD, &parts);
    }
    // The twin.
    files.with("sound", &byte(""));
    files.json("run sound");
    assert!(Command::new("mkfifo").arg(files.path("fifo")).status().unwrap().success());
    files.refused("run fifo", 2, LOAD, &["fifo", "no regular file"]);
    files.refused("run .", 2, LOAD, &["directory"]);
    files.refused("run absent", 2, LOAD, &["absent", "there is no such file", "check the path"]);
    files.refused("run tiny.safetensors/inside", 2, LOAD, &["tiny.safetensors/inside"]);
    // There is nothing to seal in nothing.
    files.with("empty", &[]);
    files.with("bare", &safetensors("{}", &[]));
    files.refused("run --layout file empty", 2, PARAMS, &["shard length", "0 bytes", "empty"]);
    files.refused("run bare", 2, PARAMS, &["shard length", "0 bytes"]);
}

#[test]
fn a_bad_value_says_what_to_give() {
    // covers: VAL-2 ERR-2
    let files = Files::tiny();
    let (block, number, executes) =
        ("power of two from 1024 to 65536", "give a whole number of bytes", "give a whole number from 1");
    let salt = format!("--salt {}", "00".repeat(33));
    for (options, parts) in [
        ("run --block-size 512", ["block size", block]),
        ("run --block-size 0", ["block size", block]),
        ("run --block-size 131072", ["block size", block]),
        ("run --block-size 4294967296", ["--block-size", block]),
        ("run --block-size -1", ["--block-size", block]),
        ("run --part-bytes=-1", ["--part-bytes", number]),
        ("run --part-bytes 4k", ["--part-bytes", number]),
        ("run --part-bytes ", ["--part-bytes", number]),
        ("run --headroom=18446744073709551616", ["--headroom", number]),
        ("run --headroom -1", ["--headroom", number]),
        ("run --executes 0", ["--executes", executes]),
        ("run --executes=-1", ["--executes", executes]),
        ("run --executes x", ["--executes", executes]),
        ("run --executes 18446744073709551616", ["--executes", executes]),
        ("run --layout flat", ["--layout", "'flat'"]),
        ("run --device gpu", ["--device", "where N is the ordinal"]),
        ("run --device GPU-09090909", ["--device", "in whole, as nvidia-smi -L prints it"]),
        ("run --device MIG-09090909", ["--device", "in whole, as nvidia-smi -L prints it"]),
        ("run --no-such-flag", ["--no-such-flag", "unexpected"]),
        ("run a b", ["'b'", "unexpected"]),
        ("run --secret-file-mode mounted", ["required arguments", "not provided"]),
        ("digest --block-size 3000 tiny.safetensors", ["block size", block]),
        ("digest --salt xyz tiny.safetensors", ["salt", "hexadecimal"]),
        ("digest --salt 0 tiny.safetensors", ["salt", "hexadecimal"]),
        (&format!("digest {salt} tiny.safetensors"), ["salt", "at most 32"]),
        ("digest --json tiny.safetensors", ["'--json'", "unexpected"]),
        ("digest --expect x tiny.safetensors", ["'--expect'", "unexpected"]),
        ("serve", ["unrecognized subcommand", "serve"]),
    ] {
        files.refused(options, 2, PARAMS, &parts);
    }
    let bare = files.call("digest");
    assert!(bare.code == Some(2) && bare.stdout.is_empty() && bare.stderr.contains("Usage: vram-worker digest"));
    let nothing = files.run([""; 0]);
    assert!(nothing.code == Some(2) && nothing.stdout.is_empty() && !nothing.stderr.is_empty());
}

#[test]
fn too_little_memory_tells_how_much() {
    // covers: RES-4 RES-6
    let files = Files::new();
    let parts = ["no room", "bytes are needed", "1048576 are available", "lower the headroom"];
    let most = format!("run --device mock --headroom {}", (1u64 << 30) - (1 << 20));
    assert_eq!(files.refused(&most, 4, "VRAM_OOM", &parts)["error"]["category"], "capacity");
    let all = "run --device mock --headroom 1073741824";
    files.refused(all, 2, "CONFIG_ERROR", &["headroom", "leaves nothing"]);
}

#[test]
fn a_device_that_is_not_there_is_named_with_what_to_do() {
    // covers: ERR-2
    let files = Files::new();
    let missing = |device: &str, named: &str| {
        files.refused(&format!("run --device {device}"), 4, "DEVICE_UNAVAILABLE", &[named, "--device mock"]);
    };
    let uuid = "09090909-0909-0909-0909-090909090909";
    for kind in ["GPU", "MIG"] {
        missing(&format!("{kind}-{uuid}"), &format!("the CUDA device GPU-{uuid}"));
    }
    missing("cuda:4000", "CUDA device 4000");
    if Path::new("/dev/nvidiactl").exists() {
        println!("SKIPPED: a_device_that_is_not_there (auto, cuda): this machine has an NVIDIA driver");
        return;
    }
    missing("auto", "CUDA device");
    missing("cuda", "CUDA device 0");
    missing("cuda:7", "CUDA device 7");
}

#[test]
fn loosely_kept_secrets_are_refused_without_naming_their_place() {
    // covers: KEY-1 ERR-2
    let files = Files::new();
    files.with_mode("loose-secret", &[7; 32], 0o644);
    files.with_mode("short-secret", &[7; 31], 0o600);
    for (name, part) in [
        ("loose-secret", "chmod 600"),
        ("short-secret", "31 bytes long"),
        ("absent-secret", "cannot be read"),
        (".", "not a regular file"),
    ] {
        let path = files.path(name);
        let line = format!("run --secret-file {}", path.display());
        let json = files.refused(&line, 2, "CONFIG_ERROR", &["worker secret", part]);
        for said in [json.to_string(), files.call(&line).stderr] {
            assert!(!said.contains(path.to_str().unwrap()) && (name == "." || !said.contains(name)), "{said}");
        }
    }
}

#[test]
fn an_argument_forges_no_line() {
    // covers: VAL-1 AUD-6
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    let files = Files::new();
    let forged = "x\nerror: forged\u{1b}[2J";
    let flag = format!("--{forged}");
    for arguments in [&["run", "--device", forged][..], &["run", "--layout", forged], &["run", &flag], &[forged]] {
        files.run(arguments).assert_refused(2, &["x\\nerror: forged\\u{1b}[2J"]);
    }
    assert!(files.run(["run", &format!("--device={}", "y".repeat(100_000))]).stderr.len() < 2000);
    // What is no text is shown escaped.
    let odd = OsStr::from_bytes(b"/no\xff\x1b[2J\xc2\x9b31m\xe2\x80\xae\x9b");
    for line in [
        "",
        "run",
        "digest",
        "run --device",
        "run --layout",
        "run --expect",
        "run --json",
        "run --json --device",
        "run a",
    ] {
        let told = files.run(line.split_terminator(' ').map(OsString::from).chain([odd.to_owned()]));
        assert_eq!(told.code, Some(2), "{line}: {}", told.stderr);
        let said = format!("{}{}", told.text(), told.stderr);
        let raw =
            |character: char| character.is_control() && character != '\n' || "\u{202e}\u{fffd}".contains(character);
        assert!(!said.contains(raw), "{line}: {said:?}");
        assert!(said.contains("xff") || line == "run --expect", "{said}");
    }
}

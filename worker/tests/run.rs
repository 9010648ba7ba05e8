//! `vram-worker run`, when all is well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod common;

use common::{Files, model, safetensors, worker};

#[test]
fn the_sample_runs_the_same_twice() {
    // covers: SEAL-9
    let runs = [0, 1].map(|_| {
        let ended = worker(["run", "--executes", "2", "--json"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.json()
    });
    let [first, second] = &runs;
    assert_eq!(first["shard"], second["shard"]);
    assert_eq!(first["tensors"], second["tensors"]);
    assert_eq!(first["shard"]["origin"], "expected");
    let tensors = first["tensors"].as_array().unwrap();
    assert!(tensors.len() > 20);
    for tensor in tensors {
        assert!(tensor["min"].as_f64() < tensor["mean"].as_f64(), "{tensor}");
        assert!(tensor["mean"].as_f64() < tensor["max"].as_f64(), "{tensor}");
        assert_eq!(tensor["nan"], 0);
    }
}

#[test]
fn the_json_has_every_documented_field() {
    // covers: RES-5 SCR-1
    let ended = worker(["run", "--device", "mock", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let json = ended.json();
    assert!(json.get("error").is_none());
    for (path, kind) in [
        ("/device/kind", "string"),
        ("/device/name", "string"),
        ("/device/uuid", "string"),
        ("/device/ordinal", "number"),
        ("/shard/id", "string"),
        ("/shard/layout", "string"),
        ("/shard/origin", "string"),
        ("/shard/layout_digest", "string"),
        ("/shard/digest", "string"),
        ("/shard/bytes", "number"),
        ("/executes", "number"),
        ("/executed", "number"),
        ("/tensors/0/name", "string"),
        ("/tensors/0/dtype", "string"),
        ("/tensors/0/shape", "array"),
        ("/tensors/0/min", "number"),
        ("/tensors/0/max", "number"),
        ("/tensors/0/mean", "number"),
        ("/tensors/0/nan", "number"),
        ("/tensors/0/inf", "number"),
        ("/vram/total", "number"),
        ("/vram/used_before", "number"),
        ("/vram/used_sealed", "number"),
        ("/vram/used_after", "number"),
        ("/timing/seal_seconds", "number"),
        ("/timing/check_seconds/min", "number"),
        ("/timing/check_seconds/median", "number"),
        ("/timing/check_seconds/max", "number"),
        ("/timing/bytes_per_second", "number"),
    ] {
        let value = json.pointer(path).unwrap_or_else(|| panic!("{path} is missing in {json}"));
        let found = match value {
            serde_json::Value::String(_) => "string",
            serde_json::Value::Number(_) => "number",
            serde_json::Value::Array(_) => "array",
            _ => "something else",
        };
        assert_eq!(found, kind, "{path}");
    }
    assert_eq!((json["executes"].as_u64(), json["executed"].as_u64()), (Some(3), Some(3)));
    assert_eq!(json["vram"]["used_after"], json["vram"]["used_before"]);
    assert!(json["vram"]["used_sealed"].as_u64() >= json["shard"]["bytes"].as_u64());
    assert_eq!(json["device"]["kind"], "mock");
    assert!(ended.stderr.contains("MOCK DEVICE"), "the mock is said on stderr too: {}", ended.stderr);
}

#[test]
fn a_model_is_summarised_exactly() {
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let ended = worker(["run".as_ref(), path.as_os_str(), "--json".as_ref()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let json = ended.json();
    assert_eq!((&json["shard"]["id"], &json["shard"]["origin"]), (&"tiny".into(), &"measured".into()));
    let [floats, ints] = json["tensors"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!(floats["name"], "b", "in file order");
    assert_eq!(floats["shape"], serde_json::json!([2, 2]));
    assert_eq!(
        (floats["min"].as_f64(), floats["max"].as_f64(), floats["mean"].as_f64()),
        (Some(-2.5), Some(4.0), Some(1.0))
    );
    assert_eq!(floats["nan"], 1);
    assert_eq!((ints["min"].as_i64(), ints["max"].as_i64()), (Some(i64::MIN), Some(i64::MAX)));
}

#[test]
fn any_file_can_be_sealed_as_it_is() {
    let files = Files::new();
    let path = files.with("any file.bin", &[3, 5, 4]);
    let ended = worker(["run".as_ref(), path.as_os_str(), "--layout".as_ref(), "file".as_ref(), "--json".as_ref()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let json = ended.json();
    assert_eq!((&json["shard"]["layout"], &json["shard"]["id"]), (&"file".into(), &"any-file".into()));
    let expected = serde_json::json!([
        { "name": "(file)", "dtype": "U8", "shape": [3], "min": 3, "max": 5, "mean": 4.0, "nan": 0, "inf": 0 }
    ]);
    assert_eq!(json["tensors"], expected);
}

#[test]
fn an_expected_digest_is_honoured() {
    // covers: SEAL-9
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let path = path.to_str().unwrap();
    let digest_of = |arguments: &[&str]| worker(arguments).text().split_once(' ').unwrap().0.to_owned();
    let expected = digest_of(&["digest", path]);
    for layout in ["file", "tensors"] {
        let digest = digest_of(&["digest", path, "--layout", layout]);
        let ended = worker(["run", path, "--layout", layout, "--expect", &expected, "--json"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let json = ended.json();
        assert_eq!((&json["shard"]["origin"], &json["shard"]["digest"]), (&"expected".into(), &digest.into()));
    }
}

#[test]
fn tensors_of_unknown_and_empty_kinds_are_reported_as_such() {
    let files = Files::new();
    let header = r#"{"e":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},"u":{"dtype":"F8_E8M0","shape":[3],"data_offsets":[0,3]}}"#;
    let path = files.with("odd.safetensors", &safetensors(header, &[1, 2, 3]));
    let json = worker(["run".as_ref(), path.as_os_str(), "--json".as_ref()]).json();
    let tensors = json["tensors"].as_array().unwrap();
    assert_eq!((&tensors[0]["min"], &tensors[0]["nan"]), (&serde_json::Value::Null, &0.into()));
    assert_eq!((&tensors[1]["min"], &tensors[1]["nan"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    let table = worker(["run".as_ref(), path.as_os_str()]);
    assert!(table.text().contains("not decoded"), "{}", table.text());
}

#[test]
fn the_table_tells_what_happened() {
    let ended = worker(["run", "--executes", "1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for part in [
        "MOCK DEVICE: host memory, protects nothing",
        "sample",
        "expected",
        "sha256:",
        "GB/s",
        "1 of 1",
        "pooler.weight",
        "VRAM used after release",
        "wiped and released: 0 bytes in use, as before",
    ] {
        assert!(ended.text().contains(part), "{part} in {}", ended.text());
    }
    let said: Vec<&str> = ended.stderr.lines().collect();
    let [why, what] = said[..] else { panic!("{}", ended.stderr) };
    assert!(why.starts_with("warning: no device: ") && why.ends_with("; going on with the mock"), "{why}");
    assert_eq!(what, "warning: MOCK DEVICE: host memory, protects nothing");
    // The twin: who asks for the mock need not be told why it is there.
    let asked = worker(["run", "--executes", "1", "--device", "mock"]);
    assert_eq!(asked.stderr, "warning: MOCK DEVICE: host memory, protects nothing\n");
}

#[test]
fn a_secret_file_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let secret = files.with("secret", &[7; 32]);
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let ended = worker(["run", "--executes", "1", "--json", "--secret-file", secret.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn audit_events_are_seen_when_asked_for() {
    // covers: AUD-1
    let ended = common::end(
        common::command(["run", "--executes", "2", "--json"])
            .env("RUST_LOG", "vram_residency::audit=info")
            .spawn()
            .unwrap(),
    );
    let count = |event: &str| ended.stderr.lines().filter(|line| line.contains(&format!("event=\"{event}\""))).count();
    for (event, times) in [
        ("manager_started", 1),
        ("vram_allocated", 1),
        ("vram_sealed", 1),
        ("seal_verified", 3), // before, between and behind
        ("execute_started", 2),
        ("execute_finished", 2),
        ("vram_wiped", 1),
        ("vram_deallocated", 1),
        ("manager_stopped", 1),
    ] {
        assert_eq!(count(event), times, "{event} in {}", ended.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_is_status_1_without_a_word() {
    // covers: ERR-2 SCR-1
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let path = path.to_str().unwrap();
    for arguments in [
        &["run", path, "--device", "mock"][..],
        &["run", path, "--device", "mock", "--json"],
        &["digest", path, path],
        &["--help"],
        &["--version"],
    ] {
        let mut child = common::command(arguments).env("RUST_LOG", "vram_residency::audit=info").spawn().unwrap();
        drop(child.stdout.take());
        let ended = common::end(child);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("error") && !ended.stderr.contains("panic"), "{}", ended.stderr);
        assert_eq!(ended.stderr.contains("vram_deallocated"), arguments[0] == "run", "all was released first");
    }
}

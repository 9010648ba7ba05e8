//! `vram-worker run --part-bytes`: one file as a set of shards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod common;

use common::{Ended, Files, safetensors, worker};
use serde_json::Value;

/// Two tensors of floats and one of bytes, of lengths that leave gaps behind blocks: three, two and one blocks of 4096 bytes.
fn model() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2500],"data_offsets":[0,10000]},
        "b":{"dtype":"F64","shape":[1000],"data_offsets":[10000,18000]},
        "e":{"dtype":"F32","shape":[0],"data_offsets":[18000,18000]},
        "z":{"dtype":"U8","shape":[77],"data_offsets":[18000,18077]}}"#;
    let floats = (0..2500u16).flat_map(|n| (f32::from(n) * 0.37 - 100.0).to_le_bytes());
    let doubles = (0..1000u16).flat_map(|n| f64::from(n).sin().to_le_bytes());
    safetensors(header, &floats.chain(doubles).chain(100..177).collect::<Vec<u8>>())
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let ended = worker(arguments.iter().chain(&["--json"]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.json()
}

/// `fsverity digest` of bytes, by the worker.
fn digest(files: &Files, bytes: &[u8]) -> String {
    let path = files.with("bytes", bytes);
    worker(["digest", path.to_str().unwrap()]).text().split_once(' ').unwrap().0.to_owned()
}

#[test]
fn parts_of_every_size_give_the_numbers_of_the_whole() {
    // covers: SEAL-8
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let path = path.to_str().unwrap();
    for layout in ["tensors", "file"] {
        let whole = json(&["run", path, "--layout", layout]);
        assert!(whole.get("parts").is_none(), "splitting is never implied");
        let bytes = whole["shard"]["bytes"].as_u64().unwrap();
        for part in [4096, 8192, 12288, 20480, 1 << 20, 1 << 62] {
            let split = json(&["run", path, "--layout", layout, "--part-bytes", &part.to_string()]);
            assert_eq!(split["tensors"], whole["tensors"], "{layout}, {part}");
            assert_eq!(split["shard"], whole["shard"], "{layout}, {part}");
            let parts = split["parts"].as_array().unwrap();
            assert_eq!(u64::try_from(parts.len()).unwrap(), bytes.div_ceil(part));
            for (index, found) in parts.iter().enumerate() {
                assert_eq!(found["id"], format!("tiny.part-{index}"));
            }
            let (last, full) = parts.split_last().unwrap();
            assert!(full.iter().all(|found| found["bytes"] == part));
            assert_eq!(last["bytes"], bytes - part * u64::try_from(full.len()).unwrap());
            assert_eq!(split["executed"], 3);
            assert_eq!(split["vram"]["used_after"], split["vram"]["used_before"]);
        }
    }
}

#[test]
fn parts_hold_the_bytes_of_the_image() {
    // covers: SEAL-8 DIG-3
    let files = Files::new();
    let model = model();
    let path = files.with("tiny.safetensors", &model);
    let path = path.to_str().unwrap();
    let data = &model[model.len() - 18077..];
    let mut image = data[..10_000].to_vec();
    image.resize(12_288, 0);
    image.extend(&data[10_000..18_000]);
    image.resize(20_480, 0);
    image.extend(&data[18_000..]);
    for (layout, image) in [("tensors", &image), ("file", &model)] {
        let split = json(&["run", path, "--layout", layout, "--part-bytes", "8192"]);
        let found: Vec<_> = split["parts"].as_array().unwrap().iter().map(|part| part["digest"].clone()).collect();
        let expected: Vec<_> = image.chunks(8192).map(|part| Value::from(digest(&files, part))).collect();
        assert_eq!(found, expected);
        assert_eq!(split["shard"]["digest"], digest(&files, image));
    }
}

#[test]
fn the_sample_is_vouched_for_part_by_part() {
    // covers: SEAL-8 SEAL-9
    let whole = json(&["run", "--executes", "1"]);
    let split = json(&["run", "--executes", "1", "--part-bytes", "1048576"]);
    assert_eq!(split["shard"], whole["shard"]);
    assert_eq!(split["shard"]["origin"], "expected");
    assert_eq!(split["tensors"], whole["tensors"]);
    assert!(split["parts"].as_array().unwrap().len() > 6);
}

#[test]
fn the_expected_digest_is_that_of_the_whole() {
    // covers: SEAL-1 SEAL-8
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let path = path.to_str().unwrap();
    let whole = json(&["run", path]);
    let (right, wrong) = (digest(&files, &model()), format!("sha256:{}", "0".repeat(64)));
    let right = right.as_str();
    let split = json(&["run", path, "--part-bytes", "4096", "--expect", right]);
    assert_eq!((&split["shard"]["origin"], &split["shard"]["digest"]), (&"expected".into(), &whole["shard"]["digest"]));
    let first = split["parts"][0]["digest"].as_str().unwrap();
    for wrong in [wrong.as_str(), first] {
        let ended = worker(["run", path, "--part-bytes", "4096", "--expect", wrong]);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        for part in ["not the expected model", right, wrong] {
            assert!(ended.sentence().contains(part), "{part} in {}", ended.stderr);
        }
    }
}

fn events(ended: &Ended, event: &str) -> usize {
    ended.stderr.lines().filter(|line| line.contains(&format!("event=\"{event}\""))).count()
}

#[test]
fn every_part_is_verified_before_anything_is_executed() {
    // covers: SEAL-8 VER-1
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let arguments = ["run", path.to_str().unwrap(), "--part-bytes", "8192", "--executes", "2", "--json"];
    let ended = common::end(common::command(arguments).env("RUST_LOG", "vram_residency::audit=info").spawn().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for (event, times) in [("vram_sealed", 3), ("seal_verified", 9), ("execute_finished", 6), ("vram_wiped", 3)] {
        assert_eq!(events(&ended, event), times, "{event} in {}", ended.stderr);
    }
    let order: Vec<_> = ended
        .stderr
        .lines()
        .filter_map(|line| ["seal_verified", "execute_finished"].iter().find(|event| line.contains(*event)))
        .collect();
    // One batch before, and one behind each execute.
    assert_eq!(order[..3], [&"seal_verified"; 3]);
    for batch in order[3..].chunks(6) {
        assert_eq!(batch[..3], [&"seal_verified"; 3]);
        assert_eq!(batch[3..], [&"execute_finished"; 3]);
    }
}

#[test]
fn the_table_has_a_line_for_the_parts() {
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let path = path.to_str().unwrap();
    let ended = worker(["run", path, "--part-bytes", "8192"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let line = "3, tiny.part-0 to tiny.part-2: 8.00 KiB (8192 bytes) each, the last 4.08 KiB (4173 bytes)";
    assert!(ended.text().contains(line), "{}", ended.text());
    let ended = worker(["run", path, "--part-bytes", "1048576"]);
    assert!(ended.text().contains("1, tiny.part-0: 20.08 KiB (20557 bytes)"), "{}", ended.text());
    assert!(!worker(["run", path]).text().contains("parts"));
}

#[test]
fn any_name_and_any_block_size_will_do() {
    let files = Files::new();
    let path = files.with("a b..safetensors", &model());
    let split = json(&["run", path.to_str().unwrap(), "--part-bytes", "65536", "--block-size", "65536"]);
    assert_eq!((&split["shard"]["id"], &split["parts"][0]["id"]), (&"a-b.".into(), &"a-b.part-0".into()));
    assert_eq!(split["parts"].as_array().unwrap().len(), 3);
}

#[test]
fn part_sizes_that_cut_blocks_are_refused() {
    // covers: SEAL-8 VAL-2
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let path = path.to_str().unwrap();
    for (part, block) in [("0", "4096"), ("1", "4096"), ("4095", "4096"), ("6144", "4096"), ("4096", "8192")] {
        let arguments = ["run", path, "--part-bytes", part, "--block-size", block];
        let ended = worker(arguments);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        let sentence = ended.sentence();
        for said in ["part bytes", part, "a multiple of the block size", block] {
            assert!(sentence.contains(said), "{said} in {sentence}");
        }
        let ended = worker(arguments.iter().chain(&["--json"]));
        assert_eq!((ended.code, &ended.json()["error"]["code"]), (Some(2), &"INVALID_PARAMS".into()));
    }
    for text in ["-1", "many", "18446744073709551616", ""] {
        assert_eq!(worker(["run", path, "--part-bytes", text]).code, Some(2), "{text}");
    }
}

#[test]
fn models_that_cannot_be_split_are_refused_as_ever() {
    // covers: VAL-3
    let files = Files::new();
    let whole = model();
    let cut = files.with("cut.safetensors", &whole[..whole.len() - 1]);
    let empty = files.with("empty", &[]);
    for (path, layout, said) in [
        (cut, "tensors", "download is complete"),
        (empty, "file", "0 bytes"),
        (files.path("absent"), "file", "no such file"),
    ] {
        let ended = worker(["run", path.to_str().unwrap(), "--layout", layout, "--part-bytes", "4096"]);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.sentence().contains(said), "{}", ended.stderr);
    }
}

#[test]
fn a_set_that_does_not_fit_leaves_nothing() {
    // covers: RES-6
    // The headroom leaves about 5 MiB of the mock's 1 GiB: some parts of the sample fit, not all.
    let headroom = ((1u64 << 30) - (5 << 20)).to_string();
    let ended = worker(["run", "--device", "mock", "--part-bytes", "1048576", "--headroom", &headroom, "--json"]);
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    let json = ended.json();
    assert_eq!(json["error"]["code"], "VRAM_OOM");
    assert_eq!(json["vram"]["used_after"], json["vram"]["used_before"]);
    assert!(json.get("parts").is_none() && json.get("shard").is_none());
}

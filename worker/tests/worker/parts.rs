//! `vram-worker run --part-bytes`: one file as a set of shards.

use crate::common::{Files, LOAD, PARAMS, safetensors};

/// Two tensors of floats and one of bytes, of lengths that leave gaps behind blocks: three, two and one blocks of 4096 bytes.
fn model() -> Files {
    let header = r#"{"a":{"dtype":"F32","shape":[2500],"data_offsets":[0,10000]},
        "b":{"dtype":"F64","shape":[1000],"data_offsets":[10000,18000]},
        "e":{"dtype":"F32","shape":[0],"data_offsets":[18000,18000]},
        "z":{"dtype":"U8","shape":[77],"data_offsets":[18000,18077]}}"#;
    let floats = (0..2500u16).flat_map(|n| (f32::from(n) * 0.37 - 100.0).to_le_bytes());
    let doubles = (0..1000u16).flat_map(|n| f64::from(n).sin().to_le_bytes());
    let files = Files::new();
    files.with("m.safetensors", &safetensors(header, &floats.chain(doubles).chain(100..177).collect::<Vec<u8>>()));
    files
}

#[test]
fn parts_of_every_size_give_the_numbers_of_the_whole() {
    // covers: SEAL-8
    let files = model();
    for layout in ["tensors", "file"] {
        let line = format!("run m.safetensors --layout {layout}");
        let whole = files.json(&line);
        assert!(whole.get("parts").is_none(), "splitting is never implied");
        let bytes = whole["shard"]["bytes"].as_u64().unwrap();
        for part in [4096, 8192, 12288, 20480, 1 << 20, 1 << 62] {
            let split = files.json(&format!("{line} --part-bytes {part}"));
            assert_eq!((&split["tensors"], &split["shard"]), (&whole["tensors"], &whole["shard"]), "{layout}, {part}");
            let parts = split["parts"].as_array().unwrap();
            assert_eq!(u64::try_from(parts.len()).unwrap(), bytes.div_ceil(part));
            assert!(parts.iter().enumerate().all(|(at, found)| found["id"] == format!("m.part-{at}")));
            let (last, full) = parts.split_last().unwrap();
            assert!(full.iter().all(|found| found["bytes"] == part));
            assert_eq!(last["bytes"], bytes - part * u64::try_from(full.len()).unwrap());
        }
    }
    // In the layout of the file, its pieces have the digests of the parts.
    let split = files.json("run m.safetensors --layout file --part-bytes 8192");
    for (piece, part) in std::fs::read(files.path("m.safetensors")).unwrap().chunks(8192).zip(0..) {
        files.with("piece", piece);
        assert_eq!(split["parts"][part]["digest"], files.digest("piece"));
    }
}

#[test]
fn the_sample_is_vouched_for_part_by_part() {
    // covers: SEAL-8 SEAL-9
    let files = Files::new();
    let (whole, split) = (files.json("run --executes 1"), files.json("run --executes 1 --part-bytes 1048576"));
    assert_eq!((&split["shard"], &split["tensors"]), (&whole["shard"], &whole["tensors"]));
    assert_eq!(split["shard"]["origin"], "expected");
    assert!(split["parts"].as_array().unwrap().len() > 6);
}

#[test]
fn any_name_and_any_block_size_will_do_and_the_table_tells_of_the_parts() {
    let files = model();
    let line = "3, m.part-0 to m.part-2: 8.00 KiB (8192 bytes) each, the last 4.08 KiB (4173 bytes)";
    assert!(files.call("run m.safetensors --part-bytes 8192").text().contains(line));
    let one = files.call("run m.safetensors --part-bytes 1048576");
    assert!(one.text().contains("1, m.part-0: 20.08 KiB (20557 bytes)"), "{}", one.text());
    assert!(!files.call("run m.safetensors").text().contains("parts"));
    std::fs::rename(files.path("m.safetensors"), files.path("a b..safetensors")).unwrap();
    let odd = ["run", "a b..safetensors", "--part-bytes", "65536", "--block-size", "65536", "--json"];
    let split = files.run(odd).assert_ok().json();
    assert_eq!((&split["shard"]["id"], &split["parts"][0]["id"]), (&"a-b.".into(), &"a-b.part-0".into()));
    assert_eq!(split["parts"].as_array().unwrap().len(), 3);
}

#[test]
fn what_cannot_be_split_is_refused() {
    // covers: SEAL-8 VAL-2 VAL-3 RES-6
    let files = model();
    for (part, block) in [("0", "4096"), ("1", "4096"), ("4095", "4096"), ("6144", "4096"), ("4096", "8192")] {
        let line = format!("run m.safetensors --part-bytes {part} --block-size {block}");
        files.refused(&line, 2, PARAMS, &["part bytes", part, "a multiple of the block size", block]);
    }
    let whole = std::fs::read(files.path("m.safetensors")).unwrap();
    files.with("cut", &whole[..whole.len() - 1]);
    files.with("empty", &[]);
    files.refused("run cut --part-bytes 4096", 2, LOAD, &["download is complete"]);
    files.refused("run empty --layout file --part-bytes 4096", 2, PARAMS, &["0 bytes"]);
    files.refused("run absent --layout file --part-bytes 4096", 2, LOAD, &["no such file"]);
    // The headroom leaves about 5 MiB of the mock's 1 GiB: some parts of the sample fit, not all.
    let headroom = (1u64 << 30) - (5 << 20);
    let json = files.call(&format!("run --device mock --part-bytes 1048576 --headroom {headroom} --json"));
    assert_eq!((json.code, &json.json()["error"]["code"]), (Some(4), &"VRAM_OOM".into()));
    assert_eq!(json.json()["vram"]["used_after"], json.json()["vram"]["used_before"]);
    assert!(json.json().get("parts").is_none() && json.json().get("shard").is_none());
}

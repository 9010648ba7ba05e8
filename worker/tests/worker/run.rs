//! `vram-worker run`, when all is well.

use serde_json::{Value, json};

use crate::common::{Files, safetensors};

#[test]
fn the_json_has_every_documented_field() {
    // covers: RES-5 SCR-1
    let files = Files::new();
    let json = files.json("run --device mock");
    assert!(json.get("error").is_none());
    let strings = "/device/kind /device/name /device/uuid /shard/id /shard/layout /shard/origin /shard/layout_digest \
                   /shard/digest /tensors/0/name /tensors/0/dtype";
    let numbers = "/device/ordinal /shard/bytes /executes /executed /tensors/0/min /tensors/0/max /tensors/0/mean \
                   /tensors/0/nan /tensors/0/inf /vram/total /vram/used_before /vram/used_sealed /vram/used_after \
                   /timing/seal_seconds /timing/check_seconds/min /timing/check_seconds/median /timing/check_seconds/max \
                   /timing/bytes_per_second /timing/subtrees /timing/of";
    let at = |path: &str| json.pointer(path).unwrap_or_else(|| panic!("{path} is missing in {json}"));
    assert!(strings.split_whitespace().all(|path| at(path).is_string()), "{json}");
    assert!(numbers.split_whitespace().all(|path| at(path).is_number()), "{json}");
    assert!(at("/tensors/0/shape").is_array());
    assert_eq!((&json["executes"], &json["executed"], &json["device"]["kind"]), (&3.into(), &3.into(), &"mock".into()));
    assert!(json["vram"]["used_sealed"].as_u64() >= json["shard"]["bytes"].as_u64());
    assert!(json["tensors"].as_array().unwrap().len() > 20);
}

#[test]
fn a_check_of_parts_says_what_it_looked_at() {
    // covers: VER-8
    let files = Files::new();
    files.with("noise.bin", &vec![7; 2 << 20]);
    // 64 subtrees of 32 KiB.
    for (check, looked) in [("digest", 64), ("keyed", 64), ("rotating:5", 13), ("sample:9", 9), ("sample:100000", 64)] {
        let run = format!("run noise.bin --layout file --block-size 1024 --executes 2 --verify {check}");
        let timing = &files.json(&run)["timing"];
        assert_eq!((&timing["check"], &timing["subtrees"], &timing["of"]), (&check.into(), &looked.into(), &64.into()));
        let ended = files.call(&run).assert_ok();
        let words = match check {
            "digest" | "keyed" => "Every byte was verified before and after each of 2 executes.".to_owned(),
            _ => format!("{looked} of 64 subtrees, or more, were verified ({check}) before each of 2 executes."),
        };
        assert!(ended.text().contains(&words), "{}", ended.text());
    }
    for wrong in ["sample:0", "rotating", "keyed:1", "sample:-1"] {
        files.refused(&format!("run --verify {wrong}"), 2, "INVALID_PARAMS", &["--verify", "; give "]);
    }
}

#[test]
fn tensors_are_summarised_exactly() {
    let files = Files::tiny();
    let json = files.json("run tiny.safetensors");
    assert_eq!((&json["shard"]["id"], &json["shard"]["origin"]), (&"tiny".into(), &"measured".into()));
    let floats = json!({ "name": "b", "dtype": "F32", "shape": [2, 2], "min": -2.5, "max": 4.0, "mean": 1.0, "nan": 1, "inf": 0 });
    let (least, most) = (i64::MIN, i64::MAX);
    let ints = json!({ "name": "a", "dtype": "I64", "shape": [2], "min": least, "max": most, "mean": -0.5, "nan": 0, "inf": 0 });
    assert_eq!(json["tensors"], json!([floats, ints]), "in file order");

    files.with("any file.bin", &[3, 5, 4]);
    let json = files.run(["run", "any file.bin", "--layout", "file", "--json"]).assert_ok().json();
    assert_eq!((&json["shard"]["layout"], &json["shard"]["id"]), (&"file".into(), &"any-file".into()));
    let whole =
        json!({ "name": "(file)", "dtype": "U8", "shape": [3], "min": 3, "max": 5, "mean": 4.0, "nan": 0, "inf": 0 });
    assert_eq!(json["tensors"], json!([whole]));

    // What has no values, and what is not decoded.
    let header = r#"{"e":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},"u":{"dtype":"F8_E8M0","shape":[3],"data_offsets":[0,3]}}"#;
    files.with("odd.safetensors", &safetensors(header, &[1, 2, 3]));
    let tensors = &files.json("run odd.safetensors")["tensors"];
    assert_eq!((&tensors[0]["min"], &tensors[0]["nan"]), (&Value::Null, &0.into()));
    assert_eq!((&tensors[1]["min"], &tensors[1]["nan"]), (&Value::Null, &Value::Null));
    assert!(files.call("run odd.safetensors").text().contains("not decoded"));
}

#[test]
fn the_table_tells_what_happened() {
    let files = Files::new();
    let ended = files.call("run --executes 1").assert_ok();
    for part in ["MOCK DEVICE: host memory, protects nothing", "sample", "expected", "sha256:", "GB/s", "1 of 1"] {
        assert!(ended.text().contains(part), "{part} in {}", ended.text());
    }
    for part in ["pooler.weight", "VRAM used after release", "wiped and released: 0 bytes in use, as before"] {
        assert!(ended.text().contains(part), "{part} in {}", ended.text());
    }
    let said: Vec<&str> = ended.stderr.lines().collect();
    let [why, what] = said[..] else { panic!("{}", ended.stderr) };
    assert!(why.starts_with("warning: no device: ") && why.ends_with("; going on with the mock"), "{why}");
    assert_eq!(what, "warning: MOCK DEVICE: host memory, protects nothing");
    // The twin: who asks for the mock need not be told why it is there.
    assert_eq!(files.call("run --executes 1 --device mock").stderr, format!("{what}\n"));
}

#[test]
fn help_and_version_are_told_on_standard_output() {
    // covers: ERR-2
    let files = Files::new();
    let version = files.call("--version").assert_ok();
    assert_eq!(
        (version.text(), version.stderr.as_str()),
        (concat!("vram-worker ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
    let run = "--layout --part-bytes --device --executes --block-size --expect --expect-sha256 --expect-file \
               --expect-block-size --secret-file --secret-file-mode --headroom --json";
    let (digest, bench) = ("--block-size --salt --layout", "--device --sizes --runs --svg --json");
    for (command, options) in [("run", run), ("digest", digest), ("bench", bench)] {
        let help = files.call(&format!("{command} --help")).assert_ok();
        let named = |option| help.text().split_whitespace().any(|word| word == option);
        assert!(options.split_whitespace().all(named), "{}", help.text());
    }
    let help = files.call("--help").assert_ok();
    let codes = [
        "3    the bytes are not the expected or the sealed ones",
        "130  ended by SIGINT, 143 by SIGTERM, 129 by SIGHUP",
    ];
    assert!(codes.iter().all(|code| help.text().contains(code)) && help.stderr.is_empty(), "{}", help.text());
}

//! `vram-worker digest`, held against the stock tool.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod common;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use common::{Files, model, present, safetensors, worker};

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(bytes)
    .collect()
}

#[test]
fn it_prints_what_fsverity_prints() {
    // covers: DIG-1
    if !present("fsverity", "it_prints_what_fsverity_prints") {
        return;
    }
    let files = Files::new();
    let noise = noise(600_000);
    let mut paths: Vec<OsString> = [0, 1, 1023, 1024, 4095, 4096, 4097, 65_536, 65_537, 524_288, 524_289, 600_000]
        .iter()
        .map(|&length| files.with(&format!("file {length}"), &noise[..length]).into_os_string())
        .collect();
    // A name that is no UTF-8 is printed as it is.
    let odd = files.0.path().join(OsStr::from_bytes(b"odd \xff name"));
    std::fs::write(&odd, b"weights").unwrap();
    paths.push(odd.into_os_string());
    for (size, salt) in [("4096", ""), ("4096", "00"), ("1024", "c0ffee"), ("65536", &"ab".repeat(32)), ("2048", "")] {
        let mut theirs = Command::new("fsverity");
        theirs.arg("digest").arg(format!("--block-size={size}"));
        let mut ours: Vec<OsString> = ["digest", "--block-size", size].map(OsString::from).to_vec();
        if !salt.is_empty() {
            theirs.arg(format!("--salt={salt}"));
            ours.extend(["--salt", salt].map(OsString::from));
        }
        let theirs = theirs.args(&paths).output().unwrap();
        assert!(theirs.status.success());
        let ours = worker(ours.iter().chain(&paths));
        assert_eq!(ours.code, Some(0), "{}", ours.stderr);
        assert_eq!(ours.stdout, theirs.stdout, "block size {size}, salt {salt:?}");
        assert!(ours.stderr.is_empty());
    }
}

#[test]
fn known_answers_without_the_tool() {
    // covers: DIG-1
    let files = Files::new();
    let empty = files.with("empty", b"");
    let ended = worker(["digest".as_ref(), empty.as_os_str()]);
    let digest = "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
    assert_eq!(ended.text(), format!("{digest} {}\n", empty.display()));
}

#[test]
fn tensors_are_digested_as_they_are_sealed() {
    // covers: DIG-3
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let path = path.to_str().unwrap();
    let printed = worker(["digest", "--layout", "tensors", path]);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let sealed = worker(["run", path, "--json"]).json();
    let digest = sealed["shard"]["digest"].as_str().unwrap();
    let layout = sealed["shard"]["layout_digest"].as_str().unwrap();
    assert_eq!(printed.text(), format!("{digest} layout:{layout} {path}\n"));
    // The image of the tensors: the second one starts at the next block.
    let data = &model()[model().len() - 32..];
    let image = [&data[..16], &[0; 4080], &data[16..]].concat();
    let image = files.with("image", &image);
    let same = worker(["digest", image.to_str().unwrap()]);
    assert!(same.text().starts_with(digest), "{} {digest}", same.text());
}

#[test]
fn errors_name_the_file_and_do_not_hide_the_others() {
    // covers: ERR-2
    let files = Files::new();
    let good = files.with("good", b"weights");
    let (good, absent) = (good.to_str().unwrap(), files.path("absent"));
    let folder = files.0.path().to_str().unwrap();
    let ended = worker(["digest", absent.to_str().unwrap(), good, folder]);
    assert_eq!(ended.code, Some(2));
    assert_eq!(ended.text().lines().count(), 1);
    assert!(ended.text().ends_with(&format!(" {good}\n")));
    let errors: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(errors.len(), 2, "{}", ended.stderr);
    assert!(errors[0].starts_with("error: ") && errors[0].contains(absent.to_str().unwrap()), "{}", errors[0]);
    assert!(errors[1].contains(folder) && errors[1].contains("directory"), "{}", errors[1]);
    let broken = files.with("broken.safetensors", &safetensors("{", &[]));
    let broken = broken.to_str().unwrap();
    let ended = worker(["digest", "--layout", "tensors", broken]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.sentence().contains(broken), "{}", ended.stderr);
}

#[test]
fn parameters_are_judged() {
    // covers: VAL-2
    let files = Files::new();
    let file = files.with("file", b"weights");
    let file = file.to_str().unwrap();
    for (flag, value, parts) in [
        ("--block-size", "3000", ["block size", "power of two"]),
        ("--block-size", "512", ["block size", "power of two"]),
        ("--block-size", "131072", ["block size", "power of two"]),
        ("--salt", "xyz", ["salt", "hexadecimal"]),
        ("--salt", "0", ["salt", "hexadecimal"]),
        ("--salt", &"00".repeat(33), ["salt", "at most 32"]),
    ] {
        let ended = worker(["digest", flag, value, file]);
        assert_eq!(ended.code, Some(2), "{flag} {value}");
        assert!(ended.stdout.is_empty());
        for part in parts {
            assert!(ended.sentence().contains(part), "{part} in {}", ended.stderr);
        }
    }
}

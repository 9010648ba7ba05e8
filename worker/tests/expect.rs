//! `vram-worker run --expect…`: what somebody vouched for is the whole file, in every layout.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Ended, Files, model, present, safetensors, worker};

/// The bytes of a model whose two tensors have one type and shape, and of another in which they have each other's names.
fn twins() -> [Vec<u8>; 2] {
    let header = |first: &str, second: &str| {
        format!(
            r#"{{"{first}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},"{second}":{{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}}}"#
        )
    };
    let data: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    [safetensors(&header("q", "k"), &data), safetensors(&header("k", "q"), &data)]
}

/// What the worker says is the digest of a file.
fn digest(path: &Path, more: &[&str]) -> String {
    let printed = worker(["digest", path.to_str().unwrap()].iter().chain(more));
    printed.text().split_once(' ').unwrap().0.to_owned()
}

/// The plain SHA-256 of a file, by the stock tool.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg("--").arg(path).output().expect("coreutils are there");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_start_matches('\\').split_once(' ').unwrap().0.to_owned()
}

#[track_caller]
fn runs(path: &Path, more: &[&str]) -> serde_json::Value {
    let ended = worker(["run", path.to_str().unwrap(), "--executes", "1", "--json"].iter().chain(more));
    assert_eq!(ended.code, Some(0), "{more:?}: {}", ended.text());
    let json = ended.json();
    assert_eq!(json["shard"]["origin"], "expected");
    json
}

/// Runs without success: the exit code, and a sentence in which all these parts are.
#[track_caller]
fn refused(path: &Path, more: &[&str], code: i32, parts: &[&str]) -> Ended {
    let ended = worker(["run", path.to_str().unwrap(), "--executes", "1"].iter().chain(more));
    assert_eq!(ended.code, Some(code), "{more:?}: {}", ended.stderr);
    assert!(ended.stdout.is_empty(), "nothing ran");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    ended
}

#[test]
fn renamed_tensors_are_refused_in_every_layout_whole_and_in_parts() {
    // covers: DIG-6 SEAL-8
    let files = Files::new();
    let [honest, renamed] = twins();
    let (honest, renamed) = (files.with("honest.safetensors", &honest), files.with("renamed.safetensors", &renamed));
    let tensors = ["--layout", "tensors"];
    assert_eq!(digest(&honest, &tensors), digest(&renamed, &tensors), "the image does not tell them apart");
    let (verity, plain) = (digest(&honest, &[]), sha256(&honest));
    let large = digest(&honest, &["--block-size", "65536"]);
    for expectation in [
        &["--expect", verity.as_str()][..],
        &["--expect-sha256", &plain],
        &["--expect-sha256", &plain.to_uppercase()],
        &["--expect", &large, "--expect-block-size", "65536"],
        &["--expect", &verity, "--block-size", "1024"],
    ] {
        for layout in ["tensors", "file"] {
            for part in [&[][..], &["--part-bytes", "4096"]] {
                let options = [expectation, &["--layout", layout], part].concat();
                runs(&honest, &options);
                refused(&renamed, &options, 3, &["not the expected model"]);
            }
        }
    }
}

#[test]
fn another_kind_of_digest_is_told_from_another_model() {
    // covers: DIG-6 ERR-2
    let files = Files::new();
    let path = files.with("tiny.safetensors", &model());
    let (verity, plain) = (digest(&path, &[]), sha256(&path));
    let as_verity = format!("sha256:{plain}");
    let bare = verity.strip_prefix("sha256:").unwrap();
    for part in [&[][..], &["--part-bytes", "4096"]] {
        let hinted = |given: &[&str], hint: &str| {
            refused(&path, &[given, part].concat(), 3, &["not the expected model", hint]);
        };
        hinted(&["--expect", &as_verity], "give it as --expect-sha256");
        hinted(&["--expect-sha256", bare], &format!("give it as --expect {verity}"));
        hinted(&["--expect", &digest(&path, &["--layout", "tensors"])], "says nothing of names, types and shapes");
        let large = digest(&path, &["--block-size", "1024"]);
        hinted(&["--expect", &large, "--layout", "file", "--block-size", "1024"], "give --expect-block-size 1024");
        hinted(&["--expect", &large], "--expect-block-size");
        // Not a digest of this file at all: no hint.
        let other =
            refused(&path, &[&["--expect-sha256", &"00".repeat(32)], part].concat(), 3, &["`sha256sum` prints it"]);
        assert!(!other.stderr.contains("give it as"), "{}", other.stderr);
    }
}

#[test]
fn a_list_vouches_for_the_files_that_it_names() {
    // covers: DIG-6
    let files = Files::new();
    let path = files.with("odd \\name\nof.safetensors", &model());
    let other = files.with("other.bin", b"other");
    let mut sums = Command::new("sha256sum");
    sums.current_dir(files.0.path()).args(["--", "other.bin"]).arg(path.file_name().unwrap());
    let plain = sums.output().unwrap().stdout;
    assert!(plain.windows(2).any(|pair| pair == b"\n\\"), "the stock tool escapes such names");
    let name = path.file_name().unwrap().to_str().unwrap();
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n");
    let binary = format!("# of the model\r\n\r\n\\{} *./{escaped}\r\n", sha256(&path)).into_bytes();
    for (what, list) in [("text", plain), ("binary", binary)] {
        let list = files.with(&format!("SHA256SUMS.{what}"), &list);
        let list = list.to_str().unwrap();
        runs(&path, &["--expect-file", list]);
        runs(&path, &["--expect-file", list, "--layout", "file", "--part-bytes", "4096"]);
    }
    // The twin: the same list over a file that has changed, in its header alone.
    let list = files.path("SHA256SUMS.text");
    let mut changed = model();
    changed[8 + 2] ^= 1; // the name "b"
    let elsewhere = Files::new();
    let changed = elsewhere.with(name, &changed);
    refused(&changed, &["--expect-file", list.to_str().unwrap()], 3, &["not the expected model"]);
    // What the list does not name.
    let list = files.with("only-other", format!("{}  other.bin\n", sha256(&other)).as_bytes());
    refused(&path, &["--expect-file", list.to_str().unwrap()], 2, &["does not name"]);
}

#[test]
fn a_list_of_fsverity_is_read_as_it_prints_it() {
    // covers: DIG-6
    let files = Files::new();
    let paths = ["a.safetensors", "b c.safetensors"].map(|name| files.with(name, &model()));
    let mut other = model();
    *other.last_mut().unwrap() ^= 1;
    let wrong = files.with("wrong.safetensors", &other);
    let arguments = paths.iter().map(|path| path.to_str().unwrap());
    let ours = worker(["digest"].into_iter().chain(arguments.clone())).stdout;
    let list = files.with("list", &ours);
    let list = list.to_str().unwrap();
    for path in &paths {
        runs(path, &["--expect-file", list]);
    }
    refused(&wrong, &["--expect-file", list], 2, &["does not name"]);
    refused(&paths[0], &["--expect-file", list, "--expect-block-size", "1024"], 3, &["not the expected model"]);
    if present("fsverity", "a_list_of_fsverity_is_read_as_it_prints_it") {
        let theirs = Command::new("fsverity").arg("digest").args(arguments).output().unwrap().stdout;
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_list_that_cannot_be_is_refused_before_anything_is_read() {
    // covers: DIG-6 VAL-2 ERR-2
    let files = Files::new();
    let path = files.with("m.safetensors", &model());
    let plain = sha256(&path);
    let other = "00".repeat(32);
    for (list, part) in [
        (String::new(), "is empty"),
        (format!("{plain}  m.safetensors\n{other}  ./m.safetensors\n"), "at line 2"),
        (format!("{plain}\n"), "no list of digests at line 1"),
        (format!("{plain} m.safetensors\n"), "no list of digests at line 1"),
        (format!("{plain}  \n"), "no list of digests at line 1"),
        (format!("\\{plain}  a\\tb\n"), "no list of digests at line 1"),
        (format!("{plain}  m.safetensors\nsha512:{plain} m\n"), "at line 2"),
        (format!("sha256:{plain}0 m.safetensors\n"), "no list of digests at line 1"),
        (format!("{plain}  x/m.safetensors\n{other}  y/m.safetensors\n"), "several digests"),
        (format!("SHA256 (m.safetensors) = {plain}0\n"), "no list of digests at line 1"),
        (format!("{plain}  m.safetensors\n{} m.safetensors\n", digest(&path, &[])), "of one kind"),
    ] {
        let given = files.with("list", list.as_bytes());
        refused(&path, &["--expect-file", given.to_str().unwrap()], 2, &["list of digests", part]);
    }
    // The twins: said twice alike, and by a path that leads to the file.
    files.with(
        "list",
        format!("{plain}  m.safetensors\n{plain} *./m.safetensors\n{other}  y/m.safetensors\n").as_bytes(),
    );
    runs(&path, &["--expect-file", files.path("list").to_str().unwrap()]);
    files.with("list", format!("SHA256 (./m.safetensors) = {plain}\n").as_bytes());
    runs(&path, &["--expect-file", files.path("list").to_str().unwrap()]);
    let absent = files.path("absent");
    refused(&path, &["--expect-file", absent.to_str().unwrap()], 2, &["cannot be read", "check the path"]);
}

#[test]
fn a_link_to_another_listed_file_has_the_digest_of_its_own_name() {
    // covers: DIG-6
    let files = Files::new();
    let [honest, renamed] = twins();
    let (honest, renamed) = (files.with("h.safetensors", &honest), files.with("r.safetensors", &renamed));
    let list = format!("{}  h.safetensors\n{}  r.safetensors\n", sha256(&honest), sha256(&renamed));
    let list = files.with("list", list.as_bytes());
    let given = ["--expect-file", list.to_str().unwrap()];
    let elsewhere = files.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let link = elsewhere.join("h.safetensors");
    std::os::unix::fs::symlink(&renamed, &link).unwrap();
    refused(&link, &given, 3, &["not the expected model"]);
    // The honest twin.
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&honest, &link).unwrap();
    runs(&link, &given);
}

#[test]
fn one_expectation_at_a_time_and_well_formed() {
    // covers: DIG-6 VAL-2
    let files = Files::new();
    let path = files.with("m.safetensors", &model());
    let (verity, plain) = (digest(&path, &[]), sha256(&path));
    for more in [
        &["--expect", verity.as_str(), "--expect-sha256", &plain][..],
        &["--expect", &verity, "--expect-file", "x"],
        &["--expect-sha256", &plain, "--expect-file", "x"],
        &["--expect-sha256", &plain, "--expect-block-size", "4096"],
        &["--expect-block-size", "4096"],
    ] {
        refused(&path, more, 2, &[]);
    }
    refused(&path, &["--expect", &verity, "--expect-block-size", "1000"], 2, &["block size", "power of two"]);
    refused(&path, &["--expect-sha256", &verity], 2, &["SHA-256", "--expect"]);
    refused(&path, &["--expect-sha256", "0"], 2, &["SHA-256", "64 hexadecimal digits"]);
}

#[test]
fn the_layout_digest_is_told_by_both_commands() {
    // covers: DIG-6
    let files = Files::new();
    let [honest, renamed] = twins();
    let (honest, renamed) = (files.with("honest.safetensors", &honest), files.with("renamed.safetensors", &renamed));
    let layout = |path: &Path| {
        let path = path.to_str().unwrap();
        let printed = worker(["digest", "--layout", "tensors", path]);
        let text = printed.text().strip_suffix(&format!(" {path}\n")).unwrap().to_owned();
        text.split_once(" layout:").unwrap().1.to_owned()
    };
    assert_ne!(layout(&honest), layout(&renamed));
    let json = runs(&honest, &["--expect-sha256", &sha256(&honest)]);
    assert_eq!(json["shard"]["layout_digest"], layout(&honest));
    let split = runs(&honest, &["--expect-sha256", &sha256(&honest), "--part-bytes", "4096"]);
    assert_eq!(split["shard"], json["shard"]);
}

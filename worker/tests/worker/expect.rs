//! `vram-worker run --expect…`: what somebody vouched for is the whole file, in every layout.

use std::process::Command;

use crate::common::{Files, MISMATCH, PARAMS, model, present, safetensors};

/// Two models whose two tensors have one type and shape, and each other's names.
fn twins() -> Files {
    let files = Files::new();
    let data = [1.0_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    for (file, first, second) in [("honest", "q", "k"), ("renamed", "k", "q")] {
        let header = format!(
            r#"{{"{first}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},"{second}":{{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}}}"#
        );
        files.with(file, &safetensors(&header, &data));
    }
    files
}

/// The plain SHA-256 of a file, by the stock tool.
fn sha256(files: &Files, name: &str) -> String {
    let output = Command::new("sha256sum").arg("--").arg(files.path(name)).output().expect("coreutils are there");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_start_matches('\\').split_once(' ').unwrap().0.to_owned()
}

#[track_caller]
fn runs(files: &Files, options: &str) -> serde_json::Value {
    let json = files.json(&format!("run --executes 1 {options}"));
    assert_eq!(json["shard"]["origin"], "expected");
    json
}

/// It is another model.
#[track_caller]
fn other(files: &Files, options: &str, part: &str) {
    files.refused(&format!("run {options}"), 3, MISMATCH, &["not the expected model", part]);
}

#[test]
fn renamed_tensors_are_refused_in_every_layout_whole_and_in_parts() {
    // covers: DIG-6 SEAL-8 SEAL-1
    let files = twins();
    let tensors = |name: &str| {
        let printed = files.call(&format!("digest --layout tensors {name}")).assert_ok();
        let (image, layout) = printed.text().split_once(" layout:").unwrap();
        (image.to_owned(), layout.split_once(' ').unwrap().0.to_owned())
    };
    let [(image, layout), (same, other_layout)] = ["honest", "renamed"].map(tensors);
    assert_eq!(image, same, "the image does not tell them apart");
    assert_ne!(layout, other_layout, "the layout does");
    let (verity, plain) = (files.digest("honest"), sha256(&files, "honest"));
    let large = files.digest("honest --block-size 65536");
    for expectation in [
        format!("--expect {verity}"),
        format!("--expect-sha256 {plain}"),
        format!("--expect-sha256 {}", plain.to_uppercase()),
        format!("--expect {large} --expect-block-size 65536"),
        format!("--expect {verity} --block-size 1024"),
    ] {
        for options in ["", " --layout file", " --part-bytes 4096", " --layout file --part-bytes 4096"] {
            runs(&files, &format!("honest {expectation}{options}"));
            other(&files, &format!("renamed {expectation}{options}"), "");
        }
    }
    let json = other_twice(&files);
    assert_eq!(json["vram"]["used_after"], 0, "it was wiped and given back");
}

/// A digest of nothing, of the sample too.
fn other_twice(files: &Files) -> serde_json::Value {
    let wrong = format!("sha256:{}", "0".repeat(64));
    files.refused(&format!("run --expect {wrong}"), 3, MISMATCH, &["sample", &wrong]);
    files.refused(&format!("run honest --expect {wrong}"), 3, MISMATCH, &[&files.digest("honest"), &wrong])
}

#[test]
fn another_kind_of_digest_is_told_from_another_model() {
    // covers: DIG-6 ERR-2
    let files = Files::tiny();
    let (verity, plain) = (files.digest("tiny.safetensors"), sha256(&files, "tiny.safetensors"));
    let (bare, small) = (verity.strip_prefix("sha256:").unwrap(), files.digest("tiny.safetensors --block-size 1024"));
    for part in ["tiny.safetensors", "tiny.safetensors --part-bytes 4096"] {
        let hinted = |given: &str, hint: &str| other(&files, &format!("{part} {given}"), hint);
        hinted(&format!("--expect sha256:{plain}"), "give it as --expect-sha256");
        hinted(&format!("--expect-sha256 {bare}"), &format!("give it as --expect {verity}"));
        let image = files.digest("--layout tensors tiny.safetensors");
        hinted(&format!("--expect {image}"), "says nothing of names, types and shapes");
        hinted(&format!("--expect {small} --layout file --block-size 1024"), "give --expect-block-size 1024");
        hinted(&format!("--expect {small}"), "--expect-block-size");
        // Not a digest of this file at all: no hint.
        let wrong = format!("{part} --expect-sha256 {}", "00".repeat(32));
        hinted(&wrong[part.len() + 1..], "`sha256sum` prints it");
        assert!(!files.call(&format!("run {wrong}")).stderr.contains("give it as"));
    }
}

#[test]
fn a_list_vouches_for_the_files_that_it_names() {
    // covers: DIG-6
    let files = Files::new();
    let name = "odd \\name\nof.safetensors";
    files.with(name, &model());
    files.with("other.bin", b"other");
    let mut sums = Command::new("sha256sum");
    let text = sums.current_dir(files.path("")).args(["--", "other.bin", name]).output().unwrap().stdout;
    assert!(text.windows(2).any(|pair| pair == b"\n\\"), "the stock tool escapes such names");
    files.with("SHA256SUMS.text", &text);
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n");
    let binary = format!("# of the model\r\n\r\n\\{} *./{escaped}\r\n", sha256(&files, name));
    files.with("SHA256SUMS.binary", binary.as_bytes());
    let run = |files: &Files, list: &str, options: &[&str]| {
        files.run(["run", name, "--expect-file", list].iter().chain(options)).code
    };
    for list in ["SHA256SUMS.text", "SHA256SUMS.binary"] {
        assert_eq!(run(&files, list, &[]), Some(0), "{list}");
        assert_eq!(run(&files, list, &["--layout", "file", "--part-bytes", "4096"]), Some(0), "{list}");
    }
    // The twin: the same list over a file that has changed, in its header alone.
    let elsewhere = Files::new();
    let mut changed = model();
    changed[8 + 2] ^= 1; // the name "b"
    elsewhere.with(name, &changed);
    assert_eq!(run(&elsewhere, files.path("SHA256SUMS.text").to_str().unwrap(), &[]), Some(3));
    // What the list does not name.
    files.with("only-other", format!("{}  other.bin\n", sha256(&files, "other.bin")).as_bytes());
    assert_eq!(run(&files, "only-other", &[]), Some(2));
}

#[test]
fn a_list_of_fsverity_is_read_as_it_prints_it() {
    // covers: DIG-6
    let files = Files::tiny();
    files.with("b c.safetensors", &model());
    files.with("wrong.safetensors", &[&model()[..], &[1]].concat());
    let ours = files.run(["digest", "tiny.safetensors", "b c.safetensors"]).stdout;
    files.with("list", &ours);
    runs(&files, "tiny.safetensors --expect-file list");
    assert_eq!(files.run(["run", "b c.safetensors", "--expect-file", "list"]).code, Some(0));
    files.refused("run wrong.safetensors --layout file --expect-file list", 2, PARAMS, &["does not name"]);
    other(&files, "tiny.safetensors --expect-file list --expect-block-size 1024", "");
    if present("fsverity", "a_list_of_fsverity_is_read_as_it_prints_it") {
        let mut theirs = Command::new("fsverity");
        theirs.current_dir(files.path("")).args(["digest", "tiny.safetensors", "b c.safetensors"]);
        assert_eq!(ours, theirs.output().unwrap().stdout);
    }
}

#[test]
fn a_list_that_cannot_be_is_refused_before_anything_is_read() {
    // covers: DIG-6 VAL-2 ERR-2
    let files = Files::new();
    files.with("m", &model());
    let (plain, wrong) = (sha256(&files, "m"), "00".repeat(32));
    let first = "no list of digests at line 1";
    for (list, part) in [
        (String::new(), "is empty"),
        (format!("{plain}  m\n{wrong}  ./m\n"), "at line 2"),
        (format!("{plain}\n"), first),
        (format!("{plain} m\n"), first),
        (format!("{plain}  \n"), first),
        (format!("\\{plain}  a\\tb\n"), first),
        (format!("{plain}  m\nsha512:{plain} m\n"), "at line 2"),
        (format!("sha256:{plain}0 m\n"), first),
        (format!("{plain}  x/m\n{wrong}  y/m\n"), "several digests"),
        (format!("SHA256 (m) = {plain}0\n"), first),
        (format!("{plain}  m\n{} m\n", files.digest("m")), "of one kind"),
    ] {
        files.with("list", list.as_bytes());
        files.refused("run m --expect-file list", 2, PARAMS, &["list of digests", part]);
    }
    // The twins: said twice alike, and by a path that leads to the file.
    for list in [format!("{plain}  m\n{plain} *./m\n{wrong}  y/m\n"), format!("SHA256 (./m) = {plain}\n")] {
        files.with("list", list.as_bytes());
        runs(&files, "m --expect-file list");
    }
    files.refused("run m --expect-file absent", 2, PARAMS, &["cannot be read", "check the path"]);
}

#[test]
fn a_link_to_another_listed_file_has_the_digest_of_its_own_name() {
    // covers: DIG-6
    let files = twins();
    let list = format!("{}  honest\n{}  renamed\n", sha256(&files, "honest"), sha256(&files, "renamed"));
    files.with("list", list.as_bytes());
    std::fs::create_dir(files.path("elsewhere")).unwrap();
    let link = files.path("elsewhere/honest");
    std::os::unix::fs::symlink(files.path("renamed"), &link).unwrap();
    other(&files, "elsewhere/honest --expect-file list", "");
    // The honest twin.
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(files.path("honest"), &link).unwrap();
    runs(&files, "elsewhere/honest --expect-file list");
}

#[test]
fn one_expectation_at_a_time_and_well_formed() {
    // covers: DIG-6 DIG-5 VAL-2
    let files = Files::new();
    files.with("m", &model());
    let (verity, plain) = (files.digest("m"), sha256(&files, "m"));
    for options in [
        format!("--expect {verity} --expect-sha256 {plain}"),
        format!("--expect {verity} --expect-file x"),
        format!("--expect-sha256 {plain} --expect-file x"),
        format!("--expect-sha256 {plain} --expect-block-size 4096"),
        "--expect-block-size 4096".to_owned(),
    ] {
        files.refused(&format!("run m {options}"), 2, PARAMS, &[]);
    }
    let (short, upper) = (format!("sha256:{}", "0".repeat(63)), format!("sha256:{}A", "0".repeat(63)));
    for (options, parts) in [
        (format!("--expect {verity} --expect-block-size 1000"), ["block size", "power of two"]),
        (format!("--expect-sha256 {verity}"), ["SHA-256", "--expect"]),
        ("--expect-sha256 0".to_owned(), ["SHA-256", "64 hexadecimal digits"]),
        ("--expect md5:00".to_owned(), ["digest", "character 1"]),
        ("--expect ".to_owned(), ["digest", "ends"]),
        (format!("--expect {short}"), ["digest", "character 70"]),
        (format!("--expect {upper}"), ["digest", "character 71"]),
    ] {
        files.refused(&format!("run m {options}"), 2, PARAMS, &parts);
    }
}

//! `vram-worker digest`, held against the stock tool.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::common::{Files, model, present};

#[test]
fn it_prints_what_fsverity_prints() {
    // covers: DIG-1
    if !present("fsverity", "it_prints_what_fsverity_prints") {
        return;
    }
    let files = Files::new();
    let noise: Vec<u8> = (0..600_000_u32).map(|at| at.wrapping_mul(0x9e37_79b9).to_be_bytes()[0]).collect();
    let lengths = [0, 1, 1023, 1024, 4095, 4096, 4097, 65_536, 65_537, 524_288, 524_289, 600_000];
    let made = lengths.map(|length| files.with(format!("file {length}"), &noise[..length]).into_os_string());
    // A name that is no UTF-8 is printed as it is.
    let odd = files.with(OsStr::from_bytes(b"odd \xff name"), b"weights").into_os_string();
    let paths: Vec<OsString> = made.into_iter().chain([odd]).collect();
    for (size, salt) in [("4096", ""), ("4096", "00"), ("1024", "c0ffee"), ("65536", &"ab".repeat(32)), ("2048", "")] {
        let options = [format!("--block-size={size}"), format!("--salt={salt}")];
        let options = &options[..if salt.is_empty() { 1 } else { 2 }];
        let theirs = Command::new("fsverity").arg("digest").args(options).args(&paths).output().unwrap();
        assert!(theirs.status.success());
        let ours = files.run(
            ["digest".into()].iter().chain(options.iter().map(OsString::from).collect::<Vec<_>>().iter()).chain(&paths),
        );
        assert_eq!((ours.code, ours.stderr.as_str()), (Some(0), ""));
        assert_eq!(ours.stdout, theirs.stdout, "{options:?}");
    }
}

#[test]
fn tensors_are_digested_as_they_are_sealed() {
    // covers: DIG-3
    let files = Files::tiny();
    let printed = files.call("digest --layout tensors tiny.safetensors").assert_ok();
    let sealed = files.json("run tiny.safetensors");
    let [digest, layout] = ["digest", "layout_digest"].map(|field| sealed["shard"][field].as_str().unwrap());
    assert_eq!(printed.text(), format!("{digest} layout:{layout} tiny.safetensors\n"));
    // The image of the tensors: the second one starts at the next block.
    let data = &model()[model().len() - 32..];
    files.with("image", &[&data[..16], &[0; 4080], &data[16..]].concat());
    assert_eq!(files.digest("image"), digest);
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_hides_no_other() {
    // covers: ERR-2
    let files = Files::tiny();
    let ended = files.call("digest absent tiny.safetensors .");
    assert_eq!(ended.code, Some(2));
    assert!(ended.text().lines().count() == 1 && ended.text().ends_with(" tiny.safetensors\n"), "{}", ended.text());
    let errors: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(errors.len(), 2, "{}", ended.stderr);
    assert!(errors[0].starts_with("error: ") && errors[0].contains("absent"), "{}", errors[0]);
    assert!(errors[1].starts_with("error: ") && errors[1].contains("directory"), "{}", errors[1]);
}

//! Standard output and standard error that are closed, full, or read by nobody any more.

use std::fs::{File, OpenOptions};
use std::process::Command;

use crate::common::{Files, WORKER, end};

/// Where writing fails: there is never room.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// Lines that end well.
const LINES: [&str; 5] = [
    "run tiny.safetensors --device mock",
    "run tiny.safetensors --device mock --json",
    "digest tiny.safetensors tiny.safetensors",
    "--help",
    "--version",
];

#[test]
fn a_reader_that_goes_away_is_status_1_without_a_word() {
    // covers: ERR-2 SCR-1
    let files = Files::tiny();
    for line in LINES {
        let mut command = files.command(line.split(' '));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = end(command.env("RUST_LOG", "vram_residency::audit=info").stdout(writer).spawn().unwrap());
        assert_eq!(ended.code, Some(1), "{line}: {}", ended.stderr);
        assert!(!ended.stderr.contains("error") && !ended.stderr.contains("panic"), "{}", ended.stderr);
        assert_eq!(ended.stderr.contains("vram_deallocated"), line.starts_with("run"), "all was released first");
    }
}

#[test]
fn a_standard_output_that_is_closed_or_full_is_an_error() {
    // covers: ERR-2
    let files = Files::tiny();
    for line in LINES {
        let run = |redirected: &str| {
            let script = format!("exec {WORKER} {line} {redirected}");
            Command::new("sh").args(["-c", &script]).current_dir(files.path("")).output().unwrap()
        };
        for redirected in [">&-", ">/dev/full"] {
            let ended = run(redirected);
            let told = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(1), "{line} {redirected}: {told}");
            assert_eq!(told.matches("error: writing to standard output failed").count(), 1, "{told}");
        }
        // The twins: whoever throws it away took it, however that is opened.
        for redirected in [">/dev/null", "1<>/dev/null", ">/dev/null 2>&-", "<&- >/dev/null"] {
            assert_eq!(run(redirected).status.code(), Some(0), "{line} {redirected}");
        }
    }
    // A failure that standard output does not take is told on the other; digests that nobody takes are not computed.
    for line in ["run /none --json", "run --frob --json", "digest tiny.safetensors /none /none"] {
        let ended = end(files.command(line.split(' ')).stdout(full()).spawn().unwrap());
        assert_eq!(ended.code, Some(if line.starts_with("run") { 2 } else { 1 }), "{line}: {}", ended.stderr);
        assert!(!ended.sentence().is_empty());
    }
}

#[test]
fn a_log_that_takes_nothing_changes_no_outcome() {
    // covers: SCR-3 ERR-1 ERR-2
    let files = Files::tiny();
    let wrong = format!("run tiny.safetensors --device mock --json --expect sha256:{}", "00".repeat(32));
    for (line, code) in
        [("run tiny.safetensors --device mock --json", 0), (wrong.as_str(), 3), ("run /none --device mock --json", 2)]
    {
        for log in ["", "vram_residency=trace"] {
            let ended = end(files.command(line.split(' ')).env("RUST_LOG", log).stderr(full()).spawn().unwrap());
            assert_eq!(ended.code, Some(code), "{line} {log:?}");
            let json = ended.json();
            assert_eq!(json.get("error").is_some(), code != 0, "{json}");
            assert_eq!(json["vram"]["used_after"], json["vram"]["used_before"], "{json}");
            // A reader that goes away in the middle.
            let mut child = files.command(line.split(' ')).env("RUST_LOG", log).spawn().unwrap();
            drop(child.stderr.take());
            assert_eq!(end(child).code, Some(code), "{line} {log:?}");
        }
    }
}

#[test]
fn critical_events_are_seen_whatever_other_targets_are_asked_for() {
    // covers: AUD-1
    let files = Files::tiny();
    let line = format!("run tiny.safetensors --device mock --expect sha256:{}", "00".repeat(32));
    for filter in ["", "hyper=debug", "warn", "off", "error,vram_residency=off", "vram_residency::audit=off"] {
        let ended = files.logged(&line, filter);
        assert_eq!(ended.code, Some(3));
        assert!(ended.stderr.contains("seal_verification_failed"), "{filter:?}: {}", ended.stderr);
        assert!(ended.sentence().contains("`vram-worker digest` prints it"), "{}", ended.stderr);
    }
    let ended = files.logged(&line, "===x\nforged");
    ended.assert_refused(2, &["RUST_LOG is no filter"]);
    assert!(!ended.stderr.contains("forged"), "{}", ended.stderr);
}

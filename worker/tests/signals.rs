//! SIGINT and SIGTERM: the worker wipes and releases before it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::mpsc;
use std::time::Duration;

use common::{Ended, command};
use rustix::process::{Pid, Signal, kill_process};

/// Lets a long run execute at least twice, sends the signal, and returns how it ended.
fn interrupted(signal: Signal, json: bool) -> Ended {
    let mut command = command(["run", "--device", "mock", "--executes", "1000000"]);
    if json {
        command.arg("--json");
    }
    let mut child = command.env("RUST_LOG", "vram_residency::audit=info").spawn().unwrap();
    let (said, lines) = mpsc::channel();
    let stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || read(stderr, &said));
    for _ in 0..2 {
        lines.recv_timeout(Duration::from_secs(60)).expect("executes are reported as they end");
    }
    kill_process(Pid::from_child(&child), signal).unwrap();
    let mut ended = common::end(child);
    ended.stderr = reader.join().unwrap();
    ended
}

/// Collects all lines, and says each time an execute ended.
fn read(stderr: ChildStderr, said: &mpsc::Sender<()>) -> String {
    let mut all = String::new();
    for line in BufReader::new(stderr).lines() {
        let line = line.unwrap();
        if line.contains("execute_finished") {
            let _nobody_waits_any_more = said.send(());
        }
        all.push_str(&line);
        all.push('\n');
    }
    all
}

/// Who owns what lies open of a process: root, where nobody may look into it or have a core dump of it. (The folder itself
/// always belongs to the process's user.)
fn owner_seen(pid: u32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(format!("/proc/{pid}/environ")).ok().map(|file| file.uid())
}

#[test]
fn the_running_process_leaves_no_core_dump() {
    // covers: KEY-3
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    const OTHER: u32 = 54_321;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().metadata().unwrap().uid() == 0;
    let program = folder.path().join("worker");
    std::fs::copy(env!("CARGO_BIN_EXE_vram-worker"), &program).unwrap();
    // That user has to reach and read it: a program that its user cannot read leaves no core dump anyway.
    for path in [folder.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let start = |program: &std::path::Path, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        if root {
            command.uid(OTHER).gid(OTHER);
        }
        command.spawn().unwrap()
    };
    let mut worker = start(&program, &["run", "--device", "mock", "--executes", "1000000"]);
    let mut other = start(std::path::Path::new("/bin/sleep"), &["100"]);
    let begun = std::time::Instant::now();
    let mut seen = owner_seen(worker.id());
    while seen.is_some_and(|owner| owner != 0) && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
        seen = owner_seen(worker.id());
    }
    let (running, twin) = (worker.try_wait().unwrap().is_none(), owner_seen(other.id()));
    for child in [&mut worker, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(running, "the worker ended by itself");
    assert_eq!(seen, Some(0), "its memory could be dumped");
    assert!(twin.is_some_and(|owner| owner != 0), "any other process can be: {twin:?}");
}

#[test]
fn a_terminal_that_goes_away_releases_everything_and_exits_129() {
    // covers: SCR-1 SCR-3
    let ended = interrupted(Signal::HUP, true);
    assert_eq!(ended.code, Some(129), "{}", ended.stderr);
    assert!(ended.json()["error"]["message"].as_str().unwrap().contains("SIGHUP"));
    assert_eq!(ended.json()["vram"]["used_after"], 0);
}

#[test]
fn sigterm_releases_everything_and_exits_143() {
    // covers: SCR-1 SCR-3
    let ended = interrupted(Signal::TERM, true);
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    let json = ended.json();
    assert_eq!(json["error"]["code"], "INTERRUPTED");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains("SIGTERM") && message.contains("released"), "{message}");
    assert!((2..1_000_000).contains(&json["executed"].as_u64().unwrap()), "{json}");
    assert_eq!(json["vram"]["used_after"], json["vram"]["used_before"]);
    assert!(!json["tensors"].as_array().unwrap().is_empty(), "what was done so far is told");
    for event in ["vram_wiped", "vram_deallocated", "manager_stopped"] {
        assert!(ended.stderr.contains(event), "{event} in {}", ended.stderr);
    }
}

#[test]
fn sigint_releases_everything_and_exits_130() {
    // covers: SCR-1
    let ended = interrupted(Signal::INT, false);
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    let told = ended.stderr.lines().find(|line| line.starts_with("interrupted: ")).unwrap();
    assert!(told.contains("SIGINT") && told.contains("released"), "{told}");
    for part in ["executes done", "of 1000000", "VRAM used after release", "released: 0 bytes in use, as before"] {
        assert!(ended.text().contains(part), "{part} in {}", ended.text());
    }
}

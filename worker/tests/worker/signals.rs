//! Signals: the worker wipes and releases before it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Ended, Files, WORKER, end};
use crate::models::large_header;

const RUN: &str = "run --device mock --executes 1000000";

/// Lets a long command execute twice, sends the signal, and returns how it ended.
fn interrupted(signal: Signal, line: &str) -> Ended {
    let folder = Files::new();
    let mut command = folder.command(line.split(' '));
    command.env("RUST_LOG", "vram_residency::audit=info").env("TMPDIR", folder.path(""));
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let executed = lines.by_ref().filter(|line| line.contains("execute_finished")).take(2).count();
    assert_eq!(executed, 2, "executes are reported as they end");
    kill_process(Pid::from_child(&child), signal).unwrap();
    let rest = std::thread::spawn(move || lines.collect::<Vec<_>>().join("\n"));
    let ended = end(child);
    assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 0, "a temporary file is left");
    Ended { stderr: rest.join().unwrap(), ..ended }
}

#[test]
fn each_signal_wipes_and_releases_first_and_has_its_code() {
    // covers: SCR-1 SCR-3
    for (signal, name, code) in
        [(Signal::HUP, "SIGHUP", 129), (Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143)]
    {
        let told = format!("ended by {name}; every shard was wiped and released");
        let ended = interrupted(signal, &format!("{RUN} --json"));
        let json = ended.json();
        assert_eq!((ended.code, &json["error"]["code"]), (Some(code), &"INTERRUPTED".into()));
        assert_eq!(json["error"]["message"], told.as_str());
        assert!((2..1_000_000).contains(&json["executed"].as_u64().unwrap()), "{json}");
        assert_eq!((&json["vram"]["used_after"], &json["vram"]["used_before"]), (&0.into(), &0.into()));
        assert!(!json["tensors"].as_array().unwrap().is_empty(), "what was done so far is told");
        for event in ["vram_wiped", "vram_deallocated", "manager_stopped"] {
            assert!(ended.stderr.contains(event), "{event} in {}", ended.stderr);
        }
    }
    let ended = interrupted(Signal::INT, RUN);
    assert_eq!(ended.code, Some(130));
    assert!(ended.stderr.contains("interrupted: ended by SIGINT; every shard was wiped and released"));
    for part in ["executes done", "of 1000000", "VRAM used after release", "released: 0 bytes in use, as before"] {
        assert!(ended.text().contains(part), "{part} in {}", ended.text());
    }
}

#[test]
fn a_bench_that_is_ended_wipes_and_releases_and_leaves_no_drawing() {
    // covers: SCR-1
    let ended = interrupted(Signal::INT, "bench --device mock --sizes 1MiB --runs 1000000 --json --svg a.svg");
    assert_eq!((ended.code, &ended.json()["error"]["code"]), (Some(130), &"INTERRUPTED".into()));
    for event in ["vram_wiped", "vram_deallocated", "manager_stopped"] {
        assert!(ended.stderr.contains(event), "{event} in {}", ended.stderr);
    }
}

#[test]
fn a_signal_is_answered_while_a_large_header_or_an_empty_pipe_is_read() {
    // covers: SCR-1
    let files = Files::tiny();
    files.with("large", &large_header(60_000_000));
    assert!(Command::new("mkfifo").arg(files.path("pipe")).status().unwrap().success());
    for model in [&["large"][..], &["tiny.safetensors", "--expect-file", "pipe"]] {
        let child = files.command(["run", "--device", "mock", "--json"].iter().chain(model)).spawn().unwrap();
        // Until it listens.
        let caught = |pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            u64::from_str_radix(&mask, 16).unwrap() & (1 << (15 - 1)) != 0
        };
        while !caught(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ended = end(child);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!((ended.code, &ended.json()["error"]["code"]), (Some(143), &"INTERRUPTED".into()));
    }
}

/// Who owns what lies open of a process: root, where nobody may look into it or have a core dump of it. (The folder itself
/// always belongs to the process's user.)
fn owner_seen(child: &Child) -> Option<u32> {
    fs::metadata(format!("/proc/{}/environ", child.id())).ok().map(|file| file.uid())
}

#[test]
fn the_running_process_leaves_no_core_dump() {
    // covers: KEY-3
    const OTHER: u32 = 54_321;
    let files = Files::new();
    let (folder, program) = (files.path(""), files.path("worker"));
    let root = folder.metadata().unwrap().uid() == 0;
    fs::copy(WORKER, &program).unwrap();
    // That user has to reach and read it: a program that its user cannot read leaves no core dump anyway.
    for path in [&folder, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let start = |mut command: Command| {
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        if root {
            command.uid(OTHER).gid(OTHER);
        }
        command.spawn().unwrap()
    };
    let (mut worker, mut sleep) = (Command::new(&program), Command::new("/bin/sleep"));
    worker.args(["run", "--device", "mock", "--executes", "1000000"]);
    sleep.arg("100");
    let [mut worker, mut other] = [worker, sleep].map(start);
    let begun = Instant::now();
    while owner_seen(&worker).is_some_and(|owner| owner != 0) && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (seen, running, twin) = (owner_seen(&worker), worker.try_wait().unwrap().is_none(), owner_seen(&other));
    for child in [&mut worker, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(running, "the worker ended by itself");
    assert_eq!(seen, Some(0), "its memory could be dumped");
    assert!(twin.is_some_and(|owner| owner != 0), "any other process can be: {twin:?}");
}

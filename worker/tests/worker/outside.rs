//! A bit of the sealed weights, changed in the running worker's memory from outside of its process: it must refuse and stop.
//!
//! The mock keeps its memory in the worker's address space, so that root can reach it as a fault in VRAM would: behind the back of
//! every line of the crate.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{self, Files, safetensors};

/// Bytes that are looked for.
const PIECE: usize = 64;
const LENGTH: usize = 4 << 20;

/// A worker at work on a model that does not repeat itself, and its audit events as they come.
fn start(folder: &Files, layout: &str, executes: u32) -> (Child, Receiver<Value>, Vec<u8>) {
    let mut state = u64::from(std::process::id());
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    let weights: Vec<u8> = noise.take(LENGTH).collect();
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{LENGTH}],"data_offsets":[0,{LENGTH}]}}}}"#);
    let model = folder.with("model.safetensors", &safetensors(&header, &weights));
    let mut command =
        folder.command(["run", "--device", "mock", "--json", "--layout", layout, "--executes", &executes.to_string()]);
    let mut child = command.arg(model).env("RUST_LOG", "vram_residency::audit=info").spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (say, events) = channel();
    std::thread::spawn(move || {
        for line in lines.map(Result::unwrap) {
            if let Some((_, record)) = line.rsplit_once(" record=") {
                let record: String = serde_json::from_str(record).unwrap();
                say.send(serde_json::from_str(&record).unwrap()).unwrap();
            }
        }
    });
    (child, events, weights)
}

/// Waits for an event, and returns all that came, it included.
fn until(events: &Receiver<Value>, event: &str) -> Vec<Value> {
    let mut all = Vec::new();
    while all.last().is_none_or(|last: &Value| last["event"] != event) {
        all.push(events.recv_timeout(Duration::from_secs(60)).expect(event));
    }
    all
}

/// Stops the process between two instructions.
fn stop(child: &Child) {
    kill_process(Pid::from_child(child), Signal::STOP).unwrap();
    while !fs::read_to_string(format!("/proc/{}/stat", child.id()))
        .unwrap()
        .rsplit_once(") ")
        .unwrap()
        .1
        .starts_with('T')
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every place in the process's writable memory where the piece begins.
fn places(child: &Child, piece: &[u8]) -> Vec<u64> {
    let process = Path::new("/proc").join(child.id().to_string());
    let memory = fs::File::open(process.join("mem")).unwrap();
    let mut found = Vec::new();
    for line in fs::read_to_string(process.join("maps")).unwrap().lines().filter(|line| line.contains(" rw")) {
        let (begin, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
        memory.read_exact_at(&mut bytes, begin).unwrap();
        let starts = bytes.windows(PIECE).enumerate().filter(|(_, window)| window[0] == piece[0] && *window == piece);
        found.extend(starts.map(|(at, _)| begin + u64::try_from(at).unwrap()));
    }
    found
}

/// Finds the only copy of a piece of the weights in the stopped worker (one more is a copy on its way out of VRAM, and soon gone;
/// one that stays would be weights in host memory), changes one bit of it, and says when.
fn flip(child: &Child, weights: &[u8]) -> u64 {
    let at = weights.len() / 3;
    for _ in 0..20 {
        stop(child);
        if let [place] = places(child, &weights[at..at + PIECE])[..] {
            let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", child.id())).unwrap();
            memory.write_all_at(&[weights[at] ^ 4], place).unwrap();
            kill_process(Pid::from_child(child), Signal::CONT).unwrap();
            return u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        }
        kill_process(Pid::from_child(child), Signal::CONT).unwrap();
        std::thread::sleep(Duration::from_millis(7));
    }
    panic!("the weights were never in memory exactly once");
}

#[test]
#[ignore = "needs root: ci/check.sh outside"]
fn a_bit_changed_from_outside_stops_the_worker() {
    // covers: RES-1 VER-1 VER-4 VER-5 VER-15
    for (layout, behind) in [("file", "execute_finished"), ("tensors", "execute_started"), ("tensors", "vram_sealed")] {
        let folder = Files::new();
        let (child, events, weights) = start(&folder, layout, 1_000_000);
        let mut all = until(&events, behind);
        let changed = flip(&child, &weights);
        let ended = common::end(child);
        all.extend(events);
        assert_eq!(ended.code, Some(3), "{layout}, behind {behind}");
        assert_eq!(ended.json()["error"]["code"], "SEAL_VERIFICATION_FAILED");
        let failures: Vec<usize> =
            (0..all.len()).filter(|at| all[*at]["event"] == "seal_verification_failed").collect();
        assert_eq!((failures.len(), &all[failures[0]]["severity"]), (1, &Value::from("critical")));
        assert!(all[failures[0]..].iter().all(|event| event["event"] != "execute_started"), "{all:?}");
        // No execute counts whose closing check began after the change.
        let (mut checked, mut counted) = (0, 0);
        for event in &all {
            if event["event"] == "seal_verified" {
                checked = event["at_ns"].as_u64().unwrap() - event["duration_ns"].as_u64().unwrap();
            } else if event["event"] == "execute_finished" && event["outcome"] == "finished" {
                assert!(checked <= changed, "counted, though its check began after the change: {event}");
                counted += 1;
            }
        }
        assert_eq!(ended.json()["executed"], counted);
    }
}

#[test]
#[ignore = "needs root: ci/check.sh outside"]
fn a_worker_goes_on_when_only_its_file_changes() {
    // covers: VER-1
    let folder = Files::new();
    let (child, events, weights) = start(&folder, "tensors", 5);
    until(&events, "execute_started");
    stop(&child);
    assert!(!places(&child, &weights[..PIECE]).is_empty());
    // First the very file that was read, then another under its name.
    let model = fs::OpenOptions::new().write(true).open(folder.path("model.safetensors")).unwrap();
    let header = model.metadata().unwrap().len() - u64::try_from(LENGTH).unwrap();
    model.write_all_at(&[0; LENGTH], header).unwrap();
    fs::rename(folder.with("other", b"not a model"), folder.path("model.safetensors")).unwrap();
    kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
    let ended = common::end(child);
    assert_eq!((ended.code, &ended.json()["executed"]), (Some(0), &Value::from(5)));
    // The mean of noise, not of what stands in the file now.
    assert!(ended.json()["tensors"][0]["mean"].as_f64() > Some(100.0), "{}", ended.text());
}

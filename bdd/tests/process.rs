//! The real `vram-worker`, as a process: where it is, how it is called, how it ended.
//!
//! `VRAM_WORKER` names it. Where it is unset, cargo builds it, once a run, in the profile of this suite.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No call takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The worker that somebody named.
pub(crate) fn given() -> Option<OsString> {
    std::env::var_os("VRAM_WORKER")
}

fn worker() -> &'static Path {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| match given() {
        // The calls are made from other folders.
        Some(named) => {
            std::fs::canonicalize(&named).map_err(|error| format!("VRAM_WORKER={}: {error}", named.display()))
        }
        None => build(),
    });
    found.as_ref().unwrap_or_else(|problem| panic!("{problem}; name a vram-worker in VRAM_WORKER"))
}

/// Builds it with the features that `cargo test` gives it, so that nothing is compiled twice: beside an example, for which the
/// dependencies of tests count.
fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let own = std::env::current_exe().map_err(|error| format!("where this suite lies is not known: {error}"))?;
    // PROFILE/deps/SUITE
    let folder = own.parent().filter(|deps| deps.ends_with("deps")).and_then(Path::parent).and_then(Path::file_name);
    let profile = match folder {
        None => "dev".into(),
        Some(debug) if debug == "debug" => "dev".into(),
        Some(other) => other.to_owned(),
    };
    let output = Command::new(&cargo)
        .args(["build", "--locked", "--message-format=json-render-diagnostics"])
        .args(["--bin", "vram-worker", "--example", "one_model", "--profile"])
        .arg(profile)
        // The workspace, from which cargo was called.
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{} cannot be started: {error}", cargo.display()))?;
    let made = |line: &[u8]| {
        let message: Value = serde_json::from_slice(line).ok()?;
        let (target, file) = (message.get("target")?, message.get("executable")?.as_str()?);
        (target["name"] == "vram-worker" && target["kind"][0] == "bin").then(|| file.into())
    };
    let found = output.stdout.split(|byte| *byte == b'\n').find_map(made);
    found.filter(|_| output.status.success()).ok_or_else(|| format!("cargo made no vram-worker ({})", output.status))
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The whole of standard output, which is one JSON object on one line.
    pub(crate) fn report(&self) -> Value {
        assert!(self.stdout.ends_with('\n') && self.stdout.lines().count() == 1, "not one line: {:?}", self.stdout);
        let report = serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout));
        assert!(matches!(report, Value::Object(_)), "{report}");
        report
    }

    /// The sentences on standard error that begin with this word, each with the indented lines that belong to it.
    pub(crate) fn sentences(&self, word: &str) -> Vec<String> {
        let mut lines = self.stderr.lines().peekable();
        let mut found = Vec::new();
        while let Some(line) = lines.next() {
            let Some(begun) = line.strip_prefix(word).and_then(|line| line.strip_prefix(": ")) else { continue };
            let mut sentence = begun.to_owned();
            while let Some(more) = lines.next_if(|line| line.starts_with("  ")) {
                sentence.push(' ');
                sentence.push_str(more.trim());
            }
            found.push(sentence);
        }
        found
    }

    /// The audit events on standard error, in order, each in full.
    pub(crate) fn trail(&self) -> Vec<Value> {
        let record = |line: &str| {
            let quoted = line.split_once("vram_residency::audit: ")?.1.split_once("record=")?.1;
            let text: String = serde_json::from_str(quoted).unwrap();
            Some(serde_json::from_str(&text).unwrap())
        };
        self.stderr.lines().filter_map(record).collect()
    }
}

/// A worker that runs. Whoever forgets it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    executes: Receiver<()>,
}

/// Where a call is made, and what it finds there.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) temporary: &'a Path,
    /// Whether audit events are shown.
    pub(crate) audited: bool,
    /// Nobody reads standard output.
    pub(crate) unread: bool,
}

impl Running {
    pub(crate) fn start(arguments: &[String], place: &Place<'_>) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let reader = Some(reader).filter(|_| !place.unread);
        let mut command = Command::new(worker());
        command.args(arguments).current_dir(place.folder).env("TMPDIR", place.temporary).env_remove("RUST_LOG");
        if place.audited {
            command.env("RUST_LOG", "vram_residency::audit=info");
        }
        let started = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn();
        // Else this end of the pipe would stay open.
        drop(command);
        let mut child = started.unwrap_or_else(|error| panic!("{}: {error}", worker().display()));
        let stderr = child.stderr.take().unwrap();
        let (said, executes) = channel();
        let stderr = std::thread::spawn(move || lines(stderr, &said));
        Self { child, stdout: reader.map(|reader| std::thread::spawn(|| all(reader))), stderr: Some(stderr), executes }
    }

    /// Waits for so many executes, and sends a signal.
    pub(crate) fn signal_after(&self, executes: u32, signal: Signal) {
        for _ in 0..executes {
            self.executes.recv_timeout(PATIENCE).expect("the trail tells of each execute when it ends");
        }
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn end(mut self) -> Ended {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "the worker hangs");
            std::thread::sleep(Duration::from_millis(2));
        };
        let said = |pipe: Option<JoinHandle<String>>| pipe.map_or_else(String::new, |pipe| pipe.join().unwrap());
        Ended { code: status.code(), stdout: said(self.stdout.take()), stderr: said(self.stderr.take()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // No news for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all(mut pipe: PipeReader) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

/// Collects all lines, and says each time an execute ended.
fn lines(stderr: impl Read, said: &Sender<()>) -> String {
    let mut text = String::new();
    let mut reader = BufReader::new(stderr);
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 0 {
        if line.contains("event=\"execute_finished\"") {
            // Nobody waits any more.
            let _ = said.send(());
        }
        text.push_str(&line);
        line.clear();
    }
    text
}

//! A folder from which the real `vram-worker` is called as a process.
//!
//! `VRAM_WORKER` names the worker. Where it is unset, cargo builds it, once a run, in the profile of this suite.
//!
//! In a call and in what is expected of it, `[device]` is the device of this run, `[digest of FILE]` the library's digest of a
//! file's tensors, `[file digest of FILE]` that of its bytes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use vram_residency::{ShardSource, TreeParams, digest_source};
use vram_residency_rig::Kind;

/// No call takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The worker that somebody named.
pub(crate) fn given() -> Option<OsString> {
    std::env::var_os("VRAM_WORKER")
}

fn worker() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    // The calls are made from other folders.
    FOUND.get_or_init(|| given().map_or_else(build, |named| fs::canonicalize(named).expect("VRAM_WORKER names a file")))
}

/// Builds it with the features that `cargo test` gives it, so that nothing is compiled twice: beside an example, for which the
/// dependencies of tests count.
fn build() -> PathBuf {
    // PROFILE/deps/SUITE
    let own = std::env::current_exe().unwrap();
    let folder = own.ancestors().nth(2).expect("a folder of the profile");
    let profile = folder.file_name().filter(|name| *name != "debug").unwrap_or("dev".as_ref());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--bin", "vram-worker", "--example", "one_model", "--profile"]);
    let built = cargo.arg(profile).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).status();
    assert!(built.is_ok_and(|status| status.success()), "no vram-worker was built; name one in VRAM_WORKER");
    folder.join("vram-worker")
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
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The one sentence that says what is wrong.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let sentences: Vec<_> = self.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        let [sentence] = sentences.as_slice() else { panic!("not one error: {}", self.stderr) };
        (*sentence).to_owned()
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

impl Running {
    /// Waits for so many executes, and sends a signal.
    pub(crate) fn signal_after(&self, executes: u32, signal: Signal) {
        for _ in 0..executes {
            self.executes.recv_timeout(PATIENCE).expect("the trail tells of each execute when it ends");
        }
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> Ended {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "the worker hangs");
            std::thread::sleep(Duration::from_millis(2));
        };
        let [stdout, stderr] = [self.stdout.take(), self.stderr.take()].map(|pipe| pipe.unwrap().join().unwrap());
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // No news for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects all lines, and says each time an execute ended.
fn lines(pipe: impl Read, said: &Sender<()>) -> String {
    let (mut text, mut line, mut reader) = (String::new(), String::new(), BufReader::new(pipe));
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

/// A folder from which the worker is called, and its last call.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) folder: TempDir,
    /// For its temporary files.
    pub(crate) temporary: TempDir,
    pub(crate) line: String,
    last: Option<Ended>,
    /// Whether a step looked at the last exit code.
    pub(crate) looked: bool,
    pub(crate) files: BTreeSet<String>,
}

impl Default for Shell {
    fn default() -> Self {
        let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (line, files) = (String::new(), BTreeSet::new());
        Self { folder, temporary, line, last: None, looked: true, files }
    }
}

impl Shell {
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join(name), bytes).unwrap();
        self.files.insert(name.to_owned());
    }

    fn digest(&self, name: &str, tensors: bool) -> String {
        let path = self.folder.path().join(name);
        let source = if tensors { ShardSource::safetensors(path) } else { ShardSource::file(path) }.unwrap();
        digest_source(source, &TreeParams::default(), NonZeroUsize::MIN).unwrap().digest.to_string()
    }

    /// What stands in brackets.
    fn meant(&self, words: &str) -> String {
        match words.split(' ').collect::<Vec<_>>()[..] {
            ["device"] => match Kind::from_env() {
                Kind::Cuda(ordinal) => format!("cuda:{ordinal}"),
                kind => kind.as_str().to_owned(),
            },
            ["digest", "of", file] => self.digest(file, true),
            ["file", "digest", "of", file] => self.digest(file, false),
            _ => panic!("[{words}] means nothing"),
        }
    }

    pub(crate) fn expand(&self, text: &str) -> String {
        let mut pieces = text.split('[');
        let mut expanded = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (words, rest) = piece.split_once(']').expect("a bracket closes");
            expanded.push_str(&self.meant(words));
            expanded.push_str(rest);
        }
        expanded
    }

    pub(crate) fn start(&mut self, line: &str) -> Running {
        self.assert_looked("the next call");
        let typed = self.expand(line);
        let arguments = typed.strip_prefix("vram-worker ").expect("no other program is called");
        (self.line, self.last, self.looked) = (line.to_owned(), None, false);
        let mut command = Command::new(worker());
        command.args(arguments.split(' ')).current_dir(&self.folder).env("TMPDIR", self.temporary.path());
        command.env("RUST_LOG", "vram_residency::audit=info");
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{}: {error}", worker().display()));
        let (mut stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (said, executes) = channel();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let stderr = std::thread::spawn(move || lines(stderr, &said));
        Running { child, stdout: Some(stdout), stderr: Some(stderr), executes }
    }

    pub(crate) fn end(&mut self, running: Running) {
        let ended = running.end();
        for foreign in ["panicked", "VramError", "Some(", "backtrace"] {
            assert!(!ended.stderr.contains(foreign), "{foreign:?} in {}", ended.stderr);
        }
        self.last = Some(ended);
    }

    pub(crate) fn ended(&self) -> &Ended {
        self.last.as_ref().expect("the worker was called")
    }

    /// A field of the report, as text.
    #[track_caller]
    pub(crate) fn field(&self, path: &str) -> Option<String> {
        let report = self.ended().report();
        report.pointer(&format!("/{}", path.replace('.', "/"))).map(text)
    }

    pub(crate) fn assert_looked(&self, next: &str) {
        assert!(self.looked, "{next}: nobody looked at how this call ended: {}", self.line);
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A safetensors file of this header and these bytes.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&u64::try_from(header.len()).unwrap().to_le_bytes(), header.as_bytes(), data].concat()
}

/// Four floats, one of them no number, and two integers.
pub(crate) fn small() -> Vec<u8> {
    let header = r#"{"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"a":{"dtype":"I64","shape":[2],"data_offsets":[16,32]}}"#;
    let floats = [1.5f32, -2.5, f32::NAN, 4.0].map(f32::to_le_bytes).concat();
    safetensors(header, &[floats, [i64::MIN, i64::MAX].map(i64::to_le_bytes).concat()].concat())
}

//! Running the built binary, and making files for it.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// No run of these tests takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The binary.
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_vram-worker");
/// What every model that cannot be read is refused with.
pub(crate) const LOAD: &str = "MODEL_LOAD_FAILED";
pub(crate) const MISMATCH: &str = "DIGEST_MISMATCH";
pub(crate) const PARAMS: &str = "INVALID_PARAMS";

/// How a run of the worker ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// The whole of standard output, which must be one JSON object on one line.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.text().lines().count(), 1, "{}", self.text());
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The one sentence that an error is told in.
    #[track_caller]
    pub(crate) fn sentence(&self) -> &str {
        let errors: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        let [sentence] = errors[..] else { panic!("not one error: {}", self.stderr) };
        sentence
    }

    /// It ended with this code, and its one sentence has all these parts.
    #[track_caller]
    pub(crate) fn assert_refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.text(), self.stderr);
        assert!(self.stdout.is_empty(), "a person gets no half of an answer: {}", self.text());
        let sentence = self.sentence();
        assert!(sentence.len() < 2000, "{sentence}");
        for foreign in ["VramError", "Some(", "{ ", "panicked"] {
            assert!(!self.stderr.contains(foreign), "{foreign:?} in {}", self.stderr);
        }
        for part in parts {
            assert!(sentence.contains(part), "{part:?} in {sentence:?}");
        }
    }

    /// It ended well.
    #[track_caller]
    pub(crate) fn assert_ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.text(), self.stderr);
        self
    }
}

/// Waits for a started worker, and kills it if it hangs.
pub(crate) fn end(mut child: Child) -> Ended {
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let code = wait(&mut child).code();
    Ended { code, stdout: stdout.join().unwrap(), stderr: String::from_utf8(stderr.join().unwrap()).unwrap() }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

/// Waits for a process, and kills it if it hangs.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the worker hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder of files, gone when dropped. The worker is called in it.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With the small model `tiny.safetensors`.
    pub(crate) fn tiny() -> Self {
        let files = Self::new();
        files.with("tiny.safetensors", &model());
        files
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.path().join(name.as_ref())
    }

    pub(crate) fn with(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// With permissions of its own.
    pub(crate) fn with_mode(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = self.with(name, bytes);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The worker, called in this folder with these arguments, not yet started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(WORKER);
        command.args(arguments).current_dir(&self.0).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        end(self.command(arguments).spawn().unwrap())
    }

    /// Runs a line of words.
    pub(crate) fn call(&self, line: &str) -> Ended {
        self.run(line.split(' '))
    }

    /// Runs a line with this filter of log lines.
    pub(crate) fn logged(&self, line: &str, filter: &str) -> Ended {
        end(self.command(line.split(' ')).env("RUST_LOG", filter).spawn().unwrap())
    }

    /// The report of a line that must succeed.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        let json = self.call(&format!("{line} --json")).assert_ok().json();
        assert_eq!(json["vram"]["used_after"], json["vram"]["used_before"], "{json}");
        json
    }

    /// The first word that `digest` prints.
    pub(crate) fn digest(&self, words: &str) -> String {
        self.call(&format!("digest {words}")).assert_ok().text().split_once(' ').unwrap().0.to_owned()
    }

    /// Runs a line once for people and, as far as it knows JSON, once for programs; both are refused alike, in a sentence with all
    /// these parts.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str, code: i32, word: &str, parts: &[&str]) -> Value {
        self.call(line).assert_refused(code, parts);
        if line.starts_with("digest") || line == "serve" {
            return Value::Null;
        }
        let told = self.call(&format!("{line} --json"));
        let json = told.json();
        assert_eq!((told.code, &json["error"]["code"], &json["executed"]), (Some(code), &word.into(), &0.into()));
        assert!(!told.stderr.contains("error: "), "it is said once: {}", told.stderr);
        assert!(!json["error"]["category"].as_str().unwrap().is_empty() && json.get("shard").is_none());
        for part in parts {
            assert!(json["error"]["message"].as_str().unwrap().contains(part), "{part:?} in {json}");
        }
        assert_eq!(json["vram"]["used_after"], json["vram"]["used_before"], "{json}");
        json
    }
}

/// A safetensors file with this header and this data.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&u64::try_from(header.len()).unwrap().to_le_bytes(), header.as_bytes(), data].concat()
}

/// A small model: four floats, one of them no number, and two integers.
pub(crate) fn model() -> Vec<u8> {
    let header = r#"{"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"a":{"dtype":"I64","shape":[2],"data_offsets":[16,32]}}"#;
    let floats = [1.5f32, -2.5, f32::NAN, 4.0].map(f32::to_le_bytes).concat();
    safetensors(header, &[floats, [i64::MIN, i64::MAX].map(i64::to_le_bytes).concat()].concat())
}

/// Whether a program can be started. A test that needs one which is missing says so by name.
pub(crate) fn present(program: &str, test: &str) -> bool {
    let there = Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        println!("SKIPPED: {test}: {program} is not installed");
    }
    there
}

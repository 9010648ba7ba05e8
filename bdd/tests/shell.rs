//! A folder from which the real `vram-worker` is called as a process.
//!
//! `VRAM_WORKER` names the worker. Where it is unset, cargo builds it, once a run, in the profile of this suite.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;
use vram_residency_harness::Kind;

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

/// A folder from which the worker is called, and how the last call ended.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) folder: TempDir,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Default for Shell {
    fn default() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), code: None, stdout: String::new(), stderr: String::new() }
    }
}

impl Shell {
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn call(&mut self, line: &str) {
        let device = match Kind::from_env() {
            Kind::Cuda(ordinal) => format!("cuda:{ordinal}"),
            kind => kind.as_str().to_owned(),
        };
        let digest = self.stdout.split(' ').next().unwrap_or_default();
        let line = line.replace("[device]", &device).replace("[digest]", digest);
        let arguments = line.strip_prefix("vram-worker ").expect("no other program is called");
        let (mut command, temporary) = (Command::new(worker()), tempfile::tempdir().unwrap());
        command.args(arguments.split(' ')).current_dir(&self.folder).env("TMPDIR", temporary.path());
        command.env("RUST_LOG", "vram_residency::audit=info");
        let Output { status, stdout, stderr } = command.output().expect("the worker starts");
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "a temporary file is left");
        self.code = status.code();
        [self.stdout, self.stderr] = [stdout, stderr].map(|said| String::from_utf8(said).unwrap());
    }

    /// The whole of standard output, which is one JSON object on one line.
    pub(crate) fn report(&self) -> Value {
        assert!(self.stdout.ends_with('\n') && self.stdout.lines().count() == 1, "not one line: {:?}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
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

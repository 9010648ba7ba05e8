//! A shell from which `vram-worker` is called, and the files in it.
//!
//! In a call and in what is expected of it, `[device]` is the device of this run, `[digest of FILE]` the library's digest of a
//! file's tensors, `[file digest of FILE]` that of its bytes, `[digest of bytes N to M of FILE]` that of a piece of the tensors'
//! image, `[all but N bytes]` the device's memory but for N bytes, as the last report counts it, `[version]` the project's version,
//! `[LF]` and `[ESC]` those characters.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::num::NonZeroUsize;

use serde_json::Value;
use tempfile::TempDir;
use vram_residency::{ShardSource, TreeParams, digest_bytes, digest_source};
use vram_residency_rig::Kind;

use crate::process::{Ended, Place, Running};

/// A folder from which the worker is called, and its last call.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) folder: TempDir,
    /// For its temporary files.
    pub(crate) temporary: TempDir,
    pub(crate) audited: bool,
    pub(crate) line: String,
    last: Option<Ended>,
    /// Whether a step looked at the last exit code.
    pub(crate) looked: bool,
    /// The device's memory, once a report told it.
    total: Option<u64>,
    pub(crate) files: BTreeSet<String>,
    pub(crate) secret: Vec<u8>,
}

impl Default for Shell {
    fn default() -> Self {
        let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (line, files, secret) = (String::new(), BTreeSet::new(), Vec::new());
        Self { folder, temporary, audited: false, line, last: None, looked: true, total: None, files, secret }
    }
}

impl Shell {
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join(name), bytes).unwrap();
        assert!(self.files.insert(name.to_owned()), "{name} is there already");
    }

    fn source(&self, name: &str, tensors: bool) -> ShardSource<'static> {
        let path = self.folder.path().join(name);
        if tensors { ShardSource::safetensors(path) } else { ShardSource::file(path) }.unwrap()
    }

    fn digest(&self, name: &str, tensors: bool) -> String {
        let source = self.source(name, tensors);
        digest_source(source, &TreeParams::default(), NonZeroUsize::MIN).unwrap().digest.to_string()
    }

    /// The digest of a piece of the image that a file's tensors make.
    fn piece_digest(&self, name: &str, from: usize, to: usize) -> String {
        let (params, mut image) = (TreeParams::default(), Vec::new());
        self.source(name, true).into_image(&params).unwrap().read_to_end(&mut image).unwrap();
        digest_bytes(&params, &image[from..to]).to_string()
    }

    /// What stands in brackets.
    fn meant(&self, words: &str) -> String {
        match words.split(' ').collect::<Vec<_>>()[..] {
            ["device"] => match Kind::from_env() {
                Kind::Cuda(ordinal) => format!("cuda:{ordinal}"),
                kind => kind.as_str().to_owned(),
            },
            // One version for all packages of the project.
            ["version"] => env!("CARGO_PKG_VERSION").to_owned(),
            ["LF"] => "\n".to_owned(),
            ["ESC"] => "\u{1b}".to_owned(),
            ["digest", "of", file] => self.digest(file, true),
            ["file", "digest", "of", file] => self.digest(file, false),
            ["digest", "of", "bytes", from, "to", to, "of", file] => {
                self.piece_digest(file, from.parse().unwrap(), to.parse().unwrap())
            }
            ["all", "but", bytes, "bytes"] => {
                let total = self.total.expect("a report told how much memory the device has");
                (total - bytes.parse::<u64>().unwrap()).to_string()
            }
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

    pub(crate) fn start(&mut self, line: &str, unread: bool) -> Running {
        assert!(self.looked, "nobody looked at how this ended: {}", self.line);
        let typed = self.expand(line);
        let mut words = typed.split(' ').map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some("vram-worker"), "another program is called");
        (self.line, self.last, self.looked) = (line.to_owned(), None, false);
        let place =
            Place { folder: self.folder.path(), temporary: self.temporary.path(), audited: self.audited, unread };
        Running::start(&words.collect::<Vec<_>>(), &place)
    }

    pub(crate) fn end(&mut self, running: Running) {
        let ended = running.end();
        for foreign in ["panicked", "VramError", "Some(", "backtrace"] {
            assert!(!ended.stderr.contains(foreign), "{foreign:?} in {}", ended.stderr);
        }
        if ended.stdout.starts_with('{') {
            self.total = ended.report()["vram"]["total"].as_u64().or(self.total);
        }
        self.last = Some(ended);
    }

    pub(crate) fn ended(&self) -> &Ended {
        self.last.as_ref().expect("the worker was called")
    }

    /// The only sentence that begins with this word.
    #[track_caller]
    pub(crate) fn sentence(&self, word: &str) -> String {
        let sentences = self.ended().sentences(word);
        let [sentence] = sentences.as_slice() else { panic!("not one {word}: {}", self.ended().stderr) };
        sentence.clone()
    }

    /// A field of the report, as text.
    #[track_caller]
    pub(crate) fn field(&self, path: &str) -> Option<String> {
        let report = self.ended().report();
        report.pointer(&format!("/{}", path.replace('.', "/"))).map(text)
    }

    pub(crate) fn assert_looked(&self, scenario: &str) {
        assert!(self.looked, "{scenario}: nobody looked at how the last call ended");
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

/// Two tensors, of which the first has four bytes and the second is to be told, and eight bytes of data.
pub(crate) fn with_second(second: &str) -> Vec<u8> {
    safetensors(&format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},{second}}}"#), &[0; 8])
}

//! What files are that are taken for a model and are none.
//!
//! Owns the few that people have by mistake, and what to do about each. A file is looked at only when it could not be read as
//! what it was said to be; and when a file as it is would be sealed, for the one kind that nobody means to seal.

use std::fs::File;
use std::io::{self, Read, Seek};

use super::{Input, ShardSource, load_error};
use crate::error::VramError;

const HEAD_BYTES: u64 = 64;

/// A pointer to a file in git-lfs begins so, and is shorter than this.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const POINTER_BYTES: u64 = 1024;
const POINTER_ADVICE: &str =
    "it is a git-lfs pointer, which stands for the model and is not it; fetch the model with `git lfs pull`";

/// What begins so is no safetensors file; each with what to do.
const KINDS: [(&[u8], &str); 7] = [
    (POINTER, POINTER_ADVICE),
    (b"PK\x03\x04", "it is a zip archive, as PyTorch writes models (.bin, .pt); convert it to safetensors"),
    (b"GGUF", "it is a GGUF file; give the model as safetensors"),
    (b"\x89HDF", "it is an HDF5 file, as Keras writes models (.h5); convert it to safetensors"),
    (b"\x93NUMPY", "it is a NumPy array (.npy); convert it to safetensors"),
    (b"\x1f\x8b", "it is compressed by gzip; unpack it"),
    (b"{", "it is JSON text; give the safetensors file that it goes with"),
];
const PICKLE_ADVICE: &str = "it is a Python pickle, as PyTorch writes models (.bin, .pt); convert it to safetensors";
const PAGES: [&[u8]; 3] = [b"<!doctype", b"<html", b"<?xml"];
const PAGE_ADVICE: &str = "it is a web page, such as the message of a download that failed; download the model again";
const TEXT_ADVICE: &str = "it is plain text, such as the message of a download that failed; download the model again";

/// The error about a file that could not be read as a model: in words of its kind, where that is known.
pub(super) fn explained(file: &mut File, name: &str, error: VramError) -> VramError {
    match (error, head(file).ok().and_then(|head| kind(&head))) {
        (VramError::ModelLoad { source: None, .. }, Some(kind)) => load_error(name, kind, None),
        (VramError::ModelLoad { problem, source }, _) => load_error(name, &problem, source),
        (other, _) => other,
    }
}

fn kind(head: &[u8]) -> Option<&'static str> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let page = |page: &&[u8]| text.get(..page.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(page));
    if PAGES.iter().any(page) {
        return Some(PAGE_ADVICE);
    }
    if matches!(head, [0x80, 2..=5, ..]) {
        return Some(PICKLE_ADVICE);
    }
    let known = KINDS.iter().find(|(begin, _)| head.starts_with(begin)).map(|(_, kind)| *kind);
    // No length of a header is eight letters.
    let is_text = head.len() >= 8 && head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    known.or(is_text.then_some(TEXT_ADVICE))
}

/// The first bytes of a file, which stands at its beginning then.
fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.rewind()?;
    Read::by_ref(file).take(HEAD_BYTES).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(head)
}

impl ShardSource<'_> {
    /// Refuses to seal a git-lfs pointer in place of the model. (A digest of it is a digest of a file like any other.)
    pub(super) fn refuse_pointer(&mut self) -> Result<(), VramError> {
        if let Input::File { file, name, .. } = &mut self.input
            && self.plan.is_none()
            && self.bytes < POINTER_BYTES
        {
            let unreadable = |error: io::Error| load_error(name, &format!("it cannot be read: {error}"), Some(error));
            if head(file).map_err(unreadable)?.starts_with(POINTER) {
                return Err(load_error(name, POINTER_ADVICE, None));
            }
        }
        Ok(())
    }
}

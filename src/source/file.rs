//! Opening model files, and how their paths are shown.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use super::load_error;
use crate::error::VramError;

const PATH_CHARS: usize = 200;

/// Opens a regular file, and nothing else: to open a pipe could block for ever. (Whoever swaps the file for a pipe between
/// the two calls still can make it block; the second look keeps that from becoming a wrong answer.)
pub(super) fn open_regular(path: &Path) -> Result<(File, String, Metadata), VramError> {
    let name = shown(path);
    let failed = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file; check the path",
            io::ErrorKind::PermissionDenied => "this process may not read it; check its permissions",
            _ => "it cannot be opened; check the path and the file system",
        };
        load_error(&name, &format!("{advice} ({error})"), Some(error))
    };
    let regular = |metadata: &Metadata| {
        if metadata.is_file() {
            Ok(())
        } else if metadata.is_dir() {
            Err(load_error(&name, "it is a directory; name the model file in it", None))
        } else {
            Err(load_error(&name, "it is no regular file; pass pipes and devices as a reader of known length", None))
        }
    };
    regular(&fs::metadata(path).map_err(failed)?)?;
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    regular(&metadata)?;
    Ok((file, name, metadata))
}

/// A file of which everything that is read is kept.
pub(super) struct Recorded {
    pub(super) file: File,
    pub(super) read: Vec<u8>,
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.read.try_reserve(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.read.extend_from_slice(buffer.get(..bytes).unwrap_or_default());
        Ok(bytes)
    }
}

/// A path for messages: quoted, escaped, also where it is no text, and bounded; of a long one the end, which says more.
pub(super) fn shown(path: &Path) -> String {
    let escaped: Vec<String> = path
        .as_os_str()
        .as_encoded_bytes()
        .utf8_chunks()
        .flat_map(|chunk| {
            let no_text = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            chunk.valid().chars().map(|character| character.escape_debug().to_string()).chain(no_text)
        })
        .collect();
    let surplus = escaped.len().saturating_sub(PATH_CHARS);
    let cut = if surplus > 0 { "…" } else { "" };
    format!("\"{cut}{}\"", escaped.get(surplus..).unwrap_or_default().concat())
}

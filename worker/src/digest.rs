//! `vram-worker digest`: the digest of files, without a device.
//!
//! Promises the output of `fsverity digest` for the `file` layout, byte for byte. Unlike that tool it goes on after a file that
//! cannot be read, as `sha256sum` does; the exit code tells.

use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use vram_residency::{ShardSource, TreeParams, digest_source};

use crate::cli::{self, DigestOptions, Layout};
use crate::exit::{self, Failure};
use crate::model_index::{self, Files};
use crate::output;

/// Prints a line for each file.
pub(crate) fn digest(options: &DigestOptions) -> ExitCode {
    let params = match params(options) {
        Ok(params) => params,
        Err(failure) => return exit::refuse(&failure, false),
    };
    let mut first_failure = None;
    for file in &options.files {
        let printed = each_file(file, options, &params);
        if let Err(failure) = printed {
            failure.tell();
            first_failure.get_or_insert(failure.exit_code());
            if matches!(failure, Failure::Io { .. } | Failure::Unread) {
                break; // nobody takes the digests of the other files either
            }
        }
    }
    first_failure.map_or(ExitCode::SUCCESS, ExitCode::from)
}

fn params(options: &DigestOptions) -> Result<TreeParams, Failure> {
    let salt = options.salt.as_deref().map_or(Ok(Vec::new()), cli::salt)?;
    Ok(TreeParams::new(options.block_size, &salt)?)
}

/// Prints the line of a file; of an index, in the `tensors` layout, those of the files that it names.
fn each_file(path: &Path, options: &DigestOptions, params: &TreeParams) -> Result<(), Failure> {
    let one = |path: &Path| of_file(path, options, params).and_then(|digests| print(&digests, path));
    if options.layout == Layout::Tensors && model_index::is_index(path) {
        return Files::open(path, None, options.layout, params)?.iter().try_for_each(|file| one(&file.path));
    }
    one(path)
}

/// The digest of the image, and of an image of tensors that of its layout.
fn of_file(path: &Path, options: &DigestOptions, params: &TreeParams) -> Result<String, Failure> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let source = open(path, options.layout)?;
    let found = digest_source(source, params, threads)?;
    Ok(match options.layout {
        Layout::File => found.digest.to_string(),
        Layout::Tensors => format!("{} layout:{}", found.digest, hex::encode(found.layout.digest())),
    })
}

/// Opens a file in a layout.
pub(crate) fn open(path: &Path, layout: Layout) -> Result<ShardSource<'static>, Failure> {
    Ok(match layout {
        Layout::File => ShardSource::file(path)?,
        Layout::Tensors => ShardSource::safetensors(path)?,
    })
}

/// One line. The path is printed as it was given, whatever its bytes are.
fn print(digests: &str, path: &Path) -> Result<(), Failure> {
    let mut line = format!("{digests} ").into_bytes();
    line.extend_from_slice(path.as_os_str().as_bytes());
    line.push(b'\n');
    output::write(|out| out.write_all(&line))
}

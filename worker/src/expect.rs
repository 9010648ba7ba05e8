//! What somebody vouched for, on the command line.
//!
//! Owns [`Expectations`]: the options `--expect…`, understood, and what they say of each file. Promises that every digest is of a
//! whole file, so that it vouches for names, types and shapes too, and that a list which leaves a file out or contradicts itself is
//! refused.

use std::num::NonZeroUsize;
use std::path::Path;

use vram_residency::{DigestKind, Expectation, LayoutKind, ShardId, TreeParams, VramError, digest_reader};

use crate::cli::RunOptions;
use crate::digest;
use crate::exit::Failure;
use crate::signals::Signals;

mod list;

use list::List;

/// What is expected of a model's files.
#[derive(Debug)]
pub(crate) enum Expectations {
    /// Nothing.
    None,
    /// This, of its one file.
    One(Expectation),
    /// What a list says.
    Listed(List),
}

impl Expectations {
    /// Judges the options.
    pub(crate) fn given(options: &RunOptions, signals: &Signals) -> Result<Self, Failure> {
        let params = TreeParams::new(options.expect_block_size.unwrap_or(TreeParams::default().block_size()), &[])?;
        if let Some(digest) = &options.expect {
            return Ok(Self::One(Expectation::FsVerityWith { digest: digest.parse()?, params }));
        }
        if let Some(digest) = &options.expect_sha256 {
            return Ok(Self::One(Expectation::Sha256(sha256(digest)?)));
        }
        match options.expect_file.clone() {
            // It may be a pipe in which nothing comes.
            Some(path) => Ok(Self::Listed(signals.during(move || List::read(&path, &params))??)),
            None => Ok(Self::None),
        }
    }

    /// What is expected of this file of the model.
    pub(crate) fn of_file(&self, path: &Path) -> Result<Option<Expectation>, Failure> {
        match self {
            Self::None => Ok(None),
            Self::One(expectation) => Ok(Some(expectation.clone())),
            Self::Listed(list) => list.of_file(path).map(Some),
        }
    }

    /// What is expected of the index of a model of several files, for which one digest is not enough.
    pub(crate) fn of_index(&self, path: &Path) -> Result<Option<Expectation>, Failure> {
        match self {
            Self::One(_) => Err(VramError::InvalidParams {
                field: "expectation",
                problem:
                    "is one digest, and an index names several files; give --expect-file, a list of the index and them"
                        .to_owned(),
            }
            .into()),
            _ => self.of_file(path),
        }
    }

    /// Whether a list, if there is one, names exactly these files: none left out, none too many.
    pub(crate) fn name_exactly(&self, files: &[&Path]) -> Result<(), Failure> {
        match self {
            Self::Listed(list) => list.name_exactly(files),
            _ => Ok(()),
        }
    }
}

/// The 32 bytes of a plain SHA-256.
fn sha256(text: &str) -> Result<[u8; 32], VramError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| VramError::InvalidParams {
        field: "SHA-256",
        problem: if text.starts_with("sha256:") {
            "has sha256: before it, which marks a digest of fs-verity; give that as --expect, or the bare digits of sha256sum"
        } else {
            "is not 64 hexadecimal digits; give what sha256sum prints"
        }
        .to_owned(),
    })?;
    Ok(bytes)
}

/// Says of a model that is not the expected one what was expected instead, if that is known. It is read once more for this.
pub(crate) fn explained(failure: Failure, options: &RunOptions) -> Failure {
    let Failure::Vram(error @ VramError::DigestMismatch { of, expected, .. }) = failure else { return failure };
    let other = match of {
        DigestKind::FsVerity => Expectation::Sha256(*expected.as_bytes()),
        DigestKind::Sha256 => Expectation::FsVerity(expected),
        _ => return Failure::Vram(error),
    };
    let found = options.model.as_deref().and_then(|path| look_again(path, options, other).ok());
    let hint = match found {
        Some((_, true)) if of == DigestKind::FsVerity => {
            "that is the plain SHA-256 of the file: give it as --expect-sha256".to_owned()
        }
        Some((_, true)) => format!("that is the fs-verity digest of the file: give it as --expect {expected}"),
        Some((image, _)) if image.0 == expected && image.1 == LayoutKind::Tensors => {
            "that is the digest of the tensors alone, which says nothing of names, types and shapes: give that of the file, as \
             `vram-worker digest` prints it"
                .to_owned()
        }
        Some((image, _)) if image.0 == expected => {
            format!("that is its digest with blocks of {0} bytes: give --expect-block-size {0}", options.block_size)
        }
        _ => return Failure::Vram(error),
    };
    Failure::Unexpected { error, hint }
}

type Image = (vram_residency::Digest, LayoutKind);

/// The digest of a file's image, and whether the file is what another kind of expectation says.
fn look_again(path: &Path, options: &RunOptions, other: Expectation) -> Result<(Image, bool), Failure> {
    let params = TreeParams::new(options.block_size, &[])?;
    let image = digest::open(path, options.layout)?.into_image(&params)?;
    let kind = image.layout().kind();
    let mut image = image.expect(ShardId::new("model")?, &other)?;
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let digest = digest_reader(&params, threads, &mut image);
    let (digest, _) = digest.map_err(|source| Failure::Io { what: "reading the model again", source })?;
    Ok(((digest, kind), image.finish().is_ok()))
}

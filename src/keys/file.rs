//! Secrets from files.
//!
//! Owns how a secret's file is judged before it is believed. No message names the path or the credential: logs travel
//! further than secrets' places should. What is judged is the open descriptor, never the path, so that nothing can be swapped in
//! between; opening waits for nobody, a pipe's writer included. The bytes are taken as they are, a final newline included.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{SECRET_BYTES, SecretOrigin, WorkerSecret, config};
use crate::error::VramError;

/// How strictly a secret's file is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretFileMode {
    /// A regular file, not a symbolic link, owned by root or the effective user, with no permission for group or others.
    Strict,
    /// As containers and credential folders provide secrets: links are followed, others may read; a file that group or
    /// others may write is refused.
    Mounted,
}

impl WorkerSecret {
    /// Reads a secret from a file, judged by [`SecretFileMode::Strict`].
    ///
    /// # Errors
    /// `CONFIG_ERROR` when the file is missing, guarded too loosely, or not 32 to 4096 bytes long.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, VramError> {
        Self::from_file_with(path, SecretFileMode::Strict)
    }

    /// Reads a secret from a file that a container runtime mounted, judged by [`SecretFileMode::Mounted`].
    ///
    /// # Errors
    /// `CONFIG_ERROR` when the file is missing, guarded too loosely, or not 32 to 4096 bytes long.
    pub fn from_file_mounted(path: impl AsRef<Path>) -> Result<Self, VramError> {
        Self::from_file_with(path, SecretFileMode::Mounted)
    }

    /// Reads a secret from a file, judged as told.
    ///
    /// ```
    /// use vram_residency::{SecretFileMode, WorkerSecret};
    /// let error = WorkerSecret::from_file_with("/no/such/file", SecretFileMode::Strict).unwrap_err();
    /// assert!(!error.to_string().contains("/no/such"));
    /// ```
    ///
    /// # Errors
    /// `CONFIG_ERROR` when the file is missing, guarded too loosely, or not 32 to 4096 bytes long.
    pub fn from_file_with(path: impl AsRef<Path>, mode: SecretFileMode) -> Result<Self, VramError> {
        let mut file = open(path.as_ref(), mode)?;
        judge(&file.metadata().map_err(|error| unreadable(&error))?, mode)?;
        read(&mut file)
    }

    /// Reads the credential `name` that systemd passed to the service (`LoadCredential=`, `LoadCredentialEncrypted=`).
    ///
    /// The name is 1 to 255 characters of `[A-Za-z0-9._-]` without a leading dot.
    ///
    /// # Errors
    /// `CONFIG_ERROR` when the name is not such a name, when `$CREDENTIALS_DIRECTORY` is not set, and as
    /// [`WorkerSecret::from_file_mounted`].
    pub fn from_systemd_credential(name: &str) -> Result<Self, VramError> {
        Self::from_credential(std::env::var_os("CREDENTIALS_DIRECTORY"), name)
    }

    pub(super) fn from_credential(directory: Option<OsString>, name: &str) -> Result<Self, VramError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 255 || name.starts_with('.') || !name.chars().all(plain) {
            return Err(config(
                "has a credential name that cannot be; give 1 to 255 characters of A-Z a-z 0-9 . _ - without a leading dot",
            ));
        }
        let directory = directory.ok_or_else(|| {
            config("is a systemd credential, but CREDENTIALS_DIRECTORY is not set; use LoadCredential=")
        })?;
        let directory = Path::new(&directory);
        if !directory.is_absolute() {
            return Err(config(
                "is a systemd credential, but CREDENTIALS_DIRECTORY is not an absolute path; use LoadCredential=",
            ));
        }
        Self::from_file_mounted(directory.join(name))
    }
}

/// The cause in the operating system's words, which name no path.
fn unreadable(error: &std::io::Error) -> VramError {
    config(format!("cannot be read: {}; name a file that is there and that this process may read", error.kind()))
}

/// Opens without waiting, without becoming anybody's terminal, and without handing the descriptor to programs that are started.
fn open(path: &Path, mode: SecretFileMode) -> Result<File, VramError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = match mode {
        SecretFileMode::Strict => flags | OFlags::NOFOLLOW,
        SecretFileMode::Mounted => flags,
    };
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => Ok(file.into()),
        Err(Errno::LOOP) if mode == SecretFileMode::Strict => Err(config(
            "is not a regular file but a symbolic link; name the file itself, or have it judged as a mounted secret",
        )),
        Err(error) => Err(unreadable(&error.into())),
    }
}

fn judge(file: &Metadata, mode: SecretFileMode) -> Result<(), VramError> {
    if !file.is_file() {
        return Err(config("is not a regular file; name a file that holds 32 to 4096 bytes"));
    }
    let (forbidden, remedy) = match mode {
        SecretFileMode::Strict => {
            (0o077, "can be used by group or others; chmod 600 it, or have it judged as a mounted secret")
        }
        SecretFileMode::Mounted => (0o022, "can be written by group or others; take that permission away"),
    };
    if file.mode() & forbidden != 0 {
        return Err(config(remedy));
    }
    if mode == SecretFileMode::Strict && file.uid() != 0 && file.uid() != rustix::process::geteuid().as_raw() {
        return Err(config("belongs to another user; chown it to the one that runs this process"));
    }
    Ok(())
}

fn read(file: &mut File) -> Result<WorkerSecret, VramError> {
    // One byte more than is allowed, so that what is too long shows; one buffer, so that growing leaves no copies behind.
    let mut buffer = Zeroizing::new(vec![0; SECRET_BYTES.end().saturating_add(1)].into_boxed_slice());
    let mut rest: &mut [u8] = &mut buffer;
    let mut length = 0_usize;
    while !rest.is_empty() {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => {
                length = length.saturating_add(count);
                rest = rest.get_mut(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    if length > *SECRET_BYTES.end() {
        return Err(config("is longer than 4096 bytes; give 32 to 4096"));
    }
    let secret = WorkerSecret::from_bytes(buffer.get(..length).unwrap_or_default())?;
    Ok(WorkerSecret { origin: SecretOrigin::Stored, ..secret })
}

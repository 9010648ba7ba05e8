//! How the process ends.
//!
//! Owns [`Failure`], the one mapping from failures to exit codes, and the one sentence that a failure is told in.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use vram_residency::{DigestKind, ErrorCategory, ErrorCode, VramError};

use crate::help;
use crate::output;
use crate::signals::Signal;

/// Why a command did not do everything that it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library, or the worker in the library's words.
    Vram(VramError),
    /// The operating system refused something that is no part of a model.
    Io {
        /// What was being done.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The model is not the expected one, and it is known what was expected in its place.
    Unexpected {
        /// What was found.
        error: VramError,
        /// What to give instead.
        hint: String,
    },
    /// Whoever read standard output has stopped to.
    Unread,
    /// A signal came.
    Interrupted(Signal),
}

impl From<VramError> for Failure {
    fn from(error: VramError) -> Self {
        Self::Vram(error)
    }
}

/// What the worker itself finds wrong with the arguments before any option is read.
const USAGE: u8 = 2;

impl Failure {
    /// The documented exit code. The only place that maps errors to codes.
    pub(crate) const fn exit_code(&self) -> u8 {
        let error = match self {
            Self::Interrupted(signal) => return signal.exit_code(),
            Self::Io { .. } | Self::Unread => return 1,
            Self::Vram(error) | Self::Unexpected { error, .. } => error,
        };
        match error.code() {
            ErrorCode::InvalidParams | ErrorCode::ConfigError | ErrorCode::ModelLoadFailed => USAGE,
            ErrorCode::SealVerificationFailed | ErrorCode::DigestMismatch => 3,
            ErrorCode::DeviceUnavailable
            | ErrorCode::CudaError
            | ErrorCode::DeviceUntrusted
            | ErrorCode::WipeFailed
            | ErrorCode::VramOom
            | ErrorCode::PolicyViolation
            | ErrorCode::AuditUnavailable => 4,
            _ => 1,
        }
    }

    /// The outward code, also for what is not the library's.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Vram(error) | Self::Unexpected { error, .. } => error.code().as_str(),
            Self::Io { .. } | Self::Unread => ErrorCode::Internal.as_str(),
            Self::Interrupted(_) => "INTERRUPTED",
        }
    }

    const fn category(&self) -> &'static str {
        match self {
            Self::Vram(error) | Self::Unexpected { error, .. } => match error.category() {
                ErrorCategory::User => "user",
                ErrorCategory::Capacity => "capacity",
                ErrorCategory::Integrity => "integrity",
                ErrorCategory::Device => "device",
                ErrorCategory::Policy => "policy",
                ErrorCategory::State => "state",
                _ => "internal",
            },
            Self::Io { .. } | Self::Unread => "internal",
            Self::Interrupted(_) => "user",
        }
    }

    /// One sentence: what happened, to what, and what to do.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Vram(error @ VramError::DeviceUnavailable { .. }) if cfg!(feature = "mock") => {
                format!("{error}; to try it without a GPU: --device mock, which protects nothing")
            }
            Self::Vram(error @ VramError::DigestMismatch { of: DigestKind::FsVerity, .. }) => format!(
                "{error}; `vram-worker digest` prints it, and for blocks of another size than 4096 bytes there is \
                 --expect-block-size"
            ),
            Self::Vram(error @ VramError::DigestMismatch { of: DigestKind::Sha256, .. }) => {
                format!("{error}; `sha256sum` prints it")
            }
            Self::Unexpected { error, hint } => format!("{error}; {hint}"),
            Self::Vram(VramError::OutOfMemory { needed, available }) if needed > available => format!(
                "the device has no room: {needed} bytes are needed and {available} are available; lower the headroom (--headroom), end other \
                 programs that use the device, or use a smaller model"
            ),
            Self::Vram(error) => error.to_string(),
            Self::Io { what, source } => format!("{what} failed: {source}; {}", mend(source.kind())),
            Self::Unread => "nobody reads standard output any more".to_owned(),
            Self::Interrupted(signal) => format!("ended by {signal}; every shard was wiped and released"),
        }
    }

    /// The failure as data.
    pub(crate) fn to_json(&self) -> ErrorJson {
        ErrorJson { code: self.code(), category: self.category(), message: self.message() }
    }

    /// Says the sentence on stderr. A stderr that is gone is no further failure. Nothing is said of a reader that has enough, as
    /// in `| head -1`.
    pub(crate) fn tell(&self) {
        if matches!(self, Self::Unread) {
            return;
        }
        let word = if matches!(self, Self::Interrupted(_)) { "interrupted" } else { "error" };
        let _nobody_listens = writeln!(io::stderr(), "{word}: {}", self.message());
    }
}

/// What to do about what the operating system refused.
const fn mend(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{
        FileTooLarge, NotFound, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        WouldBlock,
    };
    match kind {
        StorageFull | QuotaExceeded | FileTooLarge => "make room there, then run again",
        NotFound | PermissionDenied | ReadOnlyFilesystem => "see that it is there and may be written, then run again",
        // What a thread that cannot be started is told, too.
        OutOfMemory | WouldBlock => "raise the memory limit of this process, or its number of threads, then run again",
        _ => "mend that, then run again",
    }
}

/// A failure in the JSON report.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorJson {
    code: &'static str,
    category: &'static str,
    message: String,
}

/// The JSON of a command that failed before it did anything.
#[derive(Debug, Serialize)]
struct Refused {
    error: ErrorJson,
    executed: u64,
}

/// Ends a command that failed before it did anything.
pub(crate) fn refuse(failure: &Failure, json: bool) -> ExitCode {
    if !json || output::write_json(&Refused { error: failure.to_json(), executed: 0 }).is_err() {
        failure.tell();
    }
    ExitCode::from(failure.exit_code())
}

/// Ends with what the argument parser has to say: help and version on stdout, usage errors on stderr, or as JSON where that was
/// asked for (by a command line which, being wrong, was not understood as a whole).
pub(crate) fn usage(error: clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match output::write(|_| error.print()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => refuse(&failure, false),
        };
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The parser repeats arguments as they are: asked once more, with what can be shown.
    let error = help::parse(arguments.iter().map(legible)).err().unwrap_or(error);
    let text = error.to_string();
    let sentence = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    let message = sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned();
    let refused = ErrorJson { code: ErrorCode::InvalidParams.as_str(), category: "user", message };
    if !wants_json(&arguments) || output::write_json(&Refused { error: refused, executed: 0 }).is_err() {
        let _nobody_listens = error.print();
    }
    ExitCode::from(USAGE)
}

/// Whether the command line, which was not understood as a whole, is one of a command that knows `--json`.
fn wants_json(arguments: &[OsString]) -> bool {
    let (command, options) = (arguments.get(1), arguments.iter().skip(2).take_while(|argument| *argument != "--"));
    command.is_some_and(|command| command == "run" || command == "bench")
        && options.into_iter().any(|option| option == "--json")
}

/// How much of an argument is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// An argument as it can be shown: escaped, where a terminal would obey it, a line of it look like one of ours or it is no text,
/// and bounded.
fn legible(argument: &OsString) -> OsString {
    let chunks = argument.as_encoded_bytes().utf8_chunks();
    let mut parts = chunks.flat_map(|chunk| {
        let no_text = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        chunk.valid().chars().map(escaped).chain(no_text)
    });
    let mut shown: String = parts.by_ref().take(SHOWN_CHARS).collect();
    if parts.next().is_some() {
        shown.push('…');
    }
    shown.into()
}

/// A character, or what stands for one that cannot be seen.
fn escaped(character: char) -> String {
    let shown: String = character.escape_debug().collect();
    let unseen = character.is_control() || shown.starts_with("\\u");
    if unseen { shown } else { character.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;
    use vram_residency::{
        AuditError, DriverError, DriverErrorKind, ManagerState, RefusalReason, ShardId, StopReason, TreeParams,
        digest_bytes,
    };

    #[test]
    fn exit_codes_are_the_documented_ones() {
        // covers: ERR-2
        let shard = ShardId::new("s").unwrap();
        let digest = digest_bytes(&TreeParams::default(), b"");
        let device = DriverError { operation: "o", code: 1, name: "n", kind: DriverErrorKind::Other };
        let audit = AuditError { problem: String::new(), source: None };
        for (error, code) in [
            (VramError::InvalidParams { field: "f", problem: String::new() }, 2),
            (VramError::Config { setting: "s", problem: String::new() }, 2),
            (VramError::ModelLoad { problem: String::new(), source: None }, 2),
            (
                VramError::DigestMismatch {
                    shard: shard.clone(),
                    of: DigestKind::Image,
                    expected: digest,
                    actual: digest,
                },
                3,
            ),
            (VramError::SealRefused { reason: RefusalReason::Forged }, 3),
            (VramError::IntegrityFailure { shard: shard.clone(), first_bad: None }, 3),
            (VramError::DeviceUnavailable { problem: String::new() }, 4),
            (VramError::DeviceUntrusted { operation: "digest" }, 4),
            (VramError::OutOfMemory { needed: 2, available: 1 }, 4),
            (VramError::PolicyViolation { rule: "r", problem: String::new() }, 4),
            (VramError::WipeFailed { shard: shard.clone(), bytes: 1, source: None }, 4),
            (VramError::Device(device), 4),
            (VramError::AuditUnavailable { event: "e", source: audit }, 4),
            (VramError::ManagerStopped { state: ManagerState::Stopped(StopReason::Shutdown) }, 1),
            (VramError::ShardBusy { shard: shard.clone() }, 1),
            (VramError::StaleHandle { shard }, 1),
            (VramError::Internal { what: "w" }, 1),
        ] {
            assert_eq!(Failure::Vram(error).exit_code(), code);
        }
        assert_eq!(Failure::Io { what: "w", source: io::Error::other("o") }.exit_code(), 1);
        assert_eq!(Failure::Interrupted(Signal::Interrupt).exit_code(), 130);
        assert_eq!(Failure::Interrupted(Signal::Terminate).exit_code(), 143);
    }

    #[test]
    fn arguments_are_shown_escaped_and_bounded() {
        // covers: VAL-1 ERR-2
        let shown = |text: &str| legible(&text.into()).into_string().unwrap();
        assert_eq!(shown("a\nerror: forged"), "a\\nerror: forged");
        assert_eq!(shown("--device=\u{1b}[2Jx\u{202e}"), "--device=\\u{1b}[2Jx\\u{202e}");
        assert_eq!(shown("plain 'ü' \\"), "plain 'ü' \\");
        assert_eq!(
            shown("\u{9b}\u{7f}\u{61c}\u{2028}\u{200b}\u{e0041}"),
            "\\u{9b}\\u{7f}\\u{61c}\\u{2028}\\u{200b}\\u{e0041}"
        );
        let no_text = OsString::from_vec(b"a\xff\x1b[2Jb\xc2".to_vec());
        assert_eq!(legible(&no_text), "a\\xff\\u{1b}[2Jb\\xc2");
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shown(&"x".repeat(5000)), format!("{}…", "x".repeat(200)));
    }

    #[test]
    fn only_a_command_that_knows_json_answers_in_it() {
        let json = |line: &str| wants_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(json("w run --json") && json("w run x --frob --json") && json("w bench --json x"));
        assert!(!json("w run -- --json") && !json("w digest --json x") && !json("w --json") && !json("w run"));
    }
}

//! Standard output, and what a terminal may be sent.
//!
//! Owns [`write()`], the one way in which anything reaches standard output, and [`styled`], the one answer to whether a stream takes
//! escape codes. Promises that an output which was closed, is full or has lost its reader is noticed.

use std::env;
use std::io::{self, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::ser::Formatter;

use crate::exit::Failure;

/// Whether this process was started without a standard output.
static CLOSED: AtomicBool = AtomicBool::new(false);

ctor::declarative::ctor! {
    /// Has to be seen before `main`: there the standard library has opened `/dev/null` in place of a stream that was closed.
    #[ctor(unsafe)]
    fn look_at_standard_output() {
        CLOSED.store(rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err(), Ordering::Relaxed);
    }
}

/// Lets `print` write to standard output, and flushes it.
pub(crate) fn write(print: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = if CLOSED.load(Ordering::Relaxed) {
        Err(io::Error::other("it is closed"))
    } else {
        print(&mut out).and_then(|()| out.flush())
    };
    written.map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Io { what: "writing to standard output", source },
    })
}

/// Writes one JSON object and a newline on standard output, in printable ASCII: no terminal obeys what a name says.
pub(crate) fn write_json(value: &impl Serialize) -> Result<(), Failure> {
    write(|out| {
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, Ascii))?;
        writeln!(out)
    })
}

/// How wide a terminal is. `None` of what is none.
pub(crate) fn columns(stream: impl AsFd) -> Option<u16> {
    rustix::termios::tcgetwinsize(stream).ok().map(|size| size.ws_col)
}

/// Whether a stream may be sent escape codes: a terminal that knows them, for somebody who did not refuse them (no-color.org).
pub(crate) fn styled(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && escapes()
}

/// Whether the environment lets a terminal be sent escape codes.
pub(crate) fn escapes() -> bool {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_some_and(|terminal| terminal != "dumb")
}

/// JSON as `serde_json` writes it, with all that is not printable ASCII as `\u` escapes.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        for part in fragment.split_inclusive(|character: char| !matches!(character, ' '..='~')) {
            let plain = part.trim_end_matches(|character: char| !matches!(character, ' '..='~'));
            out.write_all(plain.as_bytes())?;
            for unit in part.get(plain.len()..).unwrap_or_default().encode_utf16() {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_printable_ascii_and_says_the_same() {
        // covers: AUD-6
        for text in
            ["plain", "a\u{9b}31m\u{7f}b\n\t\"\\", "\u{202e}\u{2066}\u{61c}\u{200b}\u{2028}\u{feff}", "ü𝄞\u{e0041}"]
        {
            let mut json = Vec::new();
            text.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Ascii)).unwrap();
            assert!(json.iter().all(|byte| matches!(byte, b' '..=b'~')), "{json:?}");
            assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}

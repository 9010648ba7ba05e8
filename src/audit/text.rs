//! How events are written.
//!
//! Owns the spelling of fields and [`json_line`], which promises that foreign text can neither split a record nor forge one.

use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::clock;
use crate::error::{BadRange, ErrorCode};

const MAX_CHARS: usize = 256;

pub(super) const MAX_ITEMS: usize = 64;

pub(super) fn bound(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(end);
        text.push('…');
    }
}

/// Foreign text as a bounded JSON string, in the spelling of [`json_line`].
pub(super) fn foreign(text: &str) -> String {
    let mut text = text.to_owned();
    bound(&mut text);
    json_line(&text)
}

/// One line of JSON in printable ASCII. Outside printable ASCII, and for `=`, characters are written as `\u` escapes: JSON
/// has them only inside strings, so the value stays the same, and text for machines that look for `key=value` finds none.
pub(super) fn json_line(value: &impl Serialize) -> String {
    // Plain data with text keys cannot fail to serialise; a record that says so beats a panic if it ever does.
    let json = serde_json::to_string(value).unwrap_or_else(|_| r#"{"event":"unwritable"}"#.to_owned());
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') && character != '=' {
            line.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(line, "\\u{unit:04x}");
            }
        }
    }
    line
}

pub(super) fn wall<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(clock::unix_nanos(*time))
}

pub(super) fn nanos<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(clock::nanos(*duration))
}

pub(super) fn hex<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

pub(super) fn display<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn code<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

pub(super) fn range<S: Serializer>(range: &Option<BadRange>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Range<'a> {
        offset: u64,
        bytes: u64,
        tensor: Option<&'a str>,
    }
    let range = range.as_ref();
    range.map(|r| Range { offset: r.offset, bytes: r.bytes, tensor: r.tensor.as_deref() }).serialize(serializer)
}

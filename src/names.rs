//! Names that travel into seals, events and file names.
//!
//! Owns [`ShardId`], [`WorkerId`], [`ModelRef`] and [`SetId`]. A value of one of these types is valid by construction: 1 to
//! 256 bytes of `[A-Za-z0-9._-]`, no leading dot, no `..`. Refused input is quoted bounded and escaped, never echoed raw.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::VramError;

/// The longest name, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 256;

/// How many characters of a refused name a message quotes.
const QUOTED_CHARS: usize = 40;

/// Quotes foreign text for a message: control characters escaped, at most 40 characters.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED_CHARS).flat_map(char::escape_default).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        quoted.push('…');
    }
    format!("\"{quoted}\"")
}

/// How many characters of another's message are shown.
const SHOWN_CHARS: usize = 200;

/// Another's message for one of ours: it may quote foreign text. Control characters escaped, at most 200 characters.
pub(crate) fn shown(message: &str) -> String {
    let mut shown: String = message.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if message.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

fn check(field: &'static str, text: &str) -> Result<(), VramError> {
    let problem = if text.is_empty() {
        "is empty; give 1 to 256 characters of A-Z a-z 0-9 . _ -".to_owned()
    } else if text.len() > MAX_NAME_BYTES {
        format!("is {} bytes long; at most {MAX_NAME_BYTES} are allowed", text.len())
    } else if text.starts_with('.') {
        format!("{} starts with a dot; begin with one of A-Z a-z 0-9 _ -", quote(text))
    } else if text.contains("..") {
        format!("{} contains \"..\"; put something between the dots", quote(text))
    } else if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
        format!("{} contains {:?}; only A-Z a-z 0-9 . _ - are allowed", quote(text), bad)
    } else {
        return Ok(());
    };
    Err(VramError::InvalidParams { field, problem })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the text and takes it as a name.
            ///
            /// # Errors
            /// `INVALID_PARAMS` when the text is empty, longer than 256 bytes, starts with a dot, contains `..`, or has a
            /// character outside `[A-Za-z0-9._-]`.
            pub fn new(text: impl Into<String>) -> Result<Self, VramError> {
                let text = text.into();
                check($field, &text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = VramError;

            fn from_str(text: &str) -> Result<Self, VramError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = VramError;

            fn try_from(text: String) -> Result<Self, VramError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// The caller's name for one shard, unique among the live shards of a manager.
    ///
    /// Events name working memory `scratch.PURPOSE.#N`: no text makes such a name, and no shard can be sealed under it.
    ///
    /// ```
    /// use vram_residency::ShardId;
    /// assert!(ShardId::new("llama-8b.part-0").is_ok());
    /// assert!(ShardId::new("../etc/passwd").is_err());
    /// ```
    ShardId,
    "shard id"
);
name!(
    /// The name of the worker process that seals; part of every seal and every event.
    WorkerId,
    "worker id"
);
name!(
    /// A caller's reference to the model that a shard belongs to (a registry name, a revision); signed, not interpreted.
    ModelRef,
    "model ref"
);

impl ShardId {
    /// What events and errors call working memory: `scratch.PURPOSE.#N`, which is no name for a shard.
    pub(crate) fn of_scratch(purpose: &str, key: u64) -> Self {
        Self(format!("scratch.{purpose}.#{key}"))
    }

    /// Whether a shard may have this name: one that an event gave to working memory it may not.
    pub(crate) fn check_for_shard(&self) -> Result<(), VramError> {
        check("shard id", &self.0)
    }
}

/// Names a set of shards that make up one model: 16 random bytes, printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetId([u8; 16]);

impl SetId {
    /// Draws a fresh id from the operating system's random source.
    ///
    /// # Errors
    /// `INTERNAL` when the operating system gives no randomness.
    pub fn random() -> Result<Self, VramError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|_| VramError::Internal { what: "the operating system gave no randomness" })?;
        Ok(Self(bytes))
    }

    /// Takes 16 bytes chosen elsewhere, so that several processes can name one set.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetId({self})")
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        // covers: VAL-1
        for good in ["a", "A.b_c-9", "x".repeat(256).as_str(), "a.b.c"] {
            assert_eq!(ShardId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", ".hidden", "a..b", "a/b", "a b", "é", "a\nb", "a\0b", "x".repeat(257).as_str()] {
            let error = ShardId::new(bad).unwrap_err();
            assert_eq!(error.code().as_str(), "INVALID_PARAMS", "{bad:?}");
            let message = error.to_string();
            assert!(message.contains("shard id"), "{message}");
            assert!(message.len() < 400 && !message.contains('\n') && !message.contains('\0'), "{message:?}");
        }
    }

    #[test]
    fn quoting_is_bounded_and_escaped() {
        // covers: VAL-1 AUD-6
        let hostile = "\u{1b}[31m\n".repeat(1000);
        let quoted = quote(&hostile);
        assert!(quoted.len() < 400 && quoted.is_ascii() == quoted.replace('…', "").eq(&quoted), "{quoted}");
        assert!(!quoted.contains('\n') && !quoted.contains('\u{1b}'));
    }

    #[test]
    fn set_ids_differ_and_print_as_hex() {
        let (one, two) = (SetId::random().unwrap(), SetId::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.to_string().len(), 32);
        assert_eq!(SetId::from_bytes(*one.as_bytes()), one);
    }
}

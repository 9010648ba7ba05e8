//! Names that travel into seals, events and file names.
//!
//! Owns [`ShardId`], [`WorkerId`], [`ModelRef`] and [`SetId`]. A value of one of these types is valid by construction: 1 to
//! 256 bytes of `[A-Za-z0-9._-]`, no leading dot, no `..`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::quote;

pub(crate) const MAX_NAME_BYTES: usize = 256;

/// What a caller gave is no such value. A [`VramError`](crate::VramError) of `INVALID_PARAMS` for those above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) field: &'static str,
    pub(crate) problem: String,
}

fn check(field: &'static str, text: &str) -> Result<(), Invalid> {
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
    Err(Invalid { field, problem })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub(crate) fn parse(text: String) -> Result<Self, Invalid> {
                check($field, &text).map(|()| Self(text))
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
    pub(crate) fn check_for_shard(&self) -> Result<(), Invalid> {
        check("shard id", &self.0)
    }
}

/// Names a set of shards that make up one model: 16 random bytes, printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetId([u8; 16]);

impl SetId {
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
    fn set_ids_differ_and_print_as_hex() {
        let (one, two) = (SetId::random().unwrap(), SetId::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.to_string().len(), 32);
        assert_eq!(SetId::from_bytes(*one.as_bytes()), one);
    }
}

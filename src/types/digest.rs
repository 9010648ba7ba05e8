//! A digest, how it is written and read, and what it was of.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Invalid;

/// A file digest of fs-verity: the SHA-256 of the 256-byte descriptor that binds root hash, length, block size and salt.
///
/// Prints and parses as `sha256:` and 64 lower-case hexadecimal digits, the spelling of `fsverity digest`; there is one
/// spelling for each digest. In serde formats it is that text. Not a secret: compared in ordinary time.
///
/// ```
/// use vram_residency::Digest;
/// let text = "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"; // of the empty file
/// let digest: Digest = text.parse()?;
/// assert_eq!(digest.to_string(), text);
/// # Ok::<(), vram_residency::VramError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

const PREFIX: &str = "sha256:";

const TEXT_CHARS: usize = 71;

impl Digest {
    /// Takes 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let bad = |problem: String| Invalid { field: "digest", problem };
        let mut expected = PREFIX.chars();
        let mut count = 0usize;
        for (position, found) in (1usize..).zip(text.chars()) {
            if position > TEXT_CHARS {
                return Err(bad(format!(
                    "goes on at character {position} with {found:?}; give sha256: and exactly 64 hexadecimal digits"
                )));
            }
            let wanted = expected.next();
            if wanted.is_some_and(|wanted| wanted != found) {
                return Err(bad(format!(
                    "has {found:?} as character {position}; it must start with {PREFIX:?} (the only algorithm)"
                )));
            }
            if wanted.is_none() && !matches!(found, '0'..='9' | 'a'..='f') {
                return Err(bad(format!(
                    "has {found:?} as character {position}; only the digits 0-9 and a-f (lower case) follow {PREFIX:?}"
                )));
            }
            count = position;
        }
        if count < TEXT_CHARS {
            return Err(bad(format!(
                "ends after character {count}; sha256: and 64 hexadecimal digits are {TEXT_CHARS}"
            )));
        }
        let mut bytes = [0; 32];
        text.strip_prefix(PREFIX)
            .and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok())
            .ok_or_else(|| bad("does not decode".to_owned()))?; // never: every character was looked at
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

words! {
    /// What a digest was of.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum DigestKind {
        /// A file, by fs-verity.
        FsVerity = "the file, by fs-verity",
        /// A file, by plain SHA-256.
        Sha256 = "the file, by plain SHA-256",
        /// An image, by fs-verity.
        Image = "the image, by fs-verity",
        /// What lies where in an image, by plain SHA-256.
        Layout = "the layout",
    }
}

impl DigestKind {
    /// A digest of this kind as its tools print it: only fs-verity's begin with the algorithm.
    #[must_use]
    pub fn spell(self, digest: &Digest) -> String {
        match self {
            Self::FsVerity | Self::Image => digest.to_string(),
            Self::Sha256 | Self::Layout => hex::encode(digest.as_bytes()),
        }
    }
}

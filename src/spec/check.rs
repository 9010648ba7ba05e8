//! How strong a check is.

use std::fmt;
use std::str::FromStr;

use crate::error::VramError;
use crate::text::quote;

/// What one check looks at, and how strongly. The strongest comes first.
///
/// A subtree is what lies under one entry of the tree's level-1 table: block size² / 32 bytes, 512 KiB with blocks of 4096 bytes. The checks of
/// parts find random faults only, with a known probability; somebody who knows which parts are looked at is not found.
///
/// ```
/// use vram_residency::Check;
/// assert_eq!("sample:16".parse::<Check>()?, Check::Sample(16));
/// assert_eq!(Check::Rotating(8).to_string(), "rotating:8");
/// assert!("sample:0".parse::<Check>().is_err());
/// # Ok::<(), vram_residency::VramError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// All bytes, by the SHA-256 tree.
    #[default]
    Digest,
    /// All bytes, by a keyed hash at memory speed, under a key that was drawn beside the last check by digest; that is made first where there
    /// is none yet, or where it is too long ago (`Policy::full_check_within`). Finds every change that was not chosen with knowledge of the
    /// key, which who can read VRAM or this process has; the next check by digest finds those.
    Keyed,
    /// A different part at each execute, so that every `n` executes have looked at all bytes: a fault that stays is found by the
    /// `n`-th execute after it.
    Rotating(u32),
    /// So many subtrees, at random; all of them where there are no more. Of N subtrees of which f are changed, k find none with the
    /// probability C(N − f, k) / C(N, k), which is 1 − k/N for one.
    Sample(u32),
}

impl Check {
    /// The kind of check in one word: `digest`, `keyed`, `rotating` or `sample`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Keyed => "keyed",
            Self::Rotating(_) => "rotating",
            Self::Sample(_) => "sample",
        }
    }

    /// Whether it looks at all bytes.
    #[must_use]
    pub const fn is_full(self) -> bool {
        matches!(self, Self::Digest | Self::Keyed)
    }

    /// The check that closes an execute: of all bytes.
    pub(crate) const fn closing(self) -> Self {
        if self.is_full() { self } else { Self::Digest }
    }

    /// Whether it would find less than `other`. What is of two kinds goes by the kind.
    pub(crate) fn is_weaker_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Rotating(mine), Self::Rotating(others)) => mine > others,
            (Self::Sample(mine), Self::Sample(others)) => mine < others,
            _ => self.rank() < other.rank(),
        }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Digest => 3,
            Self::Keyed => 2,
            Self::Rotating(_) => 1,
            Self::Sample(_) => 0,
        }
    }

    /// Refuses one that would look at nothing.
    ///
    /// # Errors
    /// `INVALID_PARAMS`.
    pub(crate) fn admit(self) -> Result<Self, VramError> {
        match self {
            Self::Rotating(0) | Self::Sample(0) => Err(VramError::InvalidParams {
                field: "check",
                problem: format!("is {self}, which looks at nothing; give at least 1"),
            }),
            check => Ok(check),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rotating(number) | Self::Sample(number) => write!(f, "{}:{number}", self.as_str()),
            Self::Digest | Self::Keyed => f.write_str(self.as_str()),
        }
    }
}

impl FromStr for Check {
    type Err = VramError;

    /// Reads what `Display` prints: `digest`, `keyed`, `rotating:N`, `sample:K`.
    fn from_str(text: &str) -> Result<Self, VramError> {
        let number = |digits: &str| digits.parse().ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit()));
        let check = match text.split_once(':') {
            None if text == "digest" => Some(Self::Digest),
            None if text == "keyed" => Some(Self::Keyed),
            Some(("rotating", digits)) => number(digits).map(Self::Rotating),
            Some(("sample", digits)) => number(digits).map(Self::Sample),
            _ => None,
        };
        let unknown = || VramError::InvalidParams {
            field: "check",
            problem: format!("is {}; give digest, keyed, rotating:N or sample:K", quote(text)),
        };
        check.ok_or_else(unknown)?.admit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_what_it_is_spelled_as() {
        // covers: VER-8 VAL-1
        for (text, check) in [
            ("digest", Check::Digest),
            ("keyed", Check::Keyed),
            ("rotating:1", Check::Rotating(1)),
            ("sample:4294967295", Check::Sample(u32::MAX)),
        ] {
            assert_eq!((text.parse::<Check>().unwrap(), check.to_string().as_str()), (check, text));
        }
        for wrong in [
            "",
            "Digest",
            "digest:1",
            "keyed:",
            "rotating",
            "rotating:0",
            "sample:0",
            "sample:+1",
            "sample:4294967296",
            "\u{1b}",
        ] {
            assert!(
                matches!(wrong.parse::<Check>(), Err(VramError::InvalidParams { field: "check", .. })),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn strengths_are_in_order() {
        // covers: VER-8
        let falling =
            [Check::Digest, Check::Keyed, Check::Rotating(2), Check::Rotating(3), Check::Sample(9), Check::Sample(8)];
        for (at, weaker) in falling.iter().enumerate() {
            for (other, stronger) in falling.iter().enumerate() {
                assert_eq!(weaker.is_weaker_than(*stronger), other < at, "{weaker} and {stronger}");
            }
        }
        assert!(
            falling.iter().all(|check| check.closing() == if *check == Check::Keyed { *check } else { Check::Digest })
        );
    }
}

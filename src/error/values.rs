//! Names, digests and device UUIDs from what callers give, with this crate's error for what they are not. The types themselves
//! lie below it.

use std::str::FromStr;

use super::VramError;
use crate::id::{ModelRef, SetId, ShardId, WorkerId};
use crate::types::{DeviceUuid, Digest};

pub(crate) fn draw(bytes: &mut [u8]) -> Result<(), VramError> {
    getrandom::fill(bytes).map_err(|_| VramError::Internal { what: "the operating system gave no randomness" })
}

macro_rules! name {
    ($($name:ident)*) => {$(
        impl $name {
            /// Checks the text and takes it as a name.
            ///
            /// # Errors
            /// `INVALID_PARAMS` when the text is empty, longer than 256 bytes, starts with a dot, contains `..`, or has a
            /// character outside `[A-Za-z0-9._-]`.
            pub fn new(text: impl Into<String>) -> Result<Self, VramError> {
                Ok(Self::parse(text.into())?)
            }
        }

        impl FromStr for $name {
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
    )*};
}

name!(ShardId WorkerId ModelRef);

impl SetId {
    /// Draws a fresh id from the operating system's random source.
    ///
    /// # Errors
    /// `INTERNAL` when the operating system gives no randomness.
    pub fn random() -> Result<Self, VramError> {
        let mut bytes = [0; 16];
        draw(&mut bytes)?;
        Ok(Self::from_bytes(bytes))
    }
}

impl FromStr for Digest {
    type Err = VramError;

    /// Parses `sha256:` and 64 lower-case hexadecimal digits. O(1).
    ///
    /// # Errors
    /// `INVALID_PARAMS` naming the position of the first bad character, counted from 1.
    fn from_str(text: &str) -> Result<Self, VramError> {
        Ok(Self::parse(text)?)
    }
}

impl TryFrom<String> for Digest {
    type Error = VramError;

    fn try_from(text: String) -> Result<Self, VramError> {
        text.parse()
    }
}

impl FromStr for DeviceUuid {
    type Err = VramError;

    /// Takes `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, or the same with `MIG-`, as `nvidia-smi -L` prints them: in whole, not
    /// abbreviated. What is behind the prefix tells devices and instances apart.
    ///
    /// # Errors
    /// `INVALID_PARAMS`, with what to give.
    fn from_str(text: &str) -> Result<Self, VramError> {
        Ok(Self::parse(text)?)
    }
}

//! The worker's secret, and the keys that are derived from it.
//!
//! Owns [`WorkerSecret`] (where secrets come from), [`SealKey`], the key of a keyed check ([`keyed`]) and [`Tag`]. Promises: what is
//! secret lies in a box from the moment it is drawn, read or derived, and is zeroed when dropped; it has no `Clone`, no comparison, and
//! appears in no `Debug` output or error. One key per purpose, manager and device (HKDF-SHA256, RFC 5869), so that a key made for one
//! thing proves nothing elsewhere. Refuses short, oversized and loosely guarded secrets.
//!
//! Short-lived copies (a register, a stack slot inside the hash crates) are outside what this file can promise.

mod file;
pub(crate) mod keyed;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use self::file::SecretFileMode;
pub(crate) use self::keyed::{Enrolment, KeyedKey};
use crate::error::{VramError, draw};
use crate::types::{DeviceKind, DeviceUuid};

const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;

/// Begins the HKDF info of every key, so that no other program's use of the same secret yields one of ours.
const KEY_DOMAIN: &[u8] = b"vram-residency/key\0";

/// Changes when the derivation does.
const KEY_VERSION: u16 = 1;

/// The HMAC-SHA256 block, to which HMAC itself pads a shorter key with zeros.
const BLOCK_BYTES: usize = 64;

/// What all keys of a worker are derived from: 32 to 4096 secret bytes.
///
/// Boxed, zeroed on drop, shown nowhere. Deriving takes microseconds.
///
/// ```
/// use vram_residency::WorkerSecret;
/// assert!(WorkerSecret::from_bytes(&[7; 32]).is_ok());
/// assert!(WorkerSecret::from_bytes(b"too short").is_err());
/// assert_eq!(format!("{:?}", WorkerSecret::random()?), "WorkerSecret(..)");
/// # Ok::<(), vram_residency::VramError>(())
/// ```
///
/// It cannot be copied or compared:
///
/// ```compile_fail,E0599
/// let secret = vram_residency::WorkerSecret::random().unwrap();
/// let copy = secret.clone();
/// ```
///
/// ```compile_fail,E0369
/// use vram_residency::WorkerSecret;
/// let same = WorkerSecret::random().unwrap() == WorkerSecret::random().unwrap();
/// ```
pub struct WorkerSecret {
    bytes: Zeroizing<Box<[u8]>>,
    origin: SecretOrigin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecretOrigin {
    /// A file or a credential: it outlives the process.
    Stored,
    /// This process: bytes from its caller, or drawn at random.
    Process,
}

impl WorkerSecret {
    /// Copies a secret from memory. The caller's copy stays the caller's to erase.
    ///
    /// # Errors
    /// `CONFIG_ERROR` outside 32 to 4096 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VramError> {
        if SECRET_BYTES.contains(&bytes.len()) {
            Ok(Self { bytes: Zeroizing::new(Box::from(bytes)), origin: SecretOrigin::Process })
        } else {
            Err(config(format!("is {} bytes long; 32 to 4096 are allowed", bytes.len())))
        }
    }

    /// Draws 32 bytes from the operating system. Nothing that this secret keys can be checked after the process ends.
    ///
    /// # Errors
    /// `INTERNAL` when the operating system gives no randomness.
    pub fn random() -> Result<Self, VramError> {
        let mut bytes: Zeroizing<Box<[u8]>> = Zeroizing::new(Box::new([0; 32]));
        draw(&mut bytes)?;
        Ok(Self { bytes, origin: SecretOrigin::Process })
    }

    pub(crate) const fn origin(&self) -> SecretOrigin {
        self.origin
    }
}

/// A refusal that names the setting and never the path or the contents.
fn config(problem: impl Into<String>) -> VramError {
    VramError::Config { setting: "worker secret", problem: problem.into() }
}

/// What a derived key is for. A new use (a journal, an attestation) is a new variant with a label of its own and a key type
/// of its own, never a second use of [`SealKey`].
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// Tags of seals.
    Seal,
    /// Something else, to show that its keys do not verify seals.
    #[cfg(test)]
    Other,
}

impl Purpose {
    /// The label in the HKDF info. Labels are never reused.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Seal => b"seal",
            #[cfg(test)]
            Self::Other => b"other",
        }
    }
}

/// The HKDF info: domain, version, then purpose, device kind (each behind a length byte) and device UUID.
fn info(purpose: Purpose, kind: DeviceKind, uuid: &DeviceUuid) -> Result<Vec<u8>, VramError> {
    let mut info = KEY_DOMAIN.to_vec();
    info.extend_from_slice(&KEY_VERSION.to_le_bytes());
    for part in [purpose.label(), kind.as_str().as_bytes()] {
        let length = u8::try_from(part.len()).map_err(|_| VramError::Internal { what: "a key label is too long" })?;
        info.push(length);
        info.extend_from_slice(part);
    }
    info.extend_from_slice(uuid.as_bytes());
    Ok(info)
}

/// HKDF-SHA256 (RFC 5869), extract and expand: fills `output`. Fails only for more than 255 hashes of it.
fn expand(secret: &[u8], salt: &[u8], info: &[u8], output: &mut [u8]) -> Result<(), VramError> {
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(info, output)
        .map_err(|_| VramError::Internal { what: "a key could not be derived" })
}

/// The key that signs the seals of one manager on one device.
///
/// 32 derived bytes, kept padded to HMAC's block so that keying cannot fail.
pub(crate) struct SealKey(Box<Zeroizing<[u8; BLOCK_BYTES]>>);

impl SealKey {
    /// Derives the key: HKDF-SHA256 with the manager's random salt and an info that names purpose and device.
    ///
    /// Fails only with `INTERNAL`.
    pub(crate) fn derive(
        secret: &WorkerSecret,
        salt: &[u8; 32],
        kind: DeviceKind,
        uuid: &DeviceUuid,
    ) -> Result<Self, VramError> {
        Self::derive_for(Purpose::Seal, secret, salt, kind, uuid)
    }

    fn derive_for(
        purpose: Purpose,
        secret: &WorkerSecret,
        salt: &[u8; 32],
        kind: DeviceKind,
        uuid: &DeviceUuid,
    ) -> Result<Self, VramError> {
        let mut key = Self(Box::new(Zeroizing::new([0; BLOCK_BYTES])));
        let (output, _padding) = key.0.split_at_mut(32);
        expand(&secret.bytes, salt, &info(purpose, kind, uuid)?, output)?;
        Ok(key)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Tag {
        Tag::of(&self.0, message)
    }

    /// Whether the tag is that of the message, in time that does not depend on either's contents. O(length).
    pub(crate) fn verify(&self, message: &[u8], tag: &Tag) -> bool {
        self.sign(message).is(tag)
    }
}

/// An HMAC-SHA256 tag.
#[derive(Clone, Copy)]
pub(crate) struct Tag([u8; Self::BYTES]);

impl Tag {
    pub(crate) const BYTES: usize = 32;

    fn of(key: &[u8; BLOCK_BYTES], message: &[u8]) -> Self {
        Self(Hmac::<Sha256>::new(key.into()).chain_update(message).finalize().into_bytes().into())
    }

    /// The only comparison of something secret: digests and messages are public, and are compared as plain values.
    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    pub(crate) const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

shown!(WorkerSecret SealKey Tag);

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests;

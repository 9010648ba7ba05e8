//! The keyed check: enrolment beside a digest, and what a mismatch is.
//!
//! A reference is of bytes that a digest was taken of, and counts once that digest has matched: the keyed pass ends before the digest's
//! begins. Never after it, or a bit that flips in between would become the reference. `.specs/35-keyed-check.md`.

use super::inner::Inner;
use super::verify::Found;
use crate::error::{VramError, draw};
use crate::keys::{Enrolment, KeyedKey};
use crate::memory::{DigestFailure, Event};
use crate::seal::SealMessage;
use crate::shards::{Enrolled, Record, Resident};
use crate::sync::atomic::Ordering;

impl Inner {
    /// Hashes the image under a new key, behind `after` if that is given, and waits for it. What comes of it counts once a digest that
    /// begins after this has matched.
    pub(super) fn enrol(
        &self,
        record: &Record,
        resident: &mut Resident,
        after: Option<&Event>,
    ) -> Result<Enrolled, DigestFailure> {
        let malformed = |_| VramError::Internal { what: "the record of a shard holds no seal" };
        let key = (|| {
            let SealMessage { slot, generation, .. } = SealMessage::decode(&record.message).map_err(malformed)?;
            let mut salt = [0; 32];
            draw(&mut salt)?;
            let enrolment = Enrolment {
                device_kind: self.identity.kind,
                device_uuid: self.identity.uuid,
                epoch: self.identity.epoch,
                slot,
                generation,
                number: self.enrolments.fetch_add(1, Ordering::Relaxed),
            };
            KeyedKey::derive(&self.secret, &salt, &enrolment)
        })();
        let key = key.map_err(DigestFailure::Host)?;
        resident.memory.launch_keyed(key.levels(), after)?;
        let top = resident.memory.collect_keyed()?;
        let tag = key.sign(record.image.bytes(), &top);
        Ok(Enrolled { key, tag, good_since: 0 })
    }
}

/// Waits for the keyed hash that was launched at tick `began`, and holds it against its reference. After a mismatch the key is gone, and a
/// digest says what it can of the change; whatever that says, the verdict stands.
pub(super) fn collect(record: &Record, resident: &mut Resident, began: u64) -> Result<Found, DigestFailure> {
    const NO_KEY: VramError = VramError::Internal { what: "a keyed check has no key" };
    let top = resident.memory.collect_keyed()?;
    let enrolled = resident.enrolled.as_mut().ok_or(DigestFailure::Host(NO_KEY))?;
    if enrolled.key.verify(record.image.bytes(), &top, &enrolled.tag) {
        enrolled.good_since = began;
        return Ok(Found::Keyed);
    }
    (resident.enrolled, resident.good_since) = (None, 0);
    Ok(Found::NotKeyed(resident.memory.digest().ok()))
}

//! Sealing: the steps from a source to a live shard, each of which undoes itself.

use std::time::Instant;

use crate::audit::{EventKind, VerificationFailure};
use crate::capacity::Reservation;
use crate::core::{Core, WipeReport};
use crate::device::{CheckSizes, ShardMemory, UploadFailed};
use crate::digest::{Digest, TreeDigest};
use crate::error::VramError;
use crate::identity::Origin;
use crate::names::{ModelRef, ShardId};
use crate::residents::Record;
use crate::seal::{SealMessage, SealedShard};
use crate::source::{Opened, ShardSource};
use crate::telemetry::Outcome;

/// What the caller says of a shard before it is sealed.
///
/// ```
/// use vram_residency::{ShardId, ShardSpec, TreeParams, digest_bytes};
/// # fn main() -> Result<(), vram_residency::VramError> {
/// let vouched_for = digest_bytes(&TreeParams::default(), b"weights");
/// let spec = ShardSpec::new(ShardId::new("model-a")?).expect_digest(vouched_for);
/// # let _ = spec;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ShardSpec {
    id: ShardId,
    model_ref: Option<ModelRef>,
    expected: Option<Digest>,
}

impl ShardSpec {
    /// A shard of this name.
    pub const fn new(id: ShardId) -> Self {
        Self { id, model_ref: None, expected: None }
    }

    /// The digest that someone vouched for. The shard is sealed only if VRAM has it; the source is then read once and not
    /// hashed on the host.
    pub const fn expect_digest(mut self, digest: Digest) -> Self {
        self.expected = Some(digest);
        self
    }

    /// What model the shard belongs to: signed, not interpreted.
    pub fn model_ref(mut self, model_ref: ModelRef) -> Self {
        self.model_ref = Some(model_ref);
        self
    }
}

/// Memory on its way to becoming a shard. Dropped before that, also by a panic, it is wiped and given back.
struct Held<'a> {
    core: &'a Core,
    id: &'a ShardId,
    memory: Option<(ShardMemory, Reservation)>,
}

impl Held<'_> {
    /// The memory, while it is held.
    fn memory(&mut self) -> Result<&mut ShardMemory, VramError> {
        match &mut self.memory {
            Some((memory, _)) => Ok(memory),
            None => Err(VramError::Internal { what: "sealing memory was given away" }),
        }
    }

    fn retire(&mut self) -> Option<Result<WipeReport, VramError>> {
        let (memory, reservation) = self.memory.take()?;
        Some(self.core.retire(self.id, memory, reservation))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A failed wipe is quarantined and in the trail; the error that led here is the caller's answer.
        let _reported = self.retire();
    }
}

impl Core {
    /// Seals a shard; see `VramManager::seal_model`.
    pub(crate) fn seal(&self, spec: ShardSpec, source: ShardSource<'_>) -> Result<SealedShard, VramError> {
        let sealed = self.try_seal(&spec, source);
        self.telemetry.sealed(match &sealed {
            Ok(_) => Outcome::Ok,
            Err(VramError::DigestMismatch { .. }) => Outcome::Mismatch,
            Err(_) => Outcome::Error,
        });
        self.report_memory();
        if let Err(error) = &sealed {
            self.note_device_failure(error);
        }
        sealed
    }

    fn try_seal(&self, spec: &ShardSpec, source: ShardSource<'_>) -> Result<SealedShard, VramError> {
        let started = Instant::now();
        self.permit()?;
        let origin = if spec.expected.is_some() { Origin::Expected } else { Origin::Measured };
        self.policy.admit_origin(origin).inspect_err(|error| self.report_violation(error))?;
        let mut source = source.open_for_sealing(self.device.params())?;
        let claim = self.residents.claim(&spec.id)?;
        let mut held = self.allocate(&spec.id, source.image_bytes())?;
        let sealed = self.load(held.memory()?, &mut source, spec)?;
        let layout = source.layout().clone();
        source.finish()?;
        let identity = &self.identity;
        let message = SealMessage {
            device_kind: identity.kind,
            device_uuid: identity.uuid,
            ordinal: identity.ordinal,
            epoch: identity.epoch,
            slot: claim.slot(),
            generation: claim.generation(),
            worker: identity.worker.clone(),
            shard: spec.id.clone(),
            model_ref: spec.model_ref.clone(),
            set: None,
            layout_digest: layout.digest(),
            byte_len: layout.byte_len(),
            block_size: self.device.params().block_size(),
            salt: self.device.params().salt().to_vec(),
            digest: sealed.digest,
            origin,
            adopted: false,
            sealed_at: self.clock.unix_nanos(),
        };
        let shard = SealedShard::sign(&self.key, message)?;
        self.permit()?; // another shard may have failed meanwhile
        self.trail.require(EventKind::VramSealed {
            shard: spec.id.clone(),
            digest: sealed.digest,
            bytes: layout.byte_len(),
            origin,
            write_protected: false,
            duration: started.elapsed(),
        })?;
        let image = held.memory()?.image();
        let Some((memory, reservation)) = held.memory.take() else {
            return Err(VramError::Internal { what: "sealing memory was given away" });
        };
        let published = claim.publish(Record {
            id: spec.id.clone(),
            message: shard.message_bytes().to_vec(),
            sealed,
            layout,
            image,
            room: reservation.bytes(),
            memory: Some((memory, reservation)).into(),
            failure: std::sync::OnceLock::new(),
        });
        match published {
            Ok(()) => Ok(shard),
            Err(record) => {
                self.retire_record(&record)?;
                Err(VramError::ManagerStopped { state: self.state.get() })
            }
        }
    }

    /// Reserves, asks the driver, allocates.
    fn allocate<'a>(&'a self, id: &'a ShardId, image_bytes: u64) -> Result<Held<'a>, VramError> {
        let held = self.try_allocate(id, image_bytes);
        match &held {
            Ok(held) => {
                let bytes = held.memory.as_ref().map_or(0, |(_, reservation)| reservation.bytes());
                self.trail.emit(EventKind::VramAllocated { shard: id.clone(), bytes });
            }
            Err(error) => {
                self.telemetry.allocation_failed(error.code().as_str());
                let (needed, available) = match error {
                    VramError::OutOfMemory { needed, available } => (*needed, *available),
                    _ => (image_bytes, self.ledger.available()),
                };
                let code = error.code();
                self.trail.emit(EventKind::VramAllocationFailed { shard: id.clone(), bytes: needed, available, code });
                self.report_violation(error);
            }
        }
        held
    }

    fn try_allocate<'a>(&'a self, id: &'a ShardId, image_bytes: u64) -> Result<Held<'a>, VramError> {
        let too_large = || VramError::InvalidParams {
            field: "shard length",
            problem: format!("of {image_bytes} bytes is more than any device can hold"),
        };
        let check_bytes =
            CheckSizes::new(self.device.params(), image_bytes).and_then(CheckSizes::bytes).ok_or_else(too_large)?;
        let image_room = self.ledger.rounded(image_bytes).ok_or_else(too_large)?;
        let check_room = self.ledger.rounded(check_bytes).ok_or_else(too_large)?;
        let needed = image_room.checked_add(check_room).ok_or_else(too_large)?;
        let reservation = self.ledger.reserve(needed)?;
        // Others use the device too: what they took since is not ours to give.
        let free = self.device.memory_info()?.free.saturating_sub(self.ledger.headroom());
        if free < needed {
            return Err(VramError::OutOfMemory { needed, available: free });
        }
        let memory = ShardMemory::allocate(&self.device, image_bytes, image_room, check_room).map_err(|error| {
            use crate::driver::{DriverError, DriverErrorKind::OutOfMemory};
            match error {
                VramError::Device(DriverError { kind: OutOfMemory, .. }) => {
                    let available = self.device.memory_info().map_or(0, |info| info.free);
                    VramError::OutOfMemory { needed, available }
                }
                error => error,
            }
        })?;
        Ok(Held { core: self, id, memory: Some((memory, reservation)) })
    }

    /// Uploads, digests in VRAM, and compares with the source or the expected digest.
    fn load(
        &self,
        memory: &mut ShardMemory,
        source: &mut Opened<'_>,
        spec: &ShardSpec,
    ) -> Result<TreeDigest, VramError> {
        let read = self.device.upload(memory, source, spec.expected.is_none()).map_err(|failed| match failed {
            UploadFailed::Source(error) => error,
            UploadFailed::Device(failure) => failure.into(),
        })?;
        let resident = memory.digest()?;
        let expected = match (spec.expected, read) {
            (Some(expected), _) => expected,
            (None, Some(read)) => read.digest,
            (None, None) => return Err(VramError::Internal { what: "the source was not measured" }),
        };
        if resident.digest == expected {
            return Ok(resident);
        }
        self.trail.emit(EventKind::SealVerificationFailed {
            shard: spec.id.clone(),
            reason: VerificationFailure::NotExpected,
            expected,
            actual: Some(resident.digest),
            first_bad: None,
        });
        Err(VramError::DigestMismatch { shard: spec.id.clone(), expected, actual: resident.digest })
    }

    /// Puts a policy violation into the trail; other errors pass.
    pub(crate) fn report_violation(&self, error: &VramError) {
        if let VramError::PolicyViolation { rule, problem } = error {
            self.trail.emit(EventKind::PolicyViolation { rule, problem: problem.clone() });
        }
    }
}

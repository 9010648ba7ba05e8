//! Posture: what the policy sees when it looks again.

use super::VramManager;
use crate::audit::{EventKind, Operation};
use crate::error::{StopReason, VramError};
use crate::types::{DeviceKind, DeviceUuid};

/// What `enforce_vram_only_policy` found. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Posture {
    /// The policy's name.
    pub policy: &'static str,
    /// Its rows that are laxer than production, in words, and what weakens the others in this process.
    pub relaxed: Vec<&'static str>,
    /// CUDA or mock.
    pub device_kind: DeviceKind,
    /// The device's identity.
    pub device_uuid: DeviceUuid,
    /// Live shards whose memory the driver again placed on this device and nowhere else.
    pub resident_shards: u64,
    /// Those of them whose memory the driver confirmed to be mapped read-only when they were sealed.
    pub write_protected_shards: u64,
}

impl VramManager {
    /// Asks the driver again where every live shard lies, and judges device and environment anew. Blocks; O(shards).
    ///
    /// # Errors
    /// `POLICY_VIOLATION`, which stops the manager; the driver's errors.
    pub fn enforce_vram_only_policy(&self) -> Result<Posture, VramError> {
        let posture = self.look_again().inspect_err(|error| {
            if matches!(error, VramError::PolicyViolation { .. }) {
                let _held_up = self.inner.stop(StopReason::PolicyViolation);
                self.inner.report_violation(error);
            }
            self.inner.report_failed(Operation::EnforcePolicy, None, error);
            self.inner.note_device_failure(error);
        })?;
        let Posture { resident_shards, write_protected_shards, .. } = posture;
        self.inner.trail.emit(EventKind::PostureConfirmed { resident_shards, write_protected_shards });
        Ok(posture)
    }

    fn look_again(&self) -> Result<Posture, VramError> {
        let inner = &self.inner;
        inner.policy.admit_device(inner.identity.kind)?;
        inner.policy.check_environment()?;
        let (mut resident_shards, mut write_protected_shards): (u64, u64) = (0, 0);
        for record in inner.shards.pin_all() {
            if let Some(resident) = record.lock().as_ref() {
                resident.memory.prove_residency()?;
                resident_shards = resident_shards.saturating_add(1);
                let protected = u64::from(resident.memory.is_write_protected());
                write_protected_shards = write_protected_shards.saturating_add(protected);
            }
        }
        Ok(Posture {
            policy: inner.policy.name(),
            relaxed: inner.policy.relaxed_here(),
            device_kind: inner.identity.kind,
            device_uuid: inner.identity.uuid,
            resident_shards,
            write_protected_shards,
        })
    }
}

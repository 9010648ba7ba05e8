//! The cross-check: what the kernels said good, seen by copy.
//!
//! Kernels are not believed for ever. A kernel that answers for the subtrees that it was shown once, and not for what is there, hides
//! changes of them; over unchanged bytes its lie and the truth are the same, and nothing tells it.

use super::inner::Inner;
use crate::audit::VerificationFailure;
use crate::error::VramError;
use crate::memory::{DeviceFailure, Part};
use crate::shards::{Record, is_signed};

impl Inner {
    /// Reads as many random subtrees as this manager was told to back through the copy engine, and holds them against the sealed table.
    /// Returns how many.
    ///
    /// # Errors
    /// `DEVICE_UNTRUSTED`, and the manager stops; the driver's.
    pub(super) fn cross_check(&self, record: &Record) -> Result<u64, VramError> {
        let of = record.subtrees();
        let wanted = u64::from(self.cross_check).min(of);
        if wanted > 0 && !is_signed(self.device.params(), &record.message, &record.sealed) {
            // The table in this process's memory is at fault, not the device.
            return Err(self.fail_integrity(record, VerificationFailure::RecordMismatch, None, None));
        }
        let part = Part::sample(wanted, of)?;
        let chosen = part.as_ref().map_or_else(|| (0..of).collect(), |part| part.subtrees().to_vec());
        for subtree in chosen {
            let found = self.device.entry_by_copy(&record.image, subtree, |_| Ok::<(), DeviceFailure>(()));
            let sealed = usize::try_from(subtree).ok().and_then(|at| record.sealed.table.get(at));
            let told = found.map_err(VramError::from).and_then(|found| match sealed {
                Some(sealed) if *sealed == found => Ok(()),
                _ => Err(DeviceFailure::Unproven("cross-check").into()),
            });
            told.inspect_err(|error| {
                let params = self.device.params();
                let offset = subtree.saturating_mul(params.subtree_bytes());
                let bytes = record.image.bytes().saturating_sub(offset).min(params.subtree_bytes());
                self.report_unproven(record, error, Some(record.bad_range((offset, bytes))));
                self.note_device_failure(error);
            })?;
        }
        Ok(wanted)
    }
}

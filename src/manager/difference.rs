//! The difference: which bits of a shard are not those that were sealed.
//!
//! Owns [`Difference`]. Promises that it is one of two images that were hashed in the very buffers that were compared: the source's has
//! the sealed digest, and what has changed of the device's has the entries of the digest that its kernels gave. Refuses to say anything of
//! others: who would hide a change must not do so by a source, or a copy, of his own.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::audit::{EventKind, Operation, VerificationFailure};
use crate::digest::{TreeDigest, TreeHasher};
use crate::erase::ErasedBuffer;
use crate::error::VramError;
use crate::id::ShardId;
use crate::manager::inner::Inner;
use crate::memory::DeviceFailure;
use crate::seal::SealedShard;
use crate::shards::{Record, is_signed};
use crate::source::{Opened, ShardSource};
use crate::spec::Wanted;
use crate::types::{ChangedBit, Digest, DigestKind};

/// What of a shard is not as it was sealed. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The shard.
    pub shard: ShardId,
    /// What device memory holds; the sealed digest where nothing has changed.
    pub digest: Digest,
    /// How many subtrees of the image differ …
    pub subtrees: u64,
    /// … of how many.
    pub of: u64,
    /// Bits that were 0 and are 1.
    pub set: u64,
    /// Bits that were 1 and are 0.
    pub cleared: u64,
    /// The first of both, in the order of the image: at most 64.
    pub bits: Vec<ChangedBit>,
    /// How long it took.
    pub duration: Duration,
}

const MOST_BITS: usize = 64;

/// Bytes of the source in host memory at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What has been counted so far, and the first places.
#[derive(Default)]
struct Tally {
    set: u64,
    cleared: u64,
    bits: Vec<ChangedBit>,
}

impl Tally {
    /// Counts where `found` differs from `sealed`: bytes of the image from `offset` on.
    fn count(&mut self, record: &Record, offset: u64, sealed: &[u8], found: &[u8]) {
        let bytes = (offset..).zip(sealed.iter().zip(found));
        for (offset, (was, is)) in bytes.filter(|(_, (was, is))| was != is) {
            self.set = self.set.saturating_add((is & !was).count_ones().into());
            self.cleared = self.cleared.saturating_add((was & !is).count_ones().into());
            for bit in (0..8_u8).filter(|bit| (was ^ is) & 1_u8.wrapping_shl(u32::from(*bit)) != 0) {
                if self.bits.len() < MOST_BITS {
                    let was_set = was & 1_u8.wrapping_shl(u32::from(bit)) != 0;
                    let tensor = record.layout.tensor_at(offset).map(|tensor| tensor.name.clone());
                    self.bits.push(ChangedBit { offset, bit, was_set, tensor });
                }
            }
        }
    }
}

/// The source, read in order and hashed as a whole.
struct Sealed<'a> {
    source: Opened<'a>,
    hasher: TreeHasher,
    buffer: ErasedBuffer,
}

impl Sealed<'_> {
    /// The next bytes of the image, not more than the buffer takes.
    fn next(&mut self, bytes: usize) -> Result<&[u8], VramError> {
        const SHORT: VramError = VramError::Internal { what: "a source ended before its length" };
        let room = self.buffer.get_mut(..bytes).ok_or(SHORT)?;
        if self.source.read(room)? != bytes {
            return Err(SHORT);
        }
        self.hasher.update(room);
        Ok(room)
    }

    fn pass_to(&mut self, offset: u64) -> Result<(), VramError> {
        while let Some(left) = offset.checked_sub(self.source.position()).filter(|left| *left > 0) {
            self.next(usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES))?;
        }
        Ok(())
    }
}

impl Inner {
    pub(crate) fn difference(&self, shard: &SealedShard, source: ShardSource<'_>) -> Result<Difference, VramError> {
        let failed = |error: &VramError| self.report_failed(Operation::Difference, Some(shard.id()), error);
        // The reader is foreign code. Its panic goes on to the caller, behind the event.
        match catch_unwind(AssertUnwindSafe(|| self.find_difference(shard, source))) {
            Ok(found) => found.inspect_err(failed),
            Err(panic) => {
                failed(&VramError::ModelLoad { problem: "the reader panicked".to_owned(), source: None });
                resume_unwind(panic)
            }
        }
    }

    fn find_difference(&self, shard: &SealedShard, source: ShardSource<'_>) -> Result<Difference, VramError> {
        let started = Instant::now();
        let record = self.admit(shard)?;
        let params = self.device.params();
        // Which subtrees have changed the table says, in this process's memory: it counts as the one under the signed digest.
        if !is_signed(params, &record.message, &record.sealed) {
            return Err(self.fail_integrity(&record, VerificationFailure::RecordMismatch, None, None));
        }
        let source = source.open_for_sealing(params)?;
        source.expect_length(record.image.bytes())?;
        let found = self.digest_resident(&record)?;
        let tally = if found == record.sealed {
            Tally::default()
        } else {
            if record.intact().is_ok() {
                // Whoever looks at parts alone could still execute over it.
                let first_bad = self.locate(&record, &found);
                self.fail_integrity(&record, VerificationFailure::DigestMismatch, Some(found.digest), first_bad);
            }
            self.hold_against(&record, &found, source).inspect_err(|error| self.note_device_failure(error))?
        };
        let changed = changed(&record, &found).count();
        let difference = Difference {
            shard: record.id.clone(),
            digest: found.digest,
            subtrees: u64::try_from(changed).unwrap_or(u64::MAX),
            of: record.subtrees(),
            set: tally.set,
            cleared: tally.cleared,
            bits: tally.bits,
            duration: started.elapsed(),
        };
        let Difference { shard, digest, subtrees, of, set, cleared, duration, .. } = difference.clone();
        let first = difference.bits.first().cloned();
        self.trail.emit(EventKind::DifferenceFound { shard, digest, subtrees, of, set, cleared, first, duration });
        Ok(difference)
    }

    /// Reads the source to its end, and beside it what has changed on the device. What was counted is given out only when both were
    /// what their digests say.
    fn hold_against(&self, record: &Record, found: &TreeDigest, source: Opened<'_>) -> Result<Tally, VramError> {
        let params = self.device.params();
        let hasher = TreeHasher::new(params, self.device.staging_threads());
        let mut sealed = Sealed { source, hasher, buffer: ErasedBuffer::new(CHUNK_BYTES)? };
        let mut tally = Tally::default();
        for (subtree, entry) in changed(record, found) {
            sealed.pass_to(subtree.saturating_mul(params.subtree_bytes()))?;
            let seen = self.device.entry_by_copy(&record.image, subtree, |bytes| {
                bytes.chunks(CHUNK_BYTES).try_for_each(|bytes| {
                    let offset = sealed.source.position();
                    tally.count(record, offset, sealed.next(bytes.len())?, bytes);
                    Ok::<(), VramError>(())
                })
            })?;
            if seen != *entry {
                return Err(DeviceFailure::Unproven("copy").into());
            }
        }
        sealed.pass_to(record.image.bytes())?;
        let Sealed { source, hasher, .. } = sealed;
        source.finish()?;
        let wanted = Wanted { of: DigestKind::Image, digest: record.sealed.digest };
        wanted.judge(hasher.finish().digest).map_err(|mismatch| mismatch.of_shard(record.id.clone()))?;
        Ok(tally)
    }
}

/// The subtrees whose entries are not the sealed ones, with those that were found.
fn changed<'a>(record: &'a Record, found: &'a TreeDigest) -> impl Iterator<Item = (u64, &'a [u8; 32])> {
    let pairs = (0..).zip(record.sealed.table.iter().zip(&found.table));
    pairs.filter(|(_, (sealed, found))| sealed != found).map(|(at, (_, found))| (at, found))
}

//! What is known of a live shard, and what it holds on the device.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::capacity::Reservation;
use crate::digest::layout::Layout;
use crate::digest::{TreeDigest, TreeParams, digest_from_table};
use crate::error::{BadRange, VramError};
use crate::id::ShardId;
use crate::keys::{KeyedKey, Tag};
use crate::memory::{ImageMap, ShardMemory};
use crate::seal::SealMessage;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, lock};

/// What is known about a live shard. The authority: the seal is only a capability to it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: ShardId,
    /// The signed message, byte for byte.
    pub(crate) message: Vec<u8>,
    /// The digest and the level-1 table that the device gave when the shard was sealed.
    pub(crate) sealed: TreeDigest,
    pub(crate) layout: Layout,
    pub(crate) image: ImageMap,
    /// Bytes that it takes on the device, in allocator granularity.
    pub(crate) room: u64,
    /// What the shard holds on the device, until it is released. Locked for the length of a check.
    pub(crate) resident: Mutex<Option<Resident>>,
    /// Checks that passed since the last good one by digest: if that finds a change, they may have missed it.
    pub(crate) weaker: AtomicU64,
    /// Counts calls and launches, so that a check can tell whether it began after a call.
    pub(crate) ticks: AtomicU64,
    /// When it was sealed, and how long that holds.
    pub(crate) sealed_at: Instant,
    /// No execution begins once the seal is older than this.
    pub(crate) max_age: Option<Duration>,
    /// Set once, when a check failed: the shard is quarantined and repeats this.
    pub(crate) failure: OnceLock<Option<BadRange>>,
}

#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) memory: ShardMemory,
    pub(crate) reservation: Reservation,
    /// The tick at which the last check of all bytes began that found everything as sealed; 0 when none has.
    pub(crate) good_since: u64,
    /// When that was, or when its sealing began.
    pub(crate) full_at: Instant,
    /// The subtree at which the next check of a part begins that goes around.
    pub(crate) cursor: u64,
    pub(crate) patrol: Patrolled,
    /// The reference of keyed checks, where there is one.
    pub(crate) enrolled: Option<Enrolled>,
}

/// The reference of keyed checks: a key, and the tag of the image under it.
pub(crate) struct Enrolled {
    pub(crate) key: KeyedKey,
    pub(crate) tag: Tag,
    /// The tick at which the last keyed check began that found everything as sealed; 0 when none has.
    pub(crate) good_since: u64,
}

shown!(Enrolled);

/// Whether a level-1 table is the one under the digest in the signed message. O(entries).
pub(crate) fn is_signed(params: &TreeParams, message: &[u8], sealed: &TreeDigest) -> bool {
    let signed = SealMessage::decode(message).ok().map(|message| message.digest);
    signed.is_some() && digest_from_table(params, sealed.image_bytes, &sealed.table).ok() == signed
}

/// How far the patrol has come around a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patrolled {
    /// Every byte has been looked at since then.
    pub(crate) seen: Instant,
    /// When this round began, and how many of its parts are done.
    pub(crate) began: Instant,
    pub(crate) done: u32,
    pub(crate) cursor: u64,
    /// That `seen` is too long ago has been said.
    pub(crate) late: bool,
}

impl Patrolled {
    pub(crate) const fn at(now: Instant) -> Self {
        Self { seen: now, began: now, done: 0, cursor: 0, late: false }
    }
}

impl Record {
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst).saturating_add(1)
    }

    /// Whether no check has found it changed so far; what was found is repeated.
    pub(crate) fn intact(&self) -> Result<(), VramError> {
        match self.failure.get() {
            Some(first_bad) => {
                Err(VramError::IntegrityFailure { shard: self.id.clone(), first_bad: first_bad.clone() })
            }
            None => Ok(()),
        }
    }

    /// Subtrees of the image: entries of its level-1 table.
    pub(crate) fn subtrees(&self) -> u64 {
        u64::try_from(self.sealed.table.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn bad_range(&self, (offset, bytes): (u64, u64)) -> BadRange {
        let tensor = self.layout.tensor_in(offset, bytes).map(|tensor| tensor.name.clone());
        BadRange { offset, bytes, tensor }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Resident>> {
        lock(&self.resident)
    }

    /// Whether its seal is too old to execute under.
    pub(crate) fn is_expired(&self) -> bool {
        self.max_age.is_some_and(|most| self.sealed_at.elapsed() > most)
    }
}

//! The working memory that is handed out, so that the end of the manager finds it too.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::{Inner, Retiring};
use crate::audit::EventKind;
use crate::capacity::Reservation;
use crate::error::VramError;
use crate::id::ShardId;
use crate::memory::{Owners, ScratchMemory, Unallocated};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::StreamId;

/// Working memory by key.
#[derive(Debug, Default)]
pub(crate) struct ScratchTable {
    last: AtomicU64,
    live: Mutex<BTreeMap<u64, (ShardId, ScratchMemory, Reservation)>>,
}

/// Room for the result of a zero proof and something for it to be proven beside.
const CHECK_BYTES: u64 = 64;

impl ScratchTable {
    /// A key that was never given out.
    pub(crate) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Remembers memory that was handed out.
    pub(crate) fn insert(&self, key: u64, name: ShardId, memory: ScratchMemory, reservation: Reservation) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (name, memory, reservation));
    }

    /// Remembers that work on `stream` uses the memory.
    pub(crate) fn used_on(&self, key: u64, stream: StreamId) {
        if let Some((_, memory, _)) = self.live.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&key) {
            memory.used_on(stream);
        }
    }

    /// Keys of what is handed out now.
    pub(super) fn keys(&self) -> Vec<u64> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl Inner {
    /// Reserves and takes working memory of at least `bytes`.
    pub(crate) fn allocate_scratch(
        &self,
        name: &ShardId,
        bytes: u64,
        take: impl FnOnce(u64, u64) -> Result<ScratchMemory, Unallocated>,
    ) -> Result<(ScratchMemory, Reservation), VramError> {
        let rooms = self.ledger.rounded(bytes).zip(self.ledger.rounded(CHECK_BYTES));
        let allocated = match rooms.and_then(|(room, check)| Some((room, check, room.checked_add(check)?))) {
            Some((room, check, needed)) => self.reserve(needed).and_then(|reservation| match take(room, check) {
                Ok(memory) => Ok((memory, reservation)),
                Err(unallocated) => Err(self.unallocated(name, unallocated, reservation)),
            }),
            None => Err(VramError::OutOfMemory { needed: bytes, available: self.ledger.available() }),
        };
        match &allocated {
            Ok((_, reservation)) => {
                self.trail.emit(EventKind::VramAllocated { shard: name.clone(), bytes: reservation.bytes() });
            }
            Err(error) => self.report_unallocated(name, bytes, error),
        }
        allocated
    }

    /// Wipes working memory and gives it back. Does nothing when the end of the manager already has. Waits for no sink.
    pub(crate) fn retire_scratch(&self, key: u64) -> Result<(), VramError> {
        let _underway = self.shards.underway();
        let entry = self.scratch.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let Some((name, memory, reservation)) = entry else { return Ok(()) };
        let memory = Retiring::Scratch(Box::new(memory));
        self.retire(&name, memory, reservation, &mut Owners::default()).map(drop)
    }
}

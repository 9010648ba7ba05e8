//! The working memory that is handed out, so that the end of the manager finds it too.

use std::collections::BTreeMap;

use super::{Inner, Retiring};
use crate::audit::EventKind;
use crate::capacity::Reservation;
use crate::error::VramError;
use crate::id::ShardId;
use crate::memory::{Owners, ScratchMemory, Unallocated};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};
use crate::types::StreamId;

#[derive(Debug, Default)]
pub(crate) struct ScratchTable {
    last: AtomicU64,
    live: Mutex<BTreeMap<u64, (ShardId, ScratchMemory, Reservation)>>,
}

/// Room for the result of a zero proof and something for it to be proven beside.
const CHECK_BYTES: u64 = 64;

impl ScratchTable {
    pub(crate) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(crate) fn insert(&self, key: u64, name: ShardId, memory: ScratchMemory, reservation: Reservation) {
        lock(&self.live).insert(key, (name, memory, reservation));
    }

    pub(crate) fn used_on(&self, key: u64, stream: StreamId) {
        if let Some((_, memory, _)) = lock(&self.live).get_mut(&key) {
            memory.used_on(stream);
        }
    }

    pub(super) fn keys(&self) -> Vec<u64> {
        lock(&self.live).keys().copied().collect()
    }
}

impl Inner {
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
        let entry = lock(&self.scratch.live).remove(&key);
        let Some((name, memory, reservation)) = entry else { return Ok(()) };
        let memory = Retiring::Scratch(Box::new(memory));
        self.retire(&name, memory, reservation, &mut Owners::default()).map(drop)
    }
}

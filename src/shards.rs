//! The slot table: which shards live, under which generation, and who is using them.
//!
//! Owns [`ShardTable`], [`Record`] and the RAII values [`Claim`] and [`Pinned`]. Promises that a shard id is live at most once, that
//! a generation is never given out twice, and that a record is handed out for removal only when nobody pins it. One short lock,
//! never held across device work or audit, and across no other lock but that of an unpinned record that is sealed anew.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::error::VramError;
use crate::id::ShardId;
use crate::sync::{Condvar, Mutex, MutexGuard, lock};
use crate::types::Span;

mod record;
mod spans;

pub(crate) use record::{Enrolled, Patrolled, Record, Resident, is_signed};
use spans::Spans;

#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    record: Option<Arc<Record>>,
    pins: u64,
    /// Where its image lies: of an adopted one from the claim on, of one of our own from when it is live.
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    slot: u32,
    /// The generation when live, `None` while it is being sealed.
    generation: Option<u64>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    taken: Spans,
    /// Slots with a record.
    live: u64,
    names: HashMap<ShardId, Place>,
    last_generation: u64,
    /// Nothing is published any more: the manager is shutting down.
    closed: bool,
    /// Calls that hold, or may come to hold, memory that the table does not tell of.
    underway: u64,
}

impl Slot {
    fn live(&self, generation: u64) -> Result<&Arc<Record>, Absent> {
        match &self.record {
            Some(record) if self.generation == generation => Ok(record),
            _ if generation <= self.generation => Err(Absent::Stale),
            _ => Err(Absent::Unknown),
        }
    }
}

impl Table {
    /// Refuses memory that a live shard, or one that is being sealed, already has. O(wanted × log taken).
    fn refuse_overlap(&self, wanted: &[Span]) -> Result<(), VramError> {
        if wanted.iter().any(|span| self.taken.reach_into(*span)) {
            return Err(VramError::InvalidParams {
                field: "regions",
                problem: "overlap memory that another shard has; release that shard first".to_owned(),
            });
        }
        Ok(())
    }

    /// Notes where the image of a slot lies.
    fn take(&mut self, slot: u32, spans: Vec<Span>) {
        self.taken.take(slot, &spans);
        if let Some(entry) = self.slot(slot) {
            entry.spans = spans;
        }
    }

    /// Takes the record out of a slot, if there is one; the memory may be had again.
    fn vacate(&mut self, slot: u32) -> Option<Arc<Record>> {
        let entry = self.slot(slot)?;
        let (record, spans) = (entry.record.take(), std::mem::take(&mut entry.spans));
        self.taken.give_back(slot, &spans);
        self.live = self.live.saturating_sub(record.is_some().into());
        record
    }

    fn slot(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It was never given out.
    Unknown,
    /// It was released.
    Stale,
    /// It is pinned.
    Busy,
    /// It failed a check and is quarantined.
    Failed,
}

#[derive(Debug, Default)]
pub(crate) struct ShardTable {
    table: Mutex<Table>,
    idle: Condvar,
}

impl ShardTable {
    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Takes a name, a slot and a fresh generation for a shard that is about to be sealed.
    ///
    /// `adopted` is where an engine's memory lies that the shard will take; empty for memory of our own.
    ///
    /// # Errors
    /// `INVALID_PARAMS` when the name is working memory's, live or being sealed, or the memory belongs to another shard.
    pub(crate) fn claim(self: &Arc<Self>, id: &ShardId, adopted: Vec<Span>) -> Result<Claim, VramError> {
        id.check_for_shard()?;
        let mut table = self.lock();
        if table.names.contains_key(id) {
            return Err(VramError::InvalidParams {
                field: "shard id",
                problem: format!("{id} is in use; release that shard first or choose another id"),
            });
        }
        table.refuse_overlap(&adopted)?;
        const EXHAUSTED: VramError = VramError::Internal { what: "slots or generations are exhausted" };
        let generation = table.last_generation.checked_add(1).ok_or(EXHAUSTED)?;
        let slot = match table.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(table.slots.len()).map_err(|_| EXHAUSTED)?;
                table.slots.push(Slot::default());
                slot
            }
        };
        table.last_generation = generation;
        if let Some(entry) = table.slot(slot) {
            *entry = Slot { generation, ..Slot::default() };
        }
        table.take(slot, adopted);
        table.names.insert(id.clone(), Place { slot, generation: None });
        Ok(Claim { shards: Arc::clone(self), id: id.clone(), slot, generation, published: false })
    }

    pub(crate) fn pin(self: &Arc<Self>, slot: u32, generation: u64) -> Result<Pinned, Absent> {
        let mut table = self.lock();
        let entry = table.slot(slot).ok_or(Absent::Unknown)?;
        let record = Arc::clone(entry.live(generation)?);
        entry.pins = entry.pins.saturating_add(1);
        Ok(Pinned { shards: Arc::clone(self), record, slot })
    }

    /// Notes a call that takes or retires memory, from before it looks at the manager's state until its memory is in the table,
    /// given back, or kept as residue.
    pub(crate) fn underway(self: &Arc<Self>) -> Underway {
        let mut table = self.lock();
        table.underway = table.underway.saturating_add(1);
        Underway { shards: Arc::clone(self) }
    }

    /// Looks at a live shard without pinning it: its memory may go at any time.
    pub(crate) fn peek(&self, slot: u32, generation: u64) -> Result<Arc<Record>, Absent> {
        self.lock().slot(slot).ok_or(Absent::Unknown)?.live(generation).cloned()
    }

    /// Every live shard, not pinned.
    pub(crate) fn live(&self) -> Vec<Arc<Record>> {
        self.lock().slots.iter().filter_map(|entry| entry.record.clone()).collect()
    }

    pub(crate) fn pin_all(self: &Arc<Self>) -> Vec<Pinned> {
        let mut table = self.lock();
        (0u32..)
            .zip(table.slots.iter_mut())
            .filter_map(|(slot, entry)| {
                let record = Arc::clone(entry.record.as_ref()?);
                entry.pins = entry.pins.saturating_add(1);
                Some(Pinned { shards: Arc::clone(self), record, slot })
            })
            .collect()
    }

    /// Draws a generation for a shard that is about to be sealed anew.
    pub(crate) fn next_generation(&self) -> Result<u64, VramError> {
        let mut table = self.lock();
        let next = table.last_generation.checked_add(1);
        table.last_generation = next.ok_or(VramError::Internal { what: "generations are exhausted" })?;
        Ok(table.last_generation)
    }

    /// Whether others, too, pin what the caller has pinned.
    pub(crate) fn is_shared(&self, pinned: &Pinned) -> bool {
        self.lock().slot(pinned.slot).is_some_and(|entry| entry.pins > 1)
    }

    /// Puts a live shard that nobody pins under a new generation: `renewed` takes the record's place. The caller holds the lock of its
    /// memory, so that nobody finds a change in it meanwhile.
    pub(crate) fn renew(
        &self,
        slot: u32,
        generation: u64,
        next: u64,
        renewed: impl FnOnce() -> Option<Record>,
    ) -> Result<(), Absent> {
        let mut table = self.lock();
        let entry = table.slot(slot).ok_or(Absent::Unknown)?;
        let record = Arc::clone(entry.live(generation)?);
        if entry.pins > 0 {
            return Err(Absent::Busy);
        }
        if record.failure.get().is_some() {
            return Err(Absent::Failed);
        }
        entry.record = Some(Arc::new(renewed().ok_or(Absent::Stale)?));
        entry.generation = next;
        table.names.insert(record.id.clone(), Place { slot, generation: Some(next) });
        Ok(())
    }

    /// Takes a live shard that nobody pins out of the table.
    pub(crate) fn remove(&self, slot: u32, generation: u64) -> Result<Arc<Record>, Absent> {
        let mut table = self.lock();
        let entry = table.slot(slot).ok_or(Absent::Unknown)?;
        entry.live(generation)?;
        if entry.pins > 0 {
            return Err(Absent::Busy);
        }
        let record = table.vacate(slot).ok_or(Absent::Stale)?;
        table.names.remove(&record.id);
        table.free.push(slot);
        Ok(record)
    }

    pub(crate) fn find(&self, id: &ShardId) -> Option<(u32, u64)> {
        let place = *self.lock().names.get(id)?;
        Some((place.slot, place.generation?))
    }

    /// Publishes nothing any more, and takes out every shard that nobody pins. Returns those, and the bytes of the others.
    pub(crate) fn close(&self) -> (Vec<Arc<Record>>, u64) {
        let mut table = self.lock();
        table.closed = true;
        let (mut idle, mut busy_bytes) = (Vec::new(), 0_u64);
        for slot in 0_u32.. {
            let Some(entry) = table.slot(slot) else { break };
            let Some(record) = entry.record.clone() else { continue };
            if entry.pins > 0 {
                busy_bytes = busy_bytes.saturating_add(record.room);
            } else {
                table.vacate(slot);
                table.names.remove(&record.id);
                idle.push(record);
            }
        }
        (idle, busy_bytes)
    }

    pub(crate) fn live_count(&self) -> u64 {
        self.lock().live
    }

    /// Takes every shard out, pinned or not: for the end of the manager, when no guard can exist any more.
    pub(crate) fn drain(&self) -> Vec<Arc<Record>> {
        let mut table = self.lock();
        let records = table.slots.iter_mut().filter_map(|entry| entry.record.take()).collect();
        table.names.clear();
        table.taken.clear();
        table.live = 0;
        records
    }

    /// Blocks until nobody pins anything and no call is under way; `false` when the deadline, if there is one, came first.
    pub(crate) fn wait_idle(&self, deadline: Option<Instant>) -> bool {
        let mut table = self.lock();
        loop {
            if table.underway == 0 && table.slots.iter().all(|entry| entry.pins == 0) {
                return true;
            }
            table = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.idle.wait(table).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return false,
                Some(left) => self.idle.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

/// A name, slot and generation that are taken but not yet live. Dropping it gives name and slot back.
#[derive(Debug)]
pub(crate) struct Claim {
    shards: Arc<ShardTable>,
    id: ShardId,
    slot: u32,
    generation: u64,
    published: bool,
}

impl Claim {
    pub(crate) const fn slot(&self) -> u32 {
        self.slot
    }

    /// The generation: from 1, never given out again.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes the shard live; gives the record back when the manager is shutting down.
    pub(crate) fn publish(mut self, record: Record) -> Result<(), Box<Record>> {
        let mut table = self.shards.lock();
        if table.closed {
            drop(table);
            return Err(Box::new(record));
        }
        if table.slot(self.slot).is_some_and(|entry| entry.spans.is_empty()) {
            table.take(self.slot, record.image.spans().collect());
        }
        if let Some(entry) = table.slot(self.slot) {
            entry.record = Some(Arc::new(record));
            table.live = table.live.saturating_add(1);
        }
        table.names.insert(self.id.clone(), Place { slot: self.slot, generation: Some(self.generation) });
        drop(table);
        self.published = true;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.published {
            let mut table = self.shards.lock();
            table.names.remove(&self.id);
            table.vacate(self.slot);
            table.free.push(self.slot);
        }
    }
}

/// A live shard that cannot be released while this exists.
#[derive(Debug)]
pub(crate) struct Pinned {
    shards: Arc<ShardTable>,
    record: Arc<Record>,
    slot: u32,
}

impl Pinned {
    pub(crate) const fn slot(&self) -> u32 {
        self.slot
    }

    pub(crate) fn again(&self) -> Self {
        if let Some(entry) = self.shards.lock().slot(self.slot) {
            entry.pins = entry.pins.saturating_add(1);
        }
        Self { shards: Arc::clone(&self.shards), record: Arc::clone(&self.record), slot: self.slot }
    }
}

impl std::ops::Deref for Pinned {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut table = self.shards.lock();
        if let Some(entry) = table.slot(self.slot) {
            entry.pins = entry.pins.saturating_sub(1);
        }
        drop(table);
        self.shards.idle.notify_all();
    }
}

#[derive(Debug)]
pub(crate) struct Underway {
    shards: Arc<ShardTable>,
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut table = self.shards.lock();
        table.underway = table.underway.saturating_sub(1);
        drop(table);
        self.shards.idle.notify_all();
    }
}

#[cfg(test)]
mod tests;

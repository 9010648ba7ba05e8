//! Sealing anew what is already resident.

use std::sync::OnceLock;
use std::time::Instant;

use crate::error::VramError;
use crate::manager::inner::Inner;
use crate::seal::{SealMessage, SealedShard};
use crate::shards::{Absent, Record, Resident};
use crate::spec::Check;
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;

impl Inner {
    pub(crate) fn reseal(&self, sealed: &SealedShard) -> Result<SealedShard, VramError> {
        self.reap();
        let renewed = self.try_reseal(sealed);
        self.report_sealed(sealed.id(), renewed)
    }

    fn try_reseal(&self, sealed: &SealedShard) -> Result<SealedShard, VramError> {
        let started = Instant::now();
        self.authenticate(sealed)?; // before anything else is said of it
        self.permit()?;
        let record = self.admit(sealed)?;
        self.check(&record, Check::Digest, None)?;
        if self.shards.is_shared(&record) {
            return Err(self.absent(sealed, Absent::Busy)); // before a seal is announced that will not be
        }
        let write_protected = record.lock().as_ref().is_some_and(|live| live.memory.is_write_protected());
        drop(record);
        let old = sealed.message();
        let next = self.shards.next_generation()?;
        let message = SealMessage { generation: next, sealed_at: self.clock.unix_nanos(), ..old.clone() };
        let renewed = SealedShard::sign(&self.key, message)?;
        self.permit()?; // another shard may have failed meanwhile
        self.announce(&renewed, write_protected, started)?;
        let live = self.shards.peek(old.slot, old.generation);
        let record = live.map_err(|absent| self.absent(sealed, absent))?;
        // The patrol pins nothing: what it reads now is waited for here, and what it found is known below.
        let mut held = record.lock();
        let renewal = self.shards.renew(old.slot, old.generation, next, || {
            Some(Record {
                id: record.id.clone(),
                message: renewed.message_bytes().to_vec(),
                sealed: record.sealed.clone(),
                layout: record.layout.clone(),
                image: record.image.clone(),
                room: record.room,
                // Ticks begin anew, so what they said of the last good check is void.
                resident: Mutex::new(Some(Resident { good_since: 0, enrolled: None, ..held.take()? })),
                weaker: record.weaker.load(Ordering::Relaxed).into(),
                ticks: 0.into(),
                sealed_at: Instant::now(),
                max_age: record.max_age,
                failure: OnceLock::new(),
            })
        });
        drop(held);
        match renewal {
            Ok(()) => Ok(renewed),
            Err(Absent::Failed) => {
                // Somebody else's check found a change meanwhile; this call repeats it.
                self.check(&self.admit(sealed)?, Check::Digest, None)?;
                Err(self.absent(sealed, Absent::Busy))
            }
            Err(absent) => Err(self.absent(sealed, absent)),
        }
    }
}

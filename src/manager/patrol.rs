//! The patrol: shards that nobody executes are looked at all the same.
//!
//! Owns [`Patrol`], a thread that goes around: each shard is read in [`SLICES`] parts, one after the other, so that an execute waits for
//! one part at most. A shard whose last check of all bytes is young is left alone. No byte is unseen for longer than the bound, as far
//! as the device is quick enough; where it is not, `patrol_late` says so.
//!
//! It pins nothing but what it found changed, while that is told: no release of a good shard is refused for it. A change that it finds is
//! what it is to any check.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::inner::Inner;
use super::verify::{Found, Mismatch};
use crate::audit::EventKind;
use crate::error::{ManagerState, VramError};
use crate::memory::{DigestFailure, Part};
use crate::metrics::Outcome;
use crate::shards::{Patrolled, Record, Resident};
use crate::spec::Check;
use crate::sync::{Condvar, Mutex, lock, thread};

/// Parts of a round.
const SLICES: u32 = 16;
/// What the bound is divided by for the length of a round. A byte that changes just after it was looked at waits for as long as a round at
/// rest, and for a round; as much again is left for a device that is slow.
const ROUNDS: u32 = 3;

/// A thread that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Patrol {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Patrol {
    /// # Errors
    /// `INTERNAL` when there is no thread to be had.
    pub(super) fn start(inner: &Arc<Inner>, bound: Duration) -> Result<Self, VramError> {
        let stop: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let (inner, told) = (Arc::downgrade(inner), Arc::clone(&stop));
        let thread = thread::Builder::new().name("vram-patrol".to_owned());
        let thread = thread.spawn(move || go_around(&inner, &told, bound));
        let none = |_| VramError::Internal { what: "the system gave no thread for the patrol" };
        Ok(Self { stop, thread: Some(thread.map_err(none)?) })
    }
}

impl Drop for Patrol {
    fn drop(&mut self) {
        *lock(&self.stop.0) = true;
        self.stop.1.notify_all();
        // Somebody's recorder of metrics or logs may drop the manager on the thread itself.
        let others = |thread: &thread::JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = self.thread.take().filter(others) {
            let _panicked = thread.join();
        }
    }
}

fn go_around(inner: &Weak<Inner>, (stop, told): &(Mutex<bool>, Condvar), bound: Duration) {
    let step = bound.checked_div(ROUNDS.saturating_mul(SLICES)).unwrap_or(bound);
    let mut next = Instant::now();
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let mut oldest = Duration::ZERO;
        for record in inner.shards.live() {
            if *lock(stop) {
                return;
            }
            oldest = oldest.max(inner.patrol(&record, bound));
        }
        inner.metrics.oldest_check(oldest);
        drop(inner);
        next = next.checked_add(step).unwrap_or(next).max(Instant::now());
        let mut stopped = lock(stop);
        while !*stopped {
            let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
            stopped = told.wait_timeout(stopped, left).map_or_else(|woken| woken.into_inner().0, |woken| woken.0);
        }
        if *stopped {
            return;
        }
    }
}

impl Inner {
    /// Looks at the next part of a shard, if it is time and the manager is Ready. Returns how long ago all of its bytes were looked at.
    fn patrol(&self, record: &Record, bound: Duration) -> Duration {
        let started = Instant::now();
        let mut held = record.lock();
        // What failed is not looked at again, nor what is gone.
        let Some(resident) = held.as_mut().filter(|_| record.failure.get().is_none()) else { return Duration::ZERO };
        if resident.full_at > resident.patrol.seen {
            // Somebody has looked at everything since.
            resident.patrol = Patrolled { late: resident.patrol.late, ..Patrolled::at(resident.full_at) };
        }
        let now = Instant::now();
        let age = now.saturating_duration_since(resident.patrol.seen);
        if self.state.get() != ManagerState::Ready {
            return age; // which grows
        }
        if resident.patrol.done == 0 {
            if age < bound.checked_div(ROUNDS).unwrap_or(bound) {
                resident.patrol.late = false;
                return age;
            }
            resident.patrol.began = now;
        }
        let late = age > bound && !std::mem::replace(&mut resident.patrol.late, age > bound);
        let found = slice(resident, record.subtrees());
        resident.patrol.done = match found {
            Ok(Found::Part(..)) => resident.patrol.done.saturating_add(1),
            Ok(_) => SLICES,
            Err(_) => 0, // the round begins anew
        };
        let round = (resident.patrol.done >= SLICES).then_some(resident.patrol.began);
        if let Some(began) = round {
            (resident.patrol.seen, resident.patrol.done) = (began, 0);
        }
        let judged = found.map(|found| {
            let (_, _, bytes) = found.looked(self.device.params(), record);
            let failed = self.compare(record, &found).err();
            // Under the lock, so that nobody gives the memory a new seal, or takes it, before the shard is out of service.
            (bytes, failed.map(|failed| (self.quarantine(record, failed.2.as_ref()), failed)))
        });
        drop(held);
        if late {
            self.trail.note(EventKind::PatrolLate { shard: record.id.clone(), limit: bound, duration: age });
        }
        if self.report_slice(record, judged, started)
            && let Some(began) = round
        {
            self.trail.note(EventKind::PatrolCompleted { shard: record.id.clone(), duration: began.elapsed() });
        }
        age
    }

    /// Whether a part is as sealed; if not, all is told that is told after any check.
    fn report_slice(&self, record: &Record, judged: Result<Judged, DigestFailure>, started: Instant) -> bool {
        let count = |outcome, bytes| {
            self.metrics.verified(Some(Check::Rotating(SLICES)), outcome, started.elapsed(), bytes);
        };
        match judged {
            Ok((bytes, None)) => {
                count(Outcome::Ok, bytes);
                true
            }
            Ok((bytes, Some((newly, (reason, actual, first_bad))))) => {
                count(Outcome::Mismatch, bytes);
                let _told_nobody = self.report_integrity(record, newly, reason, actual, first_bad);
                false
            }
            Err(failure) => {
                let error = VramError::from(failure);
                count(Outcome::Error, 0);
                self.report_unproven(record, &error, None);
                self.note_device_failure(&error);
                false
            }
        }
    }
}

/// Bytes that were looked at; of a change, what its quarantine did and what is known of it.
type Judged = (u64, Option<((bool, bool), Mismatch)>);

/// Digests the part that the patrol comes to next.
fn slice(resident: &mut Resident, of: u64) -> Result<Found, DigestFailure> {
    match Part::rotate(&mut resident.patrol.cursor, SLICES.into(), of) {
        None => resident.memory.digest().map(Found::All),
        Some(part) => {
            resident.memory.launch_part(&part, None)?;
            let entries = resident.memory.collect_part(&part)?;
            Ok(Found::Part(Check::Rotating(SLICES), part, entries))
        }
    }
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests {
    use super::*;
    use crate::driver::mock::MockConfig;
    use crate::metrics::OLDEST_CHECK;
    use crate::metrics::tests::Remembered;
    use crate::source::ShardSource;
    use crate::spec::ShardSpec;

    #[test]
    fn what_nobody_looks_at_any_more_grows_old() {
        // covers: VER-9
        let manager = crate::manager::tests::manager(&MockConfig::new().capacity_bytes(64 << 20), &Arc::default());
        let spec = ShardSpec::new(crate::id::ShardId::new("a").unwrap());
        manager.seal_model(spec, ShardSource::bytes(&[7; 100])).unwrap();
        manager.inner.stop(crate::error::StopReason::DeviceLost);
        let (bound, stop) = (Duration::from_millis(10), Arc::<(Mutex<bool>, Condvar)>::default());
        std::thread::sleep(bound);
        let (told, inner, seen) = (Arc::clone(&stop), Arc::downgrade(&manager.inner), Remembered::default());
        let all = seen.clone();
        let patrol = std::thread::spawn(move || metrics::with_local_recorder(&all, || go_around(&inner, &told, bound)));
        std::thread::sleep(bound);
        *lock(&stop.0) = true;
        stop.1.notify_all();
        patrol.join().unwrap();
        let age = seen.get(&format!("{OLDEST_CHECK}{{gpu_device=mock:0}}"));
        assert!(age.is_some_and(|age| age >= 0.01), "{age:?}");
    }
}

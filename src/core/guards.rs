//! Guards that ended without `finish`, and guards that are held too long.
//!
//! A pin whose engine work may still run waits here, behind an event, until that has passed. Guards with a longest holding time
//! are watched: the first call that notices reports it, once.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Core;
use crate::audit::EventKind;
use crate::device::Event;
use crate::driver::StreamId;
use crate::names::ShardId;
use crate::residents::Pinned;

/// A pin that goes once its event has passed.
#[derive(Debug)]
pub(super) struct Reapable {
    /// `None` when none could be recorded: the pin then stays until the manager ends.
    event: Option<Event>,
    pin: Pinned,
}

/// A guard that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held(u64);

/// What is known of a watched guard.
#[derive(Debug)]
pub(super) struct Watch {
    held: Held,
    shard: ShardId,
    since: Instant,
    most: Duration,
    reported: bool,
}

impl Core {
    /// Keeps a pin until what its engine enqueued so far has run. Does not block.
    pub(crate) fn reap_later(&self, pin: Pinned, stream: StreamId) {
        let event = Event::record(&self.device, stream);
        let event =
            event.inspect_err(|error| tracing::error!(%error, "a dropped execution keeps its shard pinned")).ok();
        self.reapable.lock().unwrap_or_else(PoisonError::into_inner).push(Reapable { event, pin });
    }

    /// Lets go of the pins whose work is done, and reports guards that are held too long. Does not block.
    pub(crate) fn reap(&self) {
        let mut done = Vec::new();
        {
            let mut waiting = self.reapable.lock().unwrap_or_else(PoisonError::into_inner);
            let mut still = Vec::new();
            for reapable in waiting.drain(..) {
                let passed = reapable.event.as_ref().is_some_and(|event| matches!(event.has_passed(), Ok(true)));
                if passed { done.push(reapable) } else { still.push(reapable) }
            }
            *waiting = still;
        }
        drop(done);
        self.report_overheld();
    }

    /// Waits for the work of every dropped execution, then lets go of their pins. Blocks.
    pub(crate) fn reap_all(&self) {
        let waiting = std::mem::take(&mut *self.reapable.lock().unwrap_or_else(PoisonError::into_inner));
        for Reapable { event, pin } in waiting {
            if let Some(Err(error)) = event.map(|event| event.synchronize()) {
                tracing::error!(%error, shard = %pin.id, "a dropped execution's work could not be waited for");
            }
        }
    }

    /// Watches a guard that should not be held longer than `most`.
    pub(crate) fn watch(&self, shard: &ShardId, most: Duration) -> Option<Held> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.0 = watched.0.checked_add(1)?;
        let held = Held(watched.0);
        watched.1.push(Watch { held, shard: shard.clone(), since: Instant::now(), most, reported: false });
        Some(held)
    }

    /// Watches it no more; reports it if nobody did and it was held too long.
    pub(crate) fn unwatch(&self, held: Held, shard: &ShardId, most: Duration, duration: Duration) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let reported = watched.1.iter().any(|watch| watch.held == held && watch.reported);
        watched.1.retain(|watch| watch.held != held);
        drop(watched);
        if duration > most && !reported {
            self.trail.emit(EventKind::ExecuteOverheld { shard: shard.clone(), limit: most, duration });
        }
    }

    /// Reports, once each, the guards that are held longer than they should be.
    pub(crate) fn report_overheld(&self) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let overheld: Vec<_> = watched
            .1
            .iter_mut()
            .filter(|watch| !watch.reported && watch.since.elapsed() > watch.most)
            .map(|watch| {
                watch.reported = true;
                (watch.shard.clone(), watch.most, watch.since.elapsed())
            })
            .collect();
        drop(watched);
        for (shard, limit, duration) in overheld {
            self.trail.emit(EventKind::ExecuteOverheld { shard, limit, duration });
        }
    }
}

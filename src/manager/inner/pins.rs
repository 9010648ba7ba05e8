//! Guards that ended without `finish`, and guards that are held too long.
//!
//! A pin whose engine work may still run waits here, behind an event, until that has passed. Guards with a longest holding time
//! are watched: the first call that notices reports it, once.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Inner;
use crate::audit::EventKind;
use crate::error::VramError;
use crate::id::ShardId;
use crate::memory::{Device, Event};
use crate::panics::aside;
use crate::shards::Pinned;
use crate::types::{DriverError, StreamId};

/// How long a shutdown waits before it looks for work that has ended.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A pin that goes once its event has passed.
#[derive(Debug)]
pub(super) struct Reapable {
    stream: StreamId,
    /// `None` while none could be recorded: it is tried again.
    event: Option<Event>,
    pin: Pinned,
}

impl Reapable {
    /// The event behind the work; recorded now if it could not be before.
    fn event(&mut self, device: &Device) -> Result<&Event, DriverError> {
        match &mut self.event {
            Some(event) => Ok(event),
            none => Ok(none.insert(Event::record(device, self.stream)?)),
        }
    }

    /// Whether the work is done. On a dead device none is done any more, and `lost` says so.
    fn has_passed(&mut self, device: &Device, lost: &mut Option<DriverError>) -> bool {
        self.event(device).and_then(Event::has_passed).unwrap_or_else(|error| {
            let dead = super::is_sticky(&error);
            if dead {
                *lost = Some(error);
            }
            dead
        })
    }
}

/// A guard that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchId(u64);

/// What is known of a watched guard.
#[derive(Debug)]
pub(super) struct Watch {
    held: WatchId,
    shard: ShardId,
    since: Instant,
    most: Duration,
    reported: bool,
}

impl Inner {
    /// Keeps a pin until what its engine enqueued so far has run. Does not block.
    pub(crate) fn reap_later(&self, pin: Pinned, stream: StreamId) {
        let mut reapable = Reapable { stream, event: None, pin };
        if let Err(error) = reapable.event(&self.device) {
            aside!(|| tracing::error!(%error, "a dropped execution keeps its shard pinned for now"));
            self.note_device_failure(&VramError::Device(error));
        }
        self.reapable.lock().unwrap_or_else(PoisonError::into_inner).push(reapable);
    }

    /// Lets go of the pins whose work is done, and reports guards that are held too long. Does not block.
    pub(crate) fn reap(&self) {
        let (mut done, mut lost) = (Vec::new(), None);
        {
            let mut waiting = self.reapable.lock().unwrap_or_else(PoisonError::into_inner);
            let mut still = Vec::new();
            for mut reapable in waiting.drain(..) {
                let list = if reapable.has_passed(&self.device, &mut lost) { &mut done } else { &mut still };
                list.push(reapable);
            }
            *waiting = still;
        }
        if let Some(error) = lost {
            self.note_device_failure(&VramError::Device(error));
        }
        drop(done);
        self.report_overheld();
    }

    /// Waits until no execution, seal or release is under way and the work of dropped executions is done; `false` when the
    /// deadline comes first.
    /// Blocks.
    pub(crate) fn wait_idle(&self, deadline: Option<Instant>) -> bool {
        loop {
            // Work ends without a word, and executions may be dropped while this waits.
            self.reap();
            let look_again = Instant::now().checked_add(BETWEEN_LOOKS);
            let until = deadline.into_iter().chain(look_again).min();
            if self.shards.wait_idle(until) {
                return true;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return false;
            }
            // On a busy machine the time between two looks may be over at once: let those run who are waited for.
            crate::sync::yield_now();
        }
    }

    /// Waits for the work of every dropped execution, then lets go of their pins. One that cannot be waited for stays pinned,
    /// unless the device is dead: no work runs there any more. Blocks.
    pub(crate) fn reap_all(&self) {
        let waiting = std::mem::take(&mut *self.reapable.lock().unwrap_or_else(PoisonError::into_inner));
        for mut reapable in waiting {
            let Err(error) = reapable.event(&self.device).and_then(Event::synchronize) else { continue };
            // The error may be that of the engine's own work, which is over then.
            if !super::is_sticky(&error) && !reapable.has_passed(&self.device, &mut None) {
                aside!(
                    || tracing::error!(%error, shard = %reapable.pin.id, "a dropped execution's work could not be waited for"),
                );
                self.reapable.lock().unwrap_or_else(PoisonError::into_inner).push(reapable);
            }
        }
    }

    /// Watches a guard that should not be held longer than `most`.
    pub(crate) fn watch(&self, shard: &ShardId, most: Duration) -> Option<WatchId> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.0 = watched.0.checked_add(1)?;
        let held = WatchId(watched.0);
        watched.1.push(Watch { held, shard: shard.clone(), since: Instant::now(), most, reported: false });
        Some(held)
    }

    /// Watches it no more; reports it if nobody did and it was held too long.
    pub(crate) fn unwatch(&self, held: WatchId, shard: &ShardId, most: Duration, duration: Duration) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let reported = watched.1.iter().any(|watch| watch.held == held && watch.reported);
        watched.1.retain(|watch| watch.held != held);
        drop(watched);
        if duration > most && !reported {
            self.trail.note(EventKind::ExecuteOverheld { shard: shard.clone(), limit: most, duration });
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
            self.trail.note(EventKind::ExecuteOverheld { shard, limit, duration });
        }
    }
}

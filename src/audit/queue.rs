//! Events between the steps that leave them and the thread that shows them to the sinks.
//!
//! Owns [`Queue`]. Promises: numbers are given out in the order in which events are shown; no foreign code runs under the lock;
//! memory is bounded; nobody waits here but for an event of their own, and whoever protects waits for none.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::limited::Limits;
use super::{Ack, AuditEvent, EventKind, Severity};
use crate::clock::Clock;
use crate::error::AuditError;
use crate::panics::{caught, dispose};
use crate::sync::thread::ThreadId;
use crate::sync::{Condvar, Mutex, MutexGuard, lock, thread};
use crate::types::Identity;

/// Events that may wait. As many critical ones again have a place beyond them.
const MOST_WAITING: usize = 4096;

/// How long a step waits for the sinks to see its event, where nothing asks for that. Only the first step that waits in vain does:
/// the next go on at once until the sinks have caught up.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// What the sinks made of an event: the best acknowledgement, `None` without sinks, or the first failure.
pub(super) type Taken = Result<Option<Ack>, AuditError>;

pub(super) struct Envelope {
    pub(super) identity: Identity,
    pub(super) clock: Clock,
}

impl Envelope {
    pub(super) fn seal(&self, sequence: u64, kind: EventKind) -> AuditEvent {
        AuditEvent {
            sequence,
            at: self.clock.wall(),
            worker: self.identity.worker.clone(),
            epoch: self.identity.epoch,
            device_kind: self.identity.kind,
            device_uuid: self.identity.uuid,
            severity: kind.severity(),
            kind: kind.bounded(),
        }
    }
}

/// Where a step happened, for `tracing`: a sink that writes records writes them to the same subscriber, within the same span.
pub(super) struct Place(Option<(tracing::Dispatch, tracing::Span)>);

impl Place {
    pub(super) fn here() -> Self {
        Self(caught(|| (tracing::dispatcher::get_default(Clone::clone), tracing::Span::current())).ok())
    }

    /// Runs something as if it happened there.
    pub(super) fn run<T>(&self, mut run: impl FnMut() -> T) -> T {
        let mut result = None;
        if let Some((dispatch, span)) = &self.0 {
            let _panicked = caught(|| {
                tracing::dispatcher::with_default(dispatch, || span.in_scope(|| result = Some(run())));
            });
        }
        result.unwrap_or_else(run)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _panicked = dispose(self.0.take());
    }
}

pub(super) struct Waiting {
    pub(super) event: AuditEvent,
    pub(super) place: Place,
}

struct State {
    envelope: Envelope,
    limits: Limits,
    /// The last number given out.
    sequence: u64,
    events: VecDeque<Waiting>,
    /// The last number that has a place in the queue, or had one.
    queued: u64,
    /// The last number that the sinks have seen.
    seen: u64,
    /// Somebody waited in vain, and the sinks have not caught up since.
    behind: bool,
    /// Events for which there was no place, since the sinks last caught up.
    lost: u64,
    /// What came of the events whose callers wait for it.
    answers: BTreeMap<u64, Option<Taken>>,
    /// Those who wait, and how often all of them were told to go on.
    waiting: u64,
    told_to_go_on: u64,
    /// Nothing comes any more.
    closing: bool,
    /// The thread is done.
    over: bool,
    courier: Option<ThreadId>,
}

pub(super) struct Queue {
    state: Mutex<State>,
    /// For the thread: something has come.
    come: Condvar,
    /// For the steps: something has been seen.
    gone: Condvar,
}

pub(super) enum Queued {
    /// It has this number.
    As(u64),
    /// It is counted, and an event that comes later says so.
    Counted,
    /// There was no place for it; it is the first.
    LostFirst,
    /// There was no place for it.
    Lost,
}

impl State {
    fn has_room(&self, kind: &EventKind) -> bool {
        let most = if kind.severity() == Severity::Critical { MOST_WAITING.saturating_mul(2) } else { MOST_WAITING };
        self.events.len() < most
    }

    /// Queues an event if there is a place for it; what is left of `place` is foreign, and is dropped when nothing is locked.
    fn push(&mut self, kind: EventKind, place: &mut Place) -> Queued {
        self.sequence = self.sequence.saturating_add(1);
        if !self.has_room(&kind) || self.over {
            self.lost = self.lost.saturating_add(1);
            return if self.lost == 1 { Queued::LostFirst } else { Queued::Lost };
        }
        let event = self.envelope.seal(self.sequence, kind);
        self.events.push_back(Waiting { event, place: std::mem::replace(place, Place(None)) });
        self.queued = self.sequence;
        Queued::As(self.sequence)
    }

    /// Whether a sink called us: it would wait for itself.
    fn is_courier(&self) -> bool {
        self.courier == Some(thread::current().id())
    }
}

impl Queue {
    pub(super) fn new(envelope: Envelope) -> Self {
        let state = State {
            limits: Limits::new(envelope.clock.clone()),
            envelope,
            sequence: 0,
            events: VecDeque::new(),
            queued: 0,
            seen: 0,
            behind: false,
            lost: 0,
            answers: BTreeMap::new(),
            waiting: 0,
            told_to_go_on: 0,
            closing: false,
            over: false,
            courier: None,
        };
        Self { state: Mutex::new(state), come: Condvar::new(), gone: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn push(&self, kind: EventKind) -> Queued {
        let mut place = Place::here();
        let queued = self.lock().push(kind, &mut place);
        self.come.notify_all();
        queued
    }

    /// Queues an event of a limited kind, or counts it.
    pub(super) fn push_limited(&self, kind: EventKind) -> Queued {
        let mut place = Place::here();
        let mut state = self.lock();
        let has_room = state.has_room(&kind) && !state.over;
        let queued = match state.limits.pass(kind, has_room) {
            Some(kind) => state.push(kind, &mut place),
            None => return Queued::Counted,
        };
        drop(state);
        self.come.notify_all();
        queued
    }

    /// Queues what was only counted so far.
    pub(super) fn flush_limited(&self) {
        let mut state = self.lock();
        for kind in state.limits.held() {
            if state.has_room(&kind) {
                state.push(kind, &mut Place(None));
            } else {
                // It stays counted.
                let _counted = state.limits.pass(kind, false);
            }
        }
        drop(state);
        self.come.notify_all();
    }

    /// Waits a little until the sinks have seen all that was queued so far.
    pub(super) fn settle(&self) {
        let state = self.lock();
        if state.behind {
            return;
        }
        let wanted = state.queued;
        let mut state = self.wait(state, Instant::now().checked_add(PATIENCE), |state| state.seen >= wanted);
        state.behind = state.behind || (state.seen < wanted && !state.is_courier());
    }

    /// Waits until the sinks have seen everything, or the moment has come.
    pub(super) fn settle_until(&self, until: Option<Instant>) {
        drop(self.wait(self.lock(), until, |state| state.seen >= state.queued));
    }

    /// Queues an event and waits for what came of it: `None` when there is no answer, because the manager stopped.
    pub(super) fn ask(&self, kind: EventKind) -> Option<Taken> {
        let mut place = Place::here();
        let mut state = self.lock();
        let Queued::As(number) = state.push(kind, &mut place) else { return None };
        self.come.notify_all();
        if state.told_to_go_on > 0 {
            return None; // nothing is permitted any more, whoever asks
        }
        state.answers.insert(number, None);
        let answered = |state: &State| state.answers.get(&number).is_none_or(Option::is_some);
        let mut state = self.wait(state, None, answered);
        state.answers.remove(&number).flatten()
    }

    /// Waits until something is so, the moment has come, or everybody is told to go on. A sink that calls does not wait.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
        is_so: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let told = state.told_to_go_on;
        state.waiting = state.waiting.saturating_add(1);
        while !is_so(&state) && state.told_to_go_on == told && !state.over && !state.is_courier() {
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.gone.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => self.gone.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        state.waiting = state.waiting.saturating_sub(1);
        state
    }

    /// Has everybody who waits for a sink go on. Whether somebody did.
    pub(super) fn let_go(&self) -> bool {
        let mut state = self.lock();
        state.told_to_go_on = state.told_to_go_on.wrapping_add(1);
        self.gone.notify_all();
        state.waiting > 0
    }

    pub(super) fn begin(&self) {
        self.lock().courier = Some(thread::current().id());
    }

    /// For the thread: the next event, or `None` when nothing comes any more. Blocks.
    pub(super) fn next(&self) -> Option<Waiting> {
        let mut state = self.lock();
        loop {
            if let Some(waiting) = state.events.pop_front() {
                return Some(waiting);
            }
            if state.closing {
                let held = state.limits.held();
                if held.is_empty() {
                    return None;
                }
                for kind in held {
                    state.push(kind, &mut Place(None));
                }
                continue;
            }
            state = self.come.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For the thread: the sinks have seen this one.
    pub(super) fn seen(&self, number: u64, taken: Taken) {
        let mut state = self.lock();
        state.seen = number;
        if state.events.is_empty() {
            state.behind = false;
            state.lost = 0;
        }
        let unwanted = match state.answers.get_mut(&number) {
            Some(answer) => answer.replace(taken),
            None => Some(taken),
        };
        drop(state);
        self.gone.notify_all();
        let _panicked = dispose(unwanted); // a failure's cause is foreign
    }

    /// For the thread: an event beyond the last.
    pub(super) fn last(&self, kind: EventKind) -> AuditEvent {
        let mut state = self.lock();
        state.sequence = state.sequence.saturating_add(1);
        state.envelope.seal(state.sequence, kind)
    }

    pub(super) fn end(&self) {
        self.lock().over = true;
        self.gone.notify_all();
    }

    /// Lets nothing come any more, and waits up to the moment for the thread to be done. How many events no sink has seen by then.
    pub(super) fn close(&self, until: Option<Instant>) -> u64 {
        let mut state = self.lock();
        state.closing = true;
        self.come.notify_all();
        let state = self.wait(state, until, |_| false);
        if state.over { 0 } else { state.queued.saturating_sub(state.seen) }
    }
}

//! Calls that come to nothing: whoever makes many of them must not fill the trail.
//!
//! Owns the kinds whose events are limited and [`Limits`]. Promises that every such call is counted: the sum of `1 + suppressed`
//! over the events of one kind is the number of calls, once the last of them was flushed.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::num::NonZeroU32;
use std::time::Instant;

use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::EventKind;
use crate::clock::Clock;

/// Calls that have an event of their own at once, and then per second, of each kind.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(31);
const PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

impl EventKind {
    /// The calls that it speaks of, itself included; 0 of a kind that is not limited.
    pub(super) fn calls(&mut self) -> u64 {
        self.suppressed().map_or(0, |suppressed| suppressed.saturating_add(1))
    }

    pub(super) fn add_calls(&mut self, calls: u64) {
        if let Some(suppressed) = self.suppressed() {
            *suppressed = suppressed.saturating_add(calls);
        }
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Instant>>;

struct Limit {
    limiter: Limiter,
    /// The last call that had no event, and in it how many came before.
    held: Option<EventKind>,
}

pub(super) struct Limits {
    clock: Clock,
    kinds: HashMap<Discriminant<EventKind>, Limit>,
}

impl Limits {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, kinds: HashMap::new() }
    }

    /// The event to leave for this call and those that had none before; or none, and the call is counted. `has_room` says
    /// whether there is a place for an event at all.
    pub(super) fn pass(&mut self, mut kind: EventKind, has_room: bool) -> Option<EventKind> {
        let limit = self.kinds.entry(discriminant(&kind)).or_insert_with(|| {
            let quota = Quota::per_second(PER_SECOND).allow_burst(BURST);
            Limit { limiter: RateLimiter::direct_with_clock(quota, self.clock.clone()), held: None }
        });
        kind.add_calls(limit.held.take().map_or(0, |mut held| held.calls()));
        if has_room && limit.limiter.check().is_ok() {
            return Some(kind);
        }
        limit.held = Some(kind);
        None
    }

    /// Takes out what was only counted so far.
    pub(super) fn held(&mut self) -> Vec<EventKind> {
        self.kinds.values_mut().filter_map(|limit| limit.held.take()).collect()
    }
}

/// What one sink did not take of the limited kinds: the next event of the kind says it, to this sink.
#[derive(Default)]
pub(super) struct Owed(HashMap<Discriminant<EventKind>, EventKind>);

impl Owed {
    /// How many calls of this kind the sink has not heard of. They are taken out.
    pub(super) fn settle(&mut self, kind: &EventKind) -> u64 {
        self.0.remove(&discriminant(kind)).map_or(0, |mut owed| owed.calls())
    }

    pub(super) fn owe(&mut self, mut kind: EventKind) {
        if kind.calls() > 0 {
            self.0.insert(discriminant(&kind), kind);
        }
    }

    pub(super) fn take(&mut self) -> Vec<EventKind> {
        self.0.drain().map(|(_, kind)| kind).collect()
    }
}

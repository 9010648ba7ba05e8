//! From a step to the sinks.
//!
//! Owns [`AuditTrail`]: sequence, order, failures, the rate limit. One lock is held while the sinks see an event, because the
//! order of events is the order of sequence numbers.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::text;
use super::{Ack, AuditError, AuditEvent, AuditSink, EventKind, TracingSink};
use crate::aside::aside;
use crate::clock::Clock;
use crate::error::{RefusalReason, VramError};
use crate::identity::Identity;
use crate::names::ShardId;
use crate::sync::{Mutex, MutexGuard};
use crate::telemetry::Telemetry;

/// Refusals that have an event of their own at once, and then per second.
const REFUSAL_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(31);
const REFUSALS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// What the policy asks of the trail before a permissive step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditRequirement {
    /// Nothing: events are best effort.
    BestEffort,
    /// Every sink takes the event.
    Accepted,
    /// Every sink takes the event, and at least one durably.
    Durable,
}

/// The events of one manager, on their way to its sinks.
pub(crate) struct AuditTrail {
    sinks: Vec<Arc<dyn AuditSink>>,
    requirement: AuditRequirement,
    identity: Identity,
    clock: Clock,
    telemetry: Telemetry,
    refusals: RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Instant>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last number given out.
    sequence: u64,
    /// The last event failed, and that was logged.
    failing: bool,
    /// Refusals that had no event: the last one, and how many came before it.
    suppressed: Option<(Option<ShardId>, RefusalReason, u64)>,
}

impl AuditTrail {
    /// A trail to these sinks, in this order.
    pub(crate) fn new(
        sinks: Vec<Arc<dyn AuditSink>>,
        requirement: AuditRequirement,
        identity: Identity,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Self {
        let quota = Quota::per_second(REFUSALS_PER_SECOND).allow_burst(REFUSAL_BURST);
        let refusals = RateLimiter::direct_with_clock(quota, clock.clone());
        Self { sinks, requirement, identity, clock, telemetry, refusals, state: Mutex::default() }
    }

    /// Announces a protective step, or one that has happened. Never fails; failures of sinks are counted and logged.
    pub(crate) fn emit(&self, kind: EventKind) {
        let _ = self.deliver(&mut self.state(), kind);
    }

    /// Announces a permissive step, which may only be taken on `Ok`: `AUDIT_UNAVAILABLE` when the sinks did not take the event
    /// as the policy requires.
    pub(crate) fn require(&self, kind: EventKind) -> Result<(), VramError> {
        let event = kind.name();
        let delivered = self.deliver(&mut self.state(), kind);
        let problem = match (self.requirement, delivered) {
            (AuditRequirement::BestEffort, _)
            | (AuditRequirement::Accepted, Ok(Some(_)))
            | (AuditRequirement::Durable, Ok(Some(Ack::Durable))) => return Ok(()),
            (_, Err(source)) => return Err(VramError::AuditUnavailable { event, source }),
            (_, Ok(None)) => "there is no audit sink",
            (AuditRequirement::Durable, Ok(Some(Ack::Accepted))) => "no audit sink took it durably",
        };
        Err(VramError::AuditUnavailable { event, source: AuditError { problem: problem.to_owned(), source: None } })
    }

    /// Announces that a seal was refused, or counts it where refusals come faster than 32 at once and 10 a second.
    ///
    /// `shard` is what the seal claims. The sum of `1 + suppressed` over the events is the number of calls, once
    /// [`AuditTrail::flush_refusals`] has run.
    pub(crate) fn refused(&self, shard: Option<ShardId>, reason: RefusalReason) {
        let mut state = self.state();
        let before = state.suppressed.take().map_or(0, |(_, _, before)| before.saturating_add(1));
        if self.refusals.check().is_ok() {
            let _ = self.deliver(&mut state, EventKind::SealRefused { shard, reason, suppressed: before });
        } else {
            state.suppressed = Some((shard, reason, before));
        }
    }

    /// Announces the refusals that were only counted so far. For shutdown and drop.
    pub(crate) fn flush_refusals(&self) {
        let mut state = self.state();
        if let Some((shard, reason, suppressed)) = state.suppressed.take() {
            let _ = self.deliver(&mut state, EventKind::SealRefused { shard, reason, suppressed });
        }
    }

    /// Shows the event to every sink: the best acknowledgement, `None` without sinks, or the first failure.
    fn deliver(&self, state: &mut State, kind: EventKind) -> Result<Option<Ack>, AuditError> {
        state.sequence = state.sequence.saturating_add(1);
        let event = AuditEvent {
            sequence: state.sequence,
            at: self.clock.wall(),
            worker: self.identity.worker.clone(),
            epoch: self.identity.epoch,
            device_kind: self.identity.kind,
            device_uuid: self.identity.uuid,
            severity: kind.severity(),
            kind: kind.bounded(),
        };
        let (mut best, mut failure) = (None, None);
        for sink in &self.sinks {
            // A sink's own state after a panic is the sink's business; ours is not touched by the call.
            match catch_unwind(AssertUnwindSafe(|| sink.record(&event))) {
                Ok(Ok(Ack::Durable)) => best = Some(Ack::Durable),
                Ok(Ok(Ack::Accepted)) => best = best.or(Some(Ack::Accepted)),
                Ok(Err(error)) => {
                    self.telemetry.audit_failed();
                    failure.get_or_insert(error);
                }
                Err(_panic) => {
                    self.telemetry.audit_failed();
                    failure.get_or_insert(AuditError { problem: "the audit sink panicked".to_owned(), source: None });
                }
            }
        }
        self.log_failure(state, failure.as_ref(), &event);
        failure.map_or(Ok(best), Err)
    }

    /// Says once that sinks fail, and once that they no longer do.
    fn log_failure(&self, state: &mut State, failure: Option<&AuditError>, event: &AuditEvent) {
        let before = std::mem::replace(&mut state.failing, failure.is_some());
        aside(|| match (before, failure) {
            (false, Some(error)) => tracing::error!(
                target: TracingSink::TARGET,
                event = event.kind.name(),
                sequence = event.sequence,
                problem = text::foreign(&error.problem),
                "an audit sink failed; further failures are counted in vram_audit_failures_total",
            ),
            (true, None) => tracing::warn!(
                target: TracingSink::TARGET,
                event = event.kind.name(),
                sequence = event.sequence,
                "all audit sinks work again",
            ),
            _ => {}
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for AuditTrail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditTrail")
            .field("sinks", &self.sinks.len())
            .field("requirement", &self.requirement)
            .finish_non_exhaustive()
    }
}

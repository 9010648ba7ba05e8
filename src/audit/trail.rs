//! From a step to the sinks.
//!
//! Owns [`AuditTrail`]: what a step waits for. Sinks are called on a thread of the trail's own, in the order of sequence numbers:
//! a step that protects leaves its event and goes on, a step that permits waits until its event was accepted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::courier;
use super::queue::{Envelope, Queue, Queued};
use super::{Ack, AuditSink, EventKind, TracingSink};
use crate::clock::Clock;
use crate::error::{AuditError, VramError};
use crate::metrics::Metrics;
use crate::panics::aside;
use crate::types::Identity;

pub(crate) use super::queue::PATIENCE;

/// How long the end of a manager waits for sinks to take what is still on its way, after everything was wiped.
pub(crate) const PATIENCE_AT_THE_END: Duration = Duration::from_secs(5);

/// What the policy asks of the trail before a permissive step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    queue: Arc<Queue>,
    sinks: usize,
    requirement: AuditRequirement,
    metrics: Metrics,
}

impl AuditTrail {
    /// A trail to these sinks, in this order.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE` when the operating system gives no thread.
    pub(crate) fn new(
        sinks: Vec<Arc<dyn AuditSink>>,
        requirement: AuditRequirement,
        identity: Identity,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, VramError> {
        let queue = Arc::new(Queue::new(Envelope { identity, clock }));
        let trail = Self { queue: Arc::clone(&queue), sinks: sinks.len(), requirement, metrics: metrics.clone() };
        courier::start(queue, sinks, metrics).map_err(|source| {
            trail.queue.end();
            let problem = "the thread that calls the audit sinks did not start; allow this process more threads";
            let source = AuditError { problem: problem.to_owned(), source: Some(source) };
            VramError::AuditUnavailable { event: "manager_started", source }
        })?;
        Ok(trail)
    }

    /// Leaves an event and waits for nothing: between the steps of what protects.
    pub(crate) fn note(&self, kind: EventKind) {
        self.queued(&self.queue.push(kind));
    }

    /// Leaves an event of a step that has happened, and waits a little until the sinks have seen it. Never fails; failures of
    /// sinks are counted and logged.
    pub(crate) fn emit(&self, kind: EventKind) {
        self.note(kind);
        self.settle();
    }

    /// Waits a little until the sinks have seen what was left so far, unless others did so in vain.
    pub(crate) fn settle(&self) {
        self.queue.settle();
    }

    /// Waits up to the moment until the sinks have seen what was left so far.
    pub(crate) fn settle_until(&self, until: Option<Instant>) {
        self.queue.settle_until(until);
    }

    /// Has those who wait for sinks go on: nothing is permitted any more. Whether somebody waited.
    pub(crate) fn let_go(&self) -> bool {
        self.queue.let_go()
    }

    /// Announces a permissive step, which may only be taken on `Ok`: `AUDIT_UNAVAILABLE` when the sinks did not take the event
    /// as the policy requires, or the manager stopped before they did.
    pub(crate) fn require(&self, kind: EventKind) -> Result<(), VramError> {
        self.announce(kind).0
    }

    /// As [`require`](Self::require); says, too, whether the event is in the trail or on its way there, permitted or not.
    pub(crate) fn announce(&self, kind: EventKind) -> (Result<(), VramError>, bool) {
        if self.requirement == AuditRequirement::BestEffort {
            self.emit(kind);
            return (Ok(()), true);
        }
        let event = kind.name();
        let problem = match (self.requirement, self.queue.ask(kind)) {
            (AuditRequirement::Accepted, Some(Ok(Some(_))))
            | (AuditRequirement::Durable, Some(Ok(Some(Ack::Durable)))) => return (Ok(()), true),
            (_, Some(Err(source))) => return (Err(VramError::AuditUnavailable { event, source }), false),
            (_, Some(Ok(None))) => "there is no audit sink",
            (_, Some(Ok(Some(_)))) => "no audit sink took it durably",
            (_, None) => "the audit sinks had not taken it when the manager stopped, or they are too far behind",
        };
        let source = AuditError { problem: problem.to_owned(), source: None };
        (Err(VramError::AuditUnavailable { event, source }), true)
    }

    /// Leaves the event of a call that came to nothing, or counts it where calls of its kind come faster than 32 at once and 10 a
    /// second.
    ///
    /// The sum of `1 + suppressed` over the events of a kind is the number of calls, once
    /// [`AuditTrail::flush_refusals`] has run.
    pub(crate) fn refused(&self, kind: EventKind) {
        let queued = self.queue.push_limited(kind);
        self.queued(&queued);
        if matches!(queued, Queued::As(_)) {
            self.settle();
        }
    }

    /// Leaves events of the calls that were only counted so far. For shutdown and drop.
    pub(crate) fn flush_refusals(&self) {
        self.queue.flush_limited();
    }

    /// Ends the trail: everything has been left, and the sinks have a while to take it. What they take later they take from a
    /// thread that ends then; what they have not taken when the process ends is lost, and the log says how much that may be.
    pub(crate) fn close(&self) {
        let unseen = self.queue.close(Instant::now().checked_add(PATIENCE_AT_THE_END));
        if unseen > 0 {
            aside!(|| {
                tracing::error!(
                    target: TracingSink::TARGET,
                    unseen,
                    "the audit sinks block: the manager ended, and they have not taken all of its events",
                );
            });
        }
    }

    fn queued(&self, queued: &Queued) {
        match queued {
            Queued::As(_) | Queued::Counted => return,
            Queued::LostFirst => aside!(|| {
                tracing::error!(
                    target: TracingSink::TARGET,
                    "the audit sinks are too far behind: events are lost, and counted in vram_audit_failures_total",
                );
            }),
            Queued::Lost => {}
        }
        self.metrics.audit_failed();
    }
}

impl Drop for AuditTrail {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for AuditTrail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditTrail")
            .field("sinks", &self.sinks)
            .field("requirement", &self.requirement)
            .finish_non_exhaustive()
    }
}

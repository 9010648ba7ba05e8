//! The thread on which sinks are called.
//!
//! Owns [`start`]. A sink that blocks holds up this thread, and with it the other sinks of its manager and whoever must have an
//! event accepted; nobody else. Panics of sinks end here.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use super::limited::Owed;
use super::queue::{Queue, Taken, Waiting};
use super::text;
use super::{Ack, AuditEvent, AuditSink, TracingSink};
use crate::error::AuditError;
use crate::metrics::Metrics;
use crate::panics::{aside, caught, dispose};
use crate::sync::thread;

/// A sink, and what it has not heard of.
struct Fed {
    sink: Arc<dyn AuditSink>,
    owed: Owed,
}

impl Fed {
    fn show(&mut self, event: &AuditEvent) -> Result<Ack, AuditError> {
        let mut event = Cow::Borrowed(event);
        let unheard = self.owed.settle(&event.kind);
        if unheard > 0 {
            event.to_mut().kind.add_calls(unheard);
        }
        let taken = caught(|| self.sink.record(&event));
        let taken =
            taken.unwrap_or_else(|_| Err(AuditError { problem: "the audit sink panicked".to_owned(), source: None }));
        if taken.is_err() {
            self.owed.owe(event.into_owned().kind);
        }
        taken
    }
}

/// The sinks of one trail, in order.
struct Courier {
    queue: Arc<Queue>,
    sinks: Vec<Fed>,
    metrics: Metrics,
    /// The last event failed, and that was logged.
    failing: bool,
}

/// Starts the thread; it ends when the queue is closed and empty.
pub(super) fn start(queue: Arc<Queue>, sinks: Vec<Arc<dyn AuditSink>>, metrics: Metrics) -> io::Result<()> {
    let sinks = sinks.into_iter().map(|sink| Fed { sink, owed: Owed::default() }).collect();
    let courier = Courier { queue, sinks, metrics, failing: false };
    thread::Builder::new().name("vram-audit".to_owned()).spawn(move || courier.run()).map(drop)
}

impl Courier {
    fn run(mut self) {
        self.queue.begin();
        while let Some(Waiting { event, place }) = self.queue.next() {
            let taken = place.run(|| self.deliver(&event));
            drop(place);
            self.queue.seen(event.sequence, taken);
        }
        self.settle_debts();
        for fed in self.sinks.drain(..) {
            let _panicked = dispose(fed);
        }
        self.queue.end();
    }

    /// Shows the event to every sink.
    fn deliver(&mut self, event: &AuditEvent) -> Taken {
        let (mut best, mut failure) = (None, None);
        for fed in &mut self.sinks {
            match fed.show(event) {
                Ok(Ack::Durable) => best = Some(Ack::Durable),
                Ok(Ack::Accepted) => best = best.or(Some(Ack::Accepted)),
                Err(error) => {
                    self.metrics.audit_failed();
                    if failure.is_none() {
                        failure = Some(error);
                    } else {
                        let _panicked = dispose(error); // its cause is foreign
                    }
                }
            }
        }
        self.log_failure(failure.as_ref(), event);
        failure.map_or(Ok(best), Err)
    }

    /// Tells the sinks that did not take the last event of a limited kind what they have not heard of. It comes last of all, so
    /// that those who heard everything see no gap.
    fn settle_debts(&mut self) {
        for fed in &mut self.sinks {
            for owed in fed.owed.take() {
                let event = self.queue.last(owed);
                let _panicked = dispose(fed.show(&event));
            }
        }
    }

    /// Says once that sinks fail, and once that they no longer do.
    fn log_failure(&mut self, failure: Option<&AuditError>, event: &AuditEvent) {
        let before = std::mem::replace(&mut self.failing, failure.is_some());
        aside!(|| match (before, failure) {
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
}

//! Events in memory, for tests.
//!
//! Owns [`MemorySink`].

use super::{Ack, AuditEvent, AuditSink};
use crate::error::AuditError;
use crate::sync::{Mutex, MutexGuard, lock};

/// Keeps every event in memory. For tests: it grows without bound, and what it keeps dies with it. With the feature `mock` it fails
/// on order.
///
/// ```
/// use std::sync::Arc;
/// use vram_residency::MemorySink;
/// let sink = Arc::new(MemorySink::default()); // .audit(sink.clone())
/// assert!(sink.events().is_empty());
/// ```
#[derive(Debug, Default)]
pub struct MemorySink(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    events: Vec<AuditEvent>,
    durable: bool,
    failing: bool,
    fail_next: u64,
}

impl MemorySink {
    /// A sink that acknowledges as [`Ack::Durable`], so that tests can satisfy a policy that asks for it. It is not.
    #[cfg(feature = "mock")]
    #[must_use]
    pub fn claiming_durable() -> Self {
        Self(Mutex::new(Kept { durable: true, ..Kept::default() }))
    }

    /// The events taken so far, in order. O(events).
    #[must_use]
    pub fn events(&self) -> Vec<AuditEvent> {
        self.kept().events.clone()
    }

    /// The names of the events taken so far, in order. O(events).
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.kept().events.iter().map(|event| event.kind.name()).collect()
    }

    /// Refuses every event from now on, or no longer.
    #[cfg(feature = "mock")]
    pub fn failing(&self, failing: bool) {
        self.kept().failing = failing;
    }

    /// Refuses the next `count` events.
    #[cfg(feature = "mock")]
    pub fn fail_next(&self, count: u64) {
        self.kept().fail_next = count;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

impl AuditSink for MemorySink {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        let mut kept = self.kept();
        let ordered = kept.fail_next > 0;
        kept.fail_next = kept.fail_next.saturating_sub(1);
        if kept.failing || ordered {
            return Err(AuditError { problem: "the sink was told to fail".to_owned(), source: None });
        }
        kept.events.push(event.clone());
        Ok(if kept.durable { Ack::Durable } else { Ack::Accepted })
    }
}

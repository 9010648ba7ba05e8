//! Audit events and where they go.
//!
//! Owns [`AuditSink`], the sinks of this crate and the trail that feeds them. Promises: events carry a sequence without
//! gaps, and every sink sees them in that order; a step that permits something can wait for its event to be accepted, a step
//! that protects something never does; a sink that fails, panics or blocks stops no such step; calls that come to nothing are
//! rate-limited and every one of them counted. Nothing reads events back to decide.

mod courier;
mod event;
mod fields;
mod limited;
mod memory;
mod queue;
mod text;
mod tracing;
mod trail;

use crate::error::AuditError;

pub use self::event::{AuditEvent, EventKind};
pub use self::fields::{ExecuteOutcome, Operation, QuarantineCause, Severity, VerificationFailure};
pub use self::memory::MemorySink;
pub use self::tracing::TracingSink;
pub use self::trail::AuditRequirement;
pub(crate) use self::trail::{AuditTrail, PATIENCE, PATIENCE_AT_THE_END};

/// What a sink did with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ack {
    /// Took it, as well as it can.
    Accepted,
    /// Took it, and it survives a crash of the process and of the machine.
    Durable,
}

/// Takes events.
///
/// Calls come one at a time, in sequence order, on a thread that the manager has for its sinks; `tracing` records go to the
/// subscriber, and into the span, of the step. A step that permits something waits where the policy asks for that; any other
/// goes on after half a second at most. So take an event within microseconds, or queue it: up to 4,096 events wait, then
/// further ones are lost and counted (of critical ones as many again wait). When the manager is dropped, sinks have five seconds for
/// what is left.
///
/// A sink should not call back into the manager that feeds it: nothing waits for its events then, and what must be accepted is
/// refused. A panic counts as a failure.
///
/// ```
/// use std::io::{self, Write};
/// use vram_residency::{Ack, AuditError, AuditEvent, AuditSink};
/// struct Stderr;
/// impl AuditSink for Stderr {
///     fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
///         let told = writeln!(io::stderr(), "{}", event.to_json_line()); // eprintln! would panic where nobody listens
///         match told {
///             Ok(()) => Ok(Ack::Accepted),
///             Err(error) => Err(AuditError { problem: "stderr takes nothing".to_owned(), source: Some(error.into()) }),
///         }
///     }
/// }
/// ```
pub trait AuditSink: Send + Sync {
    /// Takes one event.
    ///
    /// # Errors
    /// When the event was not taken. Where the policy requires an audit trail, the step that it announces then fails.
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError>;
}

#[cfg(test)]
mod tests;

//! Audit events and where they go.
//!
//! Owns [`AuditSink`], the sinks of this crate and the trail that feeds them. Promises: events carry a sequence without
//! gaps, and every sink sees them in that order; a step that permits something can wait for its event to be accepted, a step
//! that protects something never does; a sink that fails or panics stops neither; refusals are rate-limited and every one of
//! them counted. Nothing reads events back to decide.

mod event;
mod memory;
mod text;
mod tracing;
mod trail;
mod words;

pub use self::event::{AuditEvent, EventKind};
pub use self::memory::MemorySink;
pub use self::tracing::TracingSink;
pub use self::trail::AuditRequirement;
pub(crate) use self::trail::AuditTrail;
pub use self::words::{ExecuteOutcome, Operation, QuarantineCause, Severity, VerificationFailure};

/// A sink did not take an event.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct AuditError {
    /// What went wrong.
    pub problem: String,
    /// The error beneath, if there was one.
    #[source]
    pub source: Option<std::io::Error>,
}

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
/// Calls come one at a time, in sequence order, on whatever thread the step happens on, and the step waits: take an event
/// within microseconds, or queue it. A sink must not call back into the manager that feeds it, which would wait for itself. A
/// panic counts as a failure.
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

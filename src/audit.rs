//! Audit events and where they go.

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

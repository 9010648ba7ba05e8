//! Events as `tracing` records.
//!
//! Owns [`TracingSink`], the sink of a manager that was given none.

#![allow(
    clippy::disallowed_methods,
    reason = "a sink like any other: the trail, which calls it, keeps its panics to itself"
)]

use tracing::Level;

use super::{Ack, AuditEvent, AuditSink, Severity};
use crate::error::AuditError;

/// Writes each event as one `tracing` record with the target `vram_residency::audit`: `event`, `sequence`, `worker`, `shard`
/// (empty when the event is about none) and `record`, the whole event as JSON ([`AuditEvent::to_json_line`]).
///
/// Critical events are errors, warnings warnings, the rest information. It acknowledges as [`Ack::Accepted`]: what the
/// subscriber then does is not known here.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

impl TracingSink {
    /// The target of every record.
    pub const TARGET: &'static str = "vram_residency::audit";
}

macro_rules! record {
    ($level:expr, $event:expr) => {
        tracing::event!(
            target: "vram_residency::audit",
            $level,
            event = $event.kind.name(),
            sequence = $event.sequence,
            worker = $event.worker.as_str(),
            shard = $event.kind.shard().map_or("", |shard| shard.as_str()),
            record = $event.to_json_line(),
        )
    };
}

impl AuditSink for TracingSink {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        match event.severity {
            Severity::Info => record!(Level::INFO, event),
            Severity::Warning => record!(Level::WARN, event),
            Severity::Critical => record!(Level::ERROR, event),
        }
        Ok(Ack::Accepted)
    }
}

//! What every kind of guard holds, and how a scope begins and ends.
//!
//! The check runs behind what the engine's stream already held; the end of the scope waits for what was enqueued since. A scope
//! that is dropped without `finish`, or whose wait failed, does not wait: its pin goes to the core's list of pins to reap, behind an event.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ExecuteOptions;
use crate::audit::{EventKind, ExecuteOutcome};
use crate::core::{Core, Held, ManagerState};
use crate::device::Event;
use crate::driver::StreamId;
use crate::error::VramError;
use crate::residents::Pinned;
use crate::seal::SealedShard;
use crate::verify::{Coverage, Verification};

/// One verified shard in use.
pub(super) struct Scope {
    pub(super) core: Arc<Core>,
    pub(super) record: Option<Pinned>,
    pub(super) verification: Verification,
    started: Instant,
    bracket: Option<Coverage>,
    stream: Option<StreamId>,
    /// What the engine enqueued has run.
    waited: bool,
    max_hold: Option<Duration>,
    held: Option<Held>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("core", &self.core)
            .field("verification", &self.verification)
            .finish_non_exhaustive()
    }
}

impl Scope {
    /// Begins one scope a shard, all of them verified in one batch, or none.
    pub(super) fn begin(
        core: &Arc<Core>,
        shards: &[&SealedShard],
        options: &ExecuteOptions,
    ) -> Result<Vec<Self>, VramError> {
        core.reap();
        let begun = Self::try_begin(core, shards, options);
        begun.inspect_err(|error| core.report_not_begun(shards, error))
    }

    fn try_begin(core: &Arc<Core>, shards: &[&SealedShard], options: &ExecuteOptions) -> Result<Vec<Self>, VramError> {
        // Nothing is said of a seal, nor of the manager's state, before it is known whose seal it is.
        shards.iter().try_for_each(|shard| core.authenticate(shard))?;
        core.permit()?;
        let mut records: Vec<Pinned> = Vec::with_capacity(shards.len());
        let mut slots = HashSet::with_capacity(shards.len());
        for shard in shards {
            let record = core.admit_fresh(shard)?;
            if !slots.insert(record.slot()) {
                return Err(VramError::InvalidParams {
                    field: "shards",
                    problem: format!("name {} twice; give each shard once", shard.id()),
                });
            }
            records.push(record);
        }
        let coverage = options.coverage.unwrap_or_default();
        // The check must see what the engine's stream has still to write.
        let after = options.stream.map(|stream| Event::record(&core.device, stream)).transpose();
        let after = after.map_err(VramError::from).inspect_err(|error| core.note_device_failure(error))?;
        let verifications = core.check(&records, coverage, after.as_ref().map(Event::id))?;
        // Another check may have failed meanwhile: of another shard, or, where that stops nobody, of one of these.
        core.permit()?;
        for record in &records {
            record.intact()?;
        }
        let mut scopes = Vec::with_capacity(records.len());
        for (record, verification) in records.into_iter().zip(verifications) {
            core.require(EventKind::ExecuteStarted { shard: record.id.clone() })?;
            scopes.push(Self {
                core: Arc::clone(core),
                held: options.max_hold.and_then(|most| core.watch(&record.id, most)),
                record: Some(record),
                verification,
                started: Instant::now(),
                bracket: options.bracket.then_some(coverage),
                stream: options.stream,
                waited: false,
                max_hold: options.max_hold,
            });
        }
        Ok(scopes)
    }

    /// Ends the scope once, with its outcome in the trail.
    fn end(&mut self, outcome: ExecuteOutcome) {
        let Some(record) = self.record.take() else { return };
        let (shard, duration) = (record.id.clone(), self.started.elapsed());
        if let Some(held) = self.held.take() {
            self.core.unwatch(held, &shard, self.max_hold.unwrap_or_default(), duration);
        }
        // Before the pin goes: the trail must not tell of the release first.
        self.core.trail.emit(EventKind::ExecuteFinished { shard, outcome, duration });
        match self.stream.filter(|_| !self.waited) {
            Some(stream) => self.core.reap_later(record, stream),
            None => drop(record),
        }
    }

    /// Waits for the engine's work, checks once more where that was asked for, and says whether the result counts.
    pub(super) fn finish(mut self) -> Result<Verification, VramError> {
        let finished = self.try_finish();
        match &finished {
            Ok(_) => self.end(ExecuteOutcome::Finished),
            Err(_) => self.end(ExecuteOutcome::Discarded),
        }
        finished
    }

    fn try_finish(&mut self) -> Result<Verification, VramError> {
        if let Some(stream) = self.stream {
            let waited = Event::record(&self.core.device, stream).and_then(|event| event.synchronize());
            waited.map_err(VramError::from).inspect_err(|error| self.core.note_device_failure(error))?;
            self.waited = true;
        }
        if let Some(coverage) = self.bracket
            && let Some(record) = &self.record
            && let Some(verification) = self.core.check(std::slice::from_ref(record), coverage, None)?.pop()
        {
            self.verification = verification;
        }
        if let state @ ManagerState::Stopped(_) = self.core.state.get() {
            return Err(VramError::ManagerStopped { state });
        }
        // A manager that quarantines only the shard goes on; what was computed over this shard does not count.
        self.record.as_ref().map_or(Ok(()), |record| record.intact())?;
        Ok(self.verification.clone())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.end(ExecuteOutcome::Abandoned);
    }
}

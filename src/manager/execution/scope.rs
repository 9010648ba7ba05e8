//! What every kind of guard holds, and how a scope begins and ends.
//!
//! The check runs behind what the engine's stream already held; closing waits for what was enqueued since, and checks after that.
//! A scope that is dropped without `finish`, or whose wait failed, does not wait: its pin goes to the core's list of pins to reap,
//! behind an event.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::{EventKind, ExecuteOutcome};
use crate::error::{ManagerState, RefusalReason, VramError};
use crate::manager::shared::{Core, Held};
use crate::manager::verify::Verification;
use crate::memory::Event;
use crate::seal::SealedShard;
use crate::shards::Pinned;
use crate::spec::{Check, ExecuteOptions};
use crate::types::StreamId;

/// One verified shard in use.
pub(super) struct Scope {
    pub(super) core: Arc<Core>,
    pub(super) record: Option<Pinned>,
    pub(super) verification: Verification,
    started: Instant,
    /// An execute is under way: its end is still to be told.
    open: bool,
    check: Check,
    /// `finish` checks once more before the result counts.
    verify_after: bool,
    stream: Option<StreamId>,
    /// What the engine enqueued has run.
    waited: bool,
    max_hold: Option<Duration>,
    held: Option<Held>,
}

/// What closes a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// The last one of a chain, or a single one: checked where that was asked for.
    Finish,
    /// One check that also opens the next.
    Renew,
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
        let verify_after = core.policy.admit_verify_after(options.verify_after);
        let verify_after = verify_after.inspect_err(|error| core.report_violation(error))?;
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
        let check = options.check.unwrap_or_default();
        // The check must see what the engine's stream has still to write.
        let after = options.stream.map(|stream| Event::record(&core.device, stream)).transpose();
        let after = after.map_err(VramError::from).inspect_err(|error| core.note_device_failure(error))?;
        let verifications = core.check(&records.iter().collect::<Vec<_>>(), check, after.as_ref())?;
        // Another check may have failed meanwhile: of another shard, or, where that stops nobody, of one of these.
        core.permit()?;
        for record in &records {
            record.intact()?;
        }
        let mut scopes = Vec::with_capacity(records.len());
        for (record, verification) in records.into_iter().zip(verifications) {
            core.announce_execute(&record.id)?;
            scopes.push(Self {
                core: Arc::clone(core),
                held: options.max_hold.and_then(|most| core.watch(&record.id, most)),
                record: Some(record),
                verification,
                started: Instant::now(),
                open: true,
                check,
                verify_after,
                stream: options.stream,
                waited: false,
                max_hold: options.max_hold,
            });
        }
        Ok(scopes)
    }

    /// Closes scopes that belong together: all of their results count, or none does.
    pub(super) fn finish_all(mut scopes: Vec<Self>) -> Result<Vec<Verification>, VramError> {
        let closed = Self::close(&mut scopes, Closing::Finish);
        let outcome = if closed.is_ok() { ExecuteOutcome::Finished } else { ExecuteOutcome::Discarded };
        scopes.iter_mut().for_each(|scope| scope.end(outcome));
        closed.map(|()| scopes.iter().map(|scope| scope.verification.clone()).collect())
    }

    /// Closes scopes that belong together and opens the next ones, with one check for both.
    pub(super) fn renew_all(mut scopes: Vec<Self>) -> Result<Vec<Self>, VramError> {
        if let Err(error) = Self::close(&mut scopes, Closing::Renew) {
            scopes.iter_mut().for_each(|scope| scope.end(ExecuteOutcome::Discarded));
            return Err(error);
        }
        for scope in &mut scopes {
            scope.tell_finished(ExecuteOutcome::Finished);
        }
        scopes.iter_mut().try_for_each(Self::open_next)?;
        Ok(scopes)
    }

    /// Begins the next execute over what the last check found good.
    fn open_next(&mut self) -> Result<(), VramError> {
        let Some(record) = &self.record else { return Ok(()) };
        self.core.announce_execute(&record.id)?;
        self.held = self.max_hold.and_then(|most| self.core.watch(&record.id, most));
        (self.started, self.waited, self.open) = (Instant::now(), false, true);
        Ok(())
    }

    /// Waits for all that the executes enqueued, then checks what has to be checked, then looks whether the results count.
    fn close(scopes: &mut [Self], closing: Closing) -> Result<(), VramError> {
        scopes.iter_mut().try_for_each(|scope| scope.wait(closing))?;
        if closing == Closing::Renew {
            scopes.iter().try_for_each(Self::counts)?; // what is lost already needs no check
        }
        // A set may lie on several devices; each manager checks its own in one batch.
        let mut managers: Vec<Arc<Core>> = Vec::new();
        for scope in scopes.iter() {
            if !managers.iter().any(|core| Arc::ptr_eq(core, &scope.core)) {
                managers.push(Arc::clone(&scope.core));
            }
        }
        managers.iter().try_for_each(|core| Self::check_after(core, scopes, closing))?;
        scopes.iter().try_for_each(Self::counts)
    }

    /// One check of what the scopes of one manager used, begun after all of their work had ended.
    fn check_after(core: &Arc<Core>, scopes: &mut [Self], closing: Closing) -> Result<(), VramError> {
        let wanted =
            |scope: &&mut Self| Arc::ptr_eq(&scope.core, core) && (closing == Closing::Renew || scope.verify_after);
        let mut wanted: Vec<&mut Self> = scopes.iter_mut().filter(wanted).collect();
        let Some(check) = wanted.first().map(|scope| scope.check) else { return Ok(()) };
        // Guards of one shard, taken by several calls, can be closed together: its bytes are read once.
        let mut slots = HashSet::with_capacity(wanted.len());
        let records: Vec<&Pinned> = wanted.iter().filter_map(|scope| scope.record.as_ref()).collect();
        let records: Vec<&Pinned> = records.into_iter().filter(|record| slots.insert(record.slot())).collect();
        let found = core.check(&records, check, None)?;
        let found: HashMap<u32, Verification> = records.iter().map(|record| record.slot()).zip(found).collect();
        for scope in &mut wanted {
            if let Some(verification) = scope.record.as_ref().and_then(|record| found.get(&record.slot())) {
                scope.verification = verification.clone();
            }
        }
        Ok(())
    }

    /// Waits for the engine's work. A chain does not go on under a seal that is too old.
    fn wait(&mut self, closing: Closing) -> Result<(), VramError> {
        if let Some(record) = self.record.as_ref().filter(|record| closing == Closing::Renew && record.is_expired()) {
            let (shard, reason) = (Some(record.id.clone()), RefusalReason::Expired);
            self.core.trail.refused(EventKind::SealRefused { shard, reason, suppressed: 0 });
            return Err(VramError::SealRefused { reason: RefusalReason::Expired });
        }
        if let Some(stream) = self.stream {
            let waited = Event::record(&self.core.device, stream).and_then(|event| event.synchronize());
            waited.map_err(VramError::from).inspect_err(|error| self.core.note_device_failure(error))?;
            self.waited = true;
        }
        Ok(())
    }

    /// Whether the result counts: not on a manager that stopped, and not over a shard that another check found changed.
    fn counts(&self) -> Result<(), VramError> {
        match self.core.state.get() {
            state @ ManagerState::Stopped(_) => Err(VramError::ManagerStopped { state }),
            _ => self.record.as_ref().map_or(Ok(()), |record| record.intact()),
        }
    }

    /// Says how the execute ended, once; the pin stays.
    fn tell_finished(&mut self, outcome: ExecuteOutcome) {
        let Some(record) = self.record.as_ref().filter(|_| std::mem::take(&mut self.open)) else { return };
        let (shard, duration) = (record.id.clone(), self.started.elapsed());
        if let Some(held) = self.held.take() {
            self.core.unwatch(held, &shard, self.max_hold.unwrap_or_default(), duration);
        }
        self.core.trail.emit(EventKind::ExecuteFinished { shard, outcome, duration });
    }

    /// Ends the scope once, with its outcome in the trail.
    fn end(&mut self, outcome: ExecuteOutcome) {
        // Before the pin goes: the trail must not tell of the release first.
        self.tell_finished(outcome);
        let Some(record) = self.record.take() else { return };
        match self.stream.filter(|_| !self.waited) {
            Some(stream) => self.core.reap_later(record, stream),
            None => drop(record),
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.end(ExecuteOutcome::Abandoned);
    }
}

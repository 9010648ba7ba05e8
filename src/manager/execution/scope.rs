//! What every kind of guard holds, and how a scope begins and ends.
//!
//! The check runs behind what the engine's stream already held; closing waits for what was enqueued since, and checks after that.
//! A scope that is dropped without `finish`, or whose wait failed, does not wait: its pin goes to the manager's list of pins to reap,
//! behind an event.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::{EventKind, ExecuteOutcome};
use crate::error::{ManagerState, RefusalReason, VramError};
use crate::manager::inner::{Inner, WatchId};
use crate::manager::verify::VerifyReport;
use crate::memory::Event;
use crate::seal::SealedShard;
use crate::shards::Pinned;
use crate::spec::{Check, ExecuteOptions};
use crate::types::{DriverError, StreamId};

pub(super) struct Scope {
    pub(super) inner: Arc<Inner>,
    pub(super) record: Pinned,
    pub(super) report: VerifyReport,
    started: Instant,
    /// An execute is under way: its end is still to be told.
    open: bool,
    permitted: Permitted,
    stream: Option<StreamId>,
    /// What the engine enqueued has run.
    waited: bool,
    max_hold: Option<Duration>,
    held: Option<WatchId>,
}

/// How an execute is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permitted {
    check: Check,
    /// `finish` checks once more before the result counts.
    verify_after: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// The last one of a chain, or a single one: checked where that was asked for.
    Finish,
    /// One check that also opens the next.
    Renew,
}

shown!(Scope, this: inner = this.inner, report = this.report);

impl Scope {
    pub(super) fn begin(inner: &Arc<Inner>, shard: &SealedShard, options: &ExecuteOptions) -> Result<Self, VramError> {
        inner.reap();
        // Nothing is said of a seal, nor of the manager's state, before it is known whose seal it is.
        inner.authenticate(shard)?;
        let permitted = Self::permit(inner, options)?;
        let record = inner.admit_fresh(shard)?;
        let after = Self::behind(inner, options)?;
        let report = inner.check(&record, permitted.check, after.as_ref())?;
        // Another check may have failed meanwhile: of another shard, or, where that stops nobody, of this one.
        inner.permit()?;
        record.intact()?;
        Self::open(inner, record, report, options, permitted)
    }

    /// [`begin`](Self::begin) for several shards: all of them checked in one batch, or none has a scope.
    pub(super) fn begin_all(
        inner: &Arc<Inner>,
        shards: &[&SealedShard],
        options: &ExecuteOptions,
    ) -> Result<Vec<Self>, VramError> {
        inner.reap();
        shards.iter().try_for_each(|shard| inner.authenticate(shard))?;
        let permitted = Self::permit(inner, options)?;
        let mut records: Vec<Pinned> = Vec::with_capacity(shards.len());
        let mut slots = HashSet::with_capacity(shards.len());
        for shard in shards {
            let record = inner.admit_fresh(shard)?;
            if !slots.insert(record.slot()) {
                return Err(VramError::InvalidParams {
                    field: "shards",
                    problem: format!("name {} twice; give each shard once", shard.id()),
                });
            }
            records.push(record);
        }
        let after = Self::behind(inner, options)?;
        let pinned: Vec<&Pinned> = records.iter().collect();
        let reports = inner.check_all(&pinned, permitted.check, after.as_ref())?;
        inner.permit()?;
        records.iter().try_for_each(|record| record.intact())?;
        let opened = records.into_iter().zip(reports);
        opened.map(|(record, report)| Self::open(inner, record, report, options, permitted)).collect()
    }

    /// Whether work may begin, and how it is checked.
    fn permit(inner: &Inner, options: &ExecuteOptions) -> Result<Permitted, VramError> {
        inner.permit()?;
        let check = inner.policy.admit_check(options.check.unwrap_or(inner.check));
        let verify_after = || inner.policy.admit_verify_after(options.verify_after);
        let permitted = check.and_then(|check| Ok(Permitted { check, verify_after: verify_after()? }));
        permitted.inspect_err(|error| inner.report_violation(error))
    }

    /// The check must see what the engine's stream has still to write.
    fn behind(inner: &Inner, options: &ExecuteOptions) -> Result<Option<Event>, VramError> {
        let after = options.stream.map(|stream| inner.device.event(stream)).transpose();
        after.map_err(of_stream).inspect_err(|error| inner.note_device_failure(error))
    }

    /// Announces the execute over what was just found good.
    fn open(
        inner: &Arc<Inner>,
        record: Pinned,
        report: VerifyReport,
        options: &ExecuteOptions,
        permitted: Permitted,
    ) -> Result<Self, VramError> {
        inner.announce_execute(&record.id)?;
        Ok(Self {
            inner: Arc::clone(inner),
            held: options.max_hold.and_then(|most| inner.watch(&record.id, most)),
            record,
            report,
            started: Instant::now(),
            open: true,
            permitted,
            stream: options.stream,
            waited: false,
            max_hold: options.max_hold,
        })
    }

    /// Closes the scope: whether its result counts.
    pub(super) fn finish(mut self) -> Result<VerifyReport, VramError> {
        let closed = self.close(Closing::Finish);
        self.end(outcome(&closed));
        closed.map(|()| self.report.clone())
    }

    /// [`finish`](Self::finish) for scopes that belong together: all of their results count, or none does.
    pub(super) fn finish_all(mut scopes: Vec<Self>) -> Result<Vec<VerifyReport>, VramError> {
        let closed = Self::close_all(&mut scopes, Closing::Finish);
        scopes.iter_mut().for_each(|scope| scope.end(outcome(&closed)));
        closed.map(|()| scopes.iter().map(|scope| scope.report.clone()).collect())
    }

    /// Closes the scope and opens the next one, with one check for both.
    pub(super) fn renew(mut self) -> Result<Self, VramError> {
        let closed = self.close(Closing::Renew);
        self.tell_finished(outcome(&closed));
        closed.and_then(|()| self.open_next())?;
        Ok(self)
    }

    pub(super) fn renew_all(mut scopes: Vec<Self>) -> Result<Vec<Self>, VramError> {
        let closed = Self::close_all(&mut scopes, Closing::Renew);
        scopes.iter_mut().for_each(|scope| scope.tell_finished(outcome(&closed)));
        closed.and_then(|()| scopes.iter_mut().try_for_each(Self::open_next))?;
        Ok(scopes)
    }

    /// Begins the next execute over what the last check found good.
    fn open_next(&mut self) -> Result<(), VramError> {
        self.inner.announce_execute(&self.record.id)?;
        self.held = self.max_hold.and_then(|most| self.inner.watch(&self.record.id, most));
        (self.started, self.waited, self.open) = (Instant::now(), false, true);
        Ok(())
    }

    /// Waits for all that the execute enqueued, then checks if it has to be checked, then looks whether the result counts.
    fn close(&mut self, closing: Closing) -> Result<(), VramError> {
        self.wait(closing)?;
        if closing == Closing::Renew {
            self.counts()?; // what is lost already needs no check
        }
        if self.is_checked(closing) {
            let report = self.inner.check(&self.record, self.permitted.check.closing(), None)?;
            self.take_report(report, closing);
        }
        self.counts()
    }

    /// [`close`](Self::close) for scopes that belong together: the work of all has ended before the first check begins.
    fn close_all(scopes: &mut [Self], closing: Closing) -> Result<(), VramError> {
        scopes.iter_mut().try_for_each(|scope| scope.wait(closing))?;
        if closing == Closing::Renew {
            scopes.iter().try_for_each(Self::counts)?;
        }
        // A set may lie on several devices; each manager checks its own in one batch.
        let mut managers: Vec<Arc<Inner>> = Vec::new();
        for scope in scopes.iter() {
            if !managers.iter().any(|inner| Arc::ptr_eq(inner, &scope.inner)) {
                managers.push(Arc::clone(&scope.inner));
            }
        }
        managers.iter().try_for_each(|inner| Self::check_after(inner, scopes, closing))?;
        scopes.iter().try_for_each(Self::counts)
    }

    /// One check of what the scopes of one manager used, begun after all of their work had ended.
    fn check_after(inner: &Arc<Inner>, scopes: &mut [Self], closing: Closing) -> Result<(), VramError> {
        let wanted = |scope: &&mut Self| Arc::ptr_eq(&scope.inner, inner) && scope.is_checked(closing);
        let mut wanted: Vec<&mut Self> = scopes.iter_mut().filter(wanted).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        // Each was promised a check of its own strength.
        let all_keyed = wanted.iter().all(|scope| scope.permitted.check == Check::Keyed);
        let check = if all_keyed { Check::Keyed } else { Check::Digest };
        // Guards of one shard, taken by several calls, can be closed together: its bytes are read once.
        let mut slots = HashSet::with_capacity(wanted.len());
        let records = wanted.iter().map(|scope| &scope.record);
        let records: Vec<&Pinned> = records.filter(|record| slots.insert(record.slot())).collect();
        let reports = inner.check_all(&records, check, None)?;
        let reports: HashMap<u32, VerifyReport> = records.iter().map(|record| record.slot()).zip(reports).collect();
        for scope in &mut wanted {
            if let Some(report) = reports.get(&scope.record.slot()) {
                scope.take_report(report.clone(), closing);
            }
        }
        Ok(())
    }

    fn is_checked(&self, closing: Closing) -> bool {
        closing == Closing::Renew || self.permitted.verify_after
    }

    /// What closes the last execute says how strong the weaker of its two checks was; what opens the next stands for itself.
    fn take_report(&mut self, mut closed: VerifyReport, closing: Closing) {
        if closing == Closing::Finish {
            closed.cross_checked = closed.cross_checked.min(self.report.cross_checked);
            if self.report.check.is_weaker_than(closed.check) {
                (closed.check, closed.subtrees) = (self.report.check, self.report.subtrees);
            }
        }
        self.report = closed;
    }

    /// Waits for the engine's work. A chain does not go on under a seal that is too old.
    fn wait(&mut self, closing: Closing) -> Result<(), VramError> {
        if closing == Closing::Renew && self.record.is_expired() {
            let (shard, reason) = (Some(self.record.id.clone()), RefusalReason::Expired);
            self.inner.trail.refused(EventKind::SealRefused { shard, reason, suppressed: 0 });
            return Err(VramError::SealRefused { reason: RefusalReason::Expired });
        }
        if let Some(stream) = self.stream {
            let waited = self.inner.device.event(stream).and_then(|event| event.synchronize());
            waited.map_err(of_stream).inspect_err(|error| self.inner.note_device_failure(error))?;
            self.waited = true;
        }
        Ok(())
    }

    /// Whether the result counts: not on a manager that stopped, and not over a shard that another check found changed.
    fn counts(&self) -> Result<(), VramError> {
        match self.inner.state.get() {
            state @ ManagerState::Stopped(_) => Err(VramError::ManagerStopped { state }),
            _ => self.record.intact(),
        }
    }

    /// Says how the execute ended, once; the pin stays.
    fn tell_finished(&mut self, outcome: ExecuteOutcome) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let (shard, duration) = (self.record.id.clone(), self.started.elapsed());
        if let Some(held) = self.held.take() {
            self.inner.unwatch(held, &shard, self.max_hold.unwrap_or_default(), duration);
        }
        self.inner.trail.emit(EventKind::ExecuteFinished { shard, outcome, duration });
    }

    /// Ends the scope, with its outcome in the trail: before the pin goes, or the trail would tell of the release first.
    fn end(&mut self, outcome: ExecuteOutcome) {
        self.tell_finished(outcome);
        if let Some(stream) = self.stream.take().filter(|_| !self.waited) {
            self.inner.reap_later(self.record.again(), stream);
        }
    }
}

/// What an engine's stream refused. While a graph is recorded nothing runs that could be checked, or waited for.
fn of_stream(error: DriverError) -> VramError {
    if error.code == DriverError::CAPTURING {
        let problem = "records a graph (stream capture), where nothing can be checked; end the capture, and execute around the graph's launch";
        return VramError::InvalidParams { field: "stream", problem: problem.to_owned() };
    }
    error.into()
}

const fn outcome<T>(closed: &Result<T, VramError>) -> ExecuteOutcome {
    if closed.is_ok() { ExecuteOutcome::Finished } else { ExecuteOutcome::Discarded }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.end(ExecuteOutcome::Abandoned);
    }
}

//! How many events a history should have left by now, as the model counts them.

use super::*;

/// Events by name, so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sealed: usize,
    pub(super) allocated: usize,
    pub(super) deallocated: usize,
    pub(super) quarantined: usize,
    pub(super) started: usize,
    pub(super) finished: usize,
    pub(super) stopped: usize,
}

impl Tally {
    /// The trail against the model.
    #[track_caller]
    pub(super) fn assert_said(&self, sink: &MemorySink) {
        for (name, wanted) in [
            ("vram_sealed", self.sealed),
            ("vram_allocated", self.allocated),
            ("vram_deallocated", self.deallocated),
            ("shard_quarantined", self.quarantined),
            ("execute_started", self.started),
            ("execute_finished", self.finished),
            ("manager_stopped", self.stopped),
        ] {
            let counted = Self::counted(sink, name);
            assert_eq!(counted, wanted, "{name} in the trail, and as the model counts: {:?}", sink.names());
        }
    }

    /// Events of that name in the trail.
    pub(super) fn counted(sink: &MemorySink, name: &str) -> usize {
        sink.names().into_iter().filter(|said| *said == name).count()
    }

    /// The end of a manager: what was taken is given back, what began has ended, and it stops, if it was ready.
    pub(super) fn ended(self, ready: bool) -> Self {
        let stopped = self.stopped + usize::from(ready);
        Self { deallocated: self.allocated, finished: self.started, stopped, ..self }
    }

    /// A step failed: what it had allocated it gave back, but for what a fault kept it from wiping.
    pub(super) fn failed(&mut self, allocated: usize, kept: bool) {
        assert!(allocated <= 1 && usize::from(kept) <= allocated, "{allocated} allocated, kept: {kept}");
        self.allocated += allocated;
        self.deallocated += allocated - usize::from(kept);
        self.quarantined += usize::from(kept);
    }

    /// Memory was to be given back, and was, or could not be wiped.
    pub(super) fn left(&mut self, wiped: bool) {
        self.deallocated += usize::from(wiped);
        self.quarantined += usize::from(!wiped);
    }
}

/// Whether the trail says that this shard is kept as evidence.
pub(super) fn is_evidence(events: &[AuditEvent], id: &ShardId) -> bool {
    events.iter().any(|event| {
        matches!(&event.kind, EventKind::ShardQuarantined { shard, cause: QuarantineCause::Evidence, .. } if shard == id)
    })
}

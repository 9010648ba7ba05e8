//! Foreign code that panics, and throws values that panic when they are dropped: sinks, subscribers, recorders, readers, closures,
//! owners and the causes of their errors. Nothing stays unwiped by it, and drop never panics.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use crate::*;

/// Panics when it is dropped, with another of its kind.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any(Self);
    }
}

/// An error that panics when it is shown and when it is dropped.
#[derive(Debug)]
struct Bad(#[allow(dead_code)] Bomb);

impl fmt::Display for Bad {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic_any(Bomb)
    }
}

impl std::error::Error for Bad {}

/// Runs what throws a bomb, which nobody may drop.
#[track_caller]
fn assert_throws<T>(run: impl FnOnce() -> T) {
    let Err(thrown) = catch_unwind(AssertUnwindSafe(run)) else { panic!("nothing was thrown") };
    assert!(thrown.is::<Bomb>(), "something else was thrown");
    std::mem::forget(thrown);
}

/// Throws a bomb at each event, or gives an error that is one.
struct Throws(bool);

impl AuditSink for Throws {
    fn record(&self, _: &AuditEvent) -> Result<Ack, AuditError> {
        if self.0 {
            panic_any(Bomb)
        }
        Err(AuditError { problem: "it is broken".to_owned(), source: Some(io::Error::other(Bad(Bomb))) })
    }
}

impl Drop for Throws {
    fn drop(&mut self) {
        panic_any(Bomb)
    }
}

#[test]
fn a_sink_that_throws_what_panics_hinders_nothing_and_permits_nothing_where_it_is_required() {
    // covers: AUD-5 ERR-1 SCR-3
    let rig = Rig::with(small(), |builder| builder.audit(Arc::new(Throws(true))).audit(Arc::new(Throws(false))));
    let shard = rig.seal("one", &noise(5000, 1));
    rig.manager.execute(&shard, |_| ()).unwrap();
    rig.flip(&shard, 9);
    assert_error!(rig.manager.verify_sealed(&shard), VramError::IntegrityFailure { .. });
    rig.close_clean();
    let policy = Policy::development().require_audit(AuditRequirement::Accepted);
    let built = builder(&small()).policy(policy).audit(Arc::new(Throws(true))).build();
    assert_error!(built, VramError::AuditUnavailable { .. });
}

/// Throws a bomb at everything that is said to it, once it is armed: log lines, spans and metrics.
#[derive(Clone)]
struct Listener(Arc<AtomicBool>);

impl Listener {
    fn throw(&self) {
        if self.0.load(Ordering::SeqCst) {
            panic_any(Bomb)
        }
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        self.throw();
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.throw();
    }
    fn enter(&self, _: &tracing::span::Id) {
        self.throw();
    }
    fn exit(&self, _: &tracing::span::Id) {}
}

impl metrics::Recorder for Listener {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {
        self.throw();
    }
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {
        self.throw();
    }
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {
        self.throw();
    }
    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        panic_any(Bomb)
    }
    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        panic_any(Bomb)
    }
    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        panic_any(Bomb)
    }
}

#[test]
fn whoever_throws_what_panics_at_log_lines_and_metrics_hinders_nothing() {
    // covers: ERR-1 SCR-3 VER-5
    // What is logged when a guard is dropped: that no event could be recorded; and at the manager's end: that none could be
    // waited for.
    for (at_the_drop, call) in [(true, MockCall::Event), (false, MockCall::Synchronize)] {
        let listener = Listener(Arc::new(AtomicBool::new(false)));
        let life = || {
            let span = tracing::info_span!("request");
            let entered = span.enter();
            listener.0.store(true, Ordering::SeqCst);
            let config = small().read_only(false);
            let rig = Rig::with(config, |builder| builder.audit(Arc::new(TracingSink)));
            let (one, two) = rig.two();
            rig.manager.execute(&two, |_| ()).unwrap();
            drop(rig.manager.allocate_scratch(Purpose::Workspace, 100).unwrap());
            let stream = rig.stream();
            let guard = rig.manager.begin(&one, on(&stream)).unwrap();
            stream.enqueue_write(&one, 0, 3000, 7).unwrap();
            if at_the_drop {
                rig.order(Fault::call(call));
            }
            drop(guard);
            rig.flip(&two, 9);
            assert_error!(rig.manager.execute(&two, |_| ()), VramError::IntegrityFailure { .. });
            if !at_the_drop {
                rig.order(Fault::call(call));
            }
            std::mem::forget(stream); // the engine outlives the manager
            let (stats, events) = rig.close();
            listener.0.store(false, Ordering::SeqCst);
            drop(entered);
            assert_eq!((stats.live_bytes, stats.unwiped_bytes_freed), (0, 0), "{call:?}");
            assert_contiguous(&events);
        };
        metrics::with_local_recorder(&listener, || tracing::subscriber::with_default(listener.clone(), life));
    }
}

#[test]
fn a_reader_that_panics_leaves_its_event_and_nothing_else() {
    // covers: SCR-3 SEAL-6 RES-1 AUD-1
    for (left, then) in [0, 3000, 5000].into_iter().flat_map(|left| ["throw", "fail", "end"].map(|then| (left, then))) {
        let rig = Rig::new();
        let bomb = Bomb;
        let reader = reads(move |at, room| {
            let _is_its = &bomb;
            match then {
                "throw" if at == left => panic_any(Bomb),
                "fail" if at == left => Err(io::Error::other(Bad(Bomb))),
                _ => Ok(fill(room, left - at, 7)),
            }
        });
        let source = ShardSource::reader(5000, reader);
        let names = rig.events_of(|| assert_throws(|| std::mem::forget(rig.manager.seal_model(spec("one"), source))));
        assert_eq!(names, ["vram_allocated", "vram_wiped", "vram_deallocated", "vram_seal_failed"]);
        assert_eq!((rig.manager.used_vram(), rig.config.stats().live_bytes), (0, 0));
        let shard = rig.seal("one", &noise(100, 1)); // the name is free again
        rig.manager.release(&shard).unwrap();
        rig.close_clean();
    }
}

#[test]
fn what_an_execution_throws_goes_on_to_the_caller_and_the_shard_can_be_released() {
    // covers: SCR-3 VER-3 CON-1
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    assert_throws(|| rig.manager.execute(&shard, |_| panic_any::<Bomb>(Bomb)));
    assert_throws(|| {
        let _run = rig.begin(&shard);
        panic_any(Bomb)
    });
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    rig.manager.release(&shard).unwrap();
    let events = rig.close_clean();
    assert_eq!(events.iter().filter(|event| matches!(event.kind, EventKind::ExecuteFinished { .. })).count(), 3);
}

#[test]
fn an_owner_that_throws_what_panics_keeps_no_other_shard_from_its_wipe() {
    // covers: RES-9 SCR-3
    for released in [true, false] {
        let rig = Rig::new();
        let shard = rig.seal("one", &noise(5000, 1));
        let owner = |bytes| OnDrop(bytes, |_: &mut Vec<u8>| panic_any(Bomb));
        let adopted =
            adopt_bytes(&rig.manager, "engine", noise(5000, 1), owner).map_err(|refused| refused.error).unwrap();
        let seal = adopted.shard().clone();
        drop(adopted); // the record's is the last
        if released {
            rig.manager.release(&seal).unwrap();
            rig.manager.release(&shard).unwrap();
        }
        rig.close_clean();
    }
}

//! Foreign code that panics, and throws values that panic when they are dropped: sinks, subscribers, readers, closures, owners and
//! the causes of their errors. Nothing stays unwiped by it, and drop never panics.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::disallowed_methods, clippy::mem_forget)]

mod support;

use std::any::Any;
use std::fmt;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Arena, Rig, assert_clean, assert_contiguous, builder, noise, small, spec};
use vram_residency::{
    Ack, AuditError, AuditEvent, AuditRequirement, AuditSink, EventKind, ExecuteOptions, MemorySink, Policy, Purpose,
    ShardSource, VramError,
};

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
struct Bad(Bomb);

impl fmt::Display for Bad {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic_any(Bomb)
    }
}

impl std::error::Error for Bad {}

/// What was thrown. Nobody may drop it.
#[track_caller]
fn thrown<T>(run: impl FnOnce() -> T) -> Box<dyn Any + Send> {
    let Err(thrown) = catch_unwind(AssertUnwindSafe(run)) else { panic!("nothing was thrown") };
    thrown
}

#[track_caller]
fn assert_bomb(thrown: Box<dyn Any + Send>) {
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
fn a_sink_that_throws_what_panics_hinders_nothing() {
    // covers: AUD-5 ERR-1 SCR-3
    for throws in [true, false] {
        let (config, beside) = (small(), Arc::new(MemorySink::default()));
        let sinks: [Arc<dyn AuditSink>; 3] = [Arc::new(Throws(throws)), Arc::new(Throws(!throws)), beside.clone()];
        let manager = sinks.into_iter().fold(builder(&config), |builder, sink| builder.audit(sink)).build().unwrap();
        let shard = manager.seal_model(spec("one"), ShardSource::bytes(&noise(5000, 1))).unwrap();
        manager.execute(&shard, |_| ()).unwrap();
        manager.mock_controls().unwrap().flip_bit(&shard, 9, 1).unwrap();
        assert!(matches!(manager.verify_sealed(&shard), Err(VramError::IntegrityFailure { .. })));
        drop(manager);
        assert_clean(&config.stats());
        assert_contiguous(&beside.events());
    }
}

#[test]
fn a_required_trail_of_such_a_sink_permits_nothing() {
    // covers: AUD-5 ERR-1
    let policy = Policy::development().require_audit(AuditRequirement::Accepted);
    let built = builder(&small()).policy(policy).audit(Arc::new(Throws(true))).build();
    assert!(matches!(built, Err(VramError::AuditUnavailable { .. })), "{built:?}");
}

/// Throws a bomb at everything that is said to it, once it is armed.
struct Subscriber(Arc<AtomicBool>);

impl Subscriber {
    fn throw(&self) {
        if self.0.load(Ordering::SeqCst) {
            panic_any(Bomb)
        }
    }
}

impl tracing::Subscriber for Subscriber {
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

#[test]
fn a_subscriber_that_throws_what_panics_hinders_nothing() {
    // covers: ERR-1 SCR-3
    let armed = Arc::new(AtomicBool::new(false));
    let (config, beside) = (small(), Arc::new(MemorySink::default()));
    tracing::subscriber::with_default(Subscriber(Arc::clone(&armed)), || {
        let built = builder(&config).audit(Arc::new(vram_residency::TracingSink)).audit(beside.clone());
        let manager = built.build().unwrap();
        let span = tracing::info_span!("request");
        let entered = span.enter();
        armed.store(true, Ordering::SeqCst);
        let shard = manager.seal_model(spec("one"), ShardSource::bytes(&noise(5000, 1))).unwrap();
        manager.execute(&shard, |_| ()).unwrap();
        drop(manager.allocate_scratch(Purpose::Workspace, 100).unwrap());
        drop(manager);
        armed.store(false, Ordering::SeqCst);
        drop(entered);
    });
    assert_clean(&config.stats());
    assert_contiguous(&beside.events());
}

/// A reader that throws a bomb when it is read, or gives an error that is one, or only throws one when it is dropped; and is one
/// itself.
struct Reader {
    left: usize,
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Throw,
    Fail,
    End,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = buffer.len().min(self.left);
        self.left -= bytes;
        match self.then {
            Then::Throw if bytes == 0 => panic_any(Bomb),
            Then::Fail if bytes == 0 => Err(io::Error::other(Bad(Bomb))),
            _ => {
                buffer[..bytes].fill(7);
                Ok(bytes)
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        panic_any(Bomb)
    }
}

#[test]
fn a_reader_that_panics_leaves_its_event_and_nothing_else() {
    // covers: SCR-3 SEAL-6 RES-1 AUD-1
    for then in [Then::Throw, Then::Fail, Then::End] {
        for left in [0, 3000, 5000] {
            let rig = Rig::new();
            let mark = rig.mark();
            let source = ShardSource::reader(5000, Reader { left, then });
            assert_bomb(thrown(|| std::mem::forget(rig.manager.seal_model(spec("one"), source))));
            let names = rig.names_since(mark);
            assert_eq!(names, ["vram_allocated", "vram_wiped", "vram_deallocated", "vram_seal_failed"]);
            assert_eq!((rig.manager.used_vram(), rig.config.stats().live_bytes), (0, 0));
            let shard = rig.seal("one", &noise(100, 1)); // the name is free again
            rig.manager.release(&shard).unwrap();
            rig.close_clean();
        }
    }
}

#[test]
fn what_an_execution_throws_goes_on_to_the_caller() {
    // covers: SCR-3 VER-3
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    assert_bomb(thrown(|| rig.manager.execute(&shard, |_| panic_any::<Bomb>(Bomb))));
    assert_bomb(thrown(|| {
        let _run = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
        panic_any(Bomb)
    }));
    rig.manager.release(&shard).unwrap();
    let events = rig.close_clean();
    let ended = events.iter().filter(|event| matches!(event.kind, EventKind::ExecuteFinished { .. })).count();
    assert_eq!(ended, 2);
}

/// An engine's memory with an owner that is a bomb.
struct Owner(#[allow(dead_code)] Arc<Arena>, #[allow(dead_code)] Bomb);

#[test]
fn an_owner_that_throws_what_panics_keeps_no_other_shard_from_its_wipe() {
    // covers: RES-9 SCR-3
    for released in [true, false] {
        let rig = Rig::new();
        let arena = Arc::new(Arena::new(5000, 3));
        let adopt = || {
            let owner = Owner(Arc::clone(&arena), Bomb);
            let regions = [arena.region(0, 4000)];
            // SAFETY: the region lies in the arena, which the test keeps beyond the manager, and which nobody writes to.
            unsafe { rig.manager.adopt(spec("engine"), owner, &regions) }.map_err(|refused| refused.error).unwrap()
        };
        let shard = rig.seal("one", &noise(5000, 1));
        let adopted = adopt();
        let seal = adopted.shard().clone();
        // The record's is the last.
        std::mem::forget(catch_unwind(AssertUnwindSafe(|| drop(adopted))));
        if released {
            rig.manager.release(&seal).unwrap();
            rig.manager.release(&shard).unwrap();
        }
        rig.close_clean();
    }
}

//! What comes while something else is under way, and what fails when half of it is done.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod support;

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use support::{Arena, Rig, adopt, noise, refusals, small, spec, within};
use vram_residency::{
    Ack, AuditError, AuditEvent, AuditSink, ErrorCode, EventKind, ExecuteOptions, Fault, ManagerState, MemorySink,
    MockCall, OnIntegrityFailure, Purpose, RawRegion, ResidencyLie, SealedShard, Severity, ShardSource, StopReason,
    VramError, VramManager,
};

const SOON: Duration = Duration::from_secs(60);

/// Waits until something is so.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// At the first `seal_verified`, flips a bit of that shard and has another thread find it.
struct FindsChanges {
    manager: OnceLock<Arc<VramManager>>,
    shard: OnceLock<SealedShard>,
    met: AtomicBool,
    finder: Mutex<Option<thread::JoinHandle<()>>>,
}

impl AuditSink for FindsChanges {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        if event.kind.name() == "seal_verified" && !self.met.swap(true, Ordering::SeqCst) {
            let (manager, shard) = (Arc::clone(self.manager.get().unwrap()), self.shard.get().unwrap().clone());
            manager.mock_controls().unwrap().flip_bit(&shard, 9, 1).unwrap();
            let watched = Arc::clone(&manager);
            let finder = thread::spawn(move || drop(manager.verify_sealed(&shard).unwrap_err()));
            until("the other check finds the change", || watched.quarantined_vram() > 0);
            *self.finder.lock().unwrap() = Some(finder);
        }
        Ok(Ack::Accepted)
    }
}

#[test]
fn no_work_begins_on_a_shard_that_another_call_just_found_changed() {
    // covers: VER-5 VER-1
    let sink = Arc::new(FindsChanges {
        manager: OnceLock::new(),
        shard: OnceLock::new(),
        met: AtomicBool::new(false),
        finder: Mutex::new(None),
    });
    let beside = Arc::new(MemorySink::default());
    let built = support::builder(&small())
        .on_integrity_failure(OnIntegrityFailure::QuarantineShard)
        .audit(sink.clone())
        .audit(beside.clone());
    let manager = Arc::new(built.build().unwrap());
    let shard = manager.seal_model(spec("one"), ShardSource::bytes(&noise(5000, 1))).unwrap();
    assert!(sink.manager.set(Arc::clone(&manager)).is_ok() && sink.shard.set(shard.clone()).is_ok());
    let (outcome, ran) = support::execute(&manager, &shard);
    assert!(
        matches!(&outcome, Err(VramError::IntegrityFailure { shard, .. }) if shard.as_str() == "one"),
        "{outcome:?}"
    );
    assert!(!ran && sink.met.load(Ordering::SeqCst));
    sink.finder.lock().unwrap().take().unwrap().join().unwrap();
    assert_eq!(manager.state(), ManagerState::Ready);
    assert!(!beside.names().contains(&"execute_started") && beside.names().contains(&"execute_refused"));
}

/// A source that says when it is read first, and then waits.
struct Waits {
    begun: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
    left: usize,
}

const WEIGHTS: usize = 4000;

impl Read for Waits {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == WEIGHTS {
            self.begun.send(()).unwrap();
            self.go_on.recv_timeout(SOON).map_err(io::Error::other)?;
        }
        let bytes = buffer.len().min(self.left);
        buffer[..bytes].fill(5);
        self.left -= bytes;
        Ok(bytes)
    }
}

#[test]
fn a_shutdown_waits_for_a_seal_that_is_under_way() {
    // covers: SCR-3 VER-5
    within(2 * SOON, || {
        for patient in [true, false] {
            let rig = Rig::new();
            let ((begun, has_begun), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
            thread::scope(|scope| {
                let manager = &rig.manager;
                let sealing = scope.spawn(move || {
                    let source = Waits { begun, go_on: goes_on, left: WEIGHTS };
                    manager.seal_model(spec("one"), ShardSource::reader(WEIGHTS as u64, source)).unwrap_err()
                });
                has_begun.recv_timeout(SOON).unwrap();
                if !patient {
                    let report = manager.shutdown(Duration::ZERO);
                    assert!(
                        !report.drained
                            && report.busy_bytes == manager.used_vram()
                            && report.busy_bytes > WEIGHTS as u64
                    );
                    go_on.send(()).unwrap();
                } else {
                    let ending = scope.spawn(|| manager.shutdown(SOON));
                    until("the manager drains", || manager.state() == ManagerState::Draining);
                    thread::sleep(Duration::from_millis(50));
                    assert!(!ending.is_finished(), "weights lie in memory, and it says that it has ended");
                    go_on.send(()).unwrap();
                    let report = ending.join().unwrap();
                    assert!(report.drained);
                    assert_eq!((report.busy_bytes, report.residue_bytes, manager.used_vram()), (0, 0, 0));
                }
                let refused = sealing.join().unwrap();
                assert!(matches!(refused, VramError::ManagerStopped { .. }), "{refused:?}");
            });
            assert_eq!(rig.manager.used_vram(), 0);
            rig.close_clean();
        }
    });
}

#[test]
fn a_shutdown_says_what_was_never_wiped() {
    // covers: SCR-3 SCR-2
    let rig = Rig::new();
    let (one, _two) = (rig.seal("one", &noise(5000, 1)), rig.seal("two", &noise(6000, 2)));
    rig.order(Fault::FillSkipped);
    rig.manager.release(&one).unwrap_err();
    let kept = rig.manager.quarantined_vram();
    for _ in 0..2 {
        let report = rig.manager.shutdown(Duration::ZERO);
        assert!(report.drained && kept > 0);
        assert_eq!((report.residue_bytes, report.busy_bytes), (kept, 0));
    }
    rig.close_clean();
}

#[test]
fn a_lost_device_is_noticed_where_a_check_would_follow_a_stream() {
    // covers: ERR-3 VER-10
    for after_a_dropped_one in [false, true] {
        let rig = Rig::new();
        let shard = rig.seal("one", &noise(5000, 1));
        let stream = rig.controls().engine_stream().unwrap();
        // SAFETY: the stream is of this device and lives longer than the call.
        let on_stream = || unsafe { ExecuteOptions::default().on_stream(stream.raw()) };
        if after_a_dropped_one {
            drop(rig.manager.begin(&shard, on_stream()).unwrap());
        }
        rig.order(Fault::Sticky);
        let refused = rig.manager.begin(&shard, on_stream()).unwrap_err();
        // Whether its event or that of the dropped one is asked first.
        let as_it_is = if after_a_dropped_one {
            matches!(refused, VramError::ManagerStopped { .. })
        } else {
            matches!(refused, VramError::Device(_))
        };
        assert!(as_it_is, "{refused:?}");
        assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::DeviceLost));
        let stopped = rig.sink.events().into_iter().find(|event| event.kind.name() == "manager_stopped").unwrap();
        assert_eq!(stopped.severity, Severity::Critical);
    }
    // Asking how much is free is enough.
    let rig = Rig::new();
    rig.order(Fault::Sticky);
    assert!(rig.manager.memory_info().is_err());
    assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::DeviceLost));
}

#[test]
fn a_device_that_lies_about_memory_is_a_critical_event_from_the_start() {
    // covers: AUD-1 RES-2
    let (config, sink) = (small(), Arc::new(MemorySink::default()));
    config.fail(Fault::Residency(ResidencyLie::AllZero)).unwrap();
    let refused = support::builder(&config).audit(sink.clone()).build().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PolicyViolation, "{refused:?}");
    assert_eq!(sink.names(), ["policy_violation"]);
    assert_eq!(sink.events()[0].severity, Severity::Critical);
}

#[test]
fn memory_that_is_not_given_back_counts_against_the_limit_also_when_nothing_was_sealed_in_it() {
    // covers: SCR-2
    for (limit, stops) in [(0, true), (1 << 20, false)] {
        let rig = Rig::with(small(), |b| b.quarantine_limit(limit));
        rig.order(Fault::Residency(ResidencyLie::AllZero));
        rig.order(Fault::call(MockCall::Free));
        rig.try_seal("one", &noise(5000, 1)).unwrap_err();
        assert!(rig.manager.quarantined_vram() > 0);
        let stopped = rig.manager.state() == ManagerState::Stopped(StopReason::DeviceUntrusted);
        assert_eq!(stopped, stops, "{limit}");
        assert_eq!(rig.count("manager_stopped"), usize::from(stops));
    }
}

#[test]
fn sealing_anew_floods_no_trail() {
    // covers: SEAL-4
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(100, 1));
    let mut changed = shard.to_bytes();
    *changed.last_mut().unwrap() ^= 1;
    let forged = SealedShard::from_bytes(&changed).unwrap();
    for _ in 0..3000 {
        assert!(matches!(rig.manager.reseal(&forged), Err(VramError::SealRefused { .. })));
    }
    // What is the caller's own fault is said each time: the shard lives on under its seal.
    let busy = rig.manager.begin(&shard, ExecuteOptions::default()).unwrap();
    assert!(matches!(rig.manager.reseal(&shard), Err(VramError::ShardBusy { .. })));
    busy.finish().unwrap();
    assert!(matches!(rig.execute(&shard), (Ok(()), true)));
    let events = rig.close_clean();
    assert_eq!(refusals(&events), 3000);
    assert_eq!(events.iter().filter(|event| event.kind.name() == "vram_seal_failed").count(), 1);
    assert!(events.len() < 500, "{} events for 3000 refused seals", events.len());
}

#[test]
fn what_was_wiped_is_said_also_when_not_all_of_it_was_given_back() {
    // covers: AUD-1 SCR-1 SCR-2
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(5000, 1));
    let used = rig.manager.used_vram();
    let mark = rig.mark();
    rig.order(Fault::call(MockCall::Free).nth(2)); // the image goes, the check space stays
    let error = rig.manager.release(&shard).unwrap_err();
    assert!(matches!(error, VramError::WipeFailed { .. }), "{error:?}");
    assert_eq!(rig.names_since(mark), ["vram_wiped", "vram_deallocated", "shard_quarantined"]);
    let kept = rig.manager.quarantined_vram();
    let bytes = |kind: &EventKind| match kind {
        EventKind::VramWiped { bytes, .. }
        | EventKind::VramDeallocated { bytes, .. }
        | EventKind::ShardQuarantined { bytes, .. } => *bytes,
        _ => panic!("{kind:?}"),
    };
    let said: Vec<u64> = rig.sink.events()[mark..].iter().map(|event| bytes(&event.kind)).collect();
    assert_eq!(said, [used, used - kept, kept]);
    assert!(kept > 0 && kept < used);
    rig.close_clean();
}

#[test]
fn an_engines_memory_that_went_back_is_no_longer_counted_as_sealed() {
    // covers: RES-9 RES-5
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(5000, 3));
    let (adopted, drops) = adopt(&rig.manager, spec("one"), &arena, &[arena.region(0, 5000)]);
    let adopted = adopted.unwrap();
    assert_eq!(rig.manager.adopted_vram(), 5000);
    rig.order(Fault::call(MockCall::Free));
    assert!(rig.manager.release(adopted.shard()).is_err());
    assert_eq!(rig.manager.adopted_vram(), 0, "the engine has it back");
    assert!(rig.manager.quarantined_vram() > 0, "the check space is ours");
    drop(adopted);
    assert_eq!(drops.count(), 1);
    rig.close_clean();
}

/// An engine's memory whose end goes wrong.
struct Breaks(Vec<u8>);

impl Drop for Breaks {
    fn drop(&mut self) {
        assert!(self.0.is_empty(), "the engine is broken");
    }
}

#[test]
fn an_engine_that_panics_when_it_is_dropped_hinders_no_wipe() {
    // covers: SCR-3 RES-9
    for released in [true, false] {
        let rig = Rig::new();
        let engine = Breaks(noise(5000, 1));
        let region = RawRegion::new(engine.0.as_ptr().expose_provenance() as u64, 5000);
        // SAFETY: the bytes are the vector's own, do not move with it, and nobody writes them.
        let adopted = unsafe { rig.manager.adopt(spec("engine"), engine, &[region]) };
        let shard = adopted.map_err(|refused| refused.error).unwrap().shard().clone(); // the record owns the engine now
        rig.seal("ours", &noise(7000, 2));
        if released {
            rig.manager.release(&shard).unwrap();
            rig.assert_recount();
        }
        rig.close_clean();
    }
}

#[test]
fn scratch_waits_for_every_stream_also_behind_one_that_cannot_be_waited_for() {
    // covers: RES-10 VER-10 SCR-2
    let rig = Rig::new();
    let (one, two) = (rig.controls().engine_stream().unwrap(), rig.controls().engine_stream().unwrap());
    let mut scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
    two.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
    for stream in [&one, &two] {
        // SAFETY: both streams are of this device and outlive the scratch.
        unsafe { scratch.used_on(stream.raw()) };
    }
    rig.order(Fault::call(MockCall::Synchronize).times(2)); // both tries of the first stream
    assert!(matches!(scratch.release(), Err(VramError::WipeFailed { .. })));
    assert_eq!(rig.pending(), 0, "the second was waited for");
    drop((one, two));
    rig.close_clean();
}

/// Takes log lines and metrics as a logger does whose file is gone: it panics.
struct Panics;

impl tracing::Subscriber for Panics {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        panic!("no log takes {}", event.metadata().name());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

impl metrics::Recorder for Panics {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {
        panic!("no counter");
    }
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {
        panic!("no gauge");
    }
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {
        panic!("no histogram");
    }
    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        panic!("nobody counts {key}");
    }
    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        panic!("nobody takes {key}");
    }
    fn register_histogram(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        panic!("nobody takes {key}");
    }
}

#[test]
fn whoever_panics_at_log_lines_and_metrics_hinders_nothing() {
    // covers: SCR-3 VER-5
    // What is logged when a guard is dropped: that no event could be recorded; and at the manager's end: that none could be
    // waited for.
    for (at_the_drop, call) in [(true, MockCall::Event), (false, MockCall::Synchronize)] {
        let life = || {
            let rig = Rig::writable();
            let (one, two) = (rig.seal("one", &noise(5000, 1)), rig.seal("two", &noise(7000, 2)));
            rig.manager.execute(&two, |_| ()).unwrap();
            let stream = rig.controls().engine_stream().unwrap();
            // SAFETY: the stream is of this device and is never destroyed.
            let on_stream = unsafe { ExecuteOptions::default().on_stream(stream.raw()) };
            let guard = rig.manager.begin(&one, on_stream).unwrap();
            stream.enqueue_write(&one, 0, 5000, 7).unwrap();
            if at_the_drop {
                rig.order(Fault::call(call));
            }
            drop(guard);
            rig.controls().flip_bit(&two, 9, 1).unwrap();
            let found = rig.manager.execute(&two, |_| ()).unwrap_err();
            assert!(matches!(found, VramError::IntegrityFailure { .. }), "{found:?}");
            if !at_the_drop {
                rig.order(Fault::call(call));
            }
            std::mem::forget(stream); // the engine outlives the manager
            let (stats, _) = rig.close();
            assert_eq!((stats.live_bytes, stats.unwiped_bytes_freed), (0, 0), "{call:?}");
        };
        metrics::with_local_recorder(&Panics, || tracing::subscriber::with_default(Panics, life));
    }
}

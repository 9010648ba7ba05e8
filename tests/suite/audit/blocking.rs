//! Sinks that block: nothing that protects waits for them.

use std::sync::Condvar;

use super::*;

/// Long enough for anything but a sink that blocks.
const SOON: Duration = Duration::from_secs(60);

/// Takes events, and blocks at one of a name until it is let go; what it has taken can be looked at.
struct Blocks {
    at: Mutex<Option<&'static str>>,
    let_go: Condvar,
    met: AtomicU64,
    kept: MemorySink,
}

impl AuditSink for Blocks {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        let mut at = self.at.lock().unwrap();
        while *at == Some(event.kind.name()) || *at == Some("all") {
            self.met.fetch_add(1, Ordering::SeqCst);
            at = self.let_go.wait(at).unwrap();
        }
        drop(at);
        self.kept.record(event)
    }
}

impl Blocks {
    fn new() -> Arc<Self> {
        let kept = MemorySink::claiming_durable();
        Arc::new(Self { at: Mutex::new(None), let_go: Condvar::new(), met: AtomicU64::new(0), kept })
    }

    fn at(&self, name: &'static str) {
        *self.at.lock().unwrap() = Some(name);
    }

    fn let_go(&self) {
        *self.at.lock().unwrap() = None;
        self.let_go.notify_all();
    }
}

struct Blocked {
    config: MockConfig,
    sink: Arc<Blocks>,
    manager: Arc<VramManager>,
    shards: Vec<SealedShard>,
}

/// A manager with four shards.
fn blocked(requirement: AuditRequirement) -> Blocked {
    let (config, sink) = (small(), Blocks::new());
    let built = builder(&config)
        .policy(Policy::development().require_audit(requirement))
        .on_integrity_failure(OnIntegrityFailure::QuarantineShard)
        .audit(sink.clone());
    let manager = Arc::new(built.build().unwrap());
    let seal = |at| manager.seal_model(spec(&format!("s{at}")), ShardSource::bytes(&noise(5000, at))).unwrap();
    let shards = (0..4).map(seal).collect();
    Blocked { config, sink, manager, shards }
}

const EVERY_END: [&str; 5] = ["manager_draining", "manager_stopped", "vram_wiped", "vram_deallocated", "all"];

#[test]
fn a_shutdown_and_a_drop_wipe_everything_while_a_sink_blocks() {
    // covers: AUD-5 SCR-3
    for name in EVERY_END {
        for dropped in [false, true] {
            let Blocked { config, sink, manager, .. } = blocked(AuditRequirement::Durable);
            let scratch = manager.allocate_scratch(Purpose::Workspace, 1000).unwrap();
            sink.at(name);
            within(SOON, || {
                thread::scope(|scope| {
                    let (sink, config) = (&sink, &config);
                    // Lets go only once all is wiped: were anything to wait, this would not end.
                    scope.spawn(move || {
                        until("everything is wiped", || config.stats().live_bytes == 0);
                        until("the sink blocks", || sink.met.load(Ordering::SeqCst) > 0 || dropped);
                        sink.let_go();
                    });
                    drop(scratch);
                    if !dropped {
                        assert!(manager.shutdown(Duration::from_millis(50)).unwrap().drained, "{name}");
                    }
                    drop(manager);
                });
            });
            assert_clean(&config.stats());
            assert_contiguous(&sink.kept.events());
            assert!(sink.kept.names().contains(&"manager_stopped"), "it is told in the end");
        }
    }
}

#[test]
fn a_sink_that_blocks_for_ever_holds_up_no_end() {
    // covers: AUD-5 SCR-3
    let Blocked { config, sink, manager, .. } = blocked(AuditRequirement::Durable);
    sink.at("all");
    within(SOON, || {
        let report = manager.shutdown(Duration::from_millis(50)).unwrap();
        assert_eq!((report.drained, report.busy_bytes, report.residue_bytes), (true, 0, 0));
        drop(manager);
    });
    assert_clean(&config.stats());
    assert!(!sink.kept.names().contains(&"vram_wiped"));
    sink.let_go();
    until("what it did not take is shown to it still", || sink.kept.names().contains(&"vram_wiped"));
}

#[test]
fn releases_and_quarantines_go_on_while_a_sink_blocks() {
    // covers: AUD-5 SCR-1 VER-5
    let Blocked { config, sink, manager, shards } = blocked(AuditRequirement::Durable);
    manager.mock_controls().unwrap().flip_bit(&shards[3], 1, 1).unwrap();
    sink.at("all");
    within(SOON, || {
        for shard in &shards[..3] {
            manager.release(shard).unwrap();
        }
        assert!(matches!(manager.verify_sealed(&shards[3]), Err(VramError::IntegrityFailure { .. })));
        assert!(manager.quarantined_vram() > 0);
        manager.release(&shards[3]).unwrap();
    });
    assert_eq!((manager.used_vram(), config.stats().live_bytes), (0, 0));
    sink.let_go();
    drop(manager);
    let events = sink.kept.events();
    assert_contiguous(&events);
    let wiped = events.iter().filter(|event| event.kind.name() == "vram_wiped").count();
    assert_eq!(wiped, 4, "each event once");
}

#[test]
fn who_waits_for_a_sink_lets_go_of_its_shard_when_the_manager_stops() {
    // covers: AUD-5 SCR-3
    for name in ["seal_verified", "execute_started"] {
        let Blocked { config, sink, manager, shards } = blocked(AuditRequirement::Durable);
        sink.at(name);
        within(SOON, || {
            thread::scope(|scope| {
                let (manager, shard) = (&manager, &shards[0]);
                let waits = scope.spawn(move || manager.begin(shard, ExecuteOptions::default()).map(drop).unwrap_err());
                until("the sink blocks", || sink.met.load(Ordering::SeqCst) > 0);
                let report = manager.shutdown(Duration::from_millis(50)).unwrap();
                let error = waits.join().unwrap();
                assert!(matches!(error.code(), ErrorCode::AuditUnavailable | ErrorCode::ManagerStopped), "{error}");
                assert_eq!((report.busy_bytes, config.stats().live_bytes), (0, 0), "{name}: everything is wiped");
            });
        });
        sink.let_go();
        drop(manager);
        assert_clean(&config.stats());
    }
}

#[test]
fn a_renewal_ends_too_when_the_manager_stops_while_a_sink_blocks_its_last_step() {
    // covers: AUD-5 SCR-3 VER-15
    let Blocked { config, sink, manager, shards } = blocked(AuditRequirement::Durable);
    let run = manager.begin(&shards[0], ExecuteOptions::default()).unwrap();
    sink.at("execute_finished");
    within(SOON, || {
        thread::scope(|scope| {
            // It stops while the end of the step is being told, before the beginning of the next is asked for.
            let renewed = scope.spawn(move || run.renew().map(drop));
            until("the sink blocks", || sink.met.load(Ordering::SeqCst) > 0);
            manager.shutdown(Duration::from_millis(50)).unwrap();
            let error = renewed.join().unwrap().unwrap_err();
            assert!(matches!(error, VramError::ManagerStopped { .. }), "{error}");
        });
        manager.shutdown(Duration::ZERO).unwrap();
        assert_eq!(config.stats().live_bytes, 0);
    });
    sink.let_go();
    drop(manager);
    assert_clean(&config.stats());
}

#[test]
fn what_may_not_be_done_without_its_event_is_not_done_while_a_sink_blocks() {
    // covers: AUD-5
    let Blocked { sink, manager, shards, .. } = blocked(AuditRequirement::Accepted);
    sink.at("execute_started");
    within(SOON, || {
        thread::scope(|scope| {
            let (manager, shard) = (&manager, &shards[0]);
            let begun = scope.spawn(move || manager.begin(shard, ExecuteOptions::default()).map(drop));
            until("the sink blocks", || sink.met.load(Ordering::SeqCst) > 0);
            thread::sleep(Duration::from_millis(700)); // longer than anything waits that need not
            assert!(!begun.is_finished());
            sink.let_go();
            begun.join().unwrap().unwrap();
        });
    });
}

#[test]
fn what_waits_for_a_sink_that_blocks_is_bounded_and_what_is_lost_is_a_gap() {
    // covers: AUD-5 AUD-1
    let Blocked { config, sink, manager, shards } = blocked(AuditRequirement::BestEffort);
    let forged = Rig::new().seal("forged", &[1; 100]);
    sink.at("all");
    within(SOON, || {
        for _ in 0..3000 {
            manager.verify_sealed(&forged).unwrap_err();
            manager.compute_vram_digest(&shards[0]).unwrap();
            manager.execute(&shards[0], |_| ()).unwrap();
        }
    });
    sink.let_go();
    until("the sink catches up", || sink.kept.names().len() > 4000);
    drop(manager);
    let events = sink.kept.events();
    assert!(events.len() < 4300, "{} events waited", events.len());
    assert!(events.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "in order, each once");
    assert!(events.last().unwrap().sequence > 12_000, "every event had its number");
    assert_eq!(refusals(&events), 3000, "what is only counted is not lost");
    assert_clean(&config.stats());
}

#[test]
fn a_sink_that_calls_its_manager_does_not_wait_for_itself() {
    // covers: AUD-5
    let other = Arc::new(Mutex::new(None));
    let taken = Arc::clone(&other);
    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let rig = Rig::watched(|builder| builder.policy(policy), move |manager, event| {
        if event.kind.name() == "execute_finished"
            && let Some(shard) = taken.lock().unwrap().take()
        {
            manager.release(&shard).unwrap();
            let sealed = manager.seal_model(spec("new"), ShardSource::bytes(&[1]));
            assert!(sealed.is_err(), "its event cannot be accepted");
        }
    });
    let (one, two) = rig.two();
    *other.lock().unwrap() = Some(two);
    within(SOON, || {
        rig.manager.execute(&one, |_| ()).unwrap();
        rig.manager.release(&one).unwrap();
        until("the other is released", || other.lock().unwrap().is_none());
        rig.close_clean();
    });
}

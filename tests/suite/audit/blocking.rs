//! Sinks that block: nothing that protects waits for them.

use std::sync::Condvar;

use super::*;

/// Long enough for anything but a sink that blocks.
const SOON: Duration = Duration::from_secs(60);

/// Blocks at an event of one name until it is let go.
#[derive(Default)]
struct Gate {
    at: Mutex<Option<&'static str>>,
    let_go: Condvar,
    met: AtomicU64,
}

impl Gate {
    fn take(&self, event: &AuditEvent) {
        let mut at = self.at.lock().unwrap();
        while *at == Some(event.kind.name()) || *at == Some("all") {
            self.met.fetch_add(1, Ordering::SeqCst);
            at = self.let_go.wait(at).unwrap();
        }
    }

    fn at(&self, name: &'static str) {
        *self.at.lock().unwrap() = Some(name);
    }

    fn let_go(&self) {
        *self.at.lock().unwrap() = None;
        self.let_go.notify_all();
    }

    fn until_met(&self) {
        until("the sink blocks", || self.met.load(Ordering::SeqCst) > 0);
    }
}

/// A manager with four shards, beside whose sink another one blocks.
fn blocked(requirement: AuditRequirement) -> (Rig, Arc<Gate>, Vec<SealedShard>) {
    let gate = Arc::new(Gate::default());
    let taken = Arc::clone(&gate);
    let blocks = hook(move |event| {
        taken.take(event);
        Ok(Ack::Durable)
    });
    let policy = Policy::development().require_audit(requirement);
    let rig = Rig::on(small(), Arc::new(MemorySink::claiming_durable()), |builder| {
        builder.policy(policy).on_integrity_failure(OnIntegrityFailure::QuarantineShard).audit(blocks)
    });
    let shards = (0..4).map(|at| rig.seal(&format!("s{at}"), &noise(5000, at))).collect();
    (rig, gate, shards)
}

#[test]
fn a_shutdown_and_a_drop_wipe_everything_while_a_sink_blocks() {
    // covers: AUD-5 SCR-3
    let names = ["manager_draining", "manager_stopped", "vram_wiped", "vram_deallocated", "all"];
    for (name, dropped) in names.into_iter().flat_map(|name| [(name, false), (name, true)]) {
        let (rig, gate, _) = blocked(AuditRequirement::Durable);
        let scratch = rig.manager.allocate_scratch(Purpose::Workspace, 1000).unwrap();
        let (config, sink) = (rig.config.clone(), Arc::clone(&rig.sink));
        gate.at(name);
        within(SOON, || {
            thread::scope(|scope| {
                // Lets go only once all is wiped, so that not all ends are waited for as long as a sink may block them.
                let letting_go = || {
                    until("everything is wiped", || config.stats().live_bytes == 0);
                    gate.let_go();
                };
                if name != "all" || dropped {
                    scope.spawn(letting_go);
                }
                drop(scratch);
                if !dropped {
                    assert!(rig.manager.shutdown(Duration::from_millis(50)).drained, "{name}");
                }
                drop(rig);
            });
        });
        assert_clean(&config.stats());
        gate.let_go();
        until("what it did not take is shown to it still", || {
            sink.names().contains(&"manager_stopped") && sink.names().contains(&"vram_wiped")
        });
        assert_contiguous(&sink.events());
    }
}

#[test]
fn releases_and_quarantines_go_on_while_a_sink_blocks() {
    // covers: AUD-5 SCR-1 VER-5
    let (rig, gate, shards) = blocked(AuditRequirement::Durable);
    rig.flip(&shards[3], 1);
    gate.at("all");
    within(SOON, || {
        shards[..3].iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
        assert_error!(rig.manager.verify_sealed(&shards[3]), VramError::IntegrityFailure { .. });
        assert!(rig.manager.quarantined_vram() > 0);
        rig.manager.release(&shards[3]).unwrap();
        assert_eq!((rig.manager.used_vram(), rig.config.stats().live_bytes), (0, 0));
    });
    gate.let_go();
    let wiped = |event: &&AuditEvent| event.kind.name() == "vram_wiped";
    assert_eq!(rig.close_clean().iter().filter(wiped).count(), 4, "each event once");
}

#[test]
fn who_waits_for_a_sink_lets_go_of_its_shard_when_the_manager_stops() {
    // covers: AUD-5 SCR-3 VER-15
    for name in ["seal_verified", "execute_started", "execute_finished"] {
        let (rig, gate, shards) = blocked(AuditRequirement::Durable);
        let begin = || rig.manager.begin(&shards[0], ExecuteOptions::default());
        // A renewal is stopped while the end of its step is being told, before the beginning of the next is asked for.
        let run = (name == "execute_finished").then(|| begin().unwrap());
        gate.at(name);
        within(SOON, || {
            thread::scope(|scope| {
                let waits = scope.spawn(move || run.map_or_else(begin, Execution::renew).map(drop).unwrap_err());
                gate.until_met();
                rig.manager.shutdown(Duration::from_millis(50));
                let code = waits.join().unwrap().code();
                assert!(matches!(code, ErrorCode::AuditUnavailable | ErrorCode::ManagerStopped), "{name}: {code:?}");
            });
            rig.manager.shutdown(Duration::ZERO);
            assert_eq!(rig.config.stats().live_bytes, 0, "{name}: everything is wiped");
        });
        gate.let_go();
        assert_clean(&rig.close().0);
    }
}

#[test]
fn what_may_not_be_done_without_its_event_is_not_done_while_a_sink_blocks() {
    // covers: AUD-5
    let (rig, gate, shards) = blocked(AuditRequirement::Accepted);
    gate.at("execute_started");
    within(SOON, || {
        thread::scope(|scope| {
            let begun = scope.spawn(|| rig.manager.begin(&shards[0], ExecuteOptions::default()).map(drop));
            gate.until_met();
            thread::sleep(Duration::from_millis(700)); // longer than anything waits that need not
            assert!(!begun.is_finished());
            gate.let_go();
            begun.join().unwrap().unwrap();
        });
    });
}

#[test]
fn what_waits_for_a_sink_that_blocks_is_bounded_and_what_is_lost_is_a_gap() {
    // covers: AUD-5 AUD-1
    let (rig, gate, shards) = blocked(AuditRequirement::BestEffort);
    let forged = Rig::new().seal("forged", &[1; 100]);
    gate.at("all");
    within(SOON, || {
        for _ in 0..3000 {
            rig.manager.verify_sealed(&forged).unwrap_err();
            rig.manager.compute_vram_digest(&shards[0]).unwrap();
            rig.manager.execute(&shards[0], |_| ()).unwrap();
        }
    });
    gate.let_go();
    until("the sink catches up", || rig.mark() > 4000);
    let (stats, events) = rig.close();
    assert!(events.len() < 4300, "{} events waited", events.len());
    assert!(events.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "in order, each once");
    assert!(events.last().unwrap().sequence > 12_000, "every event had its number");
    assert_eq!(refusals(&events), 3000, "what is only counted is not lost");
    assert_clean(&stats);
}

#[test]
fn a_sink_that_calls_its_manager_does_not_wait_for_itself() {
    // covers: AUD-5
    let other = Arc::new(Mutex::new(None));
    let taken = Arc::clone(&other);
    let policy = Policy::development().require_audit(AuditRequirement::Durable);
    let calls = move |manager: &Arc<VramManager>, event: &AuditEvent| {
        let Some(shard) = taken.lock().unwrap().take_if(|_| event.kind.name() == "execute_finished") else { return };
        manager.release(&shard).unwrap();
        let sealed = manager.seal_model(spec("new"), ShardSource::bytes(&[1]));
        assert!(sealed.is_err(), "its event cannot be accepted");
    };
    let rig = Rig::watched(|builder| builder.policy(policy), calls);
    let (one, two) = rig.two();
    *other.lock().unwrap() = Some(two);
    within(SOON, || {
        rig.manager.execute(&one, |_| ()).unwrap();
        rig.manager.release(&one).unwrap();
        until("the other is released", || rig.manager.used_vram() == 0);
        rig.close_clean();
    });
}

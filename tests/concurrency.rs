//! Many threads at once: no deadlock, an exact ledger, a trail without gaps, and no shard released under its user.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{Dice, Rig, assert_clean, assert_contiguous, noise, small, spec, within};
use vram_residency::{
    AuditEvent, EventKind, ExecuteOptions, ManagerState, OnIntegrityFailure, Purpose, SealedShard, ShardSource,
    VramError, digest_bytes,
};

const THREADS: u64 = 16;

/// What the threads counted, to be found again in the trail.
#[derive(Default)]
struct Counts {
    seals: AtomicU64,
    verified: AtomicU64,
    executed: AtomicU64,
    releases: AtomicU64,
    busy: AtomicU64,
    full: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn sixteen_threads_of_mixed_operations_leave_everything_exact() {
    // covers: CON-1 RES-3 RES-5 AUD-1 VER-3
    // So small that the threads are in each other's way.
    let config = small().capacity_bytes(400_000);
    let rig = Rig::with(config, |b| b.on_integrity_failure(OnIntegrityFailure::QuarantineShard));
    let common_bytes = noise(30_000, 99);
    let shared = rig.seal("shared", &common_bytes);
    let counts = Counts::default();
    add(&counts.seals);
    within(Duration::from_secs(120), || {
        std::thread::scope(|scope| {
            for worker in 0..THREADS {
                let (rig, counts, shared, common_bytes) = (&rig, &counts, &shared, &common_bytes);
                scope.spawn(move || work(rig, counts, shared, common_bytes, worker));
            }
        });
    });
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    rig.assert_recount();
    rig.manager.release(&shared).unwrap();
    add(&counts.releases);
    assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (0, 0));
    let (stats, events) = rig.close();
    assert_clean(&stats);
    assert_contiguous(&events);
    let count = |name: &str| events.iter().filter(|event| event.kind.name() == name).count() as u64;
    let load = |count: &AtomicU64| count.load(Ordering::SeqCst);
    for (name, counted) in [
        ("vram_sealed", load(&counts.seals)),
        ("seal_verified", load(&counts.verified)),
        ("execute_started", load(&counts.executed)),
        ("execute_finished", load(&counts.executed)),
        ("vram_wiped", load(&counts.releases)),
        ("vram_deallocated", load(&counts.releases)),
    ] {
        assert_eq!(count(name), counted, "{name}");
    }
    let without_room = |event: &AuditEvent| match &event.kind {
        EventKind::VramAllocationFailed { suppressed, .. } => 1 + suppressed,
        _ => 0,
    };
    assert_eq!(events.iter().map(without_room).sum::<u64>(), load(&counts.full), "each was counted");
    println!(
        "{} sealed, {} verified, {} executed, {} busy, {} without room",
        load(&counts.seals),
        load(&counts.verified),
        load(&counts.executed),
        load(&counts.busy),
        load(&counts.full)
    );
    assert!(load(&counts.seals) > 100 && load(&counts.executed) > 100, "it did run");
    assert!(load(&counts.full) > 0, "the threads were in each other's way");
}

fn work(rig: &Rig, counts: &Counts, shared: &SealedShard, common_bytes: &[u8], worker: u64) {
    let until = Instant::now() + Duration::from_secs(3);
    let mut dice = Dice::new(worker);
    let name = format!("worker-{worker}");
    while Instant::now() < until {
        let bytes = noise(1 + dice.below(40_000) as usize, dice.next());
        match rig.try_seal(&name, &bytes) {
            Ok(shard) => {
                add(&counts.seals);
                assert_eq!(shard.digest(), digest_bytes(rig.manager.tree_params(), &bytes));
                use_it(rig, counts, &shard, &bytes, &mut dice);
                loop {
                    match rig.manager.release(&shard) {
                        Ok(_) => break add(&counts.releases),
                        // Posture pins every shard for a moment.
                        Err(VramError::ShardBusy { .. }) => add(&counts.busy),
                        Err(error) => panic!("{error:?}"),
                    }
                }
                assert!(matches!(rig.manager.release(&shard), Err(VramError::StaleHandle { .. })));
            }
            Err(VramError::OutOfMemory { .. }) => add(&counts.full),
            Err(error) => panic!("{error:?}"),
        }
        use_it(rig, counts, shared, common_bytes, &mut dice);
        if dice.below(8) == 0 {
            rig.manager.enforce_vram_only_policy().unwrap();
        }
        assert!(rig.manager.used_vram() <= rig.manager.total_vram());
    }
}

fn use_it(rig: &Rig, counts: &Counts, shard: &SealedShard, bytes: &[u8], dice: &mut Dice) {
    if dice.below(2) == 0 {
        rig.manager.verify_sealed(shard).unwrap();
        add(&counts.verified);
    }
    let run = rig.manager.begin(shard, ExecuteOptions::default()).unwrap();
    add(&counts.verified);
    add(&counts.executed);
    let at = dice.below(bytes.len() as u64);
    let mut out = vec![0; dice.below(bytes.len() as u64 - at + 1) as usize];
    run.read_at(at, &mut out).unwrap();
    assert_eq!(out, &bytes[at as usize..][..out.len()]);
    match rig.manager.release(shard) {
        Err(VramError::ShardBusy { shard: named }) => assert_eq!(&named, shard.id()),
        other => panic!("released under its user: {other:?}"),
    }
    add(&counts.busy);
    run.finish().unwrap();
}

#[test]
fn one_integrity_failure_stops_all_threads_once() {
    // covers: VER-5 CON-1
    let rig = Rig::new();
    let shards: Vec<_> = (0..4).map(|at| rig.seal(&format!("shard-{at}"), &noise(20_000, at))).collect();
    let (flipped, ran_after) = (AtomicBool::new(false), AtomicU64::new(0));
    within(Duration::from_secs(60), || {
        std::thread::scope(|scope| {
            for worker in 0..THREADS as usize {
                let (rig, shards, flipped, ran_after) = (&rig, &shards, &flipped, &ran_after);
                scope.spawn(move || {
                    for round in 0_usize.. {
                        if worker == 0 && round == 20 {
                            rig.flip_bit(&shards[0], 12_345, 1);
                            flipped.store(true, Ordering::SeqCst);
                        }
                        let bad_before = flipped.load(Ordering::SeqCst);
                        let (outcome, ran) = rig.execute(&shards[worker % 4]);
                        if bad_before && worker % 4 == 0 && ran {
                            add(ran_after);
                        }
                        match outcome {
                            Ok(()) => {}
                            Err(VramError::IntegrityFailure { .. } | VramError::ManagerStopped { .. }) => break,
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                });
            }
        });
    });
    assert_eq!(ran_after.into_inner(), 0, "no work over the flipped shard after the flip");
    let (stats, events) = rig.close();
    assert_clean(&stats);
    assert_contiguous(&events);
    let stops = events.iter().filter(|event| matches!(event.kind, EventKind::ManagerStopped { .. })).count();
    let quarantined = events.iter().filter(|event| matches!(event.kind, EventKind::ShardQuarantined { .. })).count();
    assert_eq!((stops, quarantined), (1, 1), "each is said once");
}

#[test]
fn racing_seals_of_one_name_have_one_winner() {
    // covers: RES-3 VAL-1
    let rig = Rig::new();
    for round in 0..20 {
        let won = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for worker in 0..THREADS {
                let (rig, won) = (&rig, &won);
                scope.spawn(move || {
                    match rig.manager.seal_model(spec("one"), ShardSource::bytes(&noise(5000, worker))) {
                        Ok(_) => add(won),
                        Err(VramError::InvalidParams { field, .. }) => assert_eq!(field, "shard id"),
                        Err(error) => panic!("{error:?}"),
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1, "round {round}");
        rig.assert_recount();
        rig.manager.release_by_id(&vram_residency::ShardId::new("one").unwrap()).unwrap();
    }
    rig.close_clean();
}

#[test]
fn racing_releases_of_one_shard_have_one_winner() {
    // covers: SCR-4 RES-5
    let rig = Rig::new();
    for round in 0..20 {
        let shard = rig.seal("one", &noise(5000, round));
        let won = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for worker in 0..THREADS {
                let (rig, won, shard) = (&rig, &won, &shard);
                scope.spawn(move || {
                    let released = if worker % 2 == 0 {
                        rig.manager.release(shard)
                    } else {
                        rig.manager.release_by_id(shard.id())
                    };
                    match released {
                        Ok(_) => add(won),
                        Err(VramError::StaleHandle { .. } | VramError::InvalidParams { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1, "round {round}");
        assert_eq!((rig.manager.used_vram(), rig.config.stats().live_bytes), (0, 0));
    }
    rig.close_clean();
}

/// Gives bytes, and once half of them are read says so and waits to be let go on. An error when that takes too long.
struct Stuck {
    bytes: Vec<u8>,
    at: usize,
    reached: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl std::io::Read for Stuck {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let half = self.bytes.len() / 2;
        if self.at == half {
            self.reached.send(()).unwrap();
            self.go_on.recv_timeout(Duration::from_secs(30)).map_err(std::io::Error::other)?;
        }
        let most = if self.at < half { half - self.at } else { self.bytes.len() - self.at };
        let bytes = out.len().min(most);
        out[..bytes].copy_from_slice(&self.bytes[self.at..self.at + bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}

#[test]
fn while_one_source_does_not_go_on_all_else_does() {
    // covers: CON-1
    let rig = Rig::new();
    let bytes = noise(9000, 1);
    let (used, gone) = (rig.seal("used", &bytes), rig.seal("gone", &noise(9000, 2)));
    // Half of it is on the device already: there are several buffers of it.
    let (slow, (reached, is_reached), (go_on, goes_on)) = (noise(400_000, 3), mpsc::channel(), mpsc::channel());
    let source = Stuck { bytes: slow.clone(), at: 0, reached, go_on: goes_on };
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| rig.manager.seal_model(spec("slow"), ShardSource::reader(400_000, source)));
        is_reached.recv_timeout(Duration::from_secs(30)).unwrap();
        let manager = &rig.manager;
        let room = manager.used_vram();
        assert_eq!(manager.available_vram(), manager.total_vram() - room);
        assert_eq!((manager.state(), manager.quarantined_vram()), (ManagerState::Ready, 0));
        assert!(matches!(rig.execute(&used), (Ok(()), true)));
        manager.verify_sealed(&used).unwrap();
        let guards = manager.begin_all(&[&used, &gone], ExecuteOptions::default()).unwrap();
        let mut read = vec![0; bytes.len()];
        guards[0].read_at(0, &mut read).unwrap();
        assert!(read == bytes);
        guards.into_iter().for_each(|guard| drop(guard.finish().unwrap()));
        let renewed = manager.reseal(&used).unwrap();
        manager.release(&gone).unwrap();
        manager.release_by_id(renewed.id()).unwrap();
        manager.allocate_scratch(Purpose::Activations, 5000).unwrap().release().unwrap();
        manager.enforce_vram_only_policy().unwrap();
        assert!(manager.used_vram() < room && manager.memory_info().unwrap().total > 0);
        // None of this waited for the source: it still waits to be let go on.
        assert!(!sealing.is_finished());
        go_on.send(()).unwrap();
        let sealed = sealing.join().unwrap().unwrap();
        assert_eq!(sealed.digest(), digest_bytes(manager.tree_params(), &slow));
    });
    rig.close_clean();
}

#[test]
fn a_shutdown_amid_work_leaves_nothing() {
    // covers: SCR-3 CON-1 VER-5
    for round in 0..10 {
        let rig = Rig::new();
        within(Duration::from_secs(60), || {
            std::thread::scope(|scope| {
                for worker in 0..8 {
                    let rig = &rig;
                    scope.spawn(move || {
                        for turn in 0_u64.. {
                            let sealed = rig.try_seal(&format!("worker-{worker}-{turn}"), &noise(10_000, turn));
                            let worked = sealed.and_then(|shard| {
                                rig.manager.begin(&shard, ExecuteOptions::default())?.finish()?;
                                rig.manager.release(&shard)
                            });
                            match worked {
                                Ok(_) => {}
                                Err(VramError::ManagerStopped { .. } | VramError::StaleHandle { .. }) => break,
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(20 + round));
                let report = rig.manager.shutdown(Duration::from_secs(30));
                assert!(report.drained && report.residue_bytes == 0, "{report:?}");
            });
        });
        assert_eq!(rig.manager.used_vram(), 0, "round {round}: nothing is published after the end");
        rig.close_clean();
    }
}

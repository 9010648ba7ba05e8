//! Random histories against a model that says what lives, what it takes, in what state the manager is and what its trail says.

mod step;
mod tally;

use step::{Step, step};
use tally::{Tally, is_evidence};

use super::*;

/// What the model knows of a shard.
struct Live {
    shard: SealedShard,
    bytes: usize,
    room: u64,
    changed: bool,
    /// A check has found the change.
    quarantined: bool,
    guards: usize,
    engine: Option<Engine>,
}

/// An engine's memory, its bytes as they were, whether they are to be wiped, and how often it was given up.
type Engine = (Arc<Arena>, Vec<u8>, bool, Drops);

/// The model: what lives, and in what state the manager should be.
struct Model {
    rig: Rig,
    stops: bool,
    live: Vec<Live>,
    guards: Vec<(usize, bool, OwnedExecution)>,
    scratch: Vec<(u64, Scratch)>,
    stale: Vec<SealedShard>,
    residue: u64,
    /// Engines of residue: their owners are held until the end.
    residue_adopted: u64,
    next: usize,
    faulty: bool,
    ready: bool,
    /// What the trail should say.
    tally: Tally,
}

impl Model {
    fn pick(&self, number: u8) -> Option<usize> {
        usize::from(number).checked_rem(self.live.len())
    }

    /// The error is one that the model foresees, or a fault was ordered.
    fn expect<T: std::fmt::Debug>(&self, outcome: &Result<T, VramError>, foreseen: impl Fn(&VramError) -> bool) {
        if let Err(error) = outcome {
            let device =
                matches!(error, VramError::Device(_) | VramError::WipeFailed { .. } | VramError::OutOfMemory { .. });
            assert!(foreseen(error) || self.faulty && device, "{error:?}");
        }
    }

    fn stopped(error: &VramError) -> bool {
        matches!(error, VramError::ManagerStopped { .. })
    }

    /// A check of these shards came to this.
    fn checked<T: std::fmt::Debug>(&mut self, which: &[usize], work: bool, outcome: &Result<T, VramError>) {
        if work && !self.ready {
            assert!(matches!(outcome, Err(error) if Self::stopped(error)), "{outcome:?}");
            return;
        }
        let bad = which.iter().any(|at| self.live[*at].changed);
        if outcome.is_ok() {
            assert!(!bad, "a change was not found");
            return;
        }
        self.expect(outcome, |error| bad && matches!(error, VramError::IntegrityFailure { .. }));
        let failed = matches!(outcome, Err(VramError::IntegrityFailure { .. }));
        // Those that failed before are not read again, and then nor are the others.
        if which.iter().any(|at| self.live[*at].quarantined) {
            return;
        }
        let events = self.rig.sink.events();
        for at in which {
            let live = &mut self.live[*at];
            // Of a batch some may have been judged although a fault kept others from it: which, only the trail tells.
            if live.changed && (failed && !self.faulty || is_evidence(&events, live.shard.id())) {
                live.quarantined = true;
                self.tally.quarantined += 1;
                self.stop(self.stops);
            }
        }
        assert!(!failed || which.iter().any(|at| self.live[*at].quarantined), "nothing is kept of what failed");
    }

    /// The manager stops, unless it has before.
    fn stop(&mut self, stops: bool) {
        self.tally.stopped += usize::from(stops && self.ready);
        self.ready &= !stops;
    }

    fn run(&mut self, step: &Step) {
        if let Step::Fault(call, nth) = step {
            self.rig.config.fail(Fault::call(*call).nth(*nth)).unwrap();
            self.faulty = true;
            return;
        }
        self.apply(step);
        if self.faulty {
            self.rig.controls().clear_faults().unwrap();
            self.faulty = false;
        }
        self.check();
    }

    fn apply(&mut self, step: &Step) {
        let manager = Arc::clone(&self.rig.manager);
        match step {
            Step::Seal(bytes) => {
                self.next += 1;
                let used = manager.used_vram();
                let sealed =
                    manager.seal_model(spec(&format!("s{}", self.next)), ShardSource::bytes(&noise(*bytes, 3)));
                self.published(sealed, *bytes, used, None);
            }
            Step::Adopt(bytes, wipe) => {
                self.next += 1;
                let arena = Arc::new(Arena::new(*bytes + 2, self.next as u64));
                let (before, used) = (arena.bytes(), manager.used_vram());
                let spec = spec(&format!("s{}", self.next)).wipe_adopted(*wipe);
                let (adopted, drops) = adopt(&manager, spec, &arena, &[arena.region(1, *bytes)]);
                let sealed = adopted.map(|adopted| adopted.shard().clone()).map_err(|refused| {
                    assert_eq!((drops.count(), arena.bytes() == before), (0, true));
                    refused.error
                });
                self.published(sealed, *bytes, used, Some((arena, before, *wipe, drops)));
            }
            Step::Verify(at) => {
                let Some(at) = self.pick(*at) else { return };
                let outcome = manager.verify_sealed(&self.live[at].shard);
                self.checked(&[at], false, &outcome);
            }
            Step::Flip(at) => {
                let Some(at) = self.pick(*at) else { return };
                let live = &mut self.live[at];
                self.rig.flip(&live.shard, live.bytes as u64 - 1);
                live.changed ^= true;
                live.changed |= live.quarantined; // what was found stays found
            }
            Step::Begin(at, bracket) => {
                let Some(at) = self.pick(*at) else { return };
                let begun = manager.begin_owned(&self.live[at].shard, ExecuteOptions::default().verify_after(*bracket));
                self.checked(&[at], true, &begun);
                if let Ok(guard) = begun {
                    self.live[at].guards += 1;
                    self.tally.started += 1;
                    self.guards.push((self.number(at), *bracket, guard));
                }
            }
            Step::BeginAll(one, two) => {
                let (Some(one), Some(two)) = (self.pick(*one), self.pick(*two)) else { return };
                let begun = manager
                    .begin_all(&[&self.live[one].shard, &self.live[two].shard], ExecuteOptions::default())
                    .map(|guards| guards.into_iter().for_each(|guard| drop(guard.finish())));
                if one == two {
                    let twice =
                        matches!(begun, Err(VramError::InvalidParams { .. } | VramError::ManagerStopped { .. }));
                    assert!(twice, "{begun:?}");
                } else {
                    self.tally.started += if begun.is_ok() { 2 } else { 0 };
                    self.tally.finished += if begun.is_ok() { 2 } else { 0 };
                    self.checked(&[one, two], true, &begun);
                }
            }
            Step::Finish(at) => {
                let Some((at, bracket, guard)) = self.ended(*at) else { return };
                self.live[at].guards -= 1;
                let finished = guard.finish();
                if bracket && self.live[at].changed {
                    assert!(finished.is_err(), "a bracket missed a change");
                }
                if finished.is_ok() {
                    assert!(self.ready, "a result was given after the manager stopped");
                    assert!(!self.live[at].quarantined, "a result over bytes that were found changed was given");
                } else if bracket && matches!(finished, Err(VramError::IntegrityFailure { .. })) {
                    self.checked(&[at], false, &finished);
                } else {
                    let known = self.ready && self.live[at].quarantined;
                    self.expect(&finished, |error| match error {
                        VramError::IntegrityFailure { .. } => known,
                        other => !self.ready && Self::stopped(other),
                    });
                }
            }
            Step::Renew(at) => {
                let Some((at, after, guard)) = self.ended(*at) else { return };
                let renewed = guard.renew();
                self.checked(&[at], true, &renewed);
                match renewed {
                    Ok(guard) => {
                        self.tally.started += 1;
                        self.guards.push((self.number(at), after, guard));
                    }
                    Err(_) => self.live[at].guards -= 1,
                }
            }
            Step::Abandon(at) => {
                let Some((at, _, guard)) = self.ended(*at) else { return };
                self.live[at].guards -= 1;
                drop(guard);
            }
            Step::Reseal(at) => {
                let Some(at) = self.pick(*at) else { return };
                let renewed = manager.reseal(&self.live[at].shard);
                match renewed {
                    Ok(renewed) => {
                        assert!(self.ready && self.live[at].guards == 0 && !self.live[at].changed);
                        self.tally.sealed += 1;
                        let old = std::mem::replace(&mut self.live[at].shard, renewed);
                        self.stale.push(old);
                    }
                    Err(VramError::ShardBusy { .. }) => assert!(self.live[at].guards > 0),
                    error => self.checked(&[at], true, &error),
                }
            }
            Step::Release(at, by_id) => {
                let Some(at) = self.pick(*at) else { return };
                let shard = self.live[at].shard.clone();
                let released = if *by_id { manager.release_by_id(shard.id()) } else { manager.release(&shard) };
                if self.live[at].guards > 0 {
                    assert!(matches!(released, Err(VramError::ShardBusy { .. })), "{released:?}");
                    return;
                }
                self.expect(&released, |_| false);
                let gone = self.live.swap_remove(at);
                self.left(gone, released.is_ok());
            }
            Step::Scratch(bytes) => {
                let used = manager.used_vram();
                let scratch = manager.allocate_scratch(Purpose::Activations, *bytes);
                self.expect(&scratch, |error| !self.ready && Self::stopped(error));
                if let Ok(scratch) = scratch {
                    assert!(self.ready);
                    self.tally.allocated += 1;
                    self.scratch.push((manager.used_vram() - used, scratch));
                }
            }
            Step::DropScratch(at) => {
                let Some(at) = usize::from(*at).checked_rem(self.scratch.len()) else { return };
                let (room, scratch) = self.scratch.swap_remove(at);
                let released = scratch.release();
                self.expect(&released, |_| false);
                self.tally.left(released.is_ok());
                self.residue += if released.is_err() { room } else { 0 };
            }
            Step::Stale(at) => {
                let Some(at) = usize::from(*at).checked_rem(self.stale.len()) else { return };
                let stale = &self.stale[at];
                assert_error!(manager.verify_sealed(stale), VramError::StaleHandle { .. });
                assert_error!(manager.release(stale), VramError::StaleHandle { .. });
                let executed = manager.execute(stale, |_| panic!("ran"));
                assert!(matches!(executed, Err(VramError::StaleHandle { .. } | VramError::ManagerStopped { .. })));
            }
            Step::Posture => match manager.enforce_vram_only_policy() {
                Ok(posture) => assert_eq!(posture.resident_shards, self.live.len() as u64),
                error => self.expect(&error, |_| false),
            },
            Step::Shutdown => {
                // Which shards a fault would keep from being wiped cannot be told from outside.
                self.rig.controls().clear_faults().unwrap();
                let pinned: usize = self.live.iter().map(|live| live.guards).sum();
                let report = manager.shutdown(Duration::ZERO);
                assert_eq!(report.drained, pinned == 0);
                self.stop(true);
                let (kept, gone) = std::mem::take(&mut self.live).into_iter().partition(|live: &Live| live.guards > 0);
                self.live = kept;
                assert_eq!(report.residue_bytes, self.residue, "what was never wiped");
                gone.into_iter().for_each(|gone: Live| self.left(gone, true));
            }
            Step::Fault(..) => {}
        }
    }

    /// A guard of those there are, whose execution ends: which shard it is of, and whether it checks after the work.
    fn ended(&mut self, number: u8) -> Option<(usize, bool, OwnedExecution)> {
        let which = usize::from(number).checked_rem(self.guards.len())?;
        let (number, bracket, guard) = self.guards.swap_remove(which);
        self.tally.finished += 1;
        let shard = name(&format!("s{number}"));
        Some((self.live.iter().position(|live| live.shard.id() == &shard)?, bracket, guard))
    }

    fn evidence(&self) -> u64 {
        self.live.iter().filter(|live| live.quarantined).map(|live| live.room).sum()
    }

    fn number(&self, at: usize) -> usize {
        self.live[at].shard.id().as_str()[1..].parse().unwrap()
    }

    fn published(&mut self, sealed: Result<SealedShard, VramError>, bytes: usize, used: u64, engine: Option<Engine>) {
        let now = self.rig.manager.used_vram();
        match sealed {
            Ok(shard) => {
                assert!(self.ready, "sealed by a manager that is not ready");
                let room = now - used;
                self.tally.sealed += 1;
                self.tally.allocated += 1;
                self.live.push(Live { shard, bytes, room, changed: false, quarantined: false, guards: 0, engine });
            }
            Err(error) => {
                let outcome: Result<(), VramError> = Err(error);
                self.expect(&outcome, |error| !self.ready && Self::stopped(error));
                // A failed step keeps nothing, but for what a fault kept it from wiping.
                let kept = now - used;
                assert_eq!(self.rig.manager.quarantined_vram(), self.evidence() + self.residue + kept);
                self.residue += kept;
                let allocated = self.rig.count("vram_allocated") - self.tally.allocated;
                assert!(self.faulty || allocated == 0, "without a fault nothing is refused after its memory was taken");
                self.tally.failed(allocated, kept > 0);
            }
        }
    }

    /// A shard has been released, or its wipe failed.
    fn left(&mut self, gone: Live, wiped: bool) {
        self.tally.left(wiped);
        if !wiped {
            self.residue += gone.room;
            self.residue_adopted += gone.engine.as_ref().map_or(0, |_| gone.bytes as u64);
        } else if let Some((arena, before, wipe, drops)) = &gone.engine {
            assert_eq!(drops.count(), 1);
            let inside = &arena.bytes()[1..=gone.bytes];
            if *wipe {
                assert!(inside.iter().all(|byte| *byte == 0));
            } else if !gone.changed {
                assert!(inside == &before[1..=gone.bytes]);
            }
            assert_eq!((arena.get(0), arena.get(gone.bytes + 1)), (before[0], before[gone.bytes + 1]));
        }
        self.stale.push(gone.shard);
    }

    /// The manager against the model.
    fn check(&self) {
        let (manager, stats) = (&self.rig.manager, self.rig.config.stats());
        assert_eq!(manager.used_vram(), stats.live_bytes, "the ledger against the driver's count");
        let rooms: u64 = self.live.iter().map(|live| live.room).sum();
        let scratch: u64 = self.scratch.iter().map(|(room, _)| room).sum();
        assert_eq!(manager.used_vram(), rooms + scratch + self.residue, "the ledger against the model");
        assert_eq!(manager.quarantined_vram(), self.evidence() + self.residue);
        let adopted: u64 = self.live.iter().filter(|live| live.engine.is_some()).map(|live| live.bytes as u64).sum();
        assert_eq!(manager.adopted_vram(), adopted + self.residue_adopted);
        assert_eq!(manager.state() == ManagerState::Ready, self.ready, "{}", manager.state());
        let held = self.live.iter().filter_map(|live| live.engine.as_ref());
        assert!(held.into_iter().all(|(_, _, _, drops)| drops.count() == 0), "a live shard's owner is gone");
        self.tally.assert_said(&self.rig.sink);
        assert_eq!(self.tally.started - self.tally.finished, self.guards.len());
    }
}

proptest! {
    #![proptest_config(thousand())]

    // covers: ASR-2 RES-5 VER-5 SCR-2 SCR-4 SEAL-7
    #[test]
    fn every_history_ends_as_the_model_says(steps in prop::collection::vec(step(), 1..40), stops in prop::bool::weighted(0.3)) {
        let choice = if stops { OnIntegrityFailure::Stop } else { OnIntegrityFailure::QuarantineShard };
        let rig = Rig::with(small().poison(false), |b| b.on_integrity_failure(choice).quarantine_limit(u64::MAX));
        let (live, guards, scratch, stale, tally) = Default::default();
        let (residue, residue_adopted, next, faulty, ready) = (0, 0, 0, false, true);
        let mut model =
            Model { rig, stops, live, guards, scratch, stale, residue, residue_adopted, next, faulty, ready, tally };
        for step in &steps {
            model.run(step);
        }
        // What is left is given back, and the manager stops, if it has not: what a fault hits then is tried once more, and what one
        // hit before is being tried again. A second fault may hit that as well, and what is not proven wiped then is never freed.
        if model.residue > 0 || model.rig.config.stats().unmet_faults > 1 {
            model.rig.controls().clear_faults().unwrap();
            model.faulty = false;
        }
        let Model { rig, guards, scratch, live, faulty, ready, tally, .. } = model;
        let mut tally = tally.ended(ready);
        drop((guards, scratch));
        let Rig { config, sink, manager } = rig;
        prop_assert_eq!(Arc::strong_count(&manager), 1);
        drop(manager);
        let stats = config.stats();
        prop_assert_eq!((stats.live_bytes, stats.live_foreign, stats.live_streams, stats.live_events), (0, 0, 0, 0));
        prop_assert_eq!((stats.live_host_buffers, stats.unwiped_host_bytes_freed), (0, 0));
        for (_, _, _, drops) in live.into_iter().filter_map(|live| live.engine) {
            prop_assert_eq!(drops.count(), 1);
        }
        let events = sink.events();
        if faulty {
            tally.quarantined += usize::from(Tally::counted(&sink, "shard_quarantined") > tally.quarantined);
        }
        tally.assert_said(&sink);
        prop_assert_eq!(tally.stopped, 1);
        assert_contiguous(&events);
        assert_paired(&events);
    }
}

//! Many threads over all operations, with a device that fails at random, and changes that stop the manager or not: no deadlock, an
//! exact ledger, a trail without gaps, and no result after the stop. `tests/device/soak.rs` asks the same of any device that does not
//! fail. `VRAM_RESIDENCY_STRESS_SECONDS` is how long each run takes (3 when not set).

use crate::*;

const THREADS: u64 = 50;

fn stopped(manager: &VramManager) -> bool {
    matches!(manager.state(), ManagerState::Stopped(_))
}

/// What came of a call that permits work: never a defect, and nothing once the manager has stopped.
fn judge<T>(was_stopped: bool, outcome: Result<T, VramError>) -> Option<T> {
    if let Err(error) = &outcome {
        assert!(!matches!(error.code(), ErrorCode::Internal | ErrorCode::ConfigError), "{error:?}");
    }
    assert!(!was_stopped || outcome.is_err(), "work began, or gave a result, after the manager stopped");
    outcome.ok()
}

/// One thread's belongings.
struct Worker<'a> {
    rig: &'a Rig,
    common: &'a [Mutex<SealedShard>],
    stream: &'a MockStream<'a>,
    dice: Dice,
    id: u64,
    /// Shards of its own, each of one byte, and whether that was changed.
    own: Vec<(SealedShard, u8, bool)>,
    runs: Vec<Execution<'a>>,
    scratch: Vec<Scratch>,
}

impl Worker<'_> {
    fn any(&mut self) -> SealedShard {
        let own = self.dice.below(2) * self.own.len() as u64;
        if own > 0 {
            return self.own[self.dice.below(own) as usize].0.clone();
        }
        self.common[self.dice.below(self.common.len() as u64) as usize].lock().unwrap().clone()
    }

    /// Releases a shard of this thread's; whether it is gone.
    fn release(&mut self) -> bool {
        let Some((shard, ..)) = self.own.last() else { return true };
        match self.rig.manager.release(shard) {
            Err(VramError::ShardBusy { .. }) => return false,
            Ok(_) | Err(VramError::WipeFailed { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        let (gone, ..) = self.own.pop().unwrap();
        assert_error!(self.rig.manager.verify_sealed(&gone), VramError::StaleHandle { .. });
        true
    }

    fn step(&mut self, deadly: bool) {
        let (manager, was_stopped) = (&*self.rig.manager, stopped(&self.rig.manager));
        let options = if self.dice.below(3) == 0 { on(self.stream) } else { ExecuteOptions::default() };
        let options = options.verify_after(self.dice.below(3) == 0);
        match self.dice.below(12) {
            0 | 1 if self.own.len() < 3 => {
                let (byte, bytes) = (self.dice.next() as u8, 1 + self.dice.below(6000) as usize);
                let spec = spec(&format!("t{}.{}", self.id, self.own.len()));
                let sealed = manager.seal_model(spec, ShardSource::bytes(&vec![byte; bytes]));
                self.own.extend(judge(was_stopped, sealed).map(|shard| (shard, byte, false)));
            }
            0..=3 => {
                let shards: Vec<SealedShard> = (0..1 + self.dice.below(3)).map(|_| self.any()).collect();
                let begun = manager.begin_all(&shards.iter().collect::<Vec<_>>(), options);
                self.runs.extend(judge(was_stopped, begun).into_iter().flatten());
            }
            4 | 5 => {
                let run = self.runs.pop();
                match (run, self.dice.below(3)) {
                    (Some(run), 0) => self.runs.extend(judge(was_stopped, run.renew())),
                    (Some(run), 1) => drop(judge(was_stopped, run.finish())),
                    _ => {}
                }
            }
            6 => {
                if let Some((shard, byte, false)) = self.own.last() {
                    let mut read = [0];
                    let ran = manager.execute(shard, |verified| verified.read_at(0, &mut read));
                    if let Some(Ok(())) = judge(was_stopped, ran) {
                        assert_eq!(read, [*byte], "verified bytes are not the sealed ones");
                    }
                }
            }
            7 => {
                let at = self.dice.below(self.common.len() as u64) as usize;
                let mut common = self.common[at].lock().unwrap();
                if let Some(renewed) = judge(was_stopped, manager.reseal(&common)) {
                    *common = renewed;
                }
            }
            8 => drop(self.release()),
            9 if self.scratch.len() < 2 => {
                let scratch = manager.allocate_scratch(Purpose::KvCache, 1 + self.dice.below(5000));
                if let Some(mut scratch) = judge(was_stopped, scratch) {
                    if self.stream.enqueue_scratch_write(&scratch, scratch.byte_len(), 9).is_ok() {
                        // SAFETY: the stream is of this device and outlives the scratch.
                        unsafe { scratch.used_on(self.stream.raw()) };
                    }
                    self.scratch.push(scratch);
                }
            }
            9 => self.scratch.clear(),
            10 if deadly => {
                if let Some((shard, _, changed)) = self.own.last_mut().filter(|(.., changed)| !changed) {
                    *changed = true;
                    self.rig.flip(shard, 0);
                    assert!(manager.verify_sealed(shard).is_err(), "a change was not found");
                }
            }
            11 if self.dice.below(8) == 0 => {
                let calls = [MockCall::Alloc, MockCall::CopyToDevice, MockCall::CopyToHost, MockCall::Fill];
                let more = [MockCall::Digest, MockCall::CountNonzero, MockCall::Synchronize, MockCall::Event];
                let call = [calls, more][self.dice.below(2) as usize][self.dice.below(4) as usize];
                self.rig.order(Fault::call(call).nth(1 + self.dice.below(20)).times(1 + self.dice.below(2)));
            }
            _ => {
                assert!(manager.used_vram() <= manager.total_vram());
                drop(judge(false, manager.enforce_vram_only_policy()));
                let _ = judge(false, manager.compute_vram_digest(&self.any()));
            }
        }
        if self.runs.len() > 3 {
            self.runs.clear();
        }
    }

    fn leave(mut self) {
        self.runs.clear();
        self.scratch.clear();
        until("its shards can be released", || self.release() && self.own.is_empty());
    }
}

/// One manager's life.
fn life(choice: OnIntegrityFailure, seed: u64, seconds: Duration) {
    let config = small().capacity_bytes(2 << 20).poison(false).read_only(false);
    let rig = Rig::with(config, |builder| builder.on_integrity_failure(choice).quarantine_limit(u64::MAX));
    let common: Vec<_> = (0..4).map(|at| Mutex::new(rig.seal(&format!("common{at}"), &noise(3000, at)))).collect();
    let streams: Vec<_> = (0..THREADS).map(|_| rig.stream()).collect();
    let steps = AtomicU64::new(0);
    within(seconds + Duration::from_secs(120), || {
        thread::scope(|scope| {
            for (id, stream) in (0..).zip(&streams) {
                let (rig, common, steps) = (&rig, &common, &steps);
                scope.spawn(move || {
                    let (dice, own, runs, scratch) = (Dice::new(seed * 1000 + id), Vec::new(), Vec::new(), Vec::new());
                    let mut worker = Worker { rig, common, stream, dice, id, own, runs, scratch };
                    let began = Instant::now();
                    // Changes come late where each of them stops the manager; on a busy machine it takes longer until one is found.
                    let lenient = choice == OnIntegrityFailure::QuarantineShard;
                    while began.elapsed() < seconds || !lenient && !stopped(&rig.manager) {
                        worker.step(lenient || began.elapsed() > seconds / 2);
                        steps.fetch_add(1, Ordering::Relaxed);
                    }
                    worker.leave();
                });
            }
        });
    });
    rig.controls().clear_faults().unwrap();
    assert_eq!(stopped(&rig.manager), choice == OnIntegrityFailure::Stop);
    rig.assert_recount();
    for at in 0..common.len() {
        // Engines' work of dropped guards may keep one busy for a few calls more.
        let gone =
            || !matches!(rig.manager.release_by_id(&name(&format!("common{at}"))), Err(VramError::ShardBusy { .. }));
        until("common shards can be released", gone);
    }
    assert_eq!(rig.manager.used_vram(), rig.manager.quarantined_vram(), "only residue is left");
    rig.assert_recount();
    drop(streams);
    let (stats, events) = rig.close();
    assert_eq!((stats.live_bytes, stats.live_streams, stats.live_events, stats.pending_operations), (0, 0, 0, 0));
    assert_eq!((stats.live_host_buffers, stats.unwiped_host_bytes_freed), (0, 0));
    assert_contiguous(&events);
    assert_paired(&events);
    assert_eq!(events.iter().filter(|event| event.kind.name() == "manager_stopped").count(), 1);
    assert!(steps.into_inner() > 500, "it did run");
}

fn seconds() -> Duration {
    let set = std::env::var("VRAM_RESIDENCY_STRESS_SECONDS").ok();
    Duration::from_secs_f64(set.map_or(3.0, |text| text.parse().expect("VRAM_RESIDENCY_STRESS_SECONDS is a number")))
}

#[test]
fn many_threads_and_a_failing_device_leave_everything_exact() {
    // covers: CON-1 RES-5 AUD-1
    life(OnIntegrityFailure::QuarantineShard, 1, seconds());
}

#[test]
fn a_manager_that_stops_under_many_threads_gives_no_further_result() {
    // covers: CON-1 VER-5
    let until = Instant::now() + seconds();
    for seed in (100..).take_while(|seed| *seed == 100 || Instant::now() < until) {
        life(OnIntegrityFailure::Stop, seed, Duration::from_millis(500));
    }
}

//! Many threads and every operation for some seconds: no deadlock, an exact ledger, a trail without gaps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vram_residency::{
    Adopted, ErrorCode, ExecuteOptions, ManagerState, Purpose, Scratch, SealedShard, ShardSource, VramError,
};
use vram_residency_harness::{EngineStream, Kind, Memory, assert_contiguous, within};

use crate::bench::{Bench, Dice, adopt, everywhere, memory, noise, on, spec};

crate::cases! {
    everywhere: many_threads_and_every_operation
}

/// How many threads, and for how long: `VRAM_RESIDENCY_STRESS_SECONDS`, or what a device can be asked in a short time. On the
/// mock `tests/stress/` does much more of this.
fn extent() -> (u64, Duration) {
    let (threads, seconds) = match Kind::from_env() {
        Kind::Mock => (100, 5.0),
        Kind::Cuda(_) => (32, 5.0),
    };
    let set = std::env::var("VRAM_RESIDENCY_STRESS_SECONDS").ok().map(|text| text.parse().unwrap());
    (threads, Duration::from_secs_f64(set.unwrap_or(seconds)))
}

/// What the threads share.
struct Field<'a> {
    bench: &'a Bench,
    common: Vec<Mutex<SealedShard>>,
    bytes: Vec<Vec<u8>>,
    steps: AtomicU64,
    results: AtomicU64,
}

/// One thread's belongings.
struct Worker<'a> {
    field: &'a Field<'a>,
    dice: Dice,
    id: u64,
    round: u64,
    own: Option<(SealedShard, Vec<u8>)>,
    engine: Arc<Memory>,
    before: Vec<u8>,
    adopted: Option<Adopted<Arc<Memory>>>,
    scratch: Vec<Scratch>,
    stream: &'a EngineStream,
}

/// Errors that threads make for each other.
fn expected(error: &VramError) {
    let code = error.code();
    let met = matches!(code, ErrorCode::StaleHandle | ErrorCode::ShardBusy | ErrorCode::VramOom);
    assert!(met, "{error:?}");
}

impl Worker<'_> {
    fn options(&mut self) -> ExecuteOptions {
        let options = if self.dice.below(3) == 0 { on(self.stream) } else { ExecuteOptions::default() };
        options.verify_after(self.dice.below(4) == 0)
    }

    fn use_common(&mut self) {
        let (options, manager) = (self.options(), &self.field.bench.manager);
        let at = self.dice.below(self.field.common.len() as u64) as usize;
        let shards: Vec<SealedShard> =
            self.field.common.iter().take(at + 1).map(|shard| shard.lock().unwrap().clone()).collect();
        match manager.begin_all(&shards.iter().collect::<Vec<_>>(), options) {
            Ok(runs) => {
                for (run, bytes) in runs.into_iter().zip(&self.field.bytes) {
                    let mut read = vec![0; 100];
                    run.read_at(7, &mut read).unwrap();
                    assert_eq!(read, bytes[7..107]);
                    if self.dice.below(4) > 0 {
                        run.finish().unwrap();
                        self.field.results.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Err(error) => expected(&error),
        }
    }

    fn reseal(&mut self) {
        let at = self.dice.below(self.field.common.len() as u64) as usize;
        let mut common = self.field.common[at].lock().unwrap();
        match self.field.bench.manager.reseal(&common) {
            Ok(renewed) => *common = renewed,
            Err(error) => expected(&error),
        }
    }

    /// A look at the posture pins every shard for a moment.
    fn release(&self, shard: &SealedShard) {
        loop {
            match self.field.bench.manager.release(shard) {
                Ok(_) => return,
                Err(VramError::ShardBusy { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn seal(&mut self) {
        let bench = self.field.bench;
        if let Some((shard, bytes)) = self.own.take() {
            bench.assert_good(&shard, &bytes);
            if self.dice.below(3) == 0 {
                bench.flip(bench.address(&shard) + self.dice.below(bytes.len() as u64), 2);
                bench.assert_refused(&shard);
            }
            self.release(&shard);
            let gone = bench.manager.execute(&shard, |_| panic!("it ran after its release")).unwrap_err();
            assert_eq!(gone.code(), ErrorCode::StaleHandle);
            return;
        }
        self.round += 1;
        let bytes = noise(1 + self.dice.below(20_000) as usize, self.dice.next());
        let name = format!("t{}.{}", self.id, self.round % 3);
        match bench.manager.seal_model(spec(&name), ShardSource::bytes(&bytes)) {
            Ok(shard) => self.own = Some((shard, bytes)),
            Err(error) => expected(&error),
        }
    }

    fn adopt(&mut self) {
        let bench = self.field.bench;
        if let Some(adopted) = self.adopted.take() {
            self.release(adopted.shard());
            drop(adopted.into_owner().unwrap());
            let read = self.engine.read(0, self.before.len());
            assert!(read == self.before, "an engine's memory came back changed");
            return;
        }
        let spec = spec(&format!("a{}", self.id)).wipe_adopted(false);
        match adopt(&bench.manager, spec, &self.engine, &[(0, 1001), (1003, 1500)]) {
            Ok(adopted) => self.adopted = Some(adopted),
            Err(error) => expected(&error),
        }
    }

    fn scratch(&mut self) {
        if self.scratch.len() > 1 {
            self.scratch.remove(0).release().unwrap();
            return;
        }
        match self.field.bench.manager.allocate_scratch(Purpose::KvCache, 1 + self.dice.below(9000)) {
            Ok(scratch) => self.scratch.push(scratch),
            Err(error) => expected(&error),
        }
    }

    fn step(&mut self) {
        let manager = &self.field.bench.manager;
        match self.dice.below(10) {
            0..=3 => self.use_common(),
            4 => self.reseal(),
            5 | 6 => self.seal(),
            7 => self.adopt(),
            8 => self.scratch(),
            _ => {
                assert!(manager.used_vram() <= manager.total_vram());
                if self.dice.below(4) == 0 {
                    manager.enforce_vram_only_policy().unwrap();
                }
            }
        }
        self.field.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(mut self) {
        if self.own.is_some() {
            self.seal();
        }
        if self.adopted.is_some() {
            self.adopt();
        }
        self.scratch.drain(..).for_each(|scratch| scratch.release().unwrap());
    }
}

fn many_threads_and_every_operation() {
    // covers: CON-1 RES-5
    let (threads, length) = extent();
    let bench = Bench::lenient();
    let clean = bench.machine.live_bytes();
    let bytes: Vec<Vec<u8>> = (0..3).map(|at| noise(9000 + at, at as u64)).collect();
    let common = bytes.iter().zip(0..).map(|(bytes, at)| Mutex::new(bench.seal(&format!("common{at}"), bytes)));
    let common = common.collect();
    let (steps, results) = (AtomicU64::new(0), AtomicU64::new(0));
    let field = Field { bench: &bench, common, bytes, steps, results };
    let streams: Vec<EngineStream> = (0..threads).map(|_| bench.stream()).collect();
    // Before the manager's share of the device is full.
    let engines: Vec<_> =
        (0..threads).map(|id| noise(3000, id)).map(|bytes| (memory(&bench.machine, &bytes), bytes)).collect();
    within(length + Duration::from_secs(120), || {
        std::thread::scope(|scope| {
            for ((id, stream), (engine, before)) in (0..threads).zip(&streams).zip(engines) {
                let (field, dice) = (&field, Dice::new(id + 1));
                scope.spawn(move || {
                    let (own, adopted, scratch) = (None, None, Vec::new());
                    let mut worker =
                        Worker { field, dice, id, round: 0, own, engine, before, adopted, scratch, stream };
                    let until = Instant::now() + length;
                    while Instant::now() < until {
                        worker.step();
                    }
                    worker.leave();
                });
            }
        });
    });
    drop(streams);
    let Field { common, steps, results, .. } = field;
    for at in 0..common.len() {
        let id = vram_residency::ShardId::new(format!("common{at}")).unwrap();
        // Work of executions that were dropped may keep it busy for a few calls more.
        let busy = || matches!(bench.manager.release_by_id(&id), Err(VramError::ShardBusy { .. }));
        assert!((0..1_000_000).any(|_| !busy()), "{id} is pinned for ever");
    }
    let (steps, results) = (steps.into_inner(), results.into_inner());
    assert!(steps >= threads * 2 && results > threads, "it did run: {steps} steps, {results} results");
    assert_eq!((bench.manager.used_vram(), bench.manager.quarantined_vram(), bench.manager.adopted_vram()), (0, 0, 0));
    assert_eq!(bench.manager.state(), ManagerState::Ready);
    if let Some((clean, now)) = clean.zip(bench.machine.live_bytes()) {
        assert_eq!(now, clean, "bytes live, and at first");
    }
    assert_contiguous(&bench.sink.events());
    println!("{threads} threads, {steps} steps, {results} results");
    bench.close();
}

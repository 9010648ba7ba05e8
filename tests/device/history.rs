//! Random histories against a model that is simple enough to be right: what the device holds, and which of it has changed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use vram_residency::{Adopted, ErrorCode, ManagerState, Purpose, Scratch, SealedShard, VramError};
use vram_residency_harness::{Kind, Memory};

use crate::bench::{Bench, adopt, everywhere, memory, noise, spec, stopped};

crate::cases! {
    everywhere: any_history
}

/// How many histories: `VRAM_TEST_CASES` of them, or what a device can be asked in a short time.
fn cases() -> u32 {
    match std::env::var("VRAM_TEST_CASES") {
        Ok(cases) => cases.parse().unwrap_or_else(|_| panic!("VRAM_TEST_CASES is `{cases}`, no number")),
        Err(_) => match Kind::from_env() {
            Kind::Mock => 400,
            Kind::Cuda(_) => 50,
        },
    }
}

#[derive(Clone, Debug)]
enum Step {
    Seal { slot: u8, bytes: usize },
    Adopt { slot: u8, places: Vec<(usize, usize)>, wipe: bool },
    Execute { slot: u8 },
    Flip { slot: u8, at: prop::sample::Index, bit: u8 },
    Release { slot: u8 },
    Scratch { bytes: u64 },
    GiveBack { which: prop::sample::Index },
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..5_u8;
    let bytes = prop_oneof![1_usize..200, 1_usize..30_000, prop::sample::select(vec![4095, 4096, 4097, 8192])];
    let gaps = prop::collection::vec((0_usize..50, 1_usize..6000), 1..5);
    let places = gaps.prop_map(|gaps| {
        let mut end = 0;
        let place = |(gap, bytes)| {
            let at = end + gap;
            end = at + bytes;
            (at, bytes)
        };
        gaps.into_iter().map(place).collect()
    });
    prop_oneof![
        3 => (slot.clone(), bytes).prop_map(|(slot, bytes)| Step::Seal { slot, bytes }),
        2 => (slot.clone(), places, any::<bool>()).prop_map(|(slot, places, wipe)| Step::Adopt { slot, places, wipe }),
        5 => slot.clone().prop_map(|slot| Step::Execute { slot }),
        2 => (slot.clone(), any::<prop::sample::Index>(), 0..8_u8).prop_map(|(slot, at, bit)| Step::Flip { slot, at, bit }),
        2 => slot.prop_map(|slot| Step::Release { slot }),
        1 => (1..100_000_u64).prop_map(|bytes| Step::Scratch { bytes }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::GiveBack { which }),
    ]
}

/// What lies in a slot, as the model has it.
struct Shard {
    seal: SealedShard,
    /// Each stretch of it: where it lies, and its bytes as they were sealed.
    stretches: Vec<(u64, Vec<u8>)>,
    /// Bits that are not as sealed: stretch, byte and bit.
    changed: BTreeSet<(usize, usize, u8)>,
    quarantined: bool,
    engine: Option<Engine>,
}

struct Engine {
    adopted: Adopted<Arc<Memory>>,
    memory: Arc<Memory>,
    before: Vec<u8>,
    places: Vec<(usize, usize)>,
    wipe: bool,
}

impl Shard {
    /// The image: stretches in order, each but the last padded to a block.
    fn image(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (_, bytes) in &self.stretches {
            out.resize(out.len().next_multiple_of(4096), 0);
            out.extend_from_slice(bytes);
        }
        out
    }

    fn flip(&mut self, bench: &Bench, at: &prop::sample::Index, bit: u8) {
        let all = self.stretches.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut at = at.index(all);
        let mut stretch = 0;
        while at >= self.stretches[stretch].1.len() {
            at -= self.stretches[stretch].1.len();
            stretch += 1;
        }
        match &self.engine {
            Some(engine) => engine.memory.flip(engine.places[stretch].0 + at, bit),
            None => bench.flip(self.stretches[stretch].0 + at as u64, bit),
        }
        if !self.changed.remove(&(stretch, at, bit)) {
            self.changed.insert((stretch, at, bit));
        }
    }

    fn execute(&mut self, bench: &Bench) {
        let image = self.image();
        let read = bench.manager.try_execute(&self.seal, |weights| {
            let mut read = vec![0; image.len()];
            weights.read_at(0, &mut read)?;
            Ok::<_, VramError>(read)
        });
        self.quarantined |= !self.changed.is_empty();
        match read {
            Ok(read) => assert!(!self.quarantined && read == image, "changed bytes were executed"),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::SealVerificationFailed, "{error}");
                assert!(self.quarantined, "good bytes were refused: {error}");
            }
        }
    }

    fn release(self, bench: &Bench) {
        bench.manager.release(&self.seal).unwrap();
        assert_eq!(bench.manager.execute(&self.seal, |_| ()).unwrap_err().code(), ErrorCode::StaleHandle);
        let Some(engine) = self.engine else { return };
        drop(engine.adopted.into_owner().unwrap());
        let mut expected = engine.before;
        for (stretch, at, bit) in self.changed {
            expected[engine.places[stretch].0 + at] ^= 1 << bit;
        }
        if engine.wipe {
            engine.places.iter().for_each(|(at, bytes)| expected[*at..at + bytes].fill(0));
        }
        assert!(engine.memory.read(0, expected.len()) == expected, "the engine's memory came back otherwise");
    }
}

fn seal(bench: &Bench, slot: u8, bytes: usize, seed: u64) -> Shard {
    let bytes = noise(bytes, seed);
    let seal = bench.seal(&format!("slot{slot}"), &bytes);
    let stretches = vec![(bench.address(&seal), bytes)];
    Shard { seal, stretches, changed: BTreeSet::new(), quarantined: false, engine: None }
}

fn adopted(bench: &Bench, slot: u8, places: &[(usize, usize)], wipe: bool, seed: u64) -> Shard {
    let (last, length) = places[places.len() - 1];
    let before = noise(last + length + 3, seed);
    let memory = memory(&bench.machine, &before);
    let spec = spec(&format!("slot{slot}")).wipe_adopted(wipe);
    let adopted = adopt(&bench.manager, spec, &memory, places).unwrap();
    let stretches = places.iter().map(|(at, length)| (memory.address(*at), before[*at..at + length].to_vec()));
    Shard {
        seal: adopted.shard().clone(),
        stretches: stretches.collect(),
        changed: BTreeSet::new(),
        quarantined: false,
        engine: Some(Engine { adopted, memory, before, places: places.to_vec(), wipe }),
    }
}

fn play(bench: &Bench, steps: &[Step]) {
    let live = bench.machine.live_bytes();
    let mut shards = BTreeMap::<u8, Shard>::new();
    let mut scratches = Vec::<Scratch>::new();
    for (seed, step) in (0..).zip(steps) {
        match step {
            Step::Seal { slot, bytes } if !shards.contains_key(slot) => {
                shards.insert(*slot, seal(bench, *slot, *bytes, seed));
            }
            Step::Seal { slot, .. } => {
                let taken = spec(&format!("slot{slot}"));
                let refused = bench.manager.seal_model(taken, vram_residency::ShardSource::bytes(b"another"));
                assert_eq!(refused.unwrap_err().code(), ErrorCode::InvalidParams);
            }
            Step::Adopt { slot, places, wipe } if !shards.contains_key(slot) => {
                shards.insert(*slot, adopted(bench, *slot, places, *wipe, seed));
            }
            Step::Adopt { .. } => {}
            Step::Execute { slot } => shards.get_mut(slot).into_iter().for_each(|shard| shard.execute(bench)),
            Step::Flip { slot, at, bit } => {
                shards.get_mut(slot).into_iter().for_each(|shard| shard.flip(bench, at, *bit));
            }
            Step::Release { slot } => shards.remove(slot).into_iter().for_each(|shard| shard.release(bench)),
            Step::Scratch { bytes } => {
                scratches.push(bench.manager.allocate_scratch(Purpose::Workspace, *bytes).unwrap());
            }
            Step::GiveBack { which } if !scratches.is_empty() => {
                scratches.remove(which.index(scratches.len())).release().unwrap();
            }
            Step::GiveBack { .. } => {}
        }
        let engines = shards.values().filter(|shard| shard.engine.is_some());
        let under_seal: usize = engines.flat_map(|shard| &shard.stretches).map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(bench.manager.adopted_vram(), under_seal as u64);
        let held = bench.manager.used_vram();
        assert_eq!(held > 0, !shards.is_empty() || !scratches.is_empty());
        assert_eq!(bench.manager.quarantined_vram() > 0, shards.values().any(|shard| shard.quarantined));
        if let (Some(now), Some(before)) = (bench.machine.live_bytes(), live) {
            assert_eq!(now, before + held, "the ledger against the device");
        }
    }
    drop(scratches);
    shards.into_values().for_each(|shard| shard.release(bench));
    assert_eq!((bench.manager.used_vram(), bench.manager.quarantined_vram()), (0, 0));
    assert_eq!((bench.manager.state(), bench.machine.live_bytes()), (ManagerState::Ready, live));
    assert!(!stopped(&bench.manager));
}

fn any_history() {
    // covers: ASR-2 RES-5
    let bench = RefCell::new(None);
    let config = ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() };
    let histories = prop::collection::vec(step(), 1..25);
    let result = TestRunner::new(config).run(&histories, |steps| {
        // A history that failed takes its manager with it.
        let mine = bench.borrow_mut().take().unwrap_or_else(Bench::lenient);
        play(&mine, &steps);
        *bench.borrow_mut() = Some(mine);
        Ok(())
    });
    if let Err(TestError::Fail(why, steps)) = result {
        panic!("{why}\nthe shortest such history: {steps:#?}");
    }
    result.unwrap();
    bench.into_inner().into_iter().for_each(Bench::close);
}

//! What holds for every engine, set, batch, stream and history: a thousand random cases each.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::redundant_pub_crate)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::{Arena, Dice, Drops, Rig, adopt, image, name, noise, offset, regions, scatter, small, spec};
use vram_residency::{
    ExecuteOptions, Fault, ManagerState, MockCall, MockConfig, ModelRef, OnIntegrityFailure, OwnedExecution, Purpose,
    Scratch, SealedShard, SetId, ShardSource, VramError, check_set, digest_bytes,
};

/// A thousand cases; what failed once is tried again first (`proptest-regressions/properties_engine.txt`).
fn thousand() -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("proptest-regressions/properties_engine.txt");
    ProptestConfig { cases: 1000, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

thread_local! {
    static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
}

/// Runs a case on a manager that the cases of one property share: the known questions are asked once. Leaves nothing behind.
fn on_rig<T>(case: impl FnOnce(&Rig) -> T) -> T {
    on_rig_of(small(), case)
}

/// The same on a machine of the property's own choice.
fn on_rig_of<T>(config: MockConfig, case: impl FnOnce(&Rig) -> T) -> T {
    RIG.with_borrow_mut(|rig| {
        let rig = rig.get_or_insert_with(|| {
            Rig::with(config.poison(false), |b| {
                b.on_integrity_failure(OnIntegrityFailure::QuarantineShard).quarantine_limit(u64::MAX)
            })
        });
        let result = case(rig);
        let stats = rig.config.stats();
        assert_eq!((rig.manager.used_vram(), stats.live_bytes, rig.manager.quarantined_vram()), (0, 0, 0));
        assert_eq!((rig.manager.adopted_vram(), stats.live_foreign, stats.live_events), (0, 0, 0));
        assert_eq!((stats.unwiped_bytes_freed, stats.unwiped_host_bytes_freed), (0, 0));
        result
    })
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(
        prop_oneof![1_usize..1500, prop::sample::select(vec![1, 1023, 1024, 1025, 2048, 3073])],
        1..12,
    )
}

/// How an engine writes over a shard: `(from, bytes, value)`, each reduced to what there is.
type Writes = Vec<(prop::sample::Index, prop::sample::Index, u8)>;

fn writes() -> impl Strategy<Value = Writes> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..3), 0..5)
}

proptest! {
    #![proptest_config(thousand())]

    // covers: ASR-2 RES-9 DIG-3
    #[test]
    fn adopted_regions_have_the_digest_of_their_image(lengths in lengths(), seed in any::<u64>(), wipe in any::<bool>()) {
        on_rig(|rig| {
            let (arena, places) = scatter(&mut Dice::new(seed), &lengths);
            let (image, before) = (image(&arena, &places, 1024), arena.bytes());
            let vouched = digest_bytes(rig.manager.tree_params(), &image);
            let spec = spec("case").expect_digest(vouched).wipe_adopted(wipe);
            let (adopted, drops) = adopt(&rig.manager, spec, &arena, &regions(&arena, &places));
            let adopted = adopted.unwrap();
            prop_assert_eq!((adopted.shard().digest(), adopted.shard().byte_len()), (vouched, image.len() as u64));
            prop_assert_eq!(rig.manager.adopted_vram(), lengths.iter().sum::<usize>() as u64);
            rig.assert_recount();
            rig.manager.release(adopted.shard()).unwrap();
            let owner = adopted.into_owner().unwrap();
            prop_assert_eq!(drops.count(), 0);
            drop(owner);
            prop_assert_eq!(drops.count(), 1);
            let wiped = |at| wipe && offset(&places, 1024, at).is_some();
            let expected: Vec<u8> = before.iter().enumerate().map(|(at, byte)| if wiped(at) { 0 } else { *byte }).collect();
            prop_assert_eq!(arena.bytes(), expected);
            Ok(())
        })?;
    }

    // covers: ASR-2 RES-9 VER-4
    #[test]
    fn exactly_the_changes_inside_are_found(
        lengths in lengths(), seed in any::<u64>(), changed in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        on_rig(|rig| {
            let (arena, places) = scatter(&mut Dice::new(seed), &lengths);
            let (adopted, _drops) = adopt(&rig.manager, spec("case"), &arena, &regions(&arena, &places));
            let shard = adopted.unwrap().shard().clone();
            let changed: BTreeSet<usize> = changed.iter().map(|at| at.index(arena.len())).collect();
            changed.iter().for_each(|at| arena.flip(*at));
            let inside: Vec<u64> = changed.iter().filter_map(|at| offset(&places, 1024, *at)).collect();
            let outcome = rig.manager.execute(&shard, |_| ());
            match inside.iter().min() {
                None => prop_assert!(outcome.is_ok(), "{outcome:?}"),
                Some(first) => {
                    let Err(VramError::IntegrityFailure { first_bad: Some(found), .. }) = outcome else {
                        return Err(TestCaseError::fail(format!("{outcome:?}")));
                    };
                    prop_assert!((found.offset..found.offset + found.bytes).contains(first), "{found} {first}");
                }
            }
            rig.manager.release(&shard).unwrap();
            Ok(())
        })?;
    }

    // covers: ASR-2 RES-9
    #[test]
    fn every_read_sees_the_image(
        lengths in lengths(), seed in any::<u64>(), from in any::<prop::sample::Index>(), bytes in 0_usize..6000,
    ) {
        on_rig(|rig| {
            let (arena, places) = scatter(&mut Dice::new(seed), &lengths);
            let image = image(&arena, &places, 1024);
            let (adopted, _drops) = adopt(&rig.manager, spec("case"), &arena, &regions(&arena, &places));
            let shard = adopted.unwrap().shard().clone();
            let from = from.index(image.len() + 2);
            let mut out = vec![0xAA; bytes];
            let read = rig.manager.execute(&shard, |verified| verified.read_at(from as u64, &mut out)).unwrap();
            match image.get(from..from + bytes) {
                Some(expected) => {
                    prop_assert!(read.is_ok(), "{read:?}");
                    prop_assert_eq!(&out[..], expected);
                }
                None => {
                    prop_assert!(matches!(read, Err(VramError::InvalidParams { field: "offset", .. })), "{read:?}");
                    prop_assert_eq!(out, vec![0xAA; bytes]);
                }
            }
            rig.manager.release(&shard).unwrap();
            Ok(())
        })?;
    }

    // covers: ASR-2 RES-9
    #[test]
    fn regions_that_touch_a_taken_byte_are_refused(
        taken in (0_usize..900, 1_usize..100),
        wanted in prop::collection::vec((0_usize..990, 1_usize..60), 1..4),
    ) {
        on_rig(|rig| {
            let arena = Arc::new(Arena::new(1100, 1));
            let region = |(at, bytes): (usize, usize)| arena.region(at, bytes);
            let (first, _) = adopt(&rig.manager, spec("first"), &arena, &[region(taken)]);
            let first = first.unwrap();
            let meet = |a: (usize, usize), b: (usize, usize)| a.0 < b.0 + b.1 && b.0 < a.0 + a.1;
            let apart = wanted.iter().enumerate().all(|(at, one)| {
                !meet(*one, taken) && wanted[..at].iter().all(|other| !meet(*one, *other))
            });
            let all: Vec<_> = wanted.iter().copied().map(region).collect();
            let (second, drops) = adopt(&rig.manager, spec("second"), &arena, &all);
            prop_assert_eq!(second.is_ok(), apart);
            match second {
                Ok(second) => drop(rig.manager.release(second.shard()).unwrap()),
                Err(refused) => {
                    let field = matches!(refused.error, VramError::InvalidParams { field: "regions", .. });
                    prop_assert!(field, "{:?}", refused.error);
                    prop_assert_eq!(drops.count(), 0);
                }
            }
            rig.manager.execute(first.shard(), |_| ()).unwrap();
            rig.manager.release(first.shard()).unwrap();
            Ok(())
        })?;
    }

    // covers: ASR-2 SEAL-8
    #[test]
    fn a_set_is_whole_exactly_when_its_parts_are(
        count in 1_u32..5,
        given in prop::collection::vec((0_u32..5, 0_u8..20), 0..6),
        right in any::<bool>(),
    ) {
        on_rig(|rig| {
            let set = SetId::random().unwrap();
            // The parts as they should be, or whatever came up: (index, what is wrong with it).
            let given = if right { (0..count).map(|index| (index, 9)).collect() } else { given };
            let mut shards = Vec::new();
            let mut whole = given.len() == count as usize;
            for (place, (index, wrong)) in given.iter().enumerate() {
                let index = index % count;
                whole &= index as usize == place && *wrong > 3;
                let model = |text: &str| ModelRef::new(text).unwrap();
                let spec = spec(&format!("p{place}"));
                let spec = match wrong {
                    0 => spec.model_ref(model("v1")),
                    1 => spec.model_ref(model("v2")).part(set, index, count),
                    2 => spec.model_ref(model("v1")).part(SetId::random().unwrap(), index, count),
                    3 => spec.model_ref(model("v1")).part(set, index, count + 1),
                    _ => spec.model_ref(model("v1")).part(set, index, count),
                };
                shards.push(rig.manager.seal_model(spec, ShardSource::bytes(&[1; 10])).unwrap());
            }
            // One part that is wrong alone makes a whole set of its own where nothing else is asked for.
            let alone = matches!(given[..], [(_, 1 | 2)]) && count == 1;
            let parts: Vec<_> = shards.iter().map(|shard| (&*rig.manager, shard)).collect();
            let found = check_set(&parts);
            prop_assert_eq!(found.is_ok(), whole || alone, "{:?} of {}: {:?}", given, count, found);
            if let Ok(found) = found {
                prop_assert_eq!(found.bytes, 10 * u64::from(count));
            }
            shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
            Ok(())
        })?;
    }

    // covers: ASR-2 VER-7 VER-3
    #[test]
    fn a_batch_begins_exactly_when_every_part_is_good(
        parts in prop::collection::vec((1_usize..3000, prop::bool::weighted(0.2)), 1..6),
        doubled in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        bracket in any::<bool>(),
    ) {
        on_rig(|rig| {
            let shards: Vec<SealedShard> =
                parts.iter().enumerate().map(|(at, (bytes, _))| rig.seal(&format!("p{at}"), &noise(*bytes, 1))).collect();
            for (shard, (bytes, changed)) in shards.iter().zip(&parts) {
                if *changed {
                    rig.flip(shard, *bytes as u64 - 1);
                }
            }
            let mut wanted: Vec<&SealedShard> = shards.iter().collect();
            if let Some(doubled) = doubled {
                wanted.push(&shards[doubled.index(shards.len())]);
            }
            let good = doubled.is_none() && parts.iter().all(|(_, changed)| !changed);
            let begun = rig.manager.begin_all(&wanted, ExecuteOptions::default().bracket(bracket));
            prop_assert_eq!(begun.is_ok(), good);
            if let Ok(guards) = begun {
                for shard in &shards {
                    let busy = rig.manager.release(shard);
                    prop_assert!(matches!(busy, Err(VramError::ShardBusy { .. })), "{busy:?}");
                }
                for guard in guards {
                    prop_assert!(guard.finish().is_ok());
                }
            }
            shards.iter().for_each(|shard| drop(rig.manager.release(shard).unwrap()));
            Ok(())
        })?;
    }

    // covers: ASR-2 VER-10 VER-6
    #[test]
    fn checks_and_brackets_follow_the_engines_stream(
        bytes in 1_usize..4000, before in writes(), during in writes(), finish in any::<bool>(),
    ) {
        on_rig_of(small().read_only(false), |rig| {
            let stream = rig.controls().engine_stream().unwrap();
            let sealed = vec![1_u8; bytes];
            let shard = rig.seal("case", &sealed);
            let mut now = sealed.clone();
            let mut apply = |writes: &Writes| {
                for (from, length, value) in writes {
                    let from = from.index(bytes);
                    let length = 1 + length.index(bytes - from);
                    stream.enqueue_write(&shard, from as u64, length as u64, *value).unwrap();
                    now[from..from + length].fill(*value);
                }
                now == sealed
            };
            let good = apply(&before);
            // SAFETY: the stream is of this manager's device; every guard has ended and been reaped before it goes.
            let options = || unsafe { ExecuteOptions::default().on_stream(stream.raw()) };
            let begun = rig.manager.begin(&shard, options().bracket(true));
            prop_assert_eq!(begun.is_ok(), good, "{:?}", begun);
            if let Ok(guard) = begun {
                let good = apply(&during);
                if finish {
                    let finished = guard.finish();
                    prop_assert_eq!(finished.is_ok(), good, "{:?}", finished);
                    prop_assert_eq!(rig.config.stats().pending_operations, 0);
                } else {
                    drop(guard);
                }
            }
            let left = during.len() as u64;
            while let Err(error) = rig.manager.release(&shard) {
                prop_assert!(matches!(error, VramError::ShardBusy { .. }), "{error:?}");
                prop_assert!(!finish && rig.config.stats().pending_operations <= left);
            }
            prop_assert_eq!(rig.config.stats().pending_operations, 0);
            Ok(())
        })?;
    }

    // covers: ASR-2 RES-3 SCR-3 RES-9
    #[test]
    fn whatever_call_fails_the_ledger_is_the_drivers_count(
        operation in 0_u8..6, nth in 1_u64..40, times in 1_u64..3, call in call(),
    ) {
        {
            let rig = Rig::with(small().poison(false), |b| b.quarantine_limit(u64::MAX)); // its own: residue stays to its end
            let arena = Arc::new(Arena::new(3000, 5));
            let live = rig.seal("live", &[3; 2000]);
            rig.config.fail(Fault::call(call).nth(nth).times(times)).unwrap();
            let mut drops = None;
            let outcome = match operation {
                0 => rig.manager.seal_model(spec("new"), ShardSource::bytes(&[1; 3000])).map(drop),
                1 => {
                    let (adopted, count) = adopt(&rig.manager, spec("new").wipe_adopted(true), &arena, &[arena.region(1, 2500)]);
                    drops = Some(count);
                    adopted.map(drop).map_err(|refused| refused.error)
                }
                2 => rig.manager.execute(&live, |verified| verified.read_at(0, &mut [0; 2000])).and_then(|read| read),
                3 => rig.manager.allocate_scratch(Purpose::KvCache, 700).and_then(Scratch::release),
                4 => rig.manager.reseal(&live).map(drop),
                _ => rig.manager.release(&live).map(drop),
            };
            rig.controls().clear_faults().unwrap();
            let stats = rig.config.stats();
            prop_assert_eq!(rig.manager.used_vram(), stats.live_bytes, "{:?}", outcome);
            prop_assert_eq!(rig.manager.state(), ManagerState::Ready);
            prop_assert_eq!(rig.manager.adopted_vram(), if operation == 1 && outcome.is_ok() { 2500 } else { 0 });
            prop_assert_eq!(stats.live_foreign, u64::from(operation == 1 && outcome.is_ok()));
            if let Some(drops) = drops {
                prop_assert_eq!(drops.count(), u64::from(outcome.is_err()), "the refused owner was dropped, the other lives");
            }
            for left in ["live", "new"] {
                let _ = rig.manager.release_by_id(&name(left));
            }
            prop_assert_eq!(rig.manager.used_vram(), rig.manager.quarantined_vram());
            let config = rig.config.clone();
            drop(rig);
            let stats = config.stats();
            prop_assert_eq!((stats.live_bytes, stats.live_foreign, stats.unwiped_host_bytes_freed), (0, 0, 0));
        }
    }
}

/// The calls that may fail without the device being lost for it; what cannot be given back is another matter.
fn call() -> impl Strategy<Value = MockCall> {
    prop::sample::select(vec![
        MockCall::Alloc,
        MockCall::CopyToDevice,
        MockCall::CopyToHost,
        MockCall::Digest,
        MockCall::MemoryInfo,
        MockCall::Residency,
        MockCall::Stream,
        MockCall::HostAlloc,
    ])
}

// ---- the stateful one

/// One step of a history. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Seal(usize),
    Adopt(usize, bool),
    Verify(u8),
    Flip(u8),
    Begin(u8, bool),
    BeginAll(u8, u8),
    Finish(u8),
    Abandon(u8),
    Reseal(u8),
    Release(u8),
    ReleaseById(u8),
    Scratch(u64),
    DropScratch(u8),
    Stale(u8),
    Posture,
    Fault(MockCall, u64),
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..3000).prop_map(Step::Seal),
        3 => (1_usize..3000, any::<bool>()).prop_map(|(bytes, wipe)| Step::Adopt(bytes, wipe)),
        3 => any::<u8>().prop_map(Step::Verify),
        2 => any::<u8>().prop_map(Step::Flip),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(at, bracket)| Step::Begin(at, bracket)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(one, two)| Step::BeginAll(one, two)),
        4 => any::<u8>().prop_map(Step::Finish),
        1 => any::<u8>().prop_map(Step::Abandon),
        3 => any::<u8>().prop_map(Step::Reseal),
        3 => any::<u8>().prop_map(Step::Release),
        1 => any::<u8>().prop_map(Step::ReleaseById),
        2 => (1_u64..3000).prop_map(Step::Scratch),
        1 => any::<u8>().prop_map(Step::DropScratch),
        2 => any::<u8>().prop_map(Step::Stale),
        1 => Just(Step::Posture),
        2 => (
            prop_oneof![
                call(),
                prop::sample::select(vec![MockCall::Fill, MockCall::CountNonzero, MockCall::Synchronize, MockCall::Event]),
            ],
            1_u64..12,
        ).prop_map(|(call, nth)| Step::Fault(call, nth)),
        1 => prop::bool::weighted(0.1).prop_map(|yes| if yes { Step::Shutdown } else { Step::Posture }),
    ]
}

/// What the model knows of a shard.
struct Live {
    shard: SealedShard,
    bytes: usize,
    room: u64,
    changed: bool,
    /// A check has found the change.
    quarantined: bool,
    guards: usize,
    engine: Option<(Arc<Arena>, Vec<u8>, bool, Drops)>,
}

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
}

impl Model {
    fn pick(&self, number: u8) -> Option<usize> {
        (!self.live.is_empty()).then(|| usize::from(number) % self.live.len())
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
        if matches!(outcome, Err(VramError::IntegrityFailure { .. })) {
            // Those that failed before are not read again, and then nor are the others.
            let repeated = which.iter().any(|at| self.live[*at].quarantined);
            for at in which {
                self.live[*at].quarantined |= self.live[*at].changed && !repeated;
            }
            self.ready &= !self.stops;
        }
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
                let begun = manager.begin_owned(&self.live[at].shard, ExecuteOptions::default().bracket(*bracket));
                self.checked(&[at], true, &begun);
                if let Ok(guard) = begun {
                    self.live[at].guards += 1;
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
                    self.checked(&[one, two], true, &begun);
                }
            }
            Step::Finish(at) => {
                if self.guards.is_empty() {
                    return;
                }
                let (number, bracket, guard) = self.guards.swap_remove(usize::from(*at) % self.guards.len());
                let at = self.live.iter().position(|live| live.shard.id() == &name(&format!("s{number}"))).unwrap();
                self.live[at].guards -= 1;
                let finished = guard.finish();
                if bracket && self.live[at].changed {
                    assert!(finished.is_err(), "a bracket missed a change");
                }
                if finished.is_ok() {
                    assert!(self.ready, "a result was given after the manager stopped");
                } else if bracket && matches!(finished, Err(VramError::IntegrityFailure { .. })) {
                    self.checked(&[at], false, &finished);
                } else {
                    self.expect(&finished, |error| !self.ready && Self::stopped(error));
                }
            }
            Step::Abandon(at) => {
                if self.guards.is_empty() {
                    return;
                }
                let (number, _, guard) = self.guards.swap_remove(usize::from(*at) % self.guards.len());
                let at = self.live.iter().position(|live| live.shard.id() == &name(&format!("s{number}"))).unwrap();
                self.live[at].guards -= 1;
                drop(guard);
            }
            Step::Reseal(at) => {
                let Some(at) = self.pick(*at) else { return };
                let renewed = manager.reseal(&self.live[at].shard);
                match renewed {
                    Ok(renewed) => {
                        assert!(self.ready && self.live[at].guards == 0 && !self.live[at].changed);
                        let old = std::mem::replace(&mut self.live[at].shard, renewed);
                        self.stale.push(old);
                    }
                    Err(VramError::ShardBusy { .. }) => assert!(self.live[at].guards > 0),
                    error => self.checked(&[at], true, &error),
                }
            }
            Step::Release(at) | Step::ReleaseById(at) => {
                let Some(at) = self.pick(*at) else { return };
                let shard = self.live[at].shard.clone();
                let by_id = matches!(step, Step::ReleaseById(_));
                let released = if by_id { manager.release_by_id(shard.id()) } else { manager.release(&shard) };
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
                    self.scratch.push((manager.used_vram() - used, scratch));
                }
            }
            Step::DropScratch(at) => {
                if self.scratch.is_empty() {
                    return;
                }
                let (room, scratch) = self.scratch.swap_remove(usize::from(*at) % self.scratch.len());
                let released = scratch.release();
                self.expect(&released, |_| false);
                self.residue += if released.is_err() { room } else { 0 };
            }
            Step::Stale(at) => {
                if self.stale.is_empty() {
                    return;
                }
                let stale = &self.stale[usize::from(*at) % self.stale.len()];
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
                let report = manager.shutdown(std::time::Duration::ZERO).unwrap();
                assert_eq!(report.drained, pinned == 0);
                self.ready = false;
                let (kept, gone) = std::mem::take(&mut self.live).into_iter().partition(|live: &Live| live.guards > 0);
                self.live = kept;
                assert_eq!(report.residue_bytes, 0);
                gone.into_iter().for_each(|gone: Live| self.left(gone, true));
            }
            Step::Fault(..) => {}
        }
    }

    fn number(&self, at: usize) -> usize {
        self.live[at].shard.id().as_str()[1..].parse().unwrap()
    }

    fn published(
        &mut self,
        sealed: Result<SealedShard, VramError>,
        bytes: usize,
        used: u64,
        engine: Option<(Arc<Arena>, Vec<u8>, bool, Drops)>,
    ) {
        let now = self.rig.manager.used_vram();
        match sealed {
            Ok(shard) => {
                assert!(self.ready, "sealed by a manager that is not ready");
                let room = now - used;
                self.live.push(Live { shard, bytes, room, changed: false, quarantined: false, guards: 0, engine });
            }
            Err(error) => {
                let outcome: Result<(), VramError> = Err(error);
                self.expect(&outcome, |error| !self.ready && Self::stopped(error));
                // A failed step keeps nothing, but for what a fault kept it from wiping.
                let evidence: u64 = self.live.iter().filter(|live| live.quarantined).map(|live| live.room).sum();
                let kept = now - used;
                assert_eq!(self.rig.manager.quarantined_vram(), evidence + self.residue + kept);
                self.residue += kept;
            }
        }
    }

    /// A shard has been released, or its wipe failed.
    fn left(&mut self, gone: Live, wiped: bool) {
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
        let evidence: u64 = self.live.iter().filter(|live| live.quarantined).map(|live| live.room).sum();
        assert_eq!(manager.quarantined_vram(), evidence + self.residue);
        let adopted: u64 = self.live.iter().filter(|live| live.engine.is_some()).map(|live| live.bytes as u64).sum();
        assert_eq!(manager.adopted_vram(), adopted + self.residue_adopted);
        assert_eq!(manager.state() == ManagerState::Ready, self.ready, "{}", manager.state());
        let held = self.live.iter().filter_map(|live| live.engine.as_ref());
        assert!(held.into_iter().all(|(_, _, _, drops)| drops.count() == 0), "a live shard's owner is gone");
    }
}

proptest! {
    #![proptest_config(thousand())]

    // covers: ASR-2 RES-5 VER-5 SCR-2 SCR-4 SEAL-7
    #[test]
    fn every_history_ends_as_the_model_says(steps in prop::collection::vec(step(), 1..40), stops in prop::bool::weighted(0.3)) {
        let choice = if stops { OnIntegrityFailure::Stop } else { OnIntegrityFailure::QuarantineShard };
        let rig = Rig::with(small().poison(false), |b| b.on_integrity_failure(choice).quarantine_limit(u64::MAX));
        let mut model = Model {
            rig,
            stops,
            live: Vec::new(),
            guards: Vec::new(),
            scratch: Vec::new(),
            stale: Vec::new(),
            residue: 0,
            residue_adopted: 0,
            next: 0,
            faulty: false,
            ready: true,
        };
        for step in &steps {
            model.run(step);
        }
        let Model { rig, guards, scratch, live, .. } = model;
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
        support::assert_contiguous(&events);
        support::assert_paired(&events);
    }
}

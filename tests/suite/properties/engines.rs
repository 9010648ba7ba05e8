//! What holds for every engine, set and stream.

use std::collections::BTreeSet;

use super::*;

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
        on_rig(small(), |rig| {
            let (arena, places) = scatter(&mut Dice::new(seed), &lengths);
            let (image, before) = (image(&arena, &places, 1024), arena.bytes());
            let vouched = digest_bytes(rig.manager.tree_params(), &image);
            let regions = regions(&arena, &places);
            let expected = vouching::regions(rig.manager.tree_params(), &regions, vouched);
            let spec = spec("case").expect(expected).wipe_adopted(wipe);
            let (adopted, drops) = adopt(&rig.manager, spec, &arena, &regions);
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
        on_rig(small(), |rig| {
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
                    // Named is the first region of that range, which may come before the changed one.
                    let end = |(at, bytes): &(usize, usize)| offset(&places, 1024, at + bytes - 1).unwrap();
                    let named = places.iter().position(|place| end(place) >= found.offset).unwrap();
                    prop_assert_eq!(found.tensor, Some(format!("region {named}")));
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
        on_rig(small(), |rig| {
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
        on_rig(small(), |rig| {
            let set = SetId::random().unwrap();
            // The parts as they should be, or whatever came up: (index, what is wrong with it).
            let given = if right { (0..count).map(|index| (index, 9)).collect() } else { given };
            let mut shards = Vec::new();
            for (place, (index, wrong)) in given.iter().enumerate() {
                let index = index % count;
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
            // Parts that are all of the other model make a whole set too, and so does a single one of another set.
            let in_order = given.len() == count as usize
                && given.iter().zip(0_u32..).all(|((index, _), place)| index % count == place);
            let all = |expected: fn(u8) -> bool| given.iter().all(|(_, wrong)| expected(*wrong));
            let whole = in_order
                && (all(|wrong| wrong > 3) || all(|wrong| wrong == 1) || (count == 1 && all(|wrong| wrong == 2)));
            let parts: Vec<_> = shards.iter().map(|shard| (&*rig.manager, shard)).collect();
            let found = SealedSet::check(&parts);
            prop_assert_eq!(found.is_ok(), whole, "{:?} of {}: {:?}", given, count, found);
            if let Ok(found) = found {
                prop_assert_eq!(found.bytes, 10 * u64::from(count));
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
        on_rig(small().read_only(false), |rig| {
            let stream = rig.stream();
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
            let begun = rig.manager.begin(&shard, options().verify_after(true));
            prop_assert_eq!(begun.is_ok(), good, "{:?}", begun);
            if let Ok(guard) = begun {
                let good = apply(&during);
                if finish {
                    let finished = guard.finish();
                    prop_assert_eq!(finished.is_ok(), good, "{:?}", finished);
                    prop_assert_eq!(rig.pending(), 0);
                } else {
                    drop(guard);
                }
            }
            let left = during.len() as u64;
            while let Err(error) = rig.manager.release(&shard) {
                prop_assert!(matches!(error, VramError::ShardBusy { .. }), "{error:?}");
                prop_assert!(!finish && rig.pending() <= left);
            }
            prop_assert_eq!(rig.pending(), 0);
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
            rig.order(Fault::call(call).nth(nth).times(times));
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

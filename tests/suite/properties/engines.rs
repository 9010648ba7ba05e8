//! What holds for every engine and stream.

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

}

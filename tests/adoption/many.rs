//! Many regions and many adoptions: their cost grows as their number does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Arena, Rig, adopt, name, small, spec};

/// Two adoptions of so many regions, of which each lies between two of the other's.
fn in_two(count: usize) -> Duration {
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(2 * count, 1));
    let regions = |from| (0..count).map(|at| arena.region(2 * at + from, 1)).collect::<Vec<_>>();
    let (even, odd) = (regions(0), regions(1));
    let started = Instant::now();
    let adopted = [("even", even), ("odd", odd)].map(|(name, all)| adopt(&rig.manager, spec(name), &arena, &all).0);
    adopted.into_iter().for_each(|adopted| drop(rig.manager.release(adopted.unwrap().shard()).unwrap()));
    started.elapsed()
}

fn one_by_one(count: usize) -> Duration {
    let rig = Rig::with(small().capacity_bytes(1 << 30), |b| b);
    let arena = Arc::new(Arena::new(2 * count, 1));
    let started = Instant::now();
    for at in 0..count {
        let (adopted, _) = adopt(&rig.manager, spec(&format!("s{at}")), &arena, &[arena.region(2 * at, 1)]);
        drop(adopted.unwrap());
    }
    for at in 0..count {
        rig.manager.release_by_id(&name(&format!("s{at}"))).unwrap();
    }
    started.elapsed()
}

#[test]
fn four_times_the_regions_take_no_sixteen_times_the_time() {
    // covers: RES-9
    for (what, run) in [("in two adoptions", in_two as fn(usize) -> Duration), ("one by one", one_by_one)] {
        // Once more where something else took the machine's time.
        let grows_evenly = (0..3).any(|_| {
            let (few, many) = (run(5000), run(20_000));
            println!("{what}: 5,000 in {few:?}, 20,000 in {many:?}");
            many < 9 * few
        });
        assert!(grows_evenly, "{what}");
    }
}

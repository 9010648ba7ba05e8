//! Many regions and many adoptions: their cost grows as their number does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Arena, Rig, adopt, name, small, spec};

fn in_one(count: usize) -> Duration {
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(2 * count, 1));
    let regions: Vec<_> = (0..count).map(|at| arena.region(2 * at, 1)).collect();
    let started = Instant::now();
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &regions);
    rig.manager.release(adopted.unwrap().shard()).unwrap();
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
    for (what, run) in [("in one adoption", in_one as fn(usize) -> Duration), ("one by one", one_by_one)] {
        let (few, many) = (run(5000), run(20_000));
        println!("{what}: 5,000 in {few:?}, 20,000 in {many:?}");
        assert!(many < 9 * few, "{what}: 5,000 in {few:?}, 20,000 in {many:?}");
    }
}

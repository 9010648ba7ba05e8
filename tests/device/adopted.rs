//! Memory that an engine allocated: checked where it lies, given back as it was, wiped only where its owner allows.
// covers: RES-9

use vram_residency::{ErrorCode, ManagerState, RawRegion, VramError};

use crate::bench::{Bench, adopt, everywhere, memory, noise, refused_regions, spec, stopped, vouching};

crate::cases! {
    everywhere:
        a_bit_that_the_engine_flips_is_refused,
        given_back_exactly_as_it_was,
        wiped_where_the_owner_allows,
        memory_twice_under_seal,
        memory_that_is_not_the_devices
}

const PLACES: [(usize, usize); 4] = [(3, 5000), (5003, 1), (9000, 4096), (20_001, 70_000)];
const BYTES: usize = 100_000;

fn a_bit_that_the_engine_flips_is_refused() {
    // covers: VER-4
    let bench = Bench::lenient();
    for (place, length) in PLACES {
        for at in [place, place + length / 2, place + length - 1] {
            let memory = memory(&bench.machine, &noise(BYTES, 1));
            let adopted = adopt(&bench.manager, spec("a"), &memory, &PLACES).unwrap();
            // Beside the regions nothing is under seal.
            memory.flip(0, 1);
            memory.flip(BYTES - 1, 1);
            bench.manager.execute(adopted.shard(), |_| ()).unwrap();
            memory.flip(at, 6);
            bench.assert_refused(adopted.shard());
            bench.manager.release(adopted.shard()).unwrap();
        }
    }
    assert_eq!(bench.manager.adopted_vram(), 0);
    bench.close();

    let bench = Bench::new();
    let memory = memory(&bench.machine, &noise(BYTES, 1));
    let adopted = adopt(&bench.manager, spec("a"), &memory, &PLACES).unwrap();
    memory.flip(20_001, 0);
    bench.assert_refused(adopted.shard());
    assert!(stopped(&bench.manager));
    drop(adopted);
    bench.close();
}

fn given_back_exactly_as_it_was() {
    let bench = Bench::new();
    let bytes = noise(BYTES, 2);
    let memory = memory(&bench.machine, &bytes);
    let adopted = adopt(&bench.manager, spec("a"), &memory, &PLACES).unwrap();
    assert_eq!(bench.manager.adopted_vram(), PLACES.iter().map(|(_, length)| *length as u64).sum::<u64>());
    assert_eq!(std::sync::Arc::strong_count(&memory), 2, "the shard's owner and this case");
    bench.manager.execute(adopted.shard(), |_| ()).unwrap();
    let report = bench.manager.release(adopted.shard()).unwrap();
    assert_eq!(report.left_unwiped, PLACES.iter().map(|(_, length)| *length as u64).sum::<u64>());
    drop(adopted.into_owner().unwrap());
    assert!(memory.read(0, BYTES) == bytes);
    // A refusal gives it back just so.
    let wrong = vram_residency::digest_bytes(bench.manager.tree_params(), b"something else");
    let regions = PLACES.map(|(at, bytes)| memory.region(at, bytes));
    let wrong = vouching::regions(bench.manager.tree_params(), &regions, wrong);
    let refused = adopt(&bench.manager, spec("a").expect(wrong).wipe_adopted(true), &memory, &PLACES);
    assert_eq!(refused.unwrap_err().code(), ErrorCode::DigestMismatch);
    assert!(memory.read(0, BYTES) == bytes);
    assert_eq!(std::sync::Arc::strong_count(&memory), 1);
    bench.close();
}

fn wiped_where_the_owner_allows() {
    // covers: SCR-1
    let bench = Bench::new();
    let bytes = noise(BYTES, 3);
    let memory = memory(&bench.machine, &bytes);
    let adopted = adopt(&bench.manager, spec("a").wipe_adopted(true), &memory, &PLACES).unwrap();
    bench.manager.release(adopted.shard()).unwrap();
    let mut expected = bytes;
    PLACES.iter().for_each(|(at, length)| expected[*at..at + length].fill(0));
    assert!(memory.read(0, BYTES) == expected);
    drop(adopted);
    bench.close();
}

fn memory_twice_under_seal() {
    let bench = Bench::new();
    let memory = memory(&bench.machine, &noise(BYTES, 5));
    let first = adopt(&bench.manager, spec("first"), &memory, &[(0, 5000)]).unwrap();
    for places in [[(0, 5000)], [(4999, 1)], [(4000, 4000)]] {
        let refused = adopt(&bench.manager, spec("second"), &memory, &places).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidParams, "{refused}");
    }
    let second = adopt(&bench.manager, spec("second"), &memory, &[(5000, 5000)]).unwrap();
    bench.manager.release(first.shard()).unwrap();
    bench.manager.execute(second.shard(), |_| ()).unwrap();
    drop((first, second));
    bench.close();
}

/// Whether the refusal is one for where the memory lies, or for what lies there.
#[track_caller]
fn assert_foreign(what: &str, refused: &VramError) {
    assert!(matches!(refused.code(), ErrorCode::PolicyViolation | ErrorCode::InvalidParams), "{what}: {refused}");
}

fn memory_that_is_not_the_devices() {
    // covers: RES-2
    let bench = Bench::new();
    let raw = &bench.machine.raw;
    let memory = memory(&bench.machine, &noise(BYTES, 6));
    let pageable = noise(BYTES, 7);
    let pinned = raw.pinned(BYTES).unwrap();
    let freed = raw.alloc(BYTES);
    raw.free(freed);
    let sealed = bench.seal("sealed", &noise(BYTES, 8));
    for (what, address, bytes) in [
        ("pageable host memory", pageable.as_ptr().expose_provenance() as u64, BYTES),
        ("pinned host memory", pinned.address(), BYTES),
        ("freed memory", freed, BYTES),
        ("beyond its allocation", memory.address(0), BYTES + (64 << 20)),
        ("sealed memory", bench.address(&sealed), BYTES),
        ("part of sealed memory", bench.address(&sealed) + 1, 1),
        ("nothing at all", 1 << 20, 4096),
    ] {
        assert_foreign(what, &refused_regions(&bench.manager, &[RawRegion::new(address, bytes as u64)]));
        // One such region among good ones is enough.
        let regions = [memory.region(0, 1000), RawRegion::new(address, bytes as u64)];
        if what != "beyond its allocation" {
            assert_foreign(what, &refused_regions(&bench.manager, &regions));
        }
    }
    assert_eq!((bench.manager.adopted_vram(), bench.manager.state()), (0, ManagerState::Ready));
    let adopted = adopt(&bench.manager, spec("good"), &memory, &[(0, BYTES)]).unwrap();
    bench.manager.execute(adopted.shard(), |_| ()).unwrap();
    drop((adopted, pinned));
    bench.close();
}

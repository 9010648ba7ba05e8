//! What an attacker who kept a second mapping finds after a shard is gone: zeros, in all of the allocation.
// covers: SCR-1 SCR-3

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use vram_residency::{ErrorCode, ExecuteOptions, ShardSource, digest_bytes};
use vram_residency_harness::{Mapping, fill, reads};

use crate::bench::{Bench, everywhere, mock, noise};

crate::cases! {
    everywhere:
        a_refused_seal_frees_nothing_unwiped;
    everywhere:
        after_release,
        the_rest_of_the_last_granule_too,
        after_quarantine,
        after_the_manager_is_dropped,
        after_a_panic_in_the_work;
    mock:
        after_a_refused_seal
}

const BYTES: usize = 3_000_001;

/// A sealed shard, and the mapping that its attacker keeps.
fn sealed(bench: &Bench, id: &str) -> (vram_residency::SealedShard, u64, Mapping) {
    let bytes = noise(BYTES, 1);
    let shard = bench.seal(id, &bytes);
    let address = bench.address(&shard);
    let alias = bench.alias(address);
    assert!(alias.read()[..BYTES] == bytes, "the alias shows something else");
    (shard, address, alias)
}

#[track_caller]
fn assert_zero(alias: &Mapping) {
    let left = alias.read().iter().filter(|byte| **byte != 0).count();
    assert_eq!(left, 0, "of {} bytes not wiped", alias.bytes());
}

fn after_release() {
    let bench = Bench::new();
    let (shard, _, alias) = sealed(&bench, "a");
    bench.manager.release(&shard).unwrap();
    assert_zero(&alias);
    // What the attacker writes there later is in nobody's way.
    let next = noise(BYTES, 2);
    let shard = bench.seal("a", &next);
    bench.assert_good(&shard, &next);
    drop(alias);
    bench.close();
}

fn the_rest_of_the_last_granule_too() {
    let bench = Bench::new();
    let (shard, address, alias) = sealed(&bench, "a");
    assert!(alias.bytes() > BYTES);
    alias.write(address + BYTES as u64, &vec![0x99; alias.bytes() - BYTES]);
    bench.assert_good(&shard, &noise(BYTES, 1));
    bench.manager.release(&shard).unwrap();
    assert_zero(&alias);
    drop(alias);
    bench.close();
}

fn after_quarantine() {
    let bench = Bench::new();
    let (shard, address, alias) = sealed(&bench, "a");
    alias.flip(address + 5, 5);
    bench.assert_refused(&shard);
    // It is evidence until it is released.
    assert!(alias.read().iter().any(|byte| *byte != 0));
    bench.manager.release(&shard).unwrap();
    assert_zero(&alias);
    drop(alias);
    bench.close();
}

fn after_the_manager_is_dropped() {
    let bench = Bench::new();
    let (_good, _, first) = sealed(&bench, "good");
    let (bad, address, second) = sealed(&bench, "bad");
    second.flip(address, 0);
    bench.assert_refused(&bad);
    let Bench { manager, sink: _, machine } = bench;
    drop(manager);
    assert_zero(&first);
    assert_zero(&second);
    drop((first, second));
    machine.assert_clean();
}

fn after_a_panic_in_the_work() {
    let bench = Bench::new();
    let (shard, _, alias) = sealed(&bench, "a");
    let work = || bench.manager.execute(&shard, |_| std::panic::panic_any("the engine panics"));
    assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
    // It is pinned no longer.
    bench.manager.release(&shard).unwrap();
    assert_zero(&alias);
    drop(alias);
    bench.close();
}

fn a_refused_seal_frees_nothing_unwiped() {
    let bench = Bench::new();
    let bytes = noise(BYTES, 3);
    let wrong = digest_bytes(bench.manager.tree_params(), b"another model");
    let refused = bench.seal_vouched("a", wrong, ShardSource::bytes(&bytes)).unwrap_err();
    assert_eq!((refused.code(), bench.manager.used_vram()), (ErrorCode::DigestMismatch, 0));
    // Nor does an execution that was given up.
    let shard = bench.seal("a", &bytes);
    drop(bench.manager.begin(&shard, ExecuteOptions::default()).unwrap());
    bench.manager.release(&shard).unwrap();
    bench.close(); // which counts what was freed unwiped, where the machine can tell
}

fn after_a_refused_seal() {
    let bench = Bench::new();
    let aliases = Mutex::new(Vec::new());
    let wrong = digest_bytes(bench.manager.tree_params(), b"another model");
    let spy = reads(|before, room: &mut [u8]| {
        let mut aliases = aliases.lock().unwrap();
        if before > BYTES / 2 && aliases.is_empty() {
            let found = bench.machine.mappings().into_iter().filter(|(_, bytes)| *bytes >= BYTES as u64);
            aliases.extend(found.map(|(address, _)| bench.alias(address)));
        }
        Ok(fill(room, BYTES - before, 0x77))
    });
    let source = ShardSource::reader(BYTES as u64, spy);
    let refused = bench.seal_vouched("a", wrong, source).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::DigestMismatch);
    let aliases = aliases.into_inner().unwrap();
    assert_eq!(aliases.len(), 1, "the spy saw the memory that was being loaded");
    assert_zero(&aliases[0]);
    drop(aliases);
    bench.close();
}

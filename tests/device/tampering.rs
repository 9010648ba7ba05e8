//! Bytes that change under seal: whatever changes, wherever, is found before the next execution, and not before.

use vram_residency::{ErrorCode, ExecuteOptions, Severity, digest_bytes};

use crate::bench::{Bench, everywhere, noise, stopped};

crate::cases! {
    everywhere:
        one_bit_anywhere_is_refused,
        every_byte_of_a_small_shard,
        a_change_stops_the_manager,
        a_change_quarantines_only_its_shard_by_choice,
        contents_of_two_shards_swapped,
        zeroed_weights,
        the_padding_is_not_the_image,
        a_change_and_back_between_checks_is_not_seen
}

fn one_bit_anywhere_is_refused() {
    // covers: VER-4
    const BLOCK: u64 = 4096;
    let bench = Bench::lenient();
    let bytes = noise(1_500_001, 1);
    let last = bytes.len() as u64 - 1;
    // First, middle and last byte; both sides of edges of blocks, of subtrees of 512 KiB, and of whole copies.
    let edges = [BLOCK, 2 * BLOCK, 128 * BLOCK, 256 * BLOCK, 1 << 20, last / BLOCK * BLOCK];
    let places = [0, 1, last / 2, last].into_iter().chain(edges.into_iter().flat_map(|edge| [edge - 1, edge]));
    for (count, place) in places.enumerate() {
        let shard = bench.seal("a", &bytes);
        bench.assert_good(&shard, &bytes);
        let address = bench.address(&shard);
        bench.flip(address + place, (count % 8) as u8);
        let (offset, length) = bench.assert_refused(&shard);
        assert!((offset..offset + length).contains(&place), "byte {place} is not in {length} bytes from {offset}");
        bench.manager.release(&shard).unwrap();
    }
    bench.close();
}

fn every_byte_of_a_small_shard() {
    // covers: VER-4
    let bench = Bench::lenient();
    let bytes = noise(67, 2);
    for place in 0..bytes.len() as u64 {
        let shard = bench.seal("a", &bytes);
        let address = bench.address(&shard);
        bench.flip(address + place, (place % 8) as u8);
        bench.assert_refused(&shard);
        bench.manager.release(&shard).unwrap();
    }
    bench.close();
}

fn a_change_stops_the_manager() {
    // covers: VER-5
    let bench = Bench::new();
    let bytes = noise(100_000, 3);
    let (bad, good) = (bench.seal("bad", &bytes), bench.seal("good", &bytes));
    let address = bench.address(&bad);
    let running = bench.manager.begin(&good, ExecuteOptions::default()).unwrap();
    bench.flip(address + 4711, 3);
    let before = bench.sink.events().len();
    bench.assert_refused(&bad);
    assert!(stopped(&bench.manager), "{:?}", bench.manager.state());
    let events = bench.sink.events().split_off(before);
    for name in ["seal_verification_failed", "shard_quarantined", "manager_stopped"] {
        let event = events.iter().find(|event| event.kind.name() == name);
        assert_eq!(event.map(|event| event.kind.severity()), Some(Severity::Critical), "{name}");
    }
    // A result in flight does not count; nothing new begins; evidence can still be taken.
    assert_eq!(running.finish().unwrap_err().code(), ErrorCode::ManagerStopped);
    assert_eq!(bench.manager.execute(&good, |_| ()).unwrap_err().code(), ErrorCode::ManagerStopped);
    bench.manager.verify_sealed(&good).unwrap();
    assert_ne!(bench.manager.compute_vram_digest(&bad).unwrap(), bad.digest());
    assert!(bench.manager.quarantined_vram() > 0);
    bench.manager.release(&bad).unwrap();
    assert_eq!(bench.manager.quarantined_vram(), 0);
    bench.close();
}

fn a_change_quarantines_only_its_shard_by_choice() {
    // covers: VER-5
    let bench = Bench::lenient();
    let bytes = noise(100_000, 4);
    let (bad, good) = (bench.seal("bad", &bytes), bench.seal("good", &bytes));
    let address = bench.address(&bad);
    bench.flip(address, 7);
    bench.assert_refused(&bad);
    bench.assert_good(&good, &bytes);
    // It repeats its failure, also when the bytes are what they were.
    bench.flip(address, 7);
    let refused = bench.manager.execute(&bad, |_| ()).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SealVerificationFailed);
    bench.manager.release(&bad).unwrap();
    let again = bench.seal("bad", &bytes);
    bench.assert_good(&again, &bytes);
    bench.close();
}

fn contents_of_two_shards_swapped() {
    // covers: VER-1
    let bench = Bench::lenient();
    let (one, two) = (noise(50_000, 5), noise(50_000, 6));
    let shards = [bench.seal("one", &one), bench.seal("two", &two)];
    let addresses = [bench.address(&shards[0]), bench.address(&shards[1])];
    bench.machine.tamper(addresses[0], &two);
    bench.machine.tamper(addresses[1], &one);
    for shard in &shards {
        assert_eq!(bench.assert_refused(shard).0, 0);
    }
    // Both are whole models, and each digest is one that was sealed: it is the other's.
    assert_eq!(bench.manager.compute_vram_digest(&shards[0]).unwrap(), shards[1].digest());
    bench.close();
}

fn zeroed_weights() {
    // covers: VER-1
    let bench = Bench::lenient();
    let bytes = noise(50_000, 7);
    let (part, all) = (bench.seal("part", &bytes), bench.seal("all", &bytes));
    let (part_address, all_address) = (bench.address(&part), bench.address(&all));
    bench.machine.tamper(part_address + 8192, &[0; 4096]);
    assert_eq!(bench.assert_refused(&part).0, 0, "the place is as fine as a subtree");
    bench.machine.tamper(all_address, &vec![0; bytes.len()]);
    bench.assert_refused(&all);
    // Zeros that were sealed as zeros are an image like any other.
    let zeros = vec![0; 50_000];
    let sealed = bench.seal("zeros", &zeros);
    assert_eq!(sealed.digest(), digest_bytes(bench.manager.tree_params(), &zeros));
    bench.assert_good(&sealed, &zeros);
    bench.close();
}

/// Bytes behind the image in its last block stand for zeros, whatever they are: no kernel reads them.
fn the_padding_is_not_the_image() {
    let bench = Bench::lenient();
    let bytes = noise(5000, 8);
    let shard = bench.seal("a", &bytes);
    let address = bench.address(&shard);
    bench.flip(address + bytes.len() as u64, 0);
    bench.assert_good(&shard, &bytes);
    bench.flip(address + bytes.len() as u64 - 1, 0);
    bench.assert_refused(&shard);
    bench.close();
}

/// What is promised is that bytes are right when a check reads them: a change that is taken back before is not seen.
fn a_change_and_back_between_checks_is_not_seen() {
    let bench = Bench::new();
    let bytes = noise(100_000, 9);
    let shard = bench.seal("a", &bytes);
    let address = bench.address(&shard);
    bench.flip(address + 70_000, 5);
    bench.flip(address + 70_000, 5);
    bench.assert_good(&shard, &bytes);
    bench.flip(address + 70_000, 5);
    bench.assert_refused(&shard);
    bench.close();
}

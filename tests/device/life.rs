//! From seal to release: sources, reads, the ledger against the device, working memory, several managers, several threads.

use std::io::{Read as _, Write};
use std::time::Duration;

use vram_residency::{ErrorCode, ManagerState, Purpose, ShardSource, StopReason, VramError, digest_bytes};
use vram_residency_harness::{Kind, Machine, fill, reads};

use crate::bench::{Bench, builder, everywhere, machine, noise, spec, stopped};

crate::cases! {
    everywhere:
        every_source_gives_the_same_shard,
        reads_of_any_range,
        the_ledger_is_what_the_device_says,
        out_of_memory_leaves_nothing_behind,
        working_memory_is_zeroed,
        many_rounds_leave_nothing_behind,
        two_managers_on_one_device,
        shutdown_wipes_what_is_left,
        an_unreadable_source_leaves_nothing_behind
}

/// What other users of a GPU may take or give back meanwhile.
const TOLERANCE: u64 = 64 << 20;
/// A shard that such a tolerance cannot hide.
const LARGE: u64 = 8 * TOLERANCE;

/// Bytes that the machine says are in use, and how exactly.
fn in_use(machine: &Machine) -> (u64, u64) {
    match machine.live_bytes() {
        Some(bytes) => (bytes, 0),
        None => {
            let (free, total) = machine.raw.memory_info();
            (total - free, TOLERANCE)
        }
    }
}

#[track_caller]
fn assert_grown(machine: &Machine, before: u64, by: u64) {
    let (now, tolerance) = in_use(machine);
    assert!(now.abs_diff(before + by) <= tolerance, "{now} bytes in use, {before} before, {by} ours");
}

fn every_source_gives_the_same_shard() {
    // covers: RES-1 VER-1
    let bench = Bench::new();
    let bytes = noise(3_000_001, 3);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file.flush().unwrap();
    let digest = digest_bytes(bench.manager.tree_params(), &bytes);
    let sources = || {
        [
            ("bytes", ShardSource::bytes(&bytes)),
            ("reader", ShardSource::reader(bytes.len() as u64, &bytes[..])),
            ("file", ShardSource::file(file.path()).unwrap()),
        ]
    };
    for (id, source) in sources() {
        let shard = bench.seal_vouched(id, digest, source).unwrap();
        assert_eq!((shard.digest(), shard.byte_len()), (digest, bytes.len() as u64), "{id}");
        assert_eq!(bench.manager.verify_sealed(&shard).unwrap().digest, digest, "{id}");
        bench.assert_good(&shard, &bytes);
        assert_eq!(bench.peek(bench.address(&shard), bytes.len()), bytes, "{id}");
        assert!(bench.manager.release(&shard).unwrap().bytes >= bytes.len() as u64, "{id}");
        assert_eq!(bench.manager.release(&shard).unwrap_err().code(), ErrorCode::StaleHandle, "{id}");
        assert_eq!(bench.manager.execute(&shard, |_| ()).unwrap_err().code(), ErrorCode::StaleHandle, "{id}");
    }
    let wrong = digest_bytes(bench.manager.tree_params(), b"another model");
    for (id, source) in sources() {
        let refused = bench.seal_vouched(id, wrong, source).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::DigestMismatch, "{id}");
    }
    assert_eq!((bench.manager.used_vram(), bench.manager.state()), (0, ManagerState::Ready));
    bench.close();
}

fn reads_of_any_range() {
    let bench = Bench::new();
    let bytes = noise(2_500_003, 4);
    let shard = bench.seal("a", &bytes);
    let run = bench.manager.begin(&shard, vram_residency::ExecuteOptions::default()).unwrap();
    for (from, length) in [(0, 1), (0, 0), (4095, 2), (1 << 20, 1 << 20), (bytes.len() - 1, 1), (17, 1_234_567)] {
        let mut read = vec![0; length];
        run.read_at(from as u64, &mut read).unwrap();
        assert!(read == bytes[from..from + length], "{length} bytes from {from}");
    }
    for (from, length) in [(bytes.len(), 1), (bytes.len() - 1, 2), (usize::MAX, 1)] {
        let refused = run.read_at(from as u64, &mut vec![0; length]).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidParams, "{length} bytes from {from}");
    }
    run.finish().unwrap();
    bench.close();
}

fn the_ledger_is_what_the_device_says() {
    // covers: RES-5
    let bench = Bench::new();
    let (before, _) = in_use(&bench.machine);
    // On a GPU others may take a little meanwhile: there each step must be far more than that.
    let lengths: &[u64] = match bench.machine.kind() {
        Kind::Cuda(_) => &[LARGE, LARGE + 1],
        Kind::Mock => &[1, 1 << 20, (2 << 20) + 1, 50 << 20],
    };
    let mut shards = Vec::new();
    for (at, length) in lengths.iter().enumerate() {
        let source = ShardSource::reader(*length, std::io::repeat(at as u8 + 1).take(*length));
        shards.push(bench.manager.seal_model(spec(&format!("s{at}")), source).unwrap());
        assert_grown(&bench.machine, before, bench.manager.used_vram());
    }
    let scratch = bench.manager.allocate_scratch(Purpose::KvCache, 5_000_000).unwrap();
    let least = lengths.iter().sum::<u64>() + 5_000_000;
    assert!(bench.manager.used_vram() >= least, "{}", bench.manager.used_vram());
    assert_grown(&bench.machine, before, bench.manager.used_vram());
    let (used, available) = (bench.manager.used_vram(), bench.manager.available_vram());
    assert_eq!(used + available, bench.manager.total_vram());
    drop(scratch);
    for shard in &shards {
        bench.manager.release(shard).unwrap();
        assert_grown(&bench.machine, before, bench.manager.used_vram());
    }
    assert_eq!(bench.manager.used_vram(), 0);
    bench.close();
}

fn out_of_memory_leaves_nothing_behind() {
    // covers: RES-6 RES-3
    const ROOM: u64 = 96 << 20;
    let machine = machine();
    let total = builder(&machine).build().unwrap().total_vram();
    // A GPU never has all of its memory free: contexts and code take some of it.
    machine.set_overhead(128 << 20);
    let free = machine.raw.memory_info().0;
    assert!(free < total);
    let bench = Bench::on(machine, |builder| builder.headroom(free - ROOM));
    let bytes = noise(8 << 20, 5);
    let kept = bench.seal("kept", &bytes);
    let (before, _) = in_use(&bench.machine);
    let used = bench.manager.used_vram();
    let large = ROOM;
    for _ in 0..3 {
        let source = ShardSource::reader(large, std::io::repeat(7));
        match bench.manager.seal_model(spec("large"), source).unwrap_err() {
            VramError::OutOfMemory { needed, available } => {
                assert!(needed >= large && available < needed, "{needed} needed, {available} available");
            }
            other => panic!("{other}"),
        }
        let refused = bench.manager.allocate_scratch(Purpose::Activations, large).map(drop).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::VramOom);
        assert_eq!(bench.manager.used_vram(), used);
        assert_grown(&bench.machine, before, 0);
    }
    bench.assert_good(&kept, &bytes);
    let smaller = bench.seal("smaller", &noise(16 << 20, 6));
    bench.manager.release(&smaller).unwrap();
    bench.close();
}

fn working_memory_is_zeroed() {
    // covers: RES-10
    const BYTES: usize = 700_001;
    let bench = Bench::new();
    let stream = bench.stream();
    for round in 0..3 {
        let mut scratch = bench.manager.allocate_scratch(Purpose::KvCache, BYTES as u64).unwrap();
        // SAFETY: the stream lives until the scratch has been released below.
        unsafe { scratch.used_on(stream.raw()) };
        // SAFETY: the memory is written by the stream that was just named, and read by this thread only.
        let address = unsafe { scratch.device_ptr() }.as_u64();
        assert!(bench.peek(address, BYTES).iter().all(|byte| *byte == 0), "round {round}: handed out dirty");
        let alias = bench.alias(address);
        // Enqueued and not waited for: the wipe is what waits.
        stream.fill(address, BYTES, 0xC3);
        scratch.release().unwrap();
        assert!(alias.read().iter().all(|byte| *byte == 0), "round {round}: given back dirty");
    }
    drop(stream);
    assert_eq!(bench.manager.used_vram(), 0);
    bench.close();
}

fn many_rounds_leave_nothing_behind() {
    // covers: SCR-1
    let bench = Bench::new();
    let (before, _) = in_use(&bench.machine);
    for round in 0..60_u64 {
        let bytes = noise(1 + (round as usize * 7919) % 300_000, round);
        let shard = bench.seal("round", &bytes);
        bench.assert_good(&shard, &bytes);
        bench.manager.release(&shard).unwrap();
    }
    assert_eq!((bench.manager.used_vram(), bench.manager.quarantined_vram()), (0, 0));
    assert_grown(&bench.machine, before, 0);
    bench.close();
}

fn two_managers_on_one_device() {
    let bench = Bench::new();
    let second = builder(&bench.machine).build().unwrap();
    let (one, two) = (noise(100_000, 1), noise(200_000, 2));
    let first_shard = bench.seal("same.name", &one);
    let second_shard = second.seal_model(spec("same.name"), ShardSource::bytes(&two)).unwrap();
    assert_eq!(bench.manager.device_uuid(), second.device_uuid());
    // A seal counts with the manager that made it.
    for refused in [second.execute(&first_shard, |_| ()), bench.manager.execute(&second_shard, |_| ())] {
        assert_eq!(refused.unwrap_err().code(), ErrorCode::SealVerificationFailed);
    }
    assert_eq!((bench.manager.state(), second.state()), (ManagerState::Ready, ManagerState::Ready));
    // What stops one leaves the other alone.
    let address = bench.address(&first_shard);
    bench.flip(address, 0);
    bench.assert_refused(&first_shard);
    assert!(stopped(&bench.manager));
    second.execute(&second_shard, |_| ()).unwrap();
    drop(second);
    bench.close();
}

fn shutdown_wipes_what_is_left() {
    // covers: SCR-3
    let bench = Bench::new();
    let shards = [bench.seal("a", &noise(70_000, 1)), bench.seal("b", &noise(3_000_000, 2))];
    let aliases: Vec<_> = shards.iter().map(|shard| bench.alias(bench.address(shard))).collect();
    let report = bench.manager.shutdown(Duration::from_secs(10));
    assert!(report.drained && report.wiped_bytes >= 3_070_000, "{report:?}");
    assert_eq!((report.residue_bytes, report.busy_bytes, bench.manager.used_vram()), (0, 0, 0));
    assert_eq!(bench.manager.state(), ManagerState::Stopped(StopReason::Shutdown));
    for alias in &aliases {
        assert!(alias.read().iter().all(|byte| *byte == 0), "weights are left");
    }
    let refused = bench.manager.seal_model(spec("c"), ShardSource::bytes(b"late")).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ManagerStopped);
    drop(aliases);
    bench.close();
}

fn an_unreadable_source_leaves_nothing_behind() {
    // A source that ends early, and one that fails half-way.
    let failing = reads(|before, room: &mut [u8]| match 5_000_000 - before {
        0 => Err(std::io::Error::other("the disk is gone")),
        left => Ok(fill(room, left, 0x5B)),
    });
    let bench = Bench::new();
    let (before, _) = in_use(&bench.machine);
    let bytes = noise(2_000_000, 8);
    let short = ShardSource::reader(3_000_000, &bytes[..]);
    assert_eq!(bench.manager.seal_model(spec("a"), short).unwrap_err().code(), ErrorCode::ModelLoadFailed);
    let failing = ShardSource::reader(6_000_000, failing);
    assert_eq!(bench.manager.seal_model(spec("a"), failing).unwrap_err().code(), ErrorCode::ModelLoadFailed);
    assert_eq!(bench.manager.used_vram(), 0);
    assert_grown(&bench.machine, before, 0);
    let shard = bench.seal("a", &bytes);
    bench.assert_good(&shard, &bytes);
    bench.close();
}

//! Which device it is, and which memory counts as its own.
// covers: RES-2

use std::sync::Arc;

use vram_residency::{DeviceKind, DeviceSelector, DeviceUuid, ErrorCode, RawRegion, SealedShard, ShardSource};
use vram_residency_harness::{Kind, Memory, Raw, Refused};

use crate::bench::{Bench, builder, everywhere, gpu, machine, mock, noise, refused_regions, safetensors, spec};

crate::cases! {
    everywhere:
        the_device_is_the_one_asked_for,
        a_device_that_is_not_there;
    gpu:
        a_device_by_its_uuid;
    exportable:
        memory_made_for_export;
    managed:
        managed_memory;
    mock:
        the_tensors_of_a_shard_are_packed_and_no_granule_holds_two_shards
}

fn makes<T>(kind: Kind, make: impl FnOnce(&Arc<Raw>) -> Result<T, Refused>, why: &'static str) -> Option<&'static str> {
    (kind != Kind::Mock && make(&machine().raw).is_err()).then_some(why)
}

fn exportable(kind: Kind) -> Option<&'static str> {
    makes(kind, |raw| raw.exportable(4096), "the device makes no memory for export")
}

fn managed(kind: Kind) -> Option<&'static str> {
    makes(kind, |raw| Memory::managed(raw, 4096), "the device makes no managed memory")
}

fn the_device_is_the_one_asked_for() {
    let bench = Bench::new();
    let (kind, ordinal) = match bench.machine.kind() {
        Kind::Mock => (DeviceKind::Mock, 0),
        Kind::Cuda(ordinal) => (DeviceKind::Cuda, ordinal),
    };
    assert_eq!((bench.manager.device_kind(), bench.manager.device_ordinal()), (kind, ordinal));
    assert!(!bench.manager.device_name().is_empty() && bench.manager.total_vram() > 0);
    let info = bench.manager.memory_info().unwrap();
    assert!(info.free <= info.total, "{info:?}");
    // Its identity is in every seal, and the same each time.
    let again = builder(&bench.machine).build().unwrap();
    assert_eq!(again.device_uuid(), bench.manager.device_uuid());
    let shard = bench.seal("a", &noise(1000, 1));
    assert_eq!(shard.device().uuid, bench.manager.device_uuid());
    drop(again);
    bench.close();
}

fn a_device_that_is_not_there() {
    let machine = machine();
    let refused = builder(&machine).device(machine.selector_of(4711)).build().map(drop).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::DeviceUnavailable, "{refused}");
    assert!(refused.to_string().contains("4711"), "{refused}");
}

fn a_device_by_its_uuid() {
    let bench = Bench::new();
    let uuid = bench.manager.device_uuid();
    let same = builder(&bench.machine).device(DeviceSelector::CudaUuid(uuid)).build().unwrap();
    assert_eq!((same.device_uuid(), same.device_ordinal()), (uuid, bench.manager.device_ordinal()));
    drop(same);
    let mut bytes = *uuid.as_bytes();
    bytes[7] ^= 1;
    let other = DeviceSelector::CudaUuid(DeviceUuid::from_bytes(bytes));
    let refused = builder(&bench.machine).device(other).build().map(drop).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::DeviceUnavailable, "{refused}");
    bench.close();
}

/// Refuses such memory, whole and in part.
fn refuse<T>(make: impl FnOnce(&Arc<Raw>) -> (u64, T)) {
    const BYTES: u64 = 1 << 20;
    let bench = Bench::new();
    let (address, foreign) = make(&bench.machine.raw);
    for region in [RawRegion::new(address, BYTES), RawRegion::new(address + 4097, 1)] {
        let refused = refused_regions(&bench.manager, &[region]);
        assert_eq!(refused.code(), ErrorCode::PolicyViolation, "{refused}");
    }
    // An ordinary allocation of the engine's is taken.
    let memory = crate::bench::memory(&bench.machine, &noise(5000, 2));
    let adopted = crate::bench::adopt(&bench.manager, crate::bench::spec("a"), &memory, &[(0, 5000)]).unwrap();
    bench.manager.execute(adopted.shard(), |_| ()).unwrap();
    drop((adopted, foreign));
    bench.close();
}

fn memory_made_for_export() {
    refuse(|raw| raw.exportable(1 << 20).map(|memory| (memory.address(), memory)).unwrap());
}

fn managed_memory() {
    refuse(|raw| Memory::managed(raw, 1 << 20).map(|memory| (memory.address(0), memory)).unwrap());
}

fn the_tensors_of_a_shard_are_packed_and_no_granule_holds_two_shards() {
    // covers: DEV-5
    let bench = Bench::new();
    let (granule, block) = (bench.machine.granularity(), u64::from(bench.manager.tree_params().block_size()));
    let mappings = || bench.machine.mappings();
    let sealed = |name: &str, lengths: &[usize]| -> (SealedShard, Vec<(u64, u64)>) {
        let (before, used) = (mappings(), bench.manager.used_vram());
        let tensors: Vec<Vec<u8>> = (0..).zip(lengths).map(|(seed, bytes)| noise(*bytes, seed)).collect();
        let file = safetensors(&tensors);
        let shard = bench.manager.seal_model(spec(name), ShardSource::safetensors(file.path()).unwrap()).unwrap();
        let new: Vec<(u64, u64)> = mappings().into_iter().filter(|one| !before.contains(one)).collect();
        let taken = bench.manager.used_vram() - used;
        assert_eq!(taken, new.iter().map(|(_, bytes)| bytes).sum::<u64>(), "{name}: the ledger, and what is mapped");
        (shard, new)
    };
    let lengths: [&[usize]; 3] = [&[5, 70_000, 1, 4096, 3_000_001], &[100], &[4095, 4097]];
    let shards: Vec<_> =
        ["a", "b", "c"].into_iter().zip(lengths).map(|(name, lengths)| sealed(name, lengths)).collect();
    let mut granules = std::collections::BTreeSet::new();
    for ((shard, mapped), lengths) in shards.iter().zip(lengths) {
        // Whole granules, which nobody else has: of its own image, and of its check space.
        for (address, bytes) in mapped {
            assert_eq!((address % granule, bytes % granule), (0, 0));
            for at in 0..bytes / granule {
                assert!(granules.insert(address + at * granule), "a granule holds two shards");
            }
        }
        let places = bench.manager.execute(shard, |weights| {
            let regions = weights.regions();
            // SAFETY: the addresses are compared, never followed.
            regions
                .iter()
                .map(|region| (unsafe { region.device_ptr() }.as_u64(), region.byte_len()))
                .collect::<Vec<_>>()
        });
        let places = places.unwrap();
        // One after the other, each from the next block on, in one mapping that has no granule to spare.
        let (start, room) = *mapped.iter().find(|(address, _)| *address == places[0].0).unwrap();
        let mut next = start;
        for ((address, bytes), wanted) in places.iter().zip(lengths) {
            assert_eq!((*address, *bytes), (next.next_multiple_of(block), *wanted as u64));
            next = address + bytes;
        }
        assert_eq!((places.len(), room), (lengths.len(), (next - start).next_multiple_of(granule)));
    }
    assert_eq!(mappings().len(), shards.iter().map(|(_, mapped)| mapped.len()).sum::<usize>());
    for (shard, _) in &shards {
        bench.manager.release(shard).unwrap();
    }
    assert_eq!(mappings(), []);
    bench.close();
}

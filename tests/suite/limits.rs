//! Sizes at the edges: shards on either side of 4 GiB, a shard of 130 GiB, devices of every size up to 2^64 - 1 bytes.
//!
//! On sparse machines, whose zeros cost nothing. What takes minutes is left out unless asked for: `ci/deep.sh limits`.
// covers: RES-7

mod tree;

use tree::Image;

use crate::*;

const GIB: u64 = 1 << 30;

fn sparse(capacity: u64) -> MockConfig {
    MockConfig::new().capacity_bytes(capacity).sparse(true)
}

/// A manager that goes on after a failure, with blocks of this size and large staging.
fn rig(capacity: u64, block_size: u32) -> Rig {
    Rig::with(sparse(capacity), |builder| {
        builder
            .tree_params(block(block_size))
            .staging(16 << 20)
            .digest_threads(2)
            .on_integrity_failure(OnIntegrityFailure::QuarantineShard)
    })
}

fn refused(rig: &Rig, bytes: u64) -> VramError {
    rig.manager.seal_model(spec("large"), ShardSource::reader(bytes, never())).unwrap_err()
}

/// Seals, verifies, reads at the edges, flips one bit at `flip` and finds it there, wipes and releases.
fn life(rig: &Rig, image: &Image, block_size: u64, measured: bool, flip: u64) {
    let expected = image.digest(block_size);
    let vouched = spec("large").expect(vouching::file(rig.manager.tree_params(), expected));
    let chosen = if measured { spec("large") } else { vouched };
    let before = rig.manager.used_vram();
    let shard = rig.manager.seal_model(chosen, ShardSource::reader(image.bytes, image.reader())).unwrap();
    assert_eq!((shard.byte_len(), shard.digest()), (image.bytes, expected));
    let parsed = SealedShard::from_bytes(&shard.to_bytes()).unwrap();
    assert_eq!((parsed.byte_len(), parsed.digest()), (image.bytes, expected));
    assert!(rig.manager.used_vram() - before > image.bytes);
    rig.assert_recount();
    let marks: Vec<(u64, u8)> = image.marks.iter().map(|(at, value)| (*at, *value)).collect();
    let bytes_there = rig.manager.execute(&shard, |verified| {
        let mut byte = [0];
        for (at, value) in &marks {
            verified.read_at(*at, &mut byte).unwrap();
            assert_eq!(byte[0], *value, "byte {at}");
        }
        for (at, room) in [(image.bytes, 1), (u64::MAX, 1), (u64::MAX - 1, 2), (image.bytes - 1, 2)] {
            let beyond = verified.read_at(at, &mut vec![0; room]).unwrap_err();
            assert!(matches!(beyond, VramError::InvalidParams { .. }), "{beyond:?}");
        }
        verified.byte_len()
    });
    assert_eq!(bytes_there.unwrap(), image.bytes);
    for nowhere in [image.bytes, u64::MAX] {
        assert!(rig.controls().flip_bit(&shard, nowhere, 0).is_err());
    }
    rig.flip_bit(&shard, flip, 3);
    let subtree = block_size * block_size / 32;
    let offset = flip / subtree * subtree;
    let bytes = subtree.min(image.bytes - offset);
    match rig.manager.verify_sealed(&shard) {
        Err(VramError::IntegrityFailure { first_bad: Some(BadRange { offset: found, bytes: length, .. }), .. }) => {
            assert_eq!((found, length), (offset, bytes));
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.manager.execute(&shard, |_| panic!("it ran on changed bytes")).is_err());
    let report = rig.manager.release(&shard).unwrap();
    assert!(report.bytes > image.bytes);
    assert_eq!(rig.manager.used_vram(), before);
}

#[test]
fn a_sparse_machine_gives_the_digests_and_proofs_of_any_other() {
    let mut dice = Dice::new(4);
    for _ in 0..12 {
        let mut bytes = vec![0; 1 + dice.below(9 << 20) as usize];
        for _ in 0..dice.below(4) {
            let at = dice.below(bytes.len() as u64) as usize;
            let some = noise((dice.below(6000) as usize).min(bytes.len() - at), dice.next());
            bytes[at..at + some.len()].copy_from_slice(&some);
        }
        let digest = digest_bytes(&block(4096), &bytes);
        for config in [sparse(32 << 20), sparse(32 << 20).poison(false), MockConfig::new().capacity_bytes(32 << 20)] {
            let rig = Rig::with(config, |builder| builder.tree_params(block(4096)));
            let shard = rig.seal("a", &bytes);
            assert_eq!((shard.digest(), rig.manager.compute_vram_digest(&shard).unwrap()), (digest, digest));
            let at = dice.below(bytes.len() as u64);
            rig.flip_bit(&shard, at, 7);
            assert!(rig.manager.verify_sealed(&shard).is_err(), "a flip at {at} of {} was not found", bytes.len());
            rig.manager.release(&shard).unwrap();
            rig.close_clean();
        }
    }
}

#[test]
fn a_shard_across_4_gib_is_sealed_verified_flipped_found_and_wiped() {
    let rig = rig(5 * GIB, 65536);
    let bytes = 4 * GIB + 70_001;
    let marks = [(0, 1), (4 * GIB - 1, 2), (4 * GIB, 3), (4 * GIB + 1, 4), (bytes - 1, 5)];
    life(&rig, &Image::new(bytes, &marks), 65536, false, 4 * GIB + 65_537);
    rig.close_clean();
}

#[test]
#[ignore = "hashes 4 GiB several times: ci/deep.sh limits"]
fn shards_on_either_side_of_4_gib_with_every_byte_hashed() {
    let rig = rig(5 * GIB, 4096);
    for bytes in [4 * GIB - 1, 4 * GIB, 4 * GIB + 1] {
        for flip in [0, bytes / 2, bytes - 1] {
            life(&rig, &Image::new(bytes, &[(7, 7), (bytes - 1, 1)]), 4096, true, flip);
        }
    }
    rig.close_clean();
    // Not sparse: no digest of zeros is known beforehand, and each byte lies in memory.
    let dense = Rig::with(MockConfig::new().capacity_bytes(5 * GIB).poison(false), |builder| {
        builder.tree_params(block(4096)).staging(16 << 20).on_integrity_failure(OnIntegrityFailure::QuarantineShard)
    });
    life(&dense, &Image::new(4 * GIB + 1, &[(4 * GIB, 9)]), 4096, true, 4 * GIB);
    dense.close_clean();
}

#[test]
#[ignore = "reads 130 GiB: ci/deep.sh limits"]
fn a_shard_of_130_gib_is_sealed_verified_flipped_found_and_wiped() {
    let rig = rig(141 * GIB, 65536);
    let bytes = 130 * GIB;
    let marks = [(0, 1), (4 * GIB, 2), (64 * GIB + 5, 3), (bytes - 1, 4)];
    life(&rig, &Image::new(bytes, &marks), 65536, false, bytes - 1);
    rig.close_clean();
}

#[test]
fn working_memory_of_130_gib_is_counted_wiped_and_given_back() {
    let rig = rig(141 * GIB, 4096);
    let first = rig.manager.allocate_scratch(Purpose::KvCache, 130 * GIB).unwrap();
    assert_eq!(first.byte_len(), 130 * GIB);
    rig.assert_recount();
    let used = rig.manager.used_vram();
    assert!((130 * GIB..130 * GIB + 4096).contains(&used));
    let error = rig.manager.allocate_scratch(Purpose::KvCache, 11 * GIB).unwrap_err();
    assert!(
        matches!(error, VramError::OutOfMemory { needed, available }
            if (11 * GIB..11 * GIB + 4096).contains(&needed) && available == 141 * GIB - used),
        "{error:?}"
    );
    let second = rig.manager.allocate_scratch(Purpose::KvCache, 10 * GIB).unwrap();
    rig.assert_recount();
    first.release().unwrap();
    second.release().unwrap();
    assert_eq!(rig.manager.used_vram(), 0);
    rig.close_clean();
}

#[test]
fn a_shard_fits_to_the_byte_or_is_refused_unread() {
    for (block_size, bytes) in
        [(4096, 130 * GIB), (65536, 130 * GIB), (1024, 4 * GIB - 1), (4096, 4 * GIB), (4096, 4 * GIB + 1)]
    {
        let check = check_bytes(bytes, block_size);
        let needed = bytes.next_multiple_of(256) + check.next_multiple_of(256);
        let rig = Rig::with(sparse(needed - 256), |builder| builder.tree_params(block(block_size as u32)));
        // Known answers, run at the start, are gone again: all of the device is there.
        assert_eq!(rig.manager.available_vram(), needed - 256);
        match refused(&rig, bytes) {
            VramError::OutOfMemory { needed: asked, available } => {
                assert_eq!((asked, available), (needed, needed - 256))
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(rig.manager.used_vram(), 0);
        let small = rig.seal("small", b"fits");
        rig.manager.release(&small).unwrap();
        rig.close_clean();
    }
}

#[test]
fn no_length_makes_anything_panic_or_wrap() {
    let edges =
        [1, 255, 256, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 40, 1 << 63, u64::MAX - 4096, u64::MAX - 1, u64::MAX];
    for capacity in [1 << 20, 1 << 32, 1 << 63, u64::MAX] {
        let rig = Rig::with(sparse(capacity), |builder| builder);
        for bytes in edges.into_iter().filter(|bytes| *bytes >= capacity || *bytes > 1 << 47) {
            let error = refused(&rig, bytes);
            assert!(
                matches!(error, VramError::OutOfMemory { .. } | VramError::InvalidParams { field: "shard length", .. }),
                "{bytes} bytes of {capacity}: {error:?}"
            );
            let error = rig.manager.allocate_scratch(Purpose::Activations, bytes).unwrap_err();
            assert!(
                matches!(error, VramError::OutOfMemory { .. } | VramError::InvalidParams { .. }),
                "{bytes} bytes of {capacity}: {error:?}"
            );
            assert_eq!(rig.manager.used_vram(), 0);
        }
        let error = rig.manager.seal_model(spec("none"), ShardSource::reader(0, std::io::empty())).unwrap_err();
        assert!(matches!(error, VramError::InvalidParams { field: "shard length", .. }), "{error:?}");
        rig.seal("small", b"still here");
        rig.close_clean();
    }
}

#[test]
fn headroom_is_kept_of_devices_of_every_size() {
    for (total, headroom) in [
        (1000 << 10, 100 << 10),
        (40 * GIB - 10, 4 * GIB - 1),
        (40 * GIB, 4 * GIB),
        (40 * GIB + 10, 4 * GIB),
        (141 * GIB, 4 * GIB),
        (1 << 63, 4 * GIB),
        (u64::MAX, 4 * GIB),
    ] {
        let manager =
            VramManager::builder(WorkerId::new("limits").unwrap(), WorkerSecret::from_bytes(&[3; 32]).unwrap())
                .device(DeviceSelector::Mock(sparse(total)))
                .policy(Policy::development())
                .build()
                .unwrap();
        assert_eq!((manager.total_vram(), manager.available_vram()), (total, total - headroom), "{total}");
        for headroom in [total, u64::MAX] {
            let error = builder(&sparse(total)).headroom(headroom).build().unwrap_err();
            assert!(matches!(error, VramError::Config { setting: "headroom", .. }), "{error:?}");
        }
    }
}

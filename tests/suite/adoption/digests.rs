//! Regions of any length and alignment: their digest, their layout, and reads across them.

use std::num::NonZeroUsize;

use super::lengths;
use crate::*;

#[test]
fn hundreds_of_regions_of_any_alignment_have_the_digest_of_their_image_and_of_their_file() {
    // covers: RES-9 DIG-3 DIG-1
    for (seed, params) in [block(1024), block(4096), TreeParams::new(2048, b"some salt").unwrap()].iter().enumerate() {
        let rig = Rig::with(small(), |b| b.tree_params(params.clone()));
        let mut dice = Dice::new(seed as u64);
        let block = params.block_size() as usize;
        let lengths = lengths(&mut dice, 700, block);
        let (arena, places) = scatter(&mut dice, &lengths);
        let image = image(&arena.bytes(), &places, block);
        let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &regions(&arena, &places));
        let adopted = adopted.unwrap();
        let shard = adopted.shard();
        assert_eq!((shard.digest(), shard.byte_len()), (digest_bytes(params, &image), image.len() as u64));
        assert!(shard.is_adopted() && shard.origin() == Origin::Measured);
        assert_eq!(rig.manager.compute_vram_digest(shard).unwrap(), shard.digest());

        let tensors: Vec<Vec<u8>> =
            places.iter().map(|(at, bytes)| (*at..at + bytes).map(|at| arena.get(at)).collect()).collect();
        let seal = |id, tensors: &[Vec<u8>]| {
            let file = safetensors(tensors);
            rig.manager.seal_model(spec(id), ShardSource::safetensors(file.path()).unwrap()).unwrap()
        };
        let from_file = seal("file", &tensors);
        assert_eq!(from_file.digest(), shard.digest());
        assert!(!from_file.is_adopted(), "the flag is signed: one seal has it and the other has not");
        // The twin: one byte of one tensor is another.
        let mut other = tensors.clone();
        *other[350].last_mut().unwrap() ^= 1;
        assert_ne!(seal("other", &other).digest(), shard.digest());

        let adopted_bytes: u64 = lengths.iter().map(|bytes| *bytes as u64).sum();
        assert_eq!(rig.manager.adopted_vram(), adopted_bytes, "regions are counted, padding is not");
        assert_eq!(rig.config.stats().live_foreign, 700);
        rig.assert_recount();
        rig.manager.release(shard).unwrap();
        assert_eq!((rig.manager.adopted_vram(), drops.count()), (0, 0));
        drop(adopted);
        assert_eq!(drops.count(), 1);
        rig.close_clean();
    }
}

#[test]
fn reads_cross_virtual_padding_and_see_zeros_there() {
    // covers: RES-9 DIG-3
    let rig = Rig::new();
    let mut dice = Dice::new(8);
    let lengths = lengths(&mut dice, 60, 1024);
    let (arena, places) = scatter(&mut dice, &lengths);
    let image = image(&arena.bytes(), &places, 1024);
    let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &regions(&arena, &places));
    let adopted = adopted.unwrap();
    let run = rig.begin(adopted.shard());
    for round in 0..500 {
        let from = if round == 0 { 0 } else { dice.below(image.len() as u64) as usize };
        let to = if round == 0 { image.len() } else { from + dice.below((image.len() - from) as u64 + 1) as usize };
        let mut out = vec![0xAA; to - from];
        run.read_at(from as u64, &mut out).unwrap();
        assert!(out == image[from..to], "{from}..{to}");
    }
    for beyond in [image.len() as u64, u64::MAX] {
        assert_error!(run.read_at(beyond, &mut [0]), VramError::InvalidParams { field: "offset", .. });
    }
    let found = run.regions();
    assert_eq!(found.len(), 60);
    for (region, (at, bytes)) in found.iter().zip(&places) {
        assert_eq!((region.byte_len(), region.offset()), (*bytes as u64, offset(&places, 1024, *at).unwrap()));
        let tensor = region.tensor().unwrap();
        assert_eq!((tensor.bytes, tensor.offset), (region.byte_len(), region.offset()));
        // SAFETY: the address is compared, never followed.
        assert_eq!(unsafe { region.device_ptr() }.as_u64(), arena.address(*at), "where it lies, not a copy");
    }
    run.finish().unwrap();
    rig.manager.release(adopted.shard()).unwrap();
    drop(adopted);
    rig.close_clean();
}

const PLACES: [(usize, usize); 2] = [(3, 3000), (9000, 777)];

/// The regions of [`PLACES`] with these names, types and shapes.
fn described(arena: &Arena, tensors: [(&str, &str, &[u64]); 2]) -> Vec<RawRegion> {
    let regions = PLACES.iter().zip(tensors);
    regions.map(|((at, bytes), (name, dtype, shape))| arena.region(*at, *bytes).tensor(name, dtype, shape)).collect()
}

#[test]
fn described_regions_are_the_file_that_they_came_from() {
    // covers: DIG-6 RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 1));
    let bytes = arena.bytes();
    let file = safetensors(&PLACES.map(|(at, length)| bytes[at..at + length].to_vec()));
    let source = ShardSource::safetensors(file.path()).unwrap();
    let file = digest_source(source, rig.manager.tree_params(), NonZeroUsize::MIN).unwrap();
    let vouched = || spec("engine").expect(Expectation::Image { digest: file.digest, layout: file.layout.digest() });
    let good = described(&arena, [("t00000", "U8", &[3000]), ("t00001", "U8", &[777])]);
    let (adopted, _) = adopt(&rig.manager, vouched(), &arena, &good);
    let shard = adopted.unwrap().shard().clone();
    assert_eq!((shard.origin(), shard.digest()), (Origin::Expected, file.digest));
    assert_eq!(shard.layout_digest(), file.layout.digest());
    rig.manager.release(&shard).unwrap();
    // The same bytes under another name, of another type or shape, or without a word.
    for regions in [
        described(&arena, [("t00001", "U8", &[3000]), ("t00000", "U8", &[777])]),
        described(&arena, [("t00000", "I8", &[3000]), ("t00001", "U8", &[777])]),
        described(&arena, [("t00000", "U8", &[30, 100]), ("t00001", "U8", &[777])]),
        described(&arena, [("region 0", "U8", &[3000]), ("region 1", "U8", &[777])]),
        PLACES.map(|(at, length)| arena.region(at, length)).to_vec(),
    ] {
        let error = refused(adopt(&rig.manager, vouched(), &arena, &regions).0).0;
        assert!(matches!(error, VramError::DigestMismatch { of: DigestKind::Layout, .. }), "{error}");
    }
    rig.close_clean();
}

#[test]
fn descriptions_that_cannot_be_and_expectations_of_files_are_refused_in_words() {
    // covers: DIG-6 RES-9 VAL-2
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 1));
    let good = || described(&arena, [("a", "U8", &[3000]), ("b", "U8", &[777])]);
    let half = vec![arena.region(3, 3000).tensor("a", "U8", &[3000]), arena.region(9000, 777)];
    for (part, regions) in [
        ("not all described: number 1", half),
        ("\"a\" twice", described(&arena, [("a", "U8", &[3000]), ("a", "U8", &[777])])),
        ("\"a\" has the type \"u8\"", described(&arena, [("a", "u8", &[3000]), ("b", "U8", &[777])])),
        ("\"b\" is not 777 bytes", described(&arena, [("a", "U8", &[3000]), ("b", "U8", &[778])])),
        ("\"a\" is not 3000 bytes", described(&arena, [("a", "F32", &[3000]), ("b", "U8", &[777])])),
        ("\"a\" is not 3000 bytes", described(&arena, [("a", "F32", &[u64::MAX, u64::MAX]), ("b", "U8", &[777])])),
    ] {
        let error = refused(adopt(&rig.manager, spec("engine"), &arena, &regions).0).0;
        assert!(matches!(error, VramError::InvalidParams { field: "regions", .. }), "{error}");
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    for expectation in [Expectation::FsVerity(Digest::from_bytes([0; 32])), Expectation::Sha256([0; 32])] {
        let error = refused(adopt(&rig.manager, spec("engine").expect(expectation), &arena, &good()).0).0;
        assert!(matches!(error, VramError::InvalidParams { field: "expectation", .. }), "{error}");
    }
    let (adopted, _) = adopt(&rig.manager, spec("engine"), &arena, &good());
    rig.manager.release(adopted.unwrap().shard()).unwrap();
    rig.close_clean();
}

#[test]
fn four_times_the_regions_take_no_sixteen_times_the_time() {
    // covers: RES-9
    /// Two adoptions of so many regions, of which each lies between two of the other's.
    fn run(count: usize) -> Duration {
        let rig = Rig::new();
        let arena = Arc::new(Arena::new(2 * count, 1));
        let regions = |from| (0..count).map(|at| arena.region(2 * at + from, 1)).collect::<Vec<_>>();
        let (even, odd) = (regions(0), regions(1));
        let started = Instant::now();
        let adopted = [("even", even), ("odd", odd)].map(|(name, all)| adopt(&rig.manager, spec(name), &arena, &all).0);
        adopted.into_iter().for_each(|adopted| drop(rig.manager.release(adopted.unwrap().shard()).unwrap()));
        started.elapsed()
    }
    // The best of three, for something else may take the machine's time.
    let least = |count| (0..3).map(|_| run(count)).min().unwrap();
    let (few, many) = (least(5000), least(20_000));
    assert!(many < 9 * few, "{few:?}, {many:?}");
}

//! Regions of any length and alignment: their digest, a flip in them, reads across them.

use vram_residency::{ExecuteOptions, Origin, ShardSource, TreeParams, VramError, digest_bytes};

use crate::support::{Dice, Rig, adopt, block, image, offset, regions, safetensors, scatter, small, spec};
use crate::{assert_error, lengths};

/// Bytes of image behind one entry of the level-1 table, with blocks of 1024 bytes.
const SUBTREE: u64 = 32 << 10;

#[test]
fn hundreds_of_regions_of_any_alignment_have_the_digest_of_their_image_and_of_their_file() {
    // covers: RES-9 DIG-3 DIG-1
    for (seed, params) in [block(1024), block(4096), TreeParams::new(2048, b"some salt").unwrap()].iter().enumerate() {
        let rig = Rig::with(small(), |b| b.tree_params(params.clone()));
        let mut dice = Dice::new(seed as u64);
        let block = params.block_size() as usize;
        let lengths = lengths(&mut dice, 700, block);
        let (arena, places) = scatter(&mut dice, &lengths);
        let image = image(&arena, &places, block);
        let (adopted, drops) = adopt(&rig.manager, spec("engine"), &arena, &regions(&arena, &places));
        let adopted = adopted.unwrap();
        let shard = adopted.shard();
        assert_eq!((shard.digest(), shard.byte_len()), (digest_bytes(params, &image), image.len() as u64));
        assert!(shard.is_adopted() && shard.origin() == Origin::Measured);
        assert_eq!(rig.manager.compute_vram_digest(shard).unwrap(), shard.digest());

        let tensors: Vec<Vec<u8>> =
            places.iter().map(|(at, bytes)| (*at..at + bytes).map(|at| arena.get(at)).collect()).collect();
        let file = safetensors(&tensors);
        let from_file = rig.manager.seal_model(spec("file"), ShardSource::safetensors(file.path()).unwrap()).unwrap();
        assert_eq!(from_file.digest(), shard.digest());
        assert!(!from_file.is_adopted(), "the flag is signed: one seal has it and the other has not");
        assert_ne!(from_file.to_bytes(), shard.to_bytes());

        // The twin: one byte of one tensor is another.
        let mut other = tensors;
        *other[350].last_mut().unwrap() ^= 1;
        let file = safetensors(&other);
        let from_other = rig.manager.seal_model(spec("other"), ShardSource::safetensors(file.path()).unwrap()).unwrap();
        assert_ne!(from_other.digest(), shard.digest());

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
fn a_flip_anywhere_is_found_and_named_and_what_lies_beside_does_not_matter() {
    // covers: RES-9 VER-4
    let rig = Rig::lenient();
    let mut dice = Dice::new(5);
    let lengths = lengths(&mut dice, 40, 1024);
    let (arena, places) = scatter(&mut dice, &lengths);
    let all = regions(&arena, &places);
    let before = arena.bytes();
    let image_bytes = image(&arena, &places, 1024).len() as u64;
    let mut before_the_flipped = 0;
    for (number, (at, bytes)) in places.iter().copied().enumerate() {
        for position in [at, at + bytes - 1, at + bytes / 2] {
            let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &all);
            let adopted = adopted.unwrap();
            arena.flip(position);
            let error = rig.manager.execute(adopted.shard(), |_| panic!("the work ran")).unwrap_err();
            let VramError::IntegrityFailure { first_bad: Some(found), .. } = error else { panic!("{error:?}") };
            // The subtree of 32 blocks that holds the flipped byte, and the first region that lies in it, which may come
            // before the flipped one.
            let from = offset(&places, 1024, position).unwrap() / SUBTREE * SUBTREE;
            assert_eq!((found.offset, found.bytes), (from, SUBTREE.min(image_bytes - from)), "{position}");
            let first = places.iter().position(|(at, bytes)| offset(&places, 1024, at + bytes - 1).unwrap() >= from);
            let first = first.unwrap();
            assert_eq!(found.tensor, Some(format!("region {first}")), "{position}");
            before_the_flipped += u32::from(first < number);
            arena.flip(position);
            rig.manager.release(adopted.shard()).unwrap();
            assert!(adopted.into_owner().is_ok());
        }
    }
    assert!(image_bytes > SUBTREE && before_the_flipped > 0, "regions share subtrees, of which there are several");
    // The twin: every byte that is in no region changes, and nothing is found.
    let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &all);
    let adopted = adopted.unwrap();
    let outside: Vec<usize> = (0..arena.len()).filter(|at| offset(&places, 1024, *at).is_none()).collect();
    assert!(outside.len() > 100);
    outside.iter().for_each(|at| arena.flip(*at));
    rig.manager.execute(adopted.shard(), |_| ()).unwrap();
    outside.iter().for_each(|at| arena.flip(*at));
    assert_eq!(arena.bytes(), before);
    rig.manager.release(adopted.shard()).unwrap();
    drop(adopted);
    rig.close_clean();
}

#[test]
fn reads_cross_virtual_padding_and_see_zeros_there() {
    // covers: RES-9 DIG-3
    let rig = Rig::new();
    let mut dice = Dice::new(8);
    let lengths = lengths(&mut dice, 60, 1024);
    let (arena, places) = scatter(&mut dice, &lengths);
    let image = image(&arena, &places, 1024);
    let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &regions(&arena, &places));
    let adopted = adopted.unwrap();
    let run = rig.manager.begin(adopted.shard(), ExecuteOptions::default()).unwrap();
    let mut all = vec![0xAA; image.len()];
    run.read_at(0, &mut all).unwrap();
    assert!(all == image);
    for _ in 0..500 {
        let from = dice.below(image.len() as u64) as usize;
        let to = from + dice.below((image.len() - from) as u64 + 1) as usize;
        let mut out = vec![0xAA; to - from];
        run.read_at(from as u64, &mut out).unwrap();
        assert!(out == image[from..to], "{from}..{to}");
    }
    let mut byte = [0];
    assert_error!(run.read_at(image.len() as u64, &mut byte), VramError::InvalidParams { field: "offset", .. });
    assert_error!(run.read_at(u64::MAX, &mut byte), VramError::InvalidParams { field: "offset", .. });
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

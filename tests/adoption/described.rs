//! Regions that say what they are in the model.

use std::num::NonZeroUsize;
use std::sync::Arc;

use vram_residency::{
    Digest, DigestKind, Expectation, LayoutKind, Origin, RawRegion, ShardSource, VramError, digest_bytes, digest_source,
};

use crate::support::{Arena, Rig, adopt, image, refused, safetensors, spec, vouching};

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
    assert_eq!(file.layout.kind(), LayoutKind::Tensors);
    let vouched = Expectation::Image { digest: file.digest, layout: file.layout.digest() };
    let good = described(&arena, [("t00000", "U8", &[3000]), ("t00001", "U8", &[777])]);
    let (adopted, _) = adopt(&rig.manager, spec("engine").expect(vouched.clone()), &arena, &good);
    let shard = adopted.unwrap().shard().clone();
    assert_eq!(
        (shard.origin(), shard.digest(), shard.layout_digest()),
        (Origin::Expected, file.digest, file.layout.digest())
    );
    rig.manager.release(&shard).unwrap();
    // The same bytes under another name, of another type or shape, or without a word.
    for regions in [
        described(&arena, [("t00001", "U8", &[3000]), ("t00000", "U8", &[777])]),
        described(&arena, [("t00000", "I8", &[3000]), ("t00001", "U8", &[777])]),
        described(&arena, [("t00000", "U8", &[30, 100]), ("t00001", "U8", &[777])]),
        described(&arena, [("region 0", "U8", &[3000]), ("region 1", "U8", &[777])]),
        PLACES.map(|(at, length)| arena.region(at, length)).to_vec(),
    ] {
        let error = refused(adopt(&rig.manager, spec("engine").expect(vouched.clone()), &arena, &regions).0).0;
        assert!(matches!(error, VramError::DigestMismatch { of: DigestKind::Layout, .. }), "{error}");
    }
    rig.close_clean();
}

#[test]
fn lengths_alone_are_a_layout_of_their_own() {
    // covers: DIG-6 RES-9
    let rig = Rig::new();
    let arena = Arc::new(Arena::new(20_000, 1));
    let digest = digest_bytes(rig.manager.tree_params(), &image(&arena, &PLACES, 1024));
    let plain = PLACES.map(|(at, length)| arena.region(at, length)).to_vec();
    let vouched = vouching::regions(rig.manager.tree_params(), &plain, digest);
    let named = described(&arena, [("region 0", "U8", &[3000]), ("region 1", "U8", &[777])]);
    let error = refused(adopt(&rig.manager, spec("engine").expect(vouched.clone()), &arena, &named).0).0;
    assert!(matches!(error, VramError::DigestMismatch { of: DigestKind::Layout, .. }), "{error}");
    let (adopted, _) = adopt(&rig.manager, spec("engine").expect(vouched), &arena, &plain);
    let shard = adopted.unwrap().shard().clone();
    assert_eq!(shard.origin(), Origin::Expected);
    rig.manager.release(&shard).unwrap();
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

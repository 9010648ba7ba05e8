//! What someone vouched for: the very file, header included, whatever the layout; and image and layout together.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use sha2::Digest as _;
use tempfile::NamedTempFile;

use crate::*;

const HONEST: &str = r#"{"q":{"dtype":"F16","shape":[4,8],"data_offsets":[0,64]},"k":{"dtype":"F16","shape":[32],"data_offsets":[64,128]}}"#;

/// A model, and others that have its data, so that all have one image in the `tensors` layout.
fn alike() -> Vec<(&'static str, NamedTempFile)> {
    let data = noise(128, 1);
    let named = HONEST.replace("\"q\"", "\"x\"").replace("\"k\"", "\"q\"").replace("\"x\"", "\"k\"");
    [
        ("honest", HONEST.to_owned()),
        ("renamed into each other", named),
        ("another type", HONEST.replacen("F16", "BF16", 1)),
        ("another shape", HONEST.replace("[4,8]", "[8,4]")),
        ("other metadata", HONEST.replacen('{', r#"{"__metadata__":{"format":"pt"},"#, 1)),
        ("one space more", HONEST.replacen('{', "{ ", 1)),
    ]
    .map(|(what, header)| (what, model(&header, &data)))
    .into()
}

/// The expectations that are of a whole file.
fn of_file(bytes: &[u8]) -> [Expectation; 3] {
    let params = TreeParams::new(65536, b"salt").unwrap();
    [
        Expectation::FsVerity(digest_bytes(&TreeParams::default(), bytes)),
        Expectation::FsVerityWith { digest: digest_bytes(&params, bytes), params },
        Expectation::Sha256(sha2::Sha256::digest(bytes).into()),
    ]
}

type Open = fn(&Path) -> Result<ShardSource<'static>, VramError>;
const LAYOUTS: [Open; 2] = [|path| ShardSource::file(path), |path| ShardSource::safetensors(path)];

#[test]
fn a_file_is_expected_in_every_layout_and_one_that_only_looks_like_it_is_not() {
    // covers: DIG-6 SEAL-1
    let files = alike();
    let bytes = std::fs::read(files[0].1.path()).unwrap();
    for size in [1024, 4096, 65536] {
        let rig = Rig::with(small(), |b| b.tree_params(block(size)));
        let image = |file: &NamedTempFile| {
            let source = ShardSource::safetensors(file.path()).unwrap();
            digest_source(source, rig.manager.tree_params(), NonZeroUsize::MIN).unwrap().digest
        };
        for expectation in of_file(&bytes) {
            let kind =
                if matches!(expectation, Expectation::Sha256(_)) { DigestKind::Sha256 } else { DigestKind::FsVerity };
            for open in LAYOUTS {
                for (what, file) in &files {
                    assert_eq!(image(file), image(&files[0].1), "{what}: the image does not tell them apart");
                    let spec = spec("model").expect(expectation.clone());
                    match rig.manager.seal_model(spec, open(file.path()).unwrap()) {
                        Ok(shard) => {
                            assert_eq!((*what, shard.origin()), ("honest", Origin::Expected));
                            rig.manager.verify_sealed(&shard).unwrap();
                            rig.manager.release(&shard).unwrap();
                        }
                        Err(VramError::DigestMismatch { of, .. }) => assert_eq!((*what != "honest", of), (true, kind)),
                        Err(error) => panic!("{what}: {error}"),
                    }
                    assert_eq!(rig.manager.used_vram(), 0);
                }
            }
        }
        let found = rig.count("seal_verification_failed");
        assert_eq!(found, 3 * 2 * (files.len() - 1), "every refusal is in the trail");
        rig.close_clean();
    }
}

#[test]
fn image_and_layout_are_expected_together() {
    // covers: DIG-6
    let rig = Rig::new();
    let files = alike();
    let found = |file: &NamedTempFile| {
        let source = ShardSource::safetensors(file.path()).unwrap();
        digest_source(source, rig.manager.tree_params(), NonZeroUsize::MIN).unwrap()
    };
    let honest = found(&files[0].1);
    let expectation = Expectation::Image { digest: honest.digest, layout: honest.layout.digest() };
    for (what, file) in &files {
        let source = ShardSource::safetensors(file.path()).unwrap();
        let sealed = rig.manager.seal_model(spec("model").expect(expectation.clone()), source);
        if found(file).layout == honest.layout {
            let shard = sealed.unwrap();
            assert_eq!((shard.origin(), shard.layout_digest()), (Origin::Expected, honest.layout.digest()), "{what}");
            rig.manager.release(&shard).unwrap();
        } else {
            assert!(matches!(sealed, Err(VramError::DigestMismatch { of: DigestKind::Layout, .. })), "{what}");
        }
    }
    assert_eq!(rig.count("vram_allocated"), 3, "another layout is refused before anything is allocated");
    // The right layout around other bytes.
    let other = model(HONEST, &noise(128, 2));
    let source = ShardSource::safetensors(other.path()).unwrap();
    let refused = rig.manager.seal_model(spec("model").expect(expectation), source);
    assert!(matches!(refused, Err(VramError::DigestMismatch { of: DigestKind::Image, .. })), "{refused:?}");
    rig.close_clean();
}

#[test]
fn many_threads_and_long_tensors_hash_the_same() {
    // covers: DIG-6
    let lengths = [3_000_001_usize, 0, 17, 1 << 20, 2_500_000];
    let tensors: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(at, len)| noise(*len, at as u64)).collect();
    let file = safetensors(&tensors);
    let mut bytes = std::fs::read(file.path()).unwrap();
    let rig = Rig::with(small(), |b| b.staging(2 << 20).digest_threads(3));
    for round in 0..2 {
        for expectation in of_file(&bytes) {
            let source = ShardSource::safetensors(file.path()).unwrap();
            let sealed = rig.manager.seal_model(spec("model").expect(expectation), source);
            assert_eq!(sealed.is_ok(), round == 0, "{sealed:?}");
            sealed.map(|shard| rig.manager.release(&shard).unwrap()).ok();
        }
        *bytes.last_mut().unwrap() ^= 1;
    }
    rig.close_clean();
}

#[test]
fn what_the_file_says_later_does_not_matter() {
    // covers: DIG-6 SEAL-6
    let rig = Rig::new();
    let file = model(HONEST, &noise(128, 1));
    let bytes = std::fs::read(file.path()).unwrap();
    let [expectation, ..] = of_file(&bytes);
    let modified = file.as_file().metadata().unwrap().modified().unwrap();
    let overwrite = |header: &str| {
        let writer = File::options().write(true).open(file.path()).unwrap();
        writer.write_all_at(header.as_bytes(), 8).unwrap();
        writer.set_modified(modified).unwrap();
    };
    let source = ShardSource::safetensors(file.path()).unwrap();
    let layout =
        digest_source(ShardSource::safetensors(file.path()).unwrap(), rig.manager.tree_params(), NonZeroUsize::MIN);
    overwrite(&HONEST.replace("\"q\"", "\"x\""));
    let shard = rig.manager.seal_model(spec("before").expect(expectation.clone()), source).unwrap();
    assert_eq!(shard.layout_digest(), layout.unwrap().layout.digest());
    // The twin: read while it was another.
    let source = ShardSource::safetensors(file.path()).unwrap();
    overwrite(HONEST);
    let refused = rig.manager.seal_model(spec("between").expect(expectation), source);
    assert!(matches!(refused, Err(VramError::DigestMismatch { of: DigestKind::FsVerity, .. })), "{refused:?}");
    rig.close_clean();
}

#[test]
fn the_layout_digest_is_what_the_reference_program_says() {
    // covers: DIG-6 DIG-3
    let odd = r#"{"__metadata__":{"a":"b"},"z\u0000\n\"":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"ü€😀":{"dtype":"BOOL","shape":[0],"data_offsets":[4,4]},
        "":{"dtype":"I64","shape":[3,0,2],"data_offsets":[4,4]},"\ud83d\ude00":{"dtype":"U8","shape":[1,1,5000],"data_offsets":[4,5004]},
        "\uffff":{"dtype":"U8","shape":[0],"data_offsets":[4,4]},"tail":{"dtype":"BF16","shape":[2],"data_offsets":[5004,5008]}}"#;
    for (header, bytes) in [(odd, 5008), (HONEST, 128), ("{}", 0)] {
        let file = model(header, &noise(bytes, 1));
        for size in [1024, 4096, 65536] {
            let source = ShardSource::safetensors(file.path()).unwrap();
            let ours = digest_source(source, &block(size), NonZeroUsize::MIN).unwrap().layout.digest();
            let program = concat!(env!("CARGO_MANIFEST_DIR"), "/.specs/layout_digest.py");
            let theirs = Command::new("python3").args(["-I", program]).arg(file.path()).arg(size.to_string()).output();
            let theirs = theirs.expect("the tests need python3");
            assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
            assert_eq!(String::from_utf8(theirs.stdout).unwrap().trim(), hex::encode(ours), "{header}, {size}");
        }
    }
}

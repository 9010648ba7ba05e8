//! Tests of the tree that see inside it; `tests/fsverity_parity.rs` asks the stock tool.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::types::Digest;
use crate::{Layout, LayoutKind};

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// The tree as the kernel documents it, one level after the other, with everything in memory.
fn reference(params: &TreeParams, image: &[u8]) -> (Digest, Vec<Hash>) {
    use sha2::{Digest as _, Sha256};
    let block = params.block_len();
    let hash = |data: &[u8]| -> Hash {
        let mut padded = params.salt().to_vec();
        if !padded.is_empty() {
            padded.resize(64, 0);
        }
        padded.extend_from_slice(data);
        padded.resize(padded.len() + block - data.len(), 0);
        Sha256::digest(&padded).into()
    };
    let mut level: Vec<Hash> = image.chunks(block).map(hash).collect();
    let mut table = level.clone();
    let mut height = 0;
    while level.len() > 1 {
        level = level.concat().chunks(block).map(hash).collect();
        height += 1;
        if height == 1 {
            table.clone_from(&level);
        }
    }
    let mut descriptor = vec![1, 1, params.log_block(), u8::try_from(params.salt().len()).unwrap()];
    descriptor.resize(8, 0);
    descriptor.extend_from_slice(&u64::try_from(image.len()).unwrap().to_le_bytes());
    descriptor.extend_from_slice(&level.first().copied().unwrap_or_default());
    descriptor.resize(80, 0);
    descriptor.extend_from_slice(params.salt());
    descriptor.resize(256, 0);
    (Digest::from_bytes(Sha256::digest(&descriptor).into()), table)
}

fn tree(params: &TreeParams, threads: NonZeroUsize, chunks: &[&[u8]]) -> TreeDigest {
    let mut hasher = TreeHasher::new(params, threads);
    for chunk in chunks {
        hasher.update(chunk);
    }
    hasher.finish()
}

/// Bytes without a pattern, from a seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn any_params() -> impl Strategy<Value = TreeParams> {
    (10u32..=16, prop::collection::vec(any::<u8>(), 0..=32))
        .prop_map(|(log, salt)| TreeParams::new(1 << log, &salt).unwrap())
}

/// Small blocks, so that small images have several levels.
fn small_params() -> impl Strategy<Value = TreeParams> {
    (10u32..=12, prop::collection::vec(any::<u8>(), 0..=32))
        .prop_map(|(log, salt)| TreeParams::new(1 << log, &salt).unwrap())
}

#[test]
fn parameters_are_checked() {
    // covers: VAL-2
    for log in 0..32 {
        let size = 1u32 << log;
        assert_eq!(TreeParams::new(size, b"").is_ok(), (1024..=65536).contains(&size), "{size}");
        for wrong in [size + 1, size - 1, 0, u32::MAX] {
            assert_eq!(TreeParams::new(wrong, b"").is_ok(), (1024..=65536).contains(&wrong) && wrong.is_power_of_two());
        }
    }
    let error = TreeParams::new(1000, b"").unwrap_err();
    assert_eq!(error.code(), crate::ErrorCode::InvalidParams);
    assert!(error.to_string().starts_with("block size is 1000"), "{error}");
    assert!(TreeParams::new(4096, &[7; 32]).is_ok());
    let error = TreeParams::new(4096, &[7; 33]).unwrap_err();
    assert!(error.to_string().starts_with("salt is 33 bytes"), "{error}");
    assert_eq!(TreeParams::default(), TreeParams::new(4096, b"").unwrap());
}

#[test]
fn parameters_and_layouts_say_what_they_were_made_of() {
    // covers: DIG-1
    let params = TreeParams::new(1024, &[7, 0, 9]).unwrap();
    assert_eq!((params.block_size(), params.log_block(), params.salt()), (1024, 10, [7, 0, 9].as_slice()));
    let file = Layout::of_file(&params, 10);
    assert_eq!((file.kind(), file.block_size(), file.byte_len()), (LayoutKind::File, 1024, 10));
    assert_eq!((LayoutKind::File.as_str(), LayoutKind::Tensors.as_str()), ("file", "tensors"));
    assert_eq!((LayoutKind::Tensors.to_string().as_str(), file.tensors().len()), ("tensors", 0));
    // From the second block on lies the second region; between them lies padding; in nothing lies no tensor.
    let regions = Layout::of_regions(&params, &[10, 0, 20]).unwrap();
    assert_eq!((regions.kind(), regions.byte_len()), (LayoutKind::Regions, 1044));
    // The encoding that the documentation describes, written and hashed elsewhere.
    let known = "44f015c27207f1a731801c1055e86518c834e960c8e9ec9ad7ea17f11f197115";
    assert_eq!(hex::encode(regions.digest()), known);
    let within = |offset, bytes| regions.tensor_in(offset, bytes).map(|tensor| tensor.name.as_str());
    let asked = [(0, 1), (9, 1), (10, 1), (1023, 1), (1023, 2), (1024, 1), (1043, 9), (1044, 9), (5, 0), (1030, 0)];
    let (first, third) = (Some("region 0"), Some("region 2"));
    let known = [first, first, None, None, third, third, third, None, None, None];
    assert_eq!(asked.map(|(offset, bytes)| within(offset, bytes)), known);
}

/// Gives a byte in every third call, is interrupted in the next, and ends or fails at last.
struct Restless(u32, Option<std::io::ErrorKind>);

impl std::io::Read for Restless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0 += 1;
        match (self.0, self.1) {
            (10.., None) => Ok(0),
            (10.., Some(kind)) => Err(kind.into()),
            (call, _) if call % 3 == 1 => Err(std::io::ErrorKind::Interrupted.into()),
            _ => {
                buffer[0] = b'a';
                Ok(1)
            }
        }
    }
}

#[test]
fn an_interrupted_read_is_tried_again_and_a_failed_one_is_not() {
    // covers: DIG-3
    let params = TreeParams::default();
    assert_eq!(digest_reader(&params, threads(1), Restless(0, None)).unwrap(), (digest_bytes(&params, b"aaaaaa"), 6));
    let failed = digest_reader(&params, threads(1), Restless(0, Some(std::io::ErrorKind::BrokenPipe))).unwrap_err();
    assert!(failed.to_string().contains("broken pipe"), "{failed}");
}

#[test]
fn the_stock_tools_answers() {
    // covers: DIG-1
    // As `fsverity digest` 1.5 prints them, with `--block-size` and `--salt`, for a file of 10,000 letters `a`.
    let counted: Vec<u8> = (0..32).collect();
    for (block, salt, known) in [
        (1024, [].as_slice(), "71b925e307bbb064d93c452e0611c071d86d007222f0e7365666aef0c7125fa7"),
        (4096, &[1, 2, 3, 4, 5], "67594aa53d8656e2091820788378eaa85630d67434f71f65710fcf37dca9f7b6"),
        (4096, &counted, "b7e74d894d63282c97835a7db675fc2af95b36f350812da56ef0a753dc0d7c63"),
        (65536, &[], "eedbc5fcdd10859730f7af64cd73d0028d429df22b32a981e982f221c6e22916"),
    ] {
        let params = TreeParams::new(block, salt).unwrap();
        assert_eq!(digest_bytes(&params, &[b'a'; 10_000]).to_string(), format!("sha256:{known}"), "{block} {salt:?}");
    }
}

#[test]
fn sizes_hold_at_the_ends_of_u64() {
    // covers: DIG-1 DIG-3
    for log in 10..=16u32 {
        let params = TreeParams::new(1 << log, b"").unwrap();
        let (block, arity) = (1u128 << log, 1u128 << (log - 5));
        assert_eq!(u128::from(params.block_size()), block);
        assert_eq!(u128::from(params.arity()), arity);
        assert_eq!(u128::from(params.subtree_bytes()), block * arity);
        assert_eq!((params.block_len() as u128, params.arity_len() as u128), (block, arity));
        for bytes in [0, 1, 1 << log, (1 << log) + 1, u64::MAX / 2, u64::MAX - 1, u64::MAX, u64::MAX << log] {
            let blocks = u128::from(bytes).div_ceil(block);
            assert_eq!(u128::from(params.blocks(bytes)), blocks);
            assert_eq!(u128::from(params.table_entries(params.blocks(bytes))), blocks.div_ceil(arity));
            assert_eq!(
                params.padded(bytes).map(u128::from),
                Some(blocks * block).filter(|&p| p <= u128::from(u64::MAX))
            );
        }
        assert_eq!(u128::from(params.table_entries(u64::MAX)), u128::from(u64::MAX).div_ceil(arity));
        assert!(digest_from_table(&params, u64::MAX, &[]).is_err());
        assert_eq!(first_difference(&params, u64::MAX, &[[0; 32]], &[]), Some((0, params.subtree_bytes())));
    }
}

#[test]
fn edges_of_every_block_size_equal_the_reference() {
    // covers: DIG-1
    for log in 10..=16u32 {
        for salt in [&b""[..], b"s", &[0xa5; 32]] {
            let params = TreeParams::new(1 << log, salt).unwrap();
            let (block, subtree) = (params.block_len(), params.block_len() * params.arity_len());
            let mut lengths = vec![0, 1, block - 1, block, block + 1, 2 * block];
            if log <= 12 {
                lengths.extend([subtree - 1, subtree, subtree + 1, 2 * subtree, 3 * subtree + block + 5]);
            }
            if log == 10 {
                let two = subtree * params.arity_len();
                lengths.extend([two - 1, two, two + 1]);
            }
            for length in lengths {
                let image = noise(u64::from(log), length);
                let ours = tree(&params, threads(3), &[&image]);
                assert_eq!((ours.digest, ours.table.clone()), reference(&params, &image), "{length} {params:?}");
                let entries = params.table_entries(params.blocks(length as u64));
                assert_eq!((ours.table.len() as u64, ours.image_bytes), (entries, length as u64));
            }
        }
    }
}

#[test]
fn large_updates_on_many_threads_equal_one_thread() {
    // covers: DIG-3
    let image = noise(9, (33 << 20) + 77);
    let default = TreeParams::default();
    let read = digest_reader(&default, threads(2), &image[..]).unwrap();
    assert_eq!(read, (digest_bytes(&default, &image), image.len() as u64));
    for log in [10, 12, 16] {
        let params = TreeParams::new(1 << log, b"salt").unwrap();
        let one = tree(&params, threads(1), &[&image]);
        assert_eq!(one, tree(&params, threads(5), &[&image]));
        assert_eq!(one, tree(&params, threads(2), &[&image[..3], &image[3..20 << 20], &image[20 << 20..]]));
        let streamed = hash_stream(&params, threads(2), u64::MAX, {
            let mut rest = image.as_slice();
            move |buffer: &mut [u8]| std::io::Read::read(&mut rest, buffer)
        });
        assert_eq!(one, streamed.unwrap());
    }
}

#[test]
fn a_table_of_the_wrong_length_is_refused() {
    let params = TreeParams::new(1024, b"").unwrap();
    let image = noise(1, 100_000);
    let good = tree(&params, threads(1), &[&image]);
    assert_eq!(digest_from_table(&params, 100_000, &good.table).unwrap(), good.digest);
    let short = &good.table[1..];
    let long = [good.table.as_slice(), &[[0; 32]]].concat();
    for wrong in [short, &long, &[]] {
        assert_eq!(digest_from_table(&params, 100_000, wrong).unwrap_err().code(), crate::ErrorCode::Internal);
    }
    assert_ne!(digest_from_table(&params, 99_999, &good.table).unwrap(), good.digest, "the length is bound");
}

#[test]
fn malformed_digests_name_the_position() {
    // covers: DIG-5
    let good = Digest::from_bytes([0xab; 32]).to_string();
    let replace =
        |at: usize, with: char| good.chars().enumerate().map(|(i, c)| if i == at { with } else { c }).collect();
    let cases: [(String, usize); 9] = [
        (String::new(), 0),
        ("sha256".to_owned(), 6),
        ("sha512:00".to_owned(), 4),
        (good.replacen("sha256", "SHA256", 1), 1),
        (replace(7, 'g'), 8),
        (replace(70, 'A'), 71),
        (replace(30, 'é'), 31),
        (good[..70].to_owned(), 70),
        (format!("{good}0"), 72),
    ];
    for (text, position) in cases {
        let error = text.parse::<Digest>().unwrap_err();
        assert_eq!(error.code(), crate::ErrorCode::InvalidParams, "{text}");
        assert!(error.to_string().contains(&format!("character {position}")), "{text}: {error}");
        assert!(serde_json::from_value::<Digest>(text.into()).is_err());
    }
    assert_eq!(serde_json::to_string(&Digest::from_bytes([0xab; 32])).unwrap(), format!("\"{good}\""));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn chunking_and_threads_never_matter(
        params in any_params(), seed in any::<u64>(), len in 0usize..9000,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6), count in 1usize..6,
    ) {
        // covers: DIG-1 DIG-3
        let image = noise(seed, len);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(image.len() + 1)).collect();
        places.extend([0, image.len()]);
        places.sort_unstable();
        let chunks: Vec<&[u8]> = places.windows(2).map(|pair| &image[pair[0]..pair[1]]).collect();
        let ours = tree(&params, threads(count), &chunks);
        prop_assert_eq!((ours.digest, ours.table.clone()), reference(&params, &image));
        prop_assert_eq!(digest_from_table(&params, ours.image_bytes, &ours.table).unwrap(), ours.digest);
        prop_assert_eq!(digest_bytes(&params, &image), ours.digest);
        let mut rest = &image[..];
        let streamed = hash_stream(&params, threads(count), len as u64 / 2, |buffer| std::io::Read::read(&mut rest, buffer));
        prop_assert_eq!(streamed.unwrap(), ours);
    }

    #[test]
    fn every_flipped_bit_is_found_and_located(
        params in small_params(), seed in any::<u64>(), len in 1usize..200_000, at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        // covers: VER-4
        let mut image = noise(seed, len);
        let sealed = tree(&params, threads(1), &[&image]);
        let at = at.index(len);
        image[at] ^= 1 << bit;
        let found = tree(&params, threads(1), &[&image]);
        prop_assert_ne!(sealed.digest, found.digest);
        let (offset, bytes) = first_difference(&params, len as u64, &sealed.table, &found.table).unwrap();
        prop_assert!(offset <= at as u64 && (at as u64) < offset + bytes && offset + bytes <= len as u64);
        prop_assert!(bytes <= params.subtree_bytes() && offset % params.subtree_bytes() == 0);
        prop_assert_eq!(first_difference(&params, len as u64, &sealed.table, &sealed.table), None);
    }

    #[test]
    fn virtual_padding_equals_the_materialised_image(
        params in small_params(), seed in any::<u64>(), lens in prop::collection::vec(0usize..6000, 1..8),
    ) {
        // covers: DIG-3
        let mut image = Vec::new();
        let mut hasher = TreeHasher::new(&params, threads(2));
        let last = lens.iter().rposition(|&len| len > 0).unwrap_or(0);
        for (at, &len) in lens.iter().enumerate() {
            let region = noise(seed ^ at as u64, len);
            hasher.update(&region);
            image.extend_from_slice(&region);
            if at < last {
                hasher.pad_to_block();
                image.resize(image.len().next_multiple_of(params.block_len()), 0);
            }
        }
        let ours = hasher.finish();
        prop_assert_eq!(ours.image_bytes, image.len() as u64);
        prop_assert_eq!((ours.digest, ours.table), reference(&params, &image));
        let lens: Vec<u64> = lens.iter().map(|&len| len as u64).collect();
        let layout = layout::Layout::of_regions(&params, &lens).unwrap();
        prop_assert_eq!(layout.byte_len(), image.len() as u64);
    }

    #[test]
    fn digests_round_trip_as_text(bytes in any::<[u8; 32]>(), at in 0usize..71, with in any::<char>()) {
        // covers: DIG-5
        let digest = Digest::from_bytes(bytes);
        let text = digest.to_string();
        prop_assert_eq!(text.parse::<Digest>().unwrap(), digest);
        prop_assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        let tampered: String = text.chars().enumerate().map(|(i, c)| if i == at { with } else { c }).collect();
        match tampered.parse::<Digest>() {
            Ok(other) => prop_assert!((other == digest) == (tampered == text) && other.to_string() == tampered),
            Err(error) => prop_assert!(error.to_string().contains(&format!("character {}", at + 1)), "{}", error),
        }
    }
}

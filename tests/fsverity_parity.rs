//! The host digest against the stock tool: known answers that it gave once, and random questions put to it now.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::panic,
    missing_docs
)]

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use vram_residency::{Digest, ShardSource, TreeParams, digest_bytes, digest_reader, digest_source};

const MAX_BYTES: usize = 40 << 20;

/// xorshift64: the pattern that `tests/data/fsverity.txt` speaks of, its words in little-endian order.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// What the stock tool says of a file.
fn fsverity(path: &Path, params: &TreeParams) -> Digest {
    let mut command = Command::new("fsverity");
    command.args(["digest", "--hash-alg=sha256", "--compact"]).arg(format!("--block-size={}", params.block_size()));
    if !params.salt().is_empty() {
        command.arg(format!("--salt={}", hex::encode(params.salt())));
    }
    let output = command.arg(path).output().expect("the stock tool runs: install the Debian package fsverity");
    assert!(output.status.success(), "fsverity: {}", String::from_utf8_lossy(&output.stderr));
    format!("sha256:{}", String::from_utf8(output.stdout).unwrap().trim()).parse().unwrap()
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// The lengths around which trees change their shape, as far as they are not too long to test.
fn edges(params: &TreeParams) -> Vec<usize> {
    let block = params.block_size() as usize;
    let arity = block / 32;
    let shapes = [block, block * arity, block * arity * arity];
    let around = shapes.into_iter().flat_map(|bytes| [bytes - 1, bytes, bytes + 1]);
    [0, 1, 2 * block].into_iter().chain(around).filter(|&bytes| bytes <= MAX_BYTES).collect()
}

fn data_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fsverity.txt")
}

#[test]
fn known_answers_of_the_stock_tool() {
    // covers: DIG-1 DIG-5
    let mut count = 0;
    for line in std::fs::read_to_string(data_file()).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [length, block_size, salt, seed, digest] = fields[..] else { panic!("{line:?}") };
        let salt = hex::decode(salt.trim_start_matches('-')).unwrap();
        let params = TreeParams::new(block_size.parse().unwrap(), &salt).unwrap();
        let mut image = Noise::new(seed.parse().unwrap()).bytes(length.parse().unwrap());
        let expected: Digest = digest.parse().unwrap();
        assert_eq!(digest_bytes(&params, &image), expected, "{line}");
        if count % 10 == 0 {
            assert_eq!(
                digest_reader(&params, threads(1), &image[..]).unwrap(),
                (expected, image.len() as u64),
                "{line}"
            );
        }
        assert_eq!(expected.to_string(), digest);
        // The tampered twins: one bit, one byte more, another salt, another block size.
        let middle = image.len() / 2;
        if let Some(byte) = image.get_mut(middle) {
            *byte ^= 1;
            assert_ne!(digest_bytes(&params, &image), expected, "{line}");
            image[middle] ^= 1;
        }
        let other_salt = TreeParams::new(params.block_size(), &[&salt[..salt.len().min(31)], &[1]].concat()).unwrap();
        assert_ne!(digest_bytes(&other_salt, &image), expected, "{line}");
        let other_block = TreeParams::new(if params.block_size() == 1024 { 2048 } else { 1024 }, &salt).unwrap();
        assert_ne!(digest_bytes(&other_block, &image), expected, "{line}");
        image.push(0);
        assert_ne!(digest_bytes(&params, &image), expected, "{line}");
        count += 1;
    }
    assert!(count >= 60, "only {count} known answers");
}

/// Asks the stock tool for the known answers and writes them down.
#[test]
#[ignore = "writes tests/data/fsverity.txt; needs the stock tool"]
fn write_known_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut text = String::from(
        "# Answers of `fsverity digest --hash-alg=sha256` (fsverity-utils 1.5). Fields: bytes of the file, block size,\n\
         # salt (- for none), seed of the pattern (xorshift64 from 2 x seed + 1, little-endian words), digest.\n\
         # Written by: cargo test --test fsverity_parity write_known_answers -- --ignored\n",
    );
    let mut seed = 0;
    for log in 10..=16 {
        for salt in [&b""[..], b"\x01", b"0123456789abcdef", &[0xff; 32]] {
            let params = TreeParams::new(1 << log, salt).unwrap();
            let lengths = edges(&params).into_iter().filter(|&bytes| bytes <= 3 << 20);
            for length in lengths.filter(|bytes| salt.is_empty() || bytes % 3 == 1) {
                seed += 1;
                std::fs::write(&path, Noise::new(seed).bytes(length)).unwrap();
                let salt = if salt.is_empty() { "-".to_owned() } else { hex::encode(salt) };
                writeln!(text, "{length} {} {salt} {seed} {}", 1 << log, fsverity(&path, &params)).unwrap();
            }
        }
    }
    std::fs::write(data_file(), text).unwrap();
}

/// A safetensors file and the image of its tensors, made by hand.
fn model(noise: &mut Noise, pool: &[u8], block: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut entries, mut data, mut image) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..noise.below(12) {
        let len = [0, 1, block - 1, block, 3 * block + 5, noise.below(100_000)][noise.below(6)];
        let from = noise.below(pool.len() - len);
        let bytes = &pool[from..from + len];
        entries.push(format!(
            r#""t{at}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{},{}]}}"#,
            data.len(),
            data.len() + len
        ));
        data.extend_from_slice(bytes);
        if len > 0 {
            image.resize(image.len().next_multiple_of(block), 0);
            image.extend_from_slice(bytes);
        }
    }
    let header = format!("{{{}}}", entries.join(","));
    ([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat(), image)
}

#[test]
#[ignore = "needs the stock tool: ci/check.sh fsverity"]
fn random_questions_to_the_stock_tool() {
    // covers: DIG-1 DIG-3
    let wanted = std::env::var("VRAM_RESIDENCY_PARITY").unwrap_or_else(|_| "500".to_owned());
    let wanted: usize = wanted.parse().expect("VRAM_RESIDENCY_PARITY is a count");
    let seed = std::env::var("VRAM_RESIDENCY_PARITY_SEED").map_or_else(
        |_| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
        |seed| seed.parse().expect("VRAM_RESIDENCY_PARITY_SEED is a number"),
    );
    println!("{wanted} questions, VRAM_RESIDENCY_PARITY_SEED={seed}");
    let mut noise = Noise::new(seed);
    let pool = noise.bytes(MAX_BYTES + (1 << 20));
    let folder = tempfile::tempdir().unwrap();
    let (path, model_path) = (folder.path().join("image"), folder.path().join("model"));
    let mut bytes = 0;
    for question in 0..wanted {
        let salt_bytes = [0, 0, 1, 16, 32, noise.below(33)][noise.below(6)];
        let salt = noise.bytes(salt_bytes);
        let params = TreeParams::new(1 << (10 + noise.below(7)), &salt).unwrap();
        if question % 10 == 9 {
            let (file, image) = model(&mut noise, &pool, params.block_size() as usize);
            std::fs::write(&model_path, file).unwrap();
            std::fs::write(&path, &image).unwrap();
            let ours = digest_source(ShardSource::safetensors(&model_path).unwrap(), &params, threads(2)).unwrap();
            let context = format!("question {question} of seed {seed}: tensors {:?} {params:?}", ours.layout.tensors());
            assert_eq!((ours.digest, ours.byte_len), (fsverity(&path, &params), image.len() as u64), "{context}");
            continue;
        }
        let edges = edges(&params);
        let length = match noise.below(8) {
            0..3 => edges[noise.below(edges.len())],
            3 => noise.below(MAX_BYTES + 1),
            _ => (1 << noise.below(25)) + noise.below(1 << 12),
        };
        let from = noise.below(pool.len() - length);
        let image = &pool[from..from + length];
        std::fs::write(&path, image).unwrap();
        let theirs = fsverity(&path, &params);
        let context = format!("question {question} of seed {seed}: {length} bytes, {params:?}");
        assert_eq!(digest_bytes(&params, image), theirs, "{context}");
        if question % 3 == 0 {
            let ours = digest_source(ShardSource::file(&path).unwrap(), &params, threads(1 + question % 2)).unwrap();
            assert_eq!((ours.digest, ours.byte_len), (theirs, length as u64), "{context}");
        }
        bytes += length;
    }
    println!("{wanted} answers agree, {} MiB in all", bytes >> 20);
}

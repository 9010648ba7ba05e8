//! The digest that a device computes is the one that the host computes, whatever the shape of the image.
// covers: DIG-1 DIG-3

use vram_residency::{ErrorCode, ShardSource, TreeParams, digest_bytes, digest_reader};
use vram_residency_harness::{Kind, Machine, reads};

use crate::bench::{Bench, Dice, adopt, everywhere, image, large, memory, noise, spec, vouching};

crate::cases! {
    everywhere:
        blocks_of_1_kib,
        blocks_of_2_kib,
        blocks_of_4_kib,
        blocks_of_8_kib,
        blocks_of_16_kib,
        blocks_of_32_kib,
        blocks_of_64_kib,
        salts_enter_every_block,
        tiny_shards,
        batches_of_adopted_regions,
        a_batch_of_shards;
    large:
        an_image_beyond_one_chunk
}

/// The largest image, in bytes: kernels take their time on a CPU.
fn most() -> usize {
    match Kind::from_env() {
        Kind::Mock => 2 << 20,
        Kind::Cuda(_) => 128 << 20,
    }
}

fn params(block: usize, salt: &[u8]) -> TreeParams {
    TreeParams::new(u32::try_from(block).unwrap(), salt).unwrap()
}

/// Lengths around the edges of a block, and of what one, two and three levels of hashes hold.
fn lengths(block: usize) -> Vec<usize> {
    let arity = block / 32;
    let levels = [arity * block, arity.pow(2) * block, arity.pow(3) * block];
    let edges = [block, 2 * block, levels[0], levels[0] + block, levels[1], levels[2]];
    let around = edges.into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]);
    let mut all: Vec<usize> = [1, 31, 32, 33].into_iter().chain(around).filter(|length| *length <= most()).collect();
    all.dedup();
    all
}

/// Seals images of these lengths with the host's digest; a digest of other bytes is refused.
fn agree(bench: &Bench, params: &TreeParams, lengths: &[usize]) {
    let bytes = noise(*lengths.iter().max().unwrap(), u64::from(params.block_size()));
    for length in lengths {
        let bytes = &bytes[..*length];
        let digest = digest_bytes(params, bytes);
        let sealed = bench.seal_vouched("image", digest, ShardSource::bytes(bytes)).unwrap();
        assert_eq!((sealed.digest(), sealed.byte_len()), (digest, *length as u64));
        assert_eq!(bench.manager.compute_vram_digest(&sealed).unwrap(), digest, "{length} bytes");
        bench.manager.execute(&sealed, |_| ()).unwrap();
        bench.manager.release(&sealed).unwrap();

        let mut other = bytes.to_vec();
        let last = other.len() - 1;
        other[last] ^= 0x80;
        let refused = bench.seal_vouched("image", digest, ShardSource::bytes(&other));
        assert_eq!(refused.unwrap_err().code(), ErrorCode::DigestMismatch, "{length} bytes");
    }
}

fn blocks(block: usize) {
    let params = params(block, b"");
    let bench = Bench::of(params.clone());
    agree(&bench, &params, &lengths(block));
    bench.close();
}

macro_rules! each_size {
    ($($case:ident = $kib:literal),+) => {$(
        fn $case() {
            blocks($kib << 10);
        }
    )+};
}
each_size!(blocks_of_1_kib = 1, blocks_of_2_kib = 2, blocks_of_4_kib = 4, blocks_of_8_kib = 8);
each_size!(blocks_of_16_kib = 16, blocks_of_32_kib = 32, blocks_of_64_kib = 64);

fn salts_enter_every_block() {
    for block in [1 << 10, 4 << 10, 64 << 10] {
        for salt in [&b"s"[..], &b"thirty-two bytes of salt, no less"[..32]] {
            let params = params(block, salt);
            let bench = Bench::of(params.clone());
            let lengths = [1, block, block + 1, 33 * block + 7];
            agree(&bench, &params, &lengths);
            for length in lengths {
                let bytes = noise(length, 1);
                assert_ne!(digest_bytes(&params, &bytes), digest_bytes(&self::params(block, b""), &bytes));
            }
            bench.close();
        }
    }
}

fn tiny_shards() {
    let bench = Bench::new();
    let params = bench.manager.tree_params().clone();
    agree(&bench, &params, &(1..=70).collect::<Vec<_>>());
    bench.close();
}

/// Places that lie apart, in any order and alignment, and the bytes around them.
fn scatter(dice: &mut Dice, count: usize, block: usize) -> (Vec<u8>, Vec<(usize, usize)>) {
    let edges = [1, 2, 7, 63, 64, block - 1, block, block + 1, 2 * block, 3 * block + 1];
    let mut at = 7;
    let mut places: Vec<(usize, usize)> = (0..count)
        .map(|_| {
            let length = match dice.below(2) {
                0 => edges[dice.below(edges.len() as u64) as usize],
                _ => 1 + dice.below(3000) as usize,
            };
            at += 1 + dice.below(40) as usize;
            let place = (at, length);
            at += length;
            place
        })
        .collect();
    dice.shuffle(&mut places);
    (noise(at + 9, dice.next()), places)
}

// covers: RES-9
fn batches_of_adopted_regions() {
    for block in [1 << 10, 4 << 10] {
        let params = params(block, b"");
        let bench = Bench::of(params.clone());
        for count in [1, 2, 3, 31, 32, 33, 64, 300] {
            let (bytes, places) = scatter(&mut Dice::new(count as u64), count, block);
            let digest = digest_bytes(&params, &image(&bytes, &places, block));
            let memory = memory(&bench.machine, &bytes);
            let vouched = |places: &[(usize, usize)]| {
                let regions: Vec<_> = places.iter().map(|(at, bytes)| memory.region(*at, *bytes)).collect();
                vouching::regions(&params, &regions, digest)
            };
            let adopted = adopt(&bench.manager, spec("engine").expect(vouched(&places)), &memory, &places).unwrap();
            assert_eq!(bench.manager.compute_vram_digest(adopted.shard()).unwrap(), digest, "{count} regions");
            bench.manager.release(adopted.shard()).unwrap();
            drop(adopted);
            assert!(memory.read(0, memory.len()) == bytes, "{count} regions");

            // One byte of the last region, and two regions in the wrong order.
            let (at, length) = places[count - 1];
            memory.flip(at + length - 1, 7);
            let refused = adopt(&bench.manager, spec("engine").expect(vouched(&places)), &memory, &places);
            assert_eq!(refused.unwrap_err().code(), ErrorCode::DigestMismatch, "{count} regions");
            memory.flip(at + length - 1, 7);
            if count > 1 {
                let mut order = places.clone();
                order.swap(0, count - 1);
                let refused = adopt(&bench.manager, spec("engine").expect(vouched(&order)), &memory, &order);
                assert_eq!(refused.unwrap_err().code(), ErrorCode::DigestMismatch, "{count} regions");
            }
        }
        bench.close();
    }
}

// covers: VER-7
fn a_batch_of_shards() {
    let bench = Bench::new();
    let images: Vec<Vec<u8>> = (0..24).map(|at| noise(1 + 997 * at, at as u64)).collect();
    let shards: Vec<_> = images.iter().enumerate().map(|(at, bytes)| bench.seal(&format!("s{at}"), bytes)).collect();
    let all: Vec<_> = shards.iter().collect();
    for execution in bench.manager.begin_all(&all, vram_residency::ExecuteOptions::default()).unwrap() {
        execution.finish().unwrap();
    }
    // One bad one of many, and none begins.
    let address = bench.address(&shards[17]);
    bench.flip(address + 3, 1);
    let refused = bench.manager.begin_all(&all, vram_residency::ExecuteOptions::default());
    assert_eq!(refused.map(drop).unwrap_err().code(), ErrorCode::SealVerificationFailed);
    bench.close();
}

/// The device hashes 1 GiB of leaves at a time.
fn an_image_beyond_one_chunk() {
    const BYTES: u64 = (1 << 30) + 5 * 4096 + 17;
    // Noise again and again, in steps that are no multiple of a block.
    let noise = noise(1_000_003, 11);
    let cycle = || {
        let next = |before: usize, out: &mut [u8]| {
            let from = before % noise.len();
            let most = out.len().min(noise.len() - from);
            out[..most].copy_from_slice(&noise[from..from + most]);
            Ok(most)
        };
        std::io::Read::take(reads(next), BYTES)
    };
    let bench = Bench::on(Machine::from_env(2 << 30), |builder| builder);
    let threads = std::thread::available_parallelism().unwrap();
    let (digest, bytes) = digest_reader(bench.manager.tree_params(), threads, cycle()).unwrap();
    assert_eq!(bytes, BYTES);
    let source = || ShardSource::reader(BYTES, cycle());
    let shard = bench.seal_vouched("large", digest, source()).unwrap();
    let address = bench.address(&shard);
    // The last byte of the first chunk, and the last of all.
    for (place, bit) in [((1 << 30) - 1, 0), (BYTES - 1, 7)] {
        bench.flip(address + place, bit);
        assert_ne!(bench.manager.compute_vram_digest(&shard).unwrap(), digest, "byte {place}");
        bench.flip(address + place, bit);
        assert_eq!(bench.manager.compute_vram_digest(&shard).unwrap(), digest, "byte {place}");
    }
    bench.flip(address + (1 << 30), 3);
    let (offset, bytes) = bench.assert_refused(&shard);
    assert!((offset..offset + bytes).contains(&(1 << 30)), "{bytes} bytes from {offset}");
    bench.close();
}

//! Keyed hashes: the vectors, many regions, chunks, a launch that does not happen, and jobs that must never reach a kernel.
// covers: VER-11 RES-7

use sha2::{Digest as _, Sha256};

use super::digests::{Laid, lay, pattern, wide};
use super::*;
use crate::digest::TreeParams;
use crate::types::{KeyedJob, KeyedSizes};

const VECTORS: &str = include_str!("../../../tests/data/keyed_vectors.txt");
/// `VRAM_MOCK_KEYED`.
const KEYED: u32 = 15;

/// RFC 8439, 2.3, under the key 00 01 … 1f.
fn chacha20(counter: u32, level: u32) -> [u8; 64] {
    let key: [u32; 8] = std::array::from_fn(|at| 0x0302_0100 + 0x0404_0404 * u32::try_from(at).unwrap());
    let [a, b, c, d, e, f, g, h] = key;
    let start = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, a, b, c, d, e, f, g, h, counter, level, 0, 0];
    let mut x = start;
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        for (into, add, other, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
            x[into] = x[into].wrapping_add(x[add]);
            x[other] = (x[other] ^ x[into]).rotate_left(by);
        }
    };
    for _ in 0..10 {
        (0..4).for_each(|at| quarter(at, 4 + at, 8 + at, 12 + at));
        (0..4).for_each(|at| quarter(at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4));
    }
    let mut out = [0; 64];
    for (at, place) in out.chunks_exact_mut(4).enumerate() {
        place.copy_from_slice(&x[at].wrapping_add(start[at]).to_le_bytes());
    }
    out
}

fn key(level: u32) -> Vec<u8> {
    (0..65).flat_map(|counter| chacha20(counter, level)).take(4112).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// What `.specs/keyed.py` calls `top_of`.
fn reference(image: &[u8]) -> Vec<u8> {
    let mut data = image.to_vec();
    for level in 0.. {
        let key = words(&key(level));
        let hash = |block: &[u8]| {
            let mut padded = block.to_vec();
            padded.resize(4096, 0);
            let m = words(&padded);
            let pass = |shift: usize| {
                (0..1024).step_by(4).flat_map(|at| [at, at + 1]).fold(0_u64, |sum, at| {
                    let word = |at: usize| u64::from(m[at].wrapping_add(key[at + shift]));
                    sum.wrapping_add(word(at).wrapping_mul(word(at + 2)))
                })
            };
            [pass(0).to_le_bytes(), pass(4).to_le_bytes()].concat()
        };
        data = data.chunks(4096).flat_map(hash).collect();
        if data.len() == 16 {
            break;
        }
    }
    data
}

/// An image that was laid out, and room for its keyed hash.
struct Keyed {
    image: Laid,
    sizes: KeyedSizes,
    keys: Span,
    nodes: Span,
    top: DevicePtr,
    block_size: u32,
    holder: Span,
}

impl Keyed {
    fn new(on: &Bench, block_size: u32, lengths: &[usize], least_room: bool) -> Self {
        let image = lay(on, &TreeParams::new(block_size, b"").unwrap(), lengths, u64::MAX);
        let bytes = materialised(block_size, lengths).len();
        let sizes = KeyedSizes::new(wide(bytes), wide(lengths.iter().sum())).unwrap();
        let keys: Vec<u8> = (0..sizes.blocks.len()).flat_map(|level| key(u32::try_from(level).unwrap())).collect();
        let between = sizes.nodes - if sizes.blocks.len() > 1 { sizes.blocks[0] * 16 } else { 0 };
        let room = if least_room && sizes.blocks[0] > 256 { between + 4096 } else { sizes.nodes };
        let holder = on.alloc((wide(keys.len()) + room + 16).next_multiple_of(GRANULE));
        on.driver.fill(on.stream, holder, 0xEE).unwrap();
        on.write(holder.ptr, &keys);
        let keys = Span { ptr: holder.ptr, bytes: wide(keys.len()) };
        let top = holder.ptr.checked_add(keys.bytes).unwrap();
        let nodes = Span { ptr: top.checked_add(16).unwrap(), bytes: room };
        Self { image, sizes, keys, nodes, top, block_size, holder }
    }

    fn job(&self, nonce: u64) -> KeyedJob<'_> {
        KeyedJob {
            regions: &self.image.regions,
            block_size: self.block_size,
            region_list: self.image.list,
            keys: self.keys,
            nodes: self.nodes,
            top: self.top,
            result: self.image.result,
            nonce,
        }
    }

    /// Over poison. The top, and whether the result shows that all of it ran.
    fn hash(&self, on: &Bench, nonce: u64) -> (Vec<u8>, bool) {
        let result = Span { ptr: self.image.result, bytes: 32 };
        for span in [self.nodes, Span { ptr: self.top, bytes: 16 }, self.image.list, result] {
            on.driver.fill(on.stream, span, 0xEE).unwrap();
        }
        let expected = launch(on, &self.job(nonce)).unwrap();
        on.sync();
        (on.peek(self.top, 16), on.result(self.image.result) == expected)
    }

    fn free(self, on: &Bench) {
        on.driver.free(self.holder.ptr).unwrap();
        self.image.free(on);
    }
}

fn launch(on: &Bench, job: &KeyedJob<'_>) -> Result<LaunchResult, DriverError> {
    let bytes = usize::try_from(DigestJob::REGION_BYTES).unwrap() * job.regions.len();
    on.driver.keyed(on.stream, job, &mut on.driver.host_buffer(bytes + 1).unwrap(), 1)
}

/// The image that `lay` lays out.
fn materialised(block_size: u32, lengths: &[usize]) -> Vec<u8> {
    let mut image = Vec::new();
    for (seed, length) in lengths.iter().enumerate() {
        image.resize(image.len().next_multiple_of(usize::try_from(block_size).unwrap()), 0);
        image.extend(pattern(*length, seed));
    }
    image
}

#[test]
fn the_vectors_through_the_driver() {
    for bodies in [false, true] {
        let on = Bench::of(MockConfig::new().granularity(GRANULE).kernel_bodies(bodies));
        for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
            let [bytes, levels, top, _tag] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let bytes: usize = bytes.parse().unwrap();
            let keyed = Keyed::new(&on, 4096, &[bytes], false);
            assert_eq!(keyed.sizes.blocks.len(), levels.parse::<usize>().unwrap());
            let mut image: Vec<u8> =
                (0..wide(bytes.div_ceil(32))).flat_map(|at| Sha256::digest(at.to_le_bytes())).collect();
            image.truncate(bytes);
            on.write(keyed.image.regions[0].ptr, &image);
            let (found, whole) = keyed.hash(&on, 7);
            let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((found.as_str(), whole), (top, true), "{bytes} bytes");
            keyed.free(&on);
        }
        on.close();
    }
}

#[test]
fn regions_alignments_and_chunks_do_not_matter() {
    let on = bench();
    for (block_size, lengths) in [
        (1024, vec![1]),
        (1024, vec![5, 1024, 700, 4096, 9000, 1, 12_289, 3, 77_000]),
        (1024, vec![1000; 300]),
        (4096, vec![4096, 1 << 20, 4095, (1 << 20) + 1]),
        (65536, vec![3, 65536, 200_000, 1, 65537]),
        (65536, vec![(2 << 20) + 1, 16, 300_001]),
    ] {
        let expected = reference(&materialised(block_size, &lengths));
        for least_room in [false, true] {
            let keyed = Keyed::new(&on, block_size, &lengths, least_room);
            let launches = on.fake.calls("cuLaunchKernel");
            assert_eq!(keyed.hash(&on, 3), (expected.clone(), true), "{lengths:?}, blocks of {block_size}");
            let chunks = if least_room { keyed.sizes.blocks[0].div_ceil(256) } else { 1 };
            let above = wide(keyed.sizes.blocks.len()) - 1;
            assert_eq!(
                on.fake.calls("cuLaunchKernel") - launches,
                chunks * (1 + above.min(1)) + above.saturating_sub(1) + 1
            );
            keyed.free(&on);
        }
    }
    on.close();
}

#[test]
fn any_flipped_bit_is_in_the_top() {
    let on = bench();
    let keyed = Keyed::new(&on, 1024, &[37, 700], false);
    let (good, whole) = keyed.hash(&on, 1);
    assert!(whole);
    for region in &keyed.image.regions {
        for bit in 0..8 * region.bytes {
            on.fake.machine.flip(region.ptr.checked_add(bit / 8).unwrap(), u8::try_from(bit % 8).unwrap()).unwrap();
            let (top, whole) = keyed.hash(&on, 2);
            assert!(top != good && whole, "bit {bit}");
            on.fake.machine.flip(region.ptr.checked_add(bit / 8).unwrap(), u8::try_from(bit % 8).unwrap()).unwrap();
        }
    }
    assert_eq!(keyed.hash(&on, 3), (good, true));
    keyed.free(&on);
    on.close();
}

#[test]
fn what_did_not_run_shows() {
    let on = bench();
    let keyed = Keyed::new(&on, 4096, &[(2 << 20) + 4097], true);
    let good = keyed.hash(&on, 1);
    assert!(good.1);
    let order = |call: u32, nth: u64| {
        let fault = RawFault { kind: Kind::Skip, call, code: 0, reserved: 0, value: 0, nth, times: 1 };
        on.fake.machine.order(0, &fault).unwrap();
    };
    // Three chunks of two levels, the third level, and the result; each shows in the result.
    for nth in 1..=8 {
        order(number("cuLaunchKernel"), nth);
        assert!(!keyed.hash(&on, 1 + nth).1, "launch {nth}");
    }
    order(KEYED, 1);
    assert!(!keyed.hash(&on, 20).1);
    // `hash` poisons by four fills; then counters, top, nodes, and the outputs of the last two chunks are zeroed.
    for nth in 5..=9 {
        order(number("cuMemsetD8Async"), nth);
        assert_ne!(keyed.hash(&on, 20 + nth), good, "fill {nth}");
    }
    assert_eq!(keyed.hash(&on, 40), good);
    let fault = RawFault { kind: Kind::Fail, call: KEYED, code: 999, reserved: 0, value: 0, nth: 1, times: 1 };
    on.fake.machine.order(0, &fault).unwrap();
    assert_eq!(code(launch(&on, &keyed.job(1))), 999);
    keyed.free(&on);
    on.close();
}

#[test]
fn jobs_that_the_kernel_cannot_trust_are_refused() {
    let on = bench();
    let keyed = Keyed::new(&on, 4096, &[600_000, 600_000], false);
    let good = keyed.job(1);
    let at = |span: Span, by| Span { ptr: span.ptr.checked_add(by).unwrap(), ..span };
    let region = keyed.image.regions[0];
    let inside = DevicePtr(region.ptr.0.next_multiple_of(16));
    for bad in [
        KeyedJob { regions: &[], ..good },
        KeyedJob { regions: &[region, Span { bytes: 0, ..region }], ..good },
        KeyedJob { regions: &[Span { bytes: u64::MAX, ..region }], ..good },
        KeyedJob { regions: &[Span { bytes: 3 * GRANULE, ..region }], ..good },
        KeyedJob { block_size: 512, ..good },
        KeyedJob { block_size: 131_072, ..good },
        KeyedJob { block_size: 5000, ..good },
        KeyedJob { region_list: Span { bytes: 47, ..good.region_list }, ..good },
        KeyedJob { region_list: at(good.region_list, 8), ..good },
        KeyedJob { keys: Span { bytes: good.keys.bytes - 4112, ..good.keys }, ..good },
        KeyedJob { keys: Span { bytes: good.keys.bytes + 16, ..good.keys }, ..good },
        KeyedJob { keys: Span { ptr: inside, ..good.keys }, ..good },
        KeyedJob { nodes: Span { bytes: 4096 + 16, ..good.nodes }, ..good },
        KeyedJob { nodes: at(good.nodes, 8), ..good },
        KeyedJob { nodes: Span { ptr: good.top, ..good.nodes }, ..good },
        KeyedJob { nodes: Span { ptr: inside, ..good.nodes }, ..good },
        KeyedJob { nodes: Span { bytes: 2 * GRANULE, ..good.nodes }, ..good },
        KeyedJob { top: good.keys.ptr, ..good },
        KeyedJob { top: good.top.checked_add(8).unwrap(), ..good },
        KeyedJob { top: inside, ..good },
        KeyedJob { top: DevicePtr(4096), ..good },
        KeyedJob { result: good.top, ..good },
        KeyedJob { result: inside, ..good },
        KeyedJob { result: good.result.checked_add(4).unwrap(), ..good },
    ] {
        assert_eq!(kind(launch(&on, &bad)), DriverErrorKind::InvalidValue, "{bad:?}");
    }
    assert_eq!((on.fake.calls("cuLaunchKernel"), on.fake.get("pending")), (0, 0));
    assert!(keyed.hash(&on, 2).1);
    keyed.free(&on);
    on.close();
}

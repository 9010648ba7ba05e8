//! The digest kernel against a plain reference over `sha2`.
// covers: DEV-1 VER-11

use sha2::{Digest as _, Sha256};

use super::*;

fn block_hash(salt: &[u8], data: &[u8], block_size: usize) -> Vec<u8> {
    let mut hash = Sha256::new();
    if !salt.is_empty() {
        hash.update([salt, &vec![0; 64 - salt.len()]].concat());
    }
    hash.update(data);
    hash.update(vec![0; block_size - data.len()]);
    hash.finalize().to_vec()
}

/// The table that `DigestJob` documents, with its number of blocks.
fn reference(regions: &[Vec<u8>], block_size: usize, salt: &[u8]) -> (Vec<u8>, u64) {
    let leaves: Vec<Vec<u8>> = regions
        .iter()
        .flat_map(|region| region.chunks(block_size))
        .map(|data| block_hash(salt, data, block_size))
        .collect();
    let count = u64::try_from(leaves.len()).unwrap();
    if let [leaf] = leaves.as_slice() {
        return (leaf.clone(), count);
    }
    (leaves.concat().chunks(block_size).flat_map(|hashes| block_hash(salt, hashes, block_size)).collect(), count)
}

fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| u8::try_from((at.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) & 0xff).unwrap())
        .collect()
}

/// Enqueues a digest. The mock needs no list of regions, nor anything to bring it.
pub(super) fn launch(on: &Bench, job: &DigestJob<'_>) -> Result<(), DriverError> {
    on.driver.digest(on.stream, job, &mut on.driver.host_buffer(1).unwrap(), 0)
}

/// Sealed-like image on a device: regions at odd offsets, scratch, table, result.
pub(super) struct Image {
    pub(super) regions: Vec<Span>,
    pub(super) scratch: Span,
    pub(super) table: Span,
    pub(super) result: DevicePtr,
    pub(super) expected: Vec<u8>,
    pub(super) blocks: u64,
    block_size: u32,
    salt: Vec<u8>,
}

impl Image {
    pub(super) fn new(on: &Bench, lengths: &[usize], block_size: u32, salt: &[u8], scratch: u64) -> Self {
        let wide = |value: usize| u64::try_from(value).unwrap();
        let bytes: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(seed, length)| pattern(*length, seed)).collect();
        let regions = bytes
            .iter()
            .map(|bytes| {
                let room = on.alloc((wide(bytes.len()) + 3).next_multiple_of(256));
                let ptr = room.ptr.checked_add(3).unwrap();
                on.write(ptr, bytes);
                Span { ptr, bytes: wide(bytes.len()) }
            })
            .collect();
        let (expected, blocks) = reference(&bytes, usize::try_from(block_size).unwrap(), salt);
        let table = Span { bytes: wide(expected.len()), ..on.alloc(wide(expected.len()).next_multiple_of(256)) };
        let scratch_bytes = scratch.min(blocks * 32);
        let scratch = Span { bytes: scratch_bytes, ..on.alloc(scratch_bytes.next_multiple_of(256)) };
        let result = on.alloc(256).ptr;
        Self { regions, scratch, table, result, expected, blocks, block_size, salt: salt.to_vec() }
    }

    pub(super) fn job(&self, nonce: u64) -> DigestJob<'_> {
        DigestJob {
            regions: &self.regions,
            block_size: self.block_size,
            salt: &self.salt,
            scratch: self.scratch,
            table: self.table,
            region_list: Span { bytes: 0, ..self.table },
            result: self.result,
            nonce,
        }
    }

    pub(super) fn run(&self, on: &Bench, nonce: u64) -> (Vec<u8>, LaunchResult) {
        launch(on, &self.job(nonce)).unwrap();
        on.sync();
        (on.peek(self.table.ptr, self.expected.len()), on.result(self.result))
    }

    pub(super) fn entries(&self) -> u64 {
        self.table.bytes / 32
    }
}

fn agrees(on: &Bench, lengths: &[usize], block_size: u32, salt: &[u8], scratch: u64) {
    let image = Image::new(on, lengths, block_size, salt, scratch);
    let (table, result) = image.run(on, 77);
    let what = format!("{lengths:?} in blocks of {block_size}, salt {salt:?}, scratch {scratch}");
    assert_eq!(table, image.expected, "{what}");
    assert_eq!(
        result,
        LaunchResult { nonce: 77, covered: image.blocks, found: image.entries(), reserved: 0 },
        "{what}"
    );
}

#[test]
fn tables_of_one_region_are_those_of_the_reference() {
    let on = bench();
    for block_size in [1024, 4096, 65536_u32] {
        let block = usize::try_from(block_size).unwrap();
        for length in [1, 63, 64, 65, block - 1, block, block + 1, 2 * block, 5 * block + 17, block * 33 + 1] {
            for salt in [&[][..], &[7; 1], &[9; 32]] {
                agrees(&on, &[length], block_size, salt, u64::MAX);
            }
        }
    }
}

#[test]
fn regions_are_padded_each_without_being_copied() {
    let on = bench();
    for lengths in [&[1, 1][..], &[4096, 1, 4096], &[5000, 3, 12288, 1, 70000], &[1; 200]] {
        for salt in [&[][..], b"salt"] {
            agrees(&on, lengths, 4096, salt, u64::MAX);
            agrees(&on, lengths, 1024, salt, 1024);
        }
    }
}

#[test]
fn the_chunk_does_not_change_the_table() {
    let on = bench();
    for scratch in [1024, 2048, 3072, u64::MAX] {
        agrees(&on, &[1024 * 150 + 5], 1024, &[], scratch);
        agrees(&on, &[1024 * 96], 1024, &[1], scratch);
    }
}

#[test]
fn large_images_are_hashed_by_several_threads_alike() {
    let on = bench();
    agrees(&on, &[9 << 20, 1, (5 << 20) + 123], 4096, b"s", 32 << 10);
    agrees(&on, &[17 << 20], 65536, &[], u64::MAX);
}

#[test]
fn jobs_that_make_no_sense_are_refused() {
    let on = bench();
    let image = Image::new(&on, &[4096 * 300], 4096, &[], u64::MAX);
    let refused = |job: DigestJob<'_>| assert_eq!(kind(launch(&on, &job)), DriverErrorKind::InvalidValue);
    let shorter = |span: Span, less: u64| Span { bytes: span.bytes - less, ..span };
    let empty = [shorter(image.regions[0], image.regions[0].bytes)];
    refused(DigestJob { regions: &[], ..image.job(1) });
    refused(DigestJob { regions: &empty, ..image.job(1) });
    refused(DigestJob { block_size: 512, ..image.job(1) });
    refused(DigestJob { block_size: 5000, ..image.job(1) });
    refused(DigestJob { salt: &[0; 33], ..image.job(1) });
    refused(DigestJob { scratch: shorter(image.scratch, 32), ..image.job(1) });
    refused(DigestJob { table: shorter(image.table, 32), ..image.job(1) });
    refused(DigestJob { table: image.scratch, ..image.job(1) });
    refused(DigestJob { result: image.scratch.ptr, ..image.job(1) });
    refused(DigestJob { result: image.regions[0].ptr, ..image.job(1) });
    refused(DigestJob { result: DevicePtr(64), ..image.job(1) });
    assert_eq!(image.run(&on, 2).0, image.expected);
}

#[test]
fn every_flipped_bit_shows_in_the_table() {
    let on = bench();
    let image = Image::new(&on, &[4096 * 2 + 9], 4096, &[], u64::MAX);
    for (byte, bit) in [(0, 0), (4095, 7), (4096, 3), (8192 + 8, 5)] {
        on.driver.flip_bit(image.regions[0].ptr, byte, bit).unwrap();
        assert_ne!(image.run(&on, 1).0, image.expected);
        on.driver.flip_bit(image.regions[0].ptr, byte, bit).unwrap();
        assert_eq!(image.run(&on, 2).0, image.expected);
    }
    assert!(on.driver.flip_bit(image.regions[0].ptr, 0, 8).is_err());
    assert!(on.driver.flip_bit(image.regions[0].ptr, u64::MAX, 0).is_err());
}

#[test]
fn counting_finds_every_byte_that_is_not_zero() {
    let on = bench();
    let (span, result) = (on.alloc(1024), on.alloc(256).ptr);
    on.driver.fill(on.stream, span, 0).unwrap();
    for (bytes, dirty) in [(1024, 0), (1024, 3), (1001, 2)] {
        on.sync();
        for at in [0, 500, 1023].iter().take(if dirty == 0 { 0 } else { 3 }) {
            on.write(span.ptr.checked_add(*at).unwrap(), &[1]);
        }
        on.driver.count_nonzero(on.stream, Span { bytes, ..span }, result, 5).unwrap();
        on.sync();
        assert_eq!(on.result(result), LaunchResult { nonce: 5, covered: bytes, found: dirty, reserved: 0 });
    }
}

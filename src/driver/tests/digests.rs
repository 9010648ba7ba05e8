//! Digests and counts: chunks, many regions, salts, and jobs that must never reach a kernel.
// covers: VER-11 RES-7 DIG-3

use std::num::NonZeroUsize;

use super::*;
use crate::digest::{TreeHasher, TreeParams};

/// An image in one allocation, regions one after another at odd offsets, with room for its checks in another.
pub(super) struct Laid {
    pub(super) regions: Vec<Span>,
    pub(super) list: Span,
    scratch: Span,
    pub(super) table: Span,
    pub(super) result: DevicePtr,
    leaves: u64,
    pub(super) expected: Vec<u8>,
    holders: [Span; 2],
}

pub(super) fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| u8::try_from((at.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) & 0xff).unwrap())
        .collect()
}

pub(super) fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap()
}

pub(super) fn lay(on: &Bench, params: &TreeParams, lengths: &[usize], scratch: u64) -> Laid {
    let room: usize = lengths.iter().map(|length| length + 3).sum();
    let image = on.alloc(wide(room).next_multiple_of(GRANULE));
    let mut bytes = vec![0; room];
    let (mut at, mut regions) = (0, Vec::new());
    let mut hasher = TreeHasher::new(params, NonZeroUsize::MIN);
    for (seed, length) in lengths.iter().enumerate() {
        let region = pattern(*length, seed);
        bytes[at + 3..at + 3 + length].copy_from_slice(&region);
        regions.push(Span { ptr: image.ptr.checked_add(wide(at + 3)).unwrap(), bytes: wide(*length) });
        let block = params.block_len();
        let before = if seed > 0 { lengths[seed - 1] } else { 0 };
        hasher.update(&vec![0; before.next_multiple_of(block) - before]);
        hasher.update(&region);
        at += length + 3;
    }
    on.write(image.ptr, &bytes);
    let leaves: u64 = regions.iter().map(|region| region.bytes.div_ceil(u64::from(params.block_size()))).sum();
    let expected = hasher.finish().table.concat();
    let list = (wide(lengths.len()) * DigestJob::REGION_BYTES).next_multiple_of(32);
    let check = on.alloc((wide(expected.len()) + list + leaves * 32 + 64).next_multiple_of(GRANULE));
    let table = Span { ptr: check.ptr.checked_add(32).unwrap(), bytes: wide(expected.len()) };
    let list = Span { ptr: table.ptr.checked_add(table.bytes).unwrap(), bytes: list };
    let scratch = Span { ptr: list.ptr.checked_add(list.bytes).unwrap(), bytes: scratch.min(leaves * 32) };
    Laid { regions, list, scratch, table, result: check.ptr, leaves, expected, holders: [image, check] }
}

/// Enqueues a digest with staging of just the size. The staging goes when the list has been copied.
pub(super) fn launch(on: &Bench, job: &DigestJob<'_>) -> Result<(), DriverError> {
    let bytes = usize::try_from(DigestJob::REGION_BYTES).unwrap() * job.regions.len();
    on.driver.digest(on.stream, job, &mut on.driver.host_buffer(bytes + 1).unwrap(), 1)
}

impl Laid {
    pub(super) fn job<'a>(&'a self, params: &'a TreeParams, nonce: u64) -> DigestJob<'a> {
        DigestJob {
            regions: &self.regions,
            block_size: params.block_size(),
            salt: params.salt(),
            scratch: self.scratch,
            table: self.table,
            region_list: self.list,
            result: self.result,
            nonce,
        }
    }

    fn check(&self, on: &Bench, params: &TreeParams) {
        let nonce = 0x1234_5678_9abc_def0;
        on.driver.fill(on.stream, self.holders[1], 0xEE).unwrap();
        launch(on, &self.job(params, nonce)).unwrap();
        on.sync();
        let expected = LaunchResult { nonce, covered: self.leaves, found: self.table.bytes / 32, reserved: 0 };
        assert_eq!(on.result(self.result), expected);
        assert_eq!(on.peek(self.table.ptr, self.expected.len()), self.expected);
    }

    pub(super) fn free(self, on: &Bench) {
        for span in self.holders {
            on.driver.free(span.ptr).unwrap();
        }
    }
}

#[test]
fn digests_equal_the_host_for_every_shape() {
    let on = bench();
    for (log, salt) in [(10, &b""[..]), (12, b"a salt"), (12, b""), (16, &[7; 32])] {
        let params = TreeParams::new(1 << log, salt).unwrap();
        let block = 1_usize << log;
        for lengths in [vec![1], vec![block], vec![block + 1], vec![40 * block + 5], vec![3, block, 2 * block - 1, 17]]
        {
            for scratch in [u64::MAX, wide(block)] {
                let laid = lay(&on, &params, &lengths, scratch);
                laid.check(&on, &params);
                laid.free(&on);
            }
        }
    }
    on.close();
}

#[test]
fn scratch_bounds_the_chunk_and_many_regions_fit_one_launch() {
    let on = bench();
    let params = TreeParams::new(1024, b"").unwrap();
    let many = lay(&on, &params, &vec![5; 3000], 1024);
    let launches = on.fake.calls("cuLaunchKernel");
    many.check(&on, &params);
    // 32 leaves a chunk, two kernels each, and the result.
    assert_eq!(on.fake.calls("cuLaunchKernel") - launches, 3000_u64.div_ceil(32) * 2 + 1);
    many.check(&on, &params);
    many.free(&on);
    on.close();
}

#[test]
fn launches_allocate_nothing_and_bring_their_own_list_each() {
    // covers: RES-7
    let on = bench();
    let params = TreeParams::default();
    let laid = lay(&on, &params, &[5000, 6000], u64::MAX);
    // No memory is left, on the device or for staging, and what lies where the list is to be is another's.
    on.driver.fill(on.stream, laid.list, 0x5A).unwrap();
    let job = laid.job(&params, 9);
    let room = usize::try_from(laid.list.bytes).unwrap();
    let mut staging = on.driver.host_buffer(room).unwrap();
    on.fake.set(Setting::Capacity, 0);
    on.fake.order("cuMemHostAlloc", 2, 1, u64::from(u32::MAX));
    for _ in 0..20 {
        on.driver.digest(on.stream, &job, &mut staging, 0).unwrap();
    }
    on.sync();
    assert_eq!(on.peek(laid.table.ptr, laid.expected.len()), laid.expected);
    on.fake.tell_the_truth();
    // Room for all of the list, and in the staging too.
    let refused = [
        on.driver.digest(on.stream, &job, &mut staging, room - 47),
        on.driver.digest(on.stream, &job, &mut staging, usize::MAX),
        launch(&on, &DigestJob { region_list: Span { bytes: 47, ..laid.list }, ..job }),
        launch(&on, &DigestJob { region_list: laid.scratch, ..job }),
        launch(&on, &DigestJob { region_list: laid.table, ..job }),
        launch(&on, &DigestJob { region_list: Span { ptr: laid.result, ..laid.list }, ..job }),
        launch(&on, &DigestJob { region_list: laid.regions[0], ..job }),
        launch(
            &on,
            &DigestJob { region_list: Span { ptr: laid.list.ptr.checked_add(8).unwrap(), ..laid.list }, ..job },
        ),
    ];
    for result in refused {
        assert_eq!(kind(result), DriverErrorKind::InvalidValue);
    }
    drop(staging);
    laid.free(&on);
    on.close();
}

#[test]
fn a_launch_that_fails_part_way_leaves_nothing_in_the_way() {
    let on = bench();
    let params = TreeParams::default();
    let laid = lay(&on, &params, &[5000], u64::MAX);
    for call in ["cuLaunchKernel", "cuMemcpyHtoDAsync_v2", "cuMemsetD8Async", "cuEventRecord", "cuEventCreate"] {
        for nth in 1..=3 {
            for number in [2, 226, 916, 12_345] {
                on.fake.order(call, number, nth, 1);
                if let Err(error) = launch(&on, &laid.job(&params, 1)) {
                    assert_eq!((error.operation, error.code), (call, number));
                }
                on.fake.tell_the_truth();
                laid.check(&on, &params);
            }
        }
    }
    laid.free(&on);
    on.close();
}

#[test]
fn a_kernel_that_did_not_run_leaves_no_result() {
    let on = bench();
    let params = TreeParams::default();
    let laid = lay(&on, &params, &[5000], u64::MAX);
    on.fake.always(Kind::Skip, number("cuLaunchKernel"), 0, 0);
    on.driver.fill(on.stream, laid.holders[1], 0xEE).unwrap();
    launch(&on, &laid.job(&params, 77)).unwrap();
    on.sync();
    assert_ne!(on.result(laid.result).nonce, 77);
    on.fake.tell_the_truth();
    laid.free(&on);
    on.close();
}

#[test]
fn counts_are_exact_for_any_alignment() {
    let on = bench();
    let span = on.alloc(GRANULE);
    let result = on.alloc(GRANULE);
    on.driver.fill(on.stream, span, 0).unwrap();
    for (from, bytes) in [(0_u64, 1_u64), (1, 15), (3, 40), (7, 100_003), (0, GRANULE)] {
        let part = Span { ptr: span.ptr.checked_add(from).unwrap(), bytes };
        on.driver.fill(on.stream, Span { bytes: bytes.min(9), ..part }, 3).unwrap();
        on.driver.count_nonzero(on.stream, part, result.ptr, 5).unwrap();
        on.sync();
        let expected = LaunchResult { nonce: 5, covered: bytes, found: bytes.min(9), reserved: 0 };
        assert_eq!(on.result(result.ptr), expected);
        on.driver.fill(on.stream, part, 0).unwrap();
    }
    on.driver.free(span.ptr).unwrap();
    on.driver.free(result.ptr).unwrap();
    on.close();
}

#[test]
fn jobs_that_a_kernel_cannot_trust_are_refused() {
    let on = bench();
    let params = TreeParams::default();
    let laid = lay(&on, &params, &[600_000, 700], u64::MAX);
    let good = laid.job(&params, 1);
    let empty = [laid.regions[0], Span { bytes: 0, ..laid.regions[1] }];
    let outside = [Span { bytes: u64::MAX, ..laid.regions[0] }];
    let far = [Span { bytes: 3 * GRANULE, ..laid.regions[0] }];
    let at = |span: Span, by| Span { ptr: span.ptr.checked_add(by).unwrap(), ..span };
    for bad in [
        DigestJob { regions: &[], ..good },
        DigestJob { regions: &empty, ..good },
        DigestJob { regions: &outside, ..good },
        DigestJob { regions: &far, ..good },
        DigestJob { block_size: 512, ..good },
        DigestJob { block_size: 5000, ..good },
        DigestJob { block_size: 131_072, ..good },
        DigestJob { salt: &[1; 33], ..good },
        DigestJob { scratch: Span { bytes: 4095, ..good.scratch }, ..good },
        DigestJob { scratch: at(good.scratch, 8), ..good },
        DigestJob { scratch: Span { ptr: good.table.ptr, ..good.scratch }, ..good },
        DigestJob { scratch: Span { bytes: 2 * GRANULE, ..good.scratch }, ..good },
        DigestJob { table: Span { bytes: good.table.bytes - 32, ..good.table }, ..good },
        DigestJob { table: Span { ptr: DevicePtr(4096), ..good.table }, ..good },
        DigestJob { result: good.table.ptr, ..good },
        DigestJob { result: good.result.checked_add(4).unwrap(), ..good },
        DigestJob { result: DevicePtr(u64::MAX - 7), ..good },
        DigestJob {
            scratch: Span { ptr: DevicePtr(laid.regions[0].ptr.0.next_multiple_of(16)), ..good.scratch },
            ..good
        },
    ] {
        assert_eq!(kind(launch(&on, &bad)), DriverErrorKind::InvalidValue, "{bad:?}");
    }
    assert_eq!((on.fake.calls("cuLaunchKernel"), on.fake.get("pending")), (0, 0));
    laid.check(&on, &params);
    laid.free(&on);
    on.close();
}

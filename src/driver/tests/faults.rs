//! Each fault does what it says, on the calls that it was ordered for, and then no more.
// covers: DEV-1 VER-11 RES-2 SCR-2

use super::super::mock::{Fault, MockCall, ResidencyLie};
use super::digests::{launch, lay};
use super::*;
use crate::digest::TreeParams;

#[test]
fn each_call_can_be_ordered_to_fail() {
    let on = plain();
    let span = on.alloc(512);
    let params = TreeParams::default();
    let image = lay(&on, &params, &[100], u64::MAX);
    let mut host = on.driver.host_buffer(512).unwrap();
    let event = on.driver.event().unwrap();
    let mut attempt = |call: MockCall| match call {
        MockCall::Alloc => on.driver.alloc(256).map(|_| ()),
        MockCall::Free => on.driver.alloc(256).and_then(|ptr| on.driver.free(ptr)),
        MockCall::CopyToDevice => on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 1),
        MockCall::CopyToHost => on.driver.copy_to_host(on.stream, &mut host, 0, span.ptr, 1),
        MockCall::Fill => on.driver.fill(on.stream, span, 0),
        MockCall::Digest => launch(&on, &image.job(&params, 1)),
        MockCall::CountNonzero => on.driver.count_nonzero(on.stream, span, image.result, 1),
        MockCall::Synchronize => on.driver.synchronize(on.stream),
        MockCall::MemoryInfo => on.driver.memory_info().map(|_| ()),
        MockCall::Residency => on.driver.residency(span.ptr).map(|_| ()),
        MockCall::Stream => on.driver.stream().map(|_| ()),
        MockCall::Protect => on.driver.protect(span, Access::ReadWrite).map(|_| ()),
        MockCall::HostAlloc => on.driver.host_buffer(1).map(|_| ()),
        _ => on.driver.record_event(event, on.stream),
    };
    for call in [
        MockCall::Alloc,
        MockCall::Free,
        MockCall::CopyToDevice,
        MockCall::CopyToHost,
        MockCall::Fill,
        MockCall::Digest,
        MockCall::CountNonzero,
        MockCall::Synchronize,
        MockCall::MemoryInfo,
        MockCall::Residency,
        MockCall::Stream,
        MockCall::Event,
        MockCall::Protect,
        MockCall::HostAlloc,
    ] {
        on.order(Fault::call(call).nth(2)).unwrap();
        attempt(call).unwrap();
        let error = attempt(call).unwrap_err();
        assert_eq!((error.code, error.kind), (999, DriverErrorKind::Other), "{call:?}");
        attempt(call).unwrap();
    }
}

#[test]
fn a_fault_is_unmet_until_it_first_goes_wrong() {
    let on = plain();
    let unmet = || on.fake.config.stats().unmet_faults;
    on.order(Fault::call(MockCall::Alloc).nth(2).times(2)).unwrap();
    on.order(Fault::call(MockCall::Stream)).unwrap();
    assert_eq!(unmet(), 2);
    on.driver.alloc(256).unwrap();
    assert_eq!(unmet(), 2, "its turn has not come");
    on.driver.alloc(256).unwrap_err();
    assert_eq!(unmet(), 1, "met, and not used up");
    on.fake.machine.forget(0).unwrap();
    assert_eq!(unmet(), 0, "forgotten");
}

#[test]
fn an_order_says_when_and_how_often() {
    let on = plain();
    on.order(Fault::Call { call: MockCall::Alloc, code: 2 }.nth(2).times(2)).unwrap();
    let outcomes: Vec<bool> = (0..5).map(|_| on.driver.alloc(256).is_ok()).collect();
    assert_eq!(outcomes, [true, false, false, true, true]);
    on.fake.config.fail(Fault::call(MockCall::Alloc).always()).unwrap();
    assert!((0..100).all(|_| on.driver.alloc(256).is_err()));
    on.fake.machine.forget(0).unwrap();
    on.driver.alloc(256).unwrap();
    for senseless in
        [Fault::FillSkipped.nth(0), Fault::FillSkipped.times(0), Fault::Call { call: MockCall::Any, code: 0 }.nth(1)]
    {
        assert!(matches!(on.order(senseless), Err(VramError::InvalidParams { .. })));
    }
}

#[test]
fn copies_corrupt_one_bit_or_do_not_happen() {
    let on = plain();
    let span = on.alloc(256);
    on.order(Fault::CopyToDeviceCorrupts { bit: 17 }).unwrap();
    on.write(span.ptr, &[0; 256]);
    assert_eq!(on.peek(span.ptr, 4), [0, 0, 2, 0]);
    on.order(Fault::CopyToDeviceSkipped).unwrap();
    on.write(span.ptr, &[9; 256]);
    assert_eq!(on.peek(span.ptr, 4), [0, 0, 2, 0]);
    on.write(span.ptr, &[0; 256]);

    let mut host = on.driver.host_buffer(256).unwrap();
    on.order(Fault::CopyToHostCorrupts { bit: 256 * 8 }).unwrap();
    on.driver.copy_to_host(on.stream, &mut host, 0, span.ptr, 256).unwrap();
    assert_eq!(host.bytes_mut().unwrap()[..2], [1, 0]);
    on.order(Fault::CopyToHostSkipped).unwrap();
    on.driver.copy_to_host(on.stream, &mut host, 0, span.ptr, 256).unwrap();
    assert_eq!(host.bytes_mut().unwrap()[0], 1);
    assert_eq!(on.peek(span.ptr, 256), [0; 256]);
}

#[test]
fn wipes_do_not_happen_or_stop_half_way() {
    let on = plain();
    let span = on.alloc(512);
    let result = on.alloc(256).ptr;
    let left = |fault: Fault, count: u64| {
        on.write(span.ptr, &[1; 512]);
        on.order(fault).unwrap();
        on.driver.fill(on.stream, span, 0).unwrap();
        on.driver.count_nonzero(on.stream, span, result, 1).unwrap();
        on.sync();
        assert_eq!(on.result(result).found, count, "{fault:?}");
    };
    left(Fault::FillSkipped, 512);
    left(Fault::FillHalf, 256);
    on.driver.free(span.ptr).unwrap();
    assert_eq!(on.fake.config.stats().unwiped_bytes_freed, 256);
}

#[test]
fn zero_proofs_do_not_run_or_see_nothing() {
    let on = plain();
    let (span, result) = (on.alloc(512), on.alloc(256).ptr);
    on.order(Fault::CountSkipped).unwrap();
    on.driver.count_nonzero(on.stream, span, result, 1).unwrap();
    on.sync();
    assert_eq!(on.peek(result, 32), [0xA5; 32]);
    on.order(Fault::CountFindsNothing).unwrap();
    on.driver.count_nonzero(on.stream, span, result, 2).unwrap();
    on.sync();
    assert_eq!(on.result(result), LaunchResult { nonce: 2, covered: 512, found: 0, reserved: 0 });
}

#[test]
fn digests_do_not_run_run_short_or_repeat_themselves() {
    let on = plain();
    let params = TreeParams::default();
    let image = lay(&on, &params, &[4096 * 300], u64::MAX);
    let digest = |nonce: u64| {
        on.driver.fill(on.stream, image.table, 0xEE).unwrap();
        on.driver.fill(on.stream, Span { ptr: image.result, bytes: 32 }, 0xEE).unwrap();
        launch(&on, &image.job(&params, nonce)).unwrap();
        on.sync();
        (on.peek(image.table.ptr, image.expected.len()), on.result(image.result))
    };
    let run = |fault: Fault, nonce: u64| {
        on.order(fault).unwrap();
        digest(nonce)
    };
    let poisoned = 0xEEEE_EEEE_EEEE_EEEE;

    let (table, result) = run(Fault::DigestStale, 10);
    assert_eq!((table, result.nonce), (vec![0xEE; 96], poisoned), "there is no earlier launch to repeat");
    assert_eq!(digest(11).0, image.expected);

    let (table, result) = run(Fault::DigestSkipped, 12);
    assert_eq!((table, result.nonce), (vec![0xEE; 96], poisoned));

    let (table, result) = run(Fault::DigestShort, 13);
    assert_eq!(result, LaunchResult { nonce: 13, covered: 150, found: 2, reserved: 0 });
    assert_eq!((&table[..32], &table[64..]), (&image.expected[..32], &[0xEE; 32][..]));
    assert_ne!(table[32..64], image.expected[32..64]);

    let (table, result) = run(Fault::DigestShortClaimsFull, 14);
    assert_eq!(result, LaunchResult { nonce: 14, covered: 300, found: 3, reserved: 0 });
    assert_eq!(table[64..], [0xEE; 32]);

    on.fake.machine.flip(image.regions[0].ptr, 5).unwrap();
    let (table, result) = run(Fault::DigestStale, 15);
    assert_eq!((table, result.nonce), (image.expected.clone(), 11));
    let (table, result) = run(Fault::DigestReplayed, 16);
    assert_eq!((table, result.nonce, result.covered), (image.expected.clone(), 16, 300));
    assert_ne!(digest(17).0, image.expected);
}

#[test]
fn memory_information_lies() {
    let on = plain();
    on.order(Fault::MemoryInfoFree { free: 7 }).unwrap();
    assert_eq!(on.driver.memory_info().unwrap().free, 7);
    assert_eq!(on.driver.memory_info().unwrap().free, 1 << 30);
}

#[test]
fn residency_lies() {
    let on = plain();
    let span = on.alloc(512);
    let truth = on.driver.residency(span.ptr).unwrap();
    let nowhere = Span { ptr: DevicePtr(0), bytes: 0 };
    for (lie, answer) in [
        (ResidencyLie::Host, Residency { kind: MemoryKind::Host, ..truth }),
        (ResidencyLie::Managed, Residency { kind: MemoryKind::Managed, ..truth }),
        (ResidencyLie::HostMapped, Residency { host_mapped: true, ..truth }),
        (ResidencyLie::Exportable, Residency { exportable: true, ..truth }),
        // The allocation's own properties say otherwise, so that there is no answer.
        (ResidencyLie::WrongOrdinal, Residency { ordinal: None, ..truth }),
        (ResidencyLie::AllZero, Residency { kind: MemoryKind::Unknown, ordinal: None, range: nowhere, ..truth }),
        (ResidencyLie::ShortRange, Residency { range: Span { bytes: 511, ..span }, ..truth }),
    ] {
        on.order(Fault::Residency(lie)).unwrap();
        assert_eq!(on.driver.residency(span.ptr).unwrap(), answer, "{lie:?}");
        assert_eq!(on.driver.residency(span.ptr).unwrap(), truth);
    }
}

#[test]
fn protection_is_not_confirmed_or_does_not_happen() {
    let on = plain();
    let span = on.alloc(512);
    on.order(Fault::ProtectSkipped).unwrap();
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(true));
    on.driver.fill(on.stream, span, 0).unwrap();
    on.sync();
    on.order(Fault::ProtectUnconfirmed).unwrap();
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(false));
    assert_eq!(on.driver.fill(on.stream, span, 0).unwrap_err().code, 740);
    // A change at rest, which no access stops; the switch happens all the same.
    let mut expected = on.peek(span.ptr, 512);
    for bit in [8 * 100 + 3, 8 * (512 + 7)] {
        on.order(Fault::ProtectCorrupts { bit }).unwrap();
        assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(true));
        assert_eq!(on.driver.fill(on.stream, span, 0).unwrap_err().code, 740);
    }
    expected[100] ^= 1 << 3;
    expected[7] ^= 1;
    assert_eq!(on.peek(span.ptr, 512), expected);
}

#[test]
fn a_device_that_cannot_map_read_only_says_so_and_stays_writable() {
    // covers: DEV-5
    let on = Bench::of(MockConfig::new().read_only(false));
    let span = on.alloc(512);
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(false));
    on.driver.fill(on.stream, span, 0).unwrap();
    on.sync();
    assert_eq!(on.peek(span.ptr, 512), [0; 512]);
    assert_eq!(on.driver.protect(span, Access::ReadWrite), Ok(true));
    assert_eq!(kind(on.driver.protect(Span { bytes: 256, ..span }, Access::ReadOnly)), DriverErrorKind::InvalidValue);
}

// covers: SCR-3
#[test]
fn a_dead_device_stays_dead_and_runs_nothing() {
    let on = Bench::of(MockConfig::new().devices(2));
    let span = on.alloc(512);
    let mut host = on.driver.host_buffer(512).unwrap();
    host.bytes_mut().unwrap().fill(3);
    let event = on.driver.event().unwrap();
    on.driver.copy_to_host(on.stream, &mut host, 0, span.ptr, 512).unwrap();
    on.order(Fault::Sticky.nth(2)).unwrap();
    on.driver.memory_info().unwrap();
    for result in [
        on.driver.synchronize(on.stream),
        on.driver.fill(on.stream, span, 0),
        on.driver.free(span.ptr),
        on.driver.query_event(event).map(|_| ()),
        on.driver.destroy_stream(on.stream),
        host.bytes_mut().map(|_| ()),
    ] {
        let error = result.unwrap_err();
        assert_eq!((error.kind, error.code), (DriverErrorKind::Sticky, 719), "{error}");
    }
    assert!(on.fake.machine.forget(0).is_err());
    drop((event, host));
    let stats = on.fake.config.stats();
    assert_eq!((stats.live_host_buffers, stats.unwiped_host_bytes_freed, stats.pending_operations), (0, 0, 0));
    assert_eq!(stats.live_allocations, 1);
    assert!(on.fake.config.clone().ordinal(1).open().unwrap().driver().alloc(256).is_ok(), "the other device lives");
}

//! The contract of the driver seam, as the mock keeps it, and what only a CUDA driver can get wrong.
// covers: RES-2 VER-10 ERR-3

use super::*;

#[test]
fn owned_memory_is_granular_proven_and_given_back() {
    let on = bench();
    assert_eq!(kind(on.driver.alloc(4096)), DriverErrorKind::InvalidValue);
    assert_eq!(kind(on.driver.alloc(0)), DriverErrorKind::InvalidValue);
    let before = on.driver.memory_info().unwrap();
    let span = on.alloc(3 * GRANULE);
    assert_eq!(before.free - on.driver.memory_info().unwrap().free, 3 * GRANULE);
    let residency = on.driver.residency(span.ptr.checked_add(5).unwrap()).unwrap();
    let expected = Residency {
        kind: MemoryKind::Device,
        host_mapped: false,
        exportable: false,
        ipc_capable: false,
        ordinal: Some(0),
        range: span,
    };
    assert_eq!(residency, expected);
    let held = on.fake.get("physical");
    on.driver.free(span.ptr).unwrap();
    assert_eq!(on.fake.get("physical"), held - 1);
    assert_eq!(kind(on.driver.free(span.ptr)), DriverErrorKind::InvalidValue);
    assert_eq!(on.driver.memory_info().unwrap(), before);
    on.close();
}

#[test]
fn a_device_that_is_not_the_first_keeps_to_itself() {
    // covers: RES-8
    let fake = Fake::new();
    let driver = open_on(&fake, Wanted::Ordinal(1)).unwrap();
    let ptr = driver.alloc(GRANULE).unwrap();
    assert_eq!(driver.residency(ptr).unwrap().ordinal, Some(1));
    driver.free(ptr).unwrap();
    let other = open_on(&fake, Wanted::First).unwrap();
    let stream = other.stream().unwrap();
    let ptr = driver.alloc(GRANULE).unwrap();
    assert_eq!(kind(other.fill(stream, Span { ptr, bytes: 1 }, 0)), DriverErrorKind::InvalidValue);
    assert_eq!(
        kind(other.copy_to_device(stream, ptr, &mut driver.host_buffer(8).unwrap(), 0, 8)),
        DriverErrorKind::InvalidValue
    );
    driver.free(ptr).unwrap();
    drop((driver, other));
    clean(&fake);
}

#[test]
fn what_the_driver_says_of_memory_is_taken_as_it_is_said() {
    let on = bench();
    let span = on.alloc(GRANULE);
    let ask = || on.driver.residency(span.ptr).unwrap();
    on.fake.lie(2, 1);
    assert_eq!(ask().kind, MemoryKind::Host);
    on.fake.lie(2, 0);
    assert_eq!((ask().kind, ask().ordinal), (MemoryKind::Unknown, None));
    on.fake.tell_the_truth();
    on.fake.lie(8, 1);
    assert_eq!(ask().kind, MemoryKind::Managed);
    on.fake.tell_the_truth();
    on.fake.lie(9, 1);
    assert_eq!(ask().ordinal, None, "the allocation's own properties say otherwise");
    on.fake.tell_the_truth();
    for (attribute, value) in [(4, span.ptr.0), (10, 1), (14, 1)] {
        on.fake.lie(attribute, value);
        let answer = ask();
        assert!(answer.host_mapped || answer.ipc_capable || answer.exportable, "{attribute}");
        on.fake.tell_the_truth();
    }
    on.fake.always(Kind::ResidencyLie, RESIDENCY, 0, 6);
    assert_eq!(ask().kind, MemoryKind::Unknown);
    on.fake.tell_the_truth();
    let properties = number("cuMemGetAllocationPropertiesFromHandle");
    on.fake.order("cuMemRetainAllocationHandle", 1, 1, 1);
    assert_eq!(on.driver.residency(span.ptr).unwrap_err().operation, "cuMemRetainAllocationHandle");
    on.fake.always(Kind::Answer, properties, 1, 2);
    assert_eq!(ask().kind, MemoryKind::Unknown);
    on.fake.tell_the_truth();
    on.fake.always(Kind::Answer, properties, 2, 2);
    assert_eq!(ask().kind, MemoryKind::Unknown);
    assert_eq!(on.driver.residency(DevicePtr(4096)).unwrap().kind, MemoryKind::Unknown);
    // However the driver says that it does not know an address, or that memory is not of the virtual-memory API.
    on.fake.order("cuPointerGetAttributes", 201, 1, 1);
    assert_eq!(on.driver.residency(DevicePtr(4096)).unwrap().kind, MemoryKind::Unknown);
    let engine = on.fake.engine_alloc(4096);
    for number in [1, 500, 800, 801] {
        on.fake.order("cuMemRetainAllocationHandle", number, 1, 1);
        assert_eq!(on.driver.residency(DevicePtr(engine)).unwrap().kind, MemoryKind::Device);
        on.fake.order("cuMemRetainAllocationHandle", number, 1, 1);
        assert_eq!(on.driver.residency(span.ptr).unwrap_err().operation, "cuMemRetainAllocationHandle");
    }
    on.fake.order("cuMemRetainAllocationHandle", 12_345, 1, 1);
    assert_eq!(code(on.driver.residency(DevicePtr(engine))), 12_345);
    on.fake.engine_free(engine);
    // Another's mapping may be a part of what was reserved around it: only that part counts. Ours fills its range.
    let other = open_on(&on.fake, Wanted::First).unwrap();
    on.fake.lie(18, 4096);
    for (driver, bytes) in [(&on.driver, 4096), (&other, GRANULE)] {
        let theirs = other.alloc(GRANULE).unwrap();
        assert_eq!(driver.residency(theirs).unwrap().range, Span { ptr: theirs, bytes });
        other.free(theirs).unwrap();
    }
    on.fake.tell_the_truth();
    drop(other);
    on.driver.free(span.ptr).unwrap();
    on.close();
}

#[test]
fn failed_allocations_leave_nothing() {
    // covers: RES-6
    let on = bench();
    let held = (on.fake.get("reservations"), on.fake.get("physical"), on.fake.get("used"));
    for call in ["cuMemAddressReserve", "cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuCtxPushCurrent_v2"] {
        on.fake.order(call, 2, 1, 1);
        let error = on.driver.alloc(GRANULE).unwrap_err();
        assert_eq!((error.operation, error.kind), (call, DriverErrorKind::OutOfMemory));
        assert_eq!((on.fake.get("reservations"), on.fake.get("physical"), on.fake.get("used")), held, "{call}");
    }
    assert_eq!(kind(on.driver.alloc(1 << 33)), DriverErrorKind::OutOfMemory);
    let ptr = on.driver.alloc(GRANULE).unwrap();
    on.driver.free(ptr).unwrap();
    on.close();
}

#[test]
fn memory_that_cannot_be_unmapped_stays_and_its_context_with_it() {
    let on = bench();
    let span = on.alloc(GRANULE);
    on.fake.order("cuMemUnmap", 12_345, 1, 1);
    let error = on.driver.free(span.ptr).unwrap_err();
    assert_eq!((error.operation, error.code, error.name), ("cuMemUnmap", 12_345, "unknown"));
    on.driver.fill(on.stream, span, 0).unwrap();
    let Bench { fake, driver, .. } = on;
    drop(driver);
    assert_eq!((fake.get("retained"), fake.get("physical"), fake.get("violations")), (1, 1, 0));
}

#[test]
fn nothing_is_unmapped_while_a_stream_of_ours_uses_it() {
    let on = bench();
    let (span, other) = (on.alloc(GRANULE), on.alloc(GRANULE));
    let idle = on.driver.stream().unwrap();
    on.driver.fill(on.stream, span, 1).unwrap();
    on.driver.fill(idle, other, 2).unwrap();
    on.driver.free(span.ptr).unwrap();
    assert_eq!(on.fake.get("pending"), 1, "the other stream was left alone");
    on.fake.order("cuStreamSynchronize", 913, 1, 1);
    assert_eq!(code(on.driver.free(other.ptr)), 913);
    on.driver.free(other.ptr).unwrap();
    on.close();
}

#[test]
fn operations_run_when_something_orders_them() {
    let on = bench();
    let span = on.alloc(GRANULE);
    let other = on.driver.stream().unwrap();
    let mut host = on.driver.host_buffer(256).unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [0; 256]);
    on.driver.fill(on.stream, span, 1).unwrap();
    on.driver.copy_to_host(other, &mut host, 0, span.ptr, 256).unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [0xA5; 256], "nothing ordered the fill before the copy");
    let event = on.driver.event().unwrap();
    assert!(on.driver.query_event(event).unwrap(), "never recorded");
    on.driver.record_event(event, on.stream).unwrap();
    assert!(!on.driver.query_event(event).unwrap());
    on.driver.wait_event(other, event).unwrap();
    on.driver.copy_to_host(other, &mut host, 0, span.ptr, 256).unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [1; 256]);
    assert!(on.driver.query_event(event).unwrap());
    on.driver.synchronize_event(event).unwrap();
    on.driver.destroy_event(event).unwrap();
    assert_eq!(kind(on.driver.destroy_event(event)), DriverErrorKind::InvalidValue);
    assert_eq!(kind(on.driver.query_event(event)), DriverErrorKind::InvalidValue);
    on.driver.fill(other, span, 3).unwrap();
    on.driver.destroy_stream(other).unwrap();
    assert_eq!(on.peek(span.ptr, 2), [3, 3], "destroying a stream finishes it");
    assert_eq!(kind(on.driver.destroy_stream(other)), DriverErrorKind::InvalidValue);
    drop(host);
    on.driver.free(span.ptr).unwrap();
    on.close();
}

#[test]
fn lending_the_bytes_of_a_buffer_waits_for_every_copy_that_uses_it() {
    // covers: RES-1
    let on = bench();
    let span = on.alloc(GRANULE);
    let other = on.driver.stream().unwrap();
    let mut host = on.driver.host_buffer(64).unwrap();
    for round in 1..=5_u8 {
        host.bytes_mut().unwrap().fill(round);
        on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 32).unwrap();
        on.driver.copy_to_device(other, span.ptr.checked_add(64).unwrap(), &mut host, 32, 32).unwrap();
        on.driver.fill(on.stream, Span { ptr: span.ptr, bytes: 1 }, 0).unwrap();
        host.bytes_mut().unwrap().fill(99);
        assert_eq!(
            (on.peek(span.ptr, 32), on.peek(span.ptr.checked_add(64).unwrap(), 32)),
            (vec![round; 32], vec![round; 32])
        );
        on.sync();
        assert_eq!(on.peek(span.ptr, 2), [0, round]);
    }
    // This buffer's two streams have one each: they serve again.
    assert_eq!(on.fake.get("events"), 2);
    on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 64).unwrap();
    drop(host);
    on.driver.free(span.ptr).unwrap();
    on.close();
}

#[test]
fn a_buffer_of_which_nothing_is_known_is_neither_touched_nor_given_back() {
    // covers: RES-1
    let on = bench();
    let span = on.alloc(GRANULE);
    let mut host = on.driver.host_buffer(64).unwrap();
    // The mark cannot be left: the stream is waited for instead.
    on.fake.order("cuEventRecord", 916, 1, 1);
    assert_eq!(code(on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 64)), 916);
    host.bytes_mut().unwrap().fill(1);
    assert_eq!(on.fake.get("pending"), 0);
    on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 64).unwrap();
    on.fake.order("cuEventSynchronize", 226 + 1000, 1, u64::MAX);
    assert_eq!(code(host.bytes_mut().map(drop)), 1226);
    // Nor is what a copy may still use touched.
    assert_eq!(code(host.wipe_first(8)), 1226);
    on.fake.tell_the_truth();
    assert_eq!(host.bytes_mut().unwrap(), [1; 64], "nothing was wiped");
    host.wipe_first(8).unwrap();
    assert_eq!(host.bytes_mut().unwrap()[..9], [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 64).unwrap();
    on.fake.order("cuEventSynchronize", 226 + 1000, 1, u64::MAX);
    let pinned = on.fake.get("pinned");
    drop(host);
    assert_eq!((on.fake.get("pinned"), on.fake.get("violations")), (pinned, 0));
    on.fake.tell_the_truth();
    on.driver.free(span.ptr).unwrap();
}

#[test]
fn addresses_streams_and_buffers_that_are_not_ours_are_errors() {
    let on = bench();
    let span = on.alloc(GRANULE);
    let mut host = on.driver.host_buffer(1024).unwrap();
    let engine = StreamId(on.fake.engine_stream());
    let end = span.ptr.checked_add(GRANULE).unwrap();
    let over = Span { bytes: GRANULE + 1, ..span };
    let launches = on.fake.calls("cuLaunchKernel");
    for result in [
        on.driver.copy_to_device(on.stream, end, &mut host, 0, 1),
        on.driver.copy_to_device(on.stream, span.ptr, &mut host, 1024, 1),
        on.driver.copy_to_device(on.stream, span.ptr, &mut host, usize::MAX, 1),
        on.driver.copy_to_host(on.stream, &mut host, 1000, span.ptr, 25),
        on.driver.copy_to_host(on.stream, &mut host, 0, DevicePtr(0), 1),
        on.driver.fill(on.stream, over, 0),
        on.driver.fill(on.stream, Span { ptr: DevicePtr(u64::MAX), bytes: u64::MAX }, 0),
        on.driver.fill(engine, span, 0),
        on.driver.fill(StreamId(999), span, 0),
        on.driver.count_nonzero(on.stream, over, end, 1),
        on.driver.count_nonzero(on.stream, span, span.ptr, 1),
        on.driver.count_nonzero(on.stream, Span { bytes: 64, ..span }, span.ptr.checked_add(65).unwrap(), 1),
        on.driver.synchronize(StreamId(999)),
        on.driver.synchronize_event(EventId(999)),
        on.driver.record_event(EventId(999), on.stream),
        on.driver.host_buffer(0).map(drop),
    ] {
        assert_eq!(kind(result), DriverErrorKind::InvalidValue);
    }
    assert_eq!((on.fake.calls("cuLaunchKernel"), on.fake.get("pending")), (launches, 0));
    on.driver.free(span.ptr).unwrap();
}

#[test]
fn read_only_is_claimed_only_when_the_driver_confirms_it() {
    let on = bench();
    let span = on.alloc(GRANULE);
    on.driver.fill(on.stream, span, 1).unwrap();
    assert_eq!(kind(on.driver.protect(Span { bytes: 256, ..span }, Access::ReadOnly)), DriverErrorKind::InvalidValue);
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(true));
    assert_eq!(on.peek(span.ptr, 1), [1], "what was queued ran first");
    let mut host = on.driver.host_buffer(8).unwrap();
    on.driver.copy_to_host(on.stream, &mut host, 0, span.ptr, 8).unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [1; 8]);
    assert_eq!(on.driver.protect(span, Access::ReadWrite), Ok(true));
    for refusal in [1, 101, 800, 801] {
        on.fake.set(Setting::RefuseReadOnly, refusal);
        assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(false));
        assert_eq!(on.driver.protect(span, Access::ReadWrite), Ok(true));
    }
    on.fake.set(Setting::RefuseReadOnly, 12_345);
    assert_eq!(code(on.driver.protect(span, Access::ReadOnly)), 12_345);
    on.fake.set(Setting::RefuseReadOnly, 0);
    on.fake.always(Kind::Unconfirmed, PROTECT, 0, 0);
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(false));
    on.fake.tell_the_truth();
    assert_eq!(on.driver.protect(span, Access::ReadWrite), Ok(true));
    on.driver.fill(on.stream, span, 0).unwrap();
    on.sync();
    drop(host);
    on.driver.free(span.ptr).unwrap();
    on.close();

    let fake = Fake::without("cuMemGetAccess");
    let driver = open_on(&fake, Wanted::First).unwrap();
    let span = Span { ptr: driver.alloc(GRANULE).unwrap(), bytes: GRANULE };
    assert_eq!(driver.protect(span, Access::ReadOnly), Ok(false));
    driver.free(span.ptr).unwrap();
}

#[test]
#[allow(unsafe_code, reason = "registering an engine's memory is a promise that only its owner can make")]
fn engines_memory_is_used_where_it_lies_while_it_is_registered() {
    // covers: RES-9
    let on = bench();
    let span = Span { ptr: DevicePtr(on.fake.engine_alloc(4096)), bytes: 4096 };
    assert_eq!(kind(on.driver.fill(on.stream, span, 1)), DriverErrorKind::InvalidValue);
    // SAFETY: the mock's memory is freed below, after it was unregistered; nobody else writes it.
    unsafe { on.driver.register(span, Access::ReadWrite) }.unwrap();
    let part = Span { ptr: span.ptr.checked_add(4095).unwrap(), bytes: 2 };
    // SAFETY: refused, so nothing is used.
    assert_eq!(kind(unsafe { on.driver.register(part, Access::ReadWrite) }), DriverErrorKind::InvalidValue);
    let answer = on.driver.residency(span.ptr).unwrap();
    assert_eq!((answer.kind, answer.range, answer.ordinal), (MemoryKind::Device, span, Some(0)));
    assert_eq!((answer.exportable, answer.ipc_capable), (false, true));
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(false));
    assert_eq!(kind(on.driver.free(span.ptr)), DriverErrorKind::InvalidValue);
    on.driver.fill(on.stream, span, 3).unwrap();
    on.driver.unregister(span).unwrap();
    assert_eq!(on.peek(span.ptr, 4096), [3; 4096], "unregistering waits for what uses it");
    assert_eq!(kind(on.driver.unregister(span)), DriverErrorKind::InvalidValue);
    on.fake.engine_free(span.ptr.0);
    on.close();
}

#[test]
fn an_engines_stream_can_be_waited_for() {
    // covers: VER-10
    let on = bench();
    let (span, engine) = (on.alloc(GRANULE), on.fake.engine_stream());
    on.fake.engine_fill(engine, span.ptr.0, 16, 7);
    let event = on.driver.event().unwrap();
    on.driver.record_event(event, StreamId(engine)).unwrap();
    on.driver.wait_event(on.stream, event).unwrap();
    let mut host = on.driver.host_buffer(16).unwrap();
    on.driver.copy_to_host(on.stream, &mut host, 0, span.ptr, 16).unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [7; 16]);
    on.fake.engine_fill(engine, span.ptr.0, 16, 8);
    on.driver.synchronize(StreamId(engine)).unwrap();
    assert_eq!(on.peek(span.ptr, 1), [8]);
    on.driver.free(span.ptr).unwrap();
}

#[test]
fn the_callers_stack_of_contexts_is_left_as_it_was() {
    let on = bench();
    on.fake.push(7);
    let span = on.alloc(GRANULE);
    on.driver.residency(span.ptr).unwrap();
    on.driver.protect(span, Access::ReadOnly).unwrap();
    on.driver.protect(span, Access::ReadWrite).unwrap();
    on.write(span.ptr, b"bytes");
    for call in ["cuMemsetD8Async", "cuStreamSynchronize", "cuStreamCreate", "cuEventCreate", "cuMemGetInfo_v2"] {
        on.fake.order(call, 12_345, 1, 1);
    }
    assert_eq!(code(on.driver.fill(on.stream, span, 0)), 12_345);
    assert_eq!(code(on.driver.synchronize(on.stream)), 12_345);
    assert_eq!(code(on.driver.stream()), 12_345);
    assert_eq!(code(on.driver.event()), 12_345);
    assert_eq!(code(on.driver.memory_info()), 12_345);
    on.driver.free(span.ptr).unwrap();
    assert_eq!(contexts(), (1, 7));
    assert_eq!(on.fake.calls("cuCtxPushCurrent_v2") - 1, on.fake.calls("cuCtxPopCurrent_v2"));
    on.fake.pop();
    on.close();
}

#[test]
fn a_dead_context_is_sticky_and_ends_in_order() {
    let on = bench();
    let span = on.alloc(GRANULE);
    on.fake.always(Kind::Crash, number("cuLaunchKernel"), 0, 0);
    on.driver.count_nonzero(on.stream, Span { bytes: 64, ..span }, span.ptr.checked_add(64).unwrap(), 1).unwrap();
    let error = on.driver.synchronize(on.stream).unwrap_err();
    assert_eq!((error.code, error.kind, error.name), (700, DriverErrorKind::Sticky, "CUDA_ERROR_ILLEGAL_ADDRESS"));
    assert_eq!(kind(on.driver.alloc(GRANULE)), DriverErrorKind::Sticky);
    assert_eq!(kind(on.driver.free(span.ptr)), DriverErrorKind::Sticky);
    let Bench { fake, driver, .. } = on;
    drop(driver);
    assert_eq!((contexts().0, fake.get("violations")), (0, 0));
}

#[test]
fn threads_may_share_a_device() {
    let on = bench();
    std::thread::scope(|scope| {
        for value in 1..=4_u8 {
            let driver = Arc::clone(&on.driver);
            scope.spawn(move || {
                for _ in 0..20 {
                    let stream = driver.stream().unwrap();
                    let span = Span { ptr: driver.alloc(GRANULE).unwrap(), bytes: GRANULE };
                    let mut host = driver.host_buffer(4096).unwrap();
                    driver.fill(stream, span, value).unwrap();
                    driver.copy_to_host(stream, &mut host, 0, span.ptr, 4096).unwrap();
                    assert!(host.bytes_mut().unwrap().iter().all(|byte| *byte == value));
                    driver.destroy_stream(stream).unwrap();
                    driver.free(span.ptr).unwrap();
                }
            });
        }
    });
    on.close();
}

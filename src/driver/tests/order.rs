//! Operations run when something orders them, and not before.
// covers: VER-10

use super::super::mock::MockCall;
use super::*;

#[test]
fn an_operation_runs_late_unless_ordered() {
    let on = plain();
    let span = on.alloc(512);
    on.driver.fill(on.stream, span, 1).unwrap();
    assert_eq!(on.peek(span.ptr, 512), [0xA5; 512]);
    assert_eq!(on.fake.config.stats().pending_operations, 1);
    on.sync();
    assert_eq!(on.peek(span.ptr, 512), [1; 512]);
}

#[test]
fn with_late_streams_off_it_runs_at_once() {
    let on = Bench::of(MockConfig::new().late_streams(false));
    let span = on.alloc(512);
    on.driver.fill(on.stream, span, 1).unwrap();
    assert_eq!(on.peek(span.ptr, 512), [1; 512]);
}

#[test]
fn a_copy_on_another_stream_reads_stale_bytes_unless_it_waits() {
    let on = plain();
    let other = on.driver.stream().unwrap();
    let span = on.alloc(256);
    let mut host = on.driver.host_buffer(256).unwrap();
    on.driver.fill(on.stream, span, 1).unwrap();
    on.driver.copy_to_host(other, &mut host, 0, span.ptr, 256).unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [0xA5; 256], "nothing ordered the fill before the copy");

    let event = on.driver.event().unwrap();
    on.driver.record_event(event, on.stream).unwrap();
    on.driver.wait_event(other, event).unwrap();
    on.driver.copy_to_host(other, &mut host, 0, span.ptr, 256).unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [1; 256]);
}

#[test]
fn a_copy_reads_its_source_when_it_runs() {
    let on = plain();
    let span = on.alloc(256);
    let mut first = on.driver.host_buffer(256).unwrap();
    first.bytes_mut().unwrap().fill(1);
    on.driver.copy_to_device(on.stream, span.ptr, &mut first, 0, 256).unwrap();
    // Another stream's copy into the same buffer runs when that stream is ordered, before the pending copy.
    let other = on.driver.stream().unwrap();
    let zeros = on.alloc(256);
    on.driver.fill(other, zeros, 9).unwrap();
    on.driver.copy_to_host(other, &mut first, 0, zeros.ptr, 256).unwrap();
    on.driver.synchronize(other).unwrap();
    on.sync();
    assert_eq!(on.peek(span.ptr, 256), [9; 256]);
}

#[test]
fn lending_the_bytes_of_a_buffer_runs_its_copies_first() {
    let on = plain();
    let span = on.alloc(256);
    let mut host = on.driver.host_buffer(256).unwrap();
    host.bytes_mut().unwrap().fill(5);
    on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 256).unwrap();
    on.driver.fill(on.stream, Span { ptr: span.ptr, bytes: 1 }, 0).unwrap();
    host.bytes_mut().unwrap().fill(6);
    assert_eq!(on.peek(span.ptr, 256), [5; 256], "the copy ran with the old bytes; the fill behind it did not run");
    host.wipe().unwrap();
    on.sync();
    assert_eq!(on.peek(span.ptr, 2), [0, 5]);
}

#[test]
fn wiping_a_buffer_runs_its_copies_first() {
    let on = plain();
    let span = on.alloc(256);
    for first in [256, 100] {
        let mut host = on.driver.host_buffer(256).unwrap();
        on.driver.copy_to_host(on.stream, &mut host, 0, span.ptr, first).unwrap();
        if first == 256 {
            host.wipe().unwrap()
        } else {
            host.wipe_first(first).unwrap()
        }
        on.sync();
        assert!(host.bytes_mut().unwrap().iter().all(|byte| *byte == 0), "a late copy undid the wipe");
    }
    assert_eq!(on.fake.config.stats().unwiped_host_bytes_freed, 0);
}

#[test]
fn an_event_orders_what_was_before_it_only() {
    let on = plain();
    let span = on.alloc(256);
    let event = on.driver.event().unwrap();
    assert!(on.driver.query_event(event).unwrap(), "never recorded");
    on.driver.fill(on.stream, span, 1).unwrap();
    on.driver.record_event(event, on.stream).unwrap();
    on.driver.fill(on.stream, span, 2).unwrap();
    assert!(!on.driver.query_event(event).unwrap());
    on.driver.synchronize_event(event).unwrap();
    assert!(on.driver.query_event(event).unwrap());
    assert_eq!(on.peek(span.ptr, 1), [1]);
    on.driver.destroy_event(event).unwrap();
    assert_eq!(kind(on.driver.destroy_event(event)), DriverErrorKind::InvalidValue);
}

#[test]
fn polling_runs_nothing_at_first_and_something_in_the_end() {
    let on = plain();
    let other = on.driver.stream().unwrap();
    let span = on.alloc(256);
    let (event, gate) = (on.driver.event().unwrap(), on.driver.event().unwrap());
    on.driver.fill(other, span, 1).unwrap();
    on.driver.record_event(gate, other).unwrap();
    on.driver.wait_event(on.stream, gate).unwrap();
    on.driver.fill(on.stream, span, 2).unwrap();
    on.driver.record_event(event, on.stream).unwrap();
    for _ in 0..64 {
        assert!(!on.driver.query_event(event).unwrap());
    }
    assert_eq!(on.peek(span.ptr, 1), [0xA5]);
    let polls = (0..1000).take_while(|_| !on.driver.query_event(event).unwrap()).count();
    assert!(polls < 10, "{polls}");
    assert_eq!(on.peek(span.ptr, 1), [2]);
}

#[test]
fn a_wait_keeps_the_point_that_the_event_had() {
    let on = plain();
    let other = on.driver.stream().unwrap();
    let span = on.alloc(256);
    let event = on.driver.event().unwrap();
    on.driver.record_event(event, on.stream).unwrap();
    on.driver.wait_event(other, event).unwrap();
    on.driver.fill(on.stream, span, 1).unwrap();
    on.driver.record_event(event, on.stream).unwrap();
    on.driver.synchronize(other).unwrap();
    assert_eq!(on.peek(span.ptr, 1), [0xA5]);
}

#[test]
fn long_chains_of_waits_run() {
    let on = plain();
    let other = on.driver.stream().unwrap();
    let span = on.alloc(256);
    let event = on.driver.event().unwrap();
    for at in 0..20_000 {
        let (from, to) = if at % 2 == 0 { (on.stream, other) } else { (other, on.stream) };
        on.driver.fill(from, span, 1).unwrap();
        on.driver.record_event(event, from).unwrap();
        on.driver.wait_event(to, event).unwrap();
    }
    on.sync();
    assert_eq!(on.fake.config.stats().runs(MockCall::Fill), 20_000);
}

#[test]
fn destroying_a_stream_finishes_it() {
    let on = plain();
    let other = on.driver.stream().unwrap();
    let span = on.alloc(256);
    let event = on.driver.event().unwrap();
    on.driver.fill(other, span, 1).unwrap();
    on.driver.record_event(event, other).unwrap();
    on.driver.destroy_stream(other).unwrap();
    assert_eq!(on.peek(span.ptr, 1), [1]);
    assert!(on.driver.query_event(event).unwrap());
    on.driver.wait_event(on.stream, event).unwrap();
    on.sync();
    assert_eq!(kind(on.driver.destroy_stream(other)), DriverErrorKind::InvalidValue);
}

#[test]
fn read_only_memory_refuses_writes() {
    let on = plain();
    let span = on.alloc(512);
    on.driver.fill(on.stream, span, 1).unwrap();
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(true));
    let error = on.driver.fill(on.stream, span, 2).unwrap_err();
    assert_eq!((error.code, error.name, error.kind), (740, "read_only", DriverErrorKind::InvalidValue));
    let mut host = on.driver.host_buffer(512).unwrap();
    assert_eq!(on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 1).unwrap_err().code, 740);
    on.driver.copy_to_host(on.stream, &mut host, 0, span.ptr, 512).unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [1; 512], "what was queued before ran before");
    assert_eq!(on.driver.protect(span, Access::ReadWrite), Ok(true));
    on.driver.fill(on.stream, span, 1).unwrap();
    on.sync();
}

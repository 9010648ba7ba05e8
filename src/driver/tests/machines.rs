//! What a mock machine is made of, and what can be seen of it from outside.
// covers: DEV-1

use super::super::mock::{MockCall, MockDevice, MockStats};
use super::*;

#[test]
fn clones_share_one_machine_and_only_the_ordinal_may_differ() {
    let config = MockConfig::new().devices(2).capacity_bytes(1 << 20);
    assert_eq!(config.stats(), MockStats::default());
    let first = Arc::clone(config.open().unwrap().driver());
    let second = Arc::clone(config.clone().ordinal(1).open().unwrap().driver());
    assert_ne!(first.info().uuid, second.info().uuid);
    assert_eq!(first.info().uuid, config.clone().open().unwrap().driver().info().uuid);
    assert_ne!(first.info().uuid, MockConfig::new().open().unwrap().driver().info().uuid);
    assert_eq!((second.info().ordinal, second.info().total_bytes, second.info().kind), (1, 1 << 20, DeviceKind::Mock));
    let ptr = first.alloc(512).unwrap();
    second.alloc(256).unwrap();
    assert_eq!((config.stats().live_allocations, config.stats().live_bytes), (2, 768));
    assert_eq!(second.memory_info().unwrap().free, (1 << 20) - 256);
    assert_eq!(kind(second.free(ptr)), DriverErrorKind::InvalidValue);
    for changed in [
        config.clone().devices(3),
        config.clone().poison(false),
        config.clone().read_only(false),
        config.granularity(512),
    ] {
        assert!(matches!(changed.open(), Err(VramError::Config { .. })));
    }
}

#[test]
fn unusable_settings_are_refused_when_opened() {
    for config in [
        MockConfig::new().devices(0),
        MockConfig::new().granularity(300),
        MockConfig::new().granularity(128),
        MockConfig::new().capacity_bytes(0),
    ] {
        assert!(matches!(config.open(), Err(VramError::Config { .. })), "{config:?}");
    }
    let error = MockConfig::new().devices(2).ordinal(2).open().unwrap_err();
    assert!(matches!(error, VramError::DeviceUnavailable { .. }) && error.to_string().contains("2 devices"), "{error}");
}

#[test]
fn a_config_is_plain_shareable_data() {
    fn shareable<T: Send + Sync + 'static>() {}
    shareable::<MockConfig>();
    shareable::<MockDevice>();
    shareable::<HostBuffer>();
    assert!(format!("{:?}", MockConfig::default()).contains("late_streams: true"));
}

#[test]
fn memory_is_counted_in_granules_poisoned_and_limited() {
    let on = Bench::of(MockConfig::new().capacity_bytes(8 << 20).granularity(2 << 20));
    assert_eq!(kind(on.driver.alloc(4096)), DriverErrorKind::InvalidValue);
    assert_eq!(kind(on.driver.alloc(0)), DriverErrorKind::InvalidValue);
    let a = on.alloc(6 << 20);
    assert_eq!(a.ptr.0 % (2 << 20), 0);
    assert!(on.peek(a.ptr, 6 << 20).iter().all(|byte| *byte == 0xA5));
    assert_eq!(kind(on.driver.alloc(4 << 20)), DriverErrorKind::OutOfMemory);
    assert_eq!(on.driver.memory_info().unwrap(), MemoryInfo { free: 2 << 20, total: 8 << 20 });
    let residency = on.driver.residency(a.ptr.checked_add(5).unwrap()).unwrap();
    let expected = Residency {
        kind: crate::types::MemoryKind::Device,
        host_mapped: false,
        exportable: false,
        ipc_capable: false,
        ordinal: Some(0),
        range: a,
    };
    assert_eq!(residency, expected);
    on.driver.free(a.ptr).unwrap();
    assert_eq!(kind(on.driver.free(a.ptr)), DriverErrorKind::InvalidValue);
    assert_eq!(on.fake.config.stats().unwiped_bytes_freed, 0, "nobody wrote there");
    assert_eq!(on.driver.memory_info().unwrap().free, 8 << 20);
}

#[test]
fn a_sparse_device_may_be_larger_than_the_host() {
    let on = Bench::of(MockConfig::new().capacity_bytes(256 << 30).poison(false));
    let big = on.alloc(140 << 30);
    let last = big.ptr.checked_add(big.bytes - 4).unwrap();
    on.write(last, b"tail");
    assert_eq!(on.peek(last, 4), b"tail");
    assert_eq!(kind(on.driver.alloc(120 << 30)), DriverErrorKind::OutOfMemory);
    on.driver.free(big.ptr).unwrap();
    assert_eq!(on.fake.config.stats().unwiped_bytes_freed, 4);
}

// covers: SCR-1
#[test]
fn what_was_wiped_before_it_was_freed_does_not_count() {
    let on = plain();
    let span = on.alloc(8192);
    on.driver.fill(on.stream, span, 0).unwrap();
    on.sync();
    on.driver.free(span.ptr).unwrap();
    assert_eq!(on.fake.config.stats().unwiped_bytes_freed, 0);
    assert_eq!(on.fake.config.stats().runs(MockCall::Fill), 1);
    assert_eq!(on.fake.config.stats().runs(MockCall::Free), 1);
}

#[test]
fn host_buffers_come_zeroed_and_go_wiped() {
    let on = plain();
    let mut host = on.driver.host_buffer(1000).unwrap();
    assert_eq!((host.len(), host.bytes_mut().unwrap()), (1000, vec![0; 1000].as_mut_slice()));
    host.bytes_mut().unwrap().fill(7);
    assert!(!format!("{host:?}").contains('7'));
    assert_eq!(on.fake.config.stats().live_host_bytes, 1000);
    drop(host);
    let stats = on.fake.config.stats();
    assert_eq!((stats.live_host_buffers, stats.unwiped_host_bytes_freed), (0, 0));
    assert_eq!(kind(on.driver.host_buffer(0)), DriverErrorKind::InvalidValue);
}

#[test]
fn a_machine_lives_as_long_as_its_host_buffers() {
    let mut host = MockConfig::new().open().unwrap().driver().host_buffer(64).unwrap();
    host.bytes_mut().unwrap().fill(1);
    host.wipe().unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [0; 64]);
}

// covers: RES-9
#[test]
#[allow(unsafe_code, reason = "registering host memory is a promise that only its owner can make")]
fn foreign_memory_is_used_where_it_lies_while_it_is_registered() {
    let on = plain();
    let mut memory = vec![0_u8; 4096];
    let span = Span { ptr: DevicePtr(u64::try_from(memory.as_mut_ptr().expose_provenance()).unwrap()), bytes: 4096 };
    assert_eq!(kind(on.driver.fill(on.stream, span, 1)), DriverErrorKind::InvalidValue);
    // SAFETY: `memory` outlives its registration and is not touched while it is registered.
    unsafe { on.driver.register(span, Access::ReadWrite) }.unwrap();
    assert_eq!(on.driver.residency(span.ptr).unwrap().range, span);
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(false));
    assert_eq!(kind(on.driver.free(span.ptr)), DriverErrorKind::InvalidValue);
    on.driver.fill(on.stream, span, 3).unwrap();
    on.sync();
    assert_eq!((on.fake.config.stats().live_foreign, on.fake.config.stats().live_allocations), (1, 0));
    on.driver.fill(on.stream, span, 9).unwrap();
    on.driver.unregister(span).unwrap();
    assert!(memory.iter().all(|byte| *byte == 9), "unregistering waits for what uses it");
    assert_eq!(kind(on.driver.fill(on.stream, span, 1)), DriverErrorKind::InvalidValue);
    // What a wait that fails leaves queued fails instead of touching memory that is the owner's again.
    // SAFETY: as above.
    unsafe { on.driver.register(span, Access::ReadWrite) }.unwrap();
    on.driver.fill(on.stream, span, 7).unwrap();
    on.fake.order("cuStreamSynchronize", 999, 1, 1);
    assert_eq!(code(on.driver.unregister(span)), 999);
    assert_eq!(kind(on.driver.synchronize(on.stream)), DriverErrorKind::InvalidValue);
    assert!(memory.iter().all(|byte| *byte == 9));
    assert_eq!(on.fake.config.stats().live_foreign, 0);
    assert_eq!(on.fake.config.stats().unwiped_bytes_freed, 0);
}

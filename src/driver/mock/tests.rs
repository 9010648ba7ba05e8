//! The mock keeps the driver's contract, and every fault does what it says and no more.
// covers: DEV-1
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod digest;
mod faults;
mod order;

use std::sync::Arc;

use super::*;
use crate::types::{DriverErrorKind, LaunchResult};

/// A driver on a machine of its own, with a stream.
struct Bench {
    config: MockConfig,
    driver: Arc<MockDriver>,
    stream: StreamId,
}

impl Bench {
    fn new(config: MockConfig) -> Self {
        let driver = config.open().unwrap();
        let stream = driver.stream().unwrap();
        Self { config, driver, stream }
    }

    fn alloc(&self, bytes: u64) -> Span {
        Span { ptr: self.driver.alloc(bytes).unwrap(), bytes }
    }

    fn sync(&self) {
        self.driver.synchronize(self.stream).unwrap();
    }

    fn write(&self, to: DevicePtr, bytes: &[u8]) {
        let mut host = self.driver.host_buffer(bytes.len()).unwrap();
        host.bytes_mut().unwrap().copy_from_slice(bytes);
        self.driver.copy_to_device(self.stream, to, &mut host, 0, bytes.len()).unwrap();
        self.sync();
    }

    fn peek(&self, at: DevicePtr, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.driver.peek(at, &mut out).unwrap();
        out
    }

    fn result(&self, at: DevicePtr) -> LaunchResult {
        LaunchResult::from_bytes(&self.peek(at, 32).try_into().unwrap())
    }
}

fn bench() -> Bench {
    Bench::new(MockConfig::new())
}

fn kind<T: std::fmt::Debug>(result: Result<T, DriverError>) -> DriverErrorKind {
    result.unwrap_err().kind
}

#[test]
fn clones_share_one_machine_and_only_the_ordinal_may_differ() {
    let config = MockConfig::new().devices(2).capacity_bytes(1 << 20);
    assert_eq!(config.stats(), MockStats::default());
    let first = config.open().unwrap();
    let second = config.clone().ordinal(1).open().unwrap();
    assert_ne!(first.info().uuid, second.info().uuid);
    assert_eq!(first.info().uuid, config.clone().open().unwrap().info().uuid);
    assert_ne!(first.info().uuid, MockConfig::new().open().unwrap().info().uuid);
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
    shareable::<MockDriver>();
    shareable::<HostBuffer>();
    assert!(format!("{:?}", MockConfig::default()).contains("late_streams: true"));
}

#[test]
fn memory_is_counted_in_granules_poisoned_and_limited() {
    let on = Bench::new(MockConfig::new().capacity_bytes(8 << 20).granularity(2 << 20));
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
    assert_eq!(on.config.stats().unwiped_bytes_freed, 6 << 20);
    assert_eq!(on.driver.memory_info().unwrap().free, 8 << 20);
}

#[test]
fn a_sparse_device_may_be_larger_than_the_host() {
    let on = Bench::new(MockConfig::new().capacity_bytes(256 << 30).poison(false));
    let big = on.alloc(140 << 30);
    let last = big.ptr.checked_add(big.bytes - 4).unwrap();
    on.write(last, b"tail");
    assert_eq!(on.peek(last, 4), b"tail");
    assert_eq!(kind(on.driver.alloc(120 << 30)), DriverErrorKind::OutOfMemory);
    on.driver.free(big.ptr).unwrap();
    assert_eq!(on.config.stats().unwiped_bytes_freed, 4);
}

// covers: SCR-1
#[test]
fn what_was_wiped_before_it_was_freed_does_not_count() {
    let on = bench();
    let span = on.alloc(8192);
    on.driver.fill(on.stream, span, 0).unwrap();
    on.sync();
    on.driver.free(span.ptr).unwrap();
    assert_eq!(on.config.stats().unwiped_bytes_freed, 0);
    assert_eq!(on.config.stats().runs(MockCall::Fill), 1);
    assert_eq!(on.config.stats().runs(MockCall::Free), 1);
}

#[test]
fn host_buffers_come_zeroed_and_go_wiped() {
    let on = bench();
    let mut host = on.driver.host_buffer(1000).unwrap();
    assert_eq!((host.len(), host.bytes_mut().unwrap()), (1000, vec![0; 1000].as_mut_slice()));
    host.bytes_mut().unwrap().fill(7);
    assert!(!format!("{host:?}").contains('7'));
    assert_eq!(on.config.stats().live_host_bytes, 1000);
    drop(host);
    let stats = on.config.stats();
    assert_eq!((stats.live_host_buffers, stats.unwiped_host_bytes_freed), (0, 0));
    assert_eq!(kind(on.driver.host_buffer(0)), DriverErrorKind::InvalidValue);
}

#[test]
fn a_machine_lives_as_long_as_its_host_buffers() {
    let mut host = MockConfig::new().open().unwrap().host_buffer(64).unwrap();
    host.bytes_mut().unwrap().fill(1);
    host.wipe().unwrap();
    assert_eq!(host.bytes_mut().unwrap(), [0; 64]);
}

#[test]
fn addresses_out_of_range_are_errors() {
    let on = bench();
    let span = on.alloc(512);
    let mut host = on.driver.host_buffer(1024).unwrap();
    let foreign = MockConfig::new().open().unwrap();
    let end = span.ptr.checked_add(512).unwrap();
    let over = Span { ptr: span.ptr, bytes: 513 };
    for result in [
        on.driver.copy_to_device(on.stream, span.ptr, &mut host, 0, 513),
        on.driver.copy_to_device(on.stream, end, &mut host, 0, 1),
        on.driver.copy_to_device(on.stream, span.ptr, &mut host, 1024, 1),
        on.driver.copy_to_device(on.stream, span.ptr, &mut host, usize::MAX, 1),
        on.driver.copy_to_host(on.stream, &mut host, 1000, span.ptr, 25),
        on.driver.copy_to_host(on.stream, &mut host, 0, DevicePtr(0), 1),
        on.driver.copy_to_device(on.stream, span.ptr, &mut foreign.host_buffer(64).unwrap(), 0, 64),
        on.driver.fill(on.stream, over, 0),
        on.driver.fill(on.stream, Span { ptr: DevicePtr(u64::MAX), bytes: u64::MAX }, 0),
        on.driver.count_nonzero(on.stream, over, span.ptr, 1),
        on.driver.count_nonzero(on.stream, span, span.ptr, 1),
        on.driver.residency(end).map(|_| ()),
        on.driver.fill(StreamId(999), span, 0),
        on.driver.synchronize(StreamId(999)),
        on.driver.synchronize_event(EventId(999)),
    ] {
        assert_eq!(kind(result), DriverErrorKind::InvalidValue);
    }
    on.sync();
    assert_eq!(on.peek(span.ptr, 512), [0xA5; 512]);
}

// covers: RES-9
#[test]
#[allow(unsafe_code, reason = "registering host memory is a promise that only its owner can make")]
fn foreign_memory_is_used_where_it_lies_while_it_is_registered() {
    let on = bench();
    let mut memory = vec![0_u8; 4096];
    let span = Span { ptr: DevicePtr(u64::try_from(memory.as_mut_ptr().expose_provenance()).unwrap()), bytes: 4096 };
    assert_eq!(kind(on.driver.fill(on.stream, span, 1)), DriverErrorKind::InvalidValue);
    // SAFETY: `memory` outlives its registration and is not touched while it is registered.
    unsafe { on.driver.device.register_foreign(span, Access::ReadWrite) }.unwrap();
    assert_eq!(on.driver.residency(span.ptr).unwrap().range, span);
    assert_eq!(on.driver.protect(span, Access::ReadOnly), Ok(false));
    assert_eq!(kind(on.driver.free(span.ptr)), DriverErrorKind::InvalidValue);
    on.driver.fill(on.stream, span, 3).unwrap();
    on.sync();
    assert_eq!((on.config.stats().live_foreign, on.config.stats().live_allocations), (1, 0));
    on.driver.fill(on.stream, span, 9).unwrap();
    on.driver.device.unregister_foreign(span.ptr).unwrap();
    assert_eq!(kind(on.driver.synchronize(on.stream)), DriverErrorKind::InvalidValue);
    assert!(memory.iter().all(|byte| *byte == 3));
    assert_eq!(on.config.stats().unwiped_bytes_freed, 0);
}

#[test]
fn threads_may_share_a_device() {
    let on = bench();
    std::thread::scope(|scope| {
        for value in 1..=4_u8 {
            let driver = Arc::clone(&on.driver);
            scope.spawn(move || {
                for _ in 0..50 {
                    let stream = driver.stream().unwrap();
                    let span = Span { ptr: driver.alloc(4096).unwrap(), bytes: 4096 };
                    let mut host = driver.host_buffer(4096).unwrap();
                    driver.fill(stream, span, value).unwrap();
                    driver.copy_to_host(stream, &mut host, 0, span.ptr, 4096).unwrap();
                    assert!(host.bytes_mut().unwrap().iter().all(|byte| *byte == value));
                    driver.free(span.ptr).unwrap();
                    driver.destroy_stream(stream).unwrap();
                }
            });
        }
    });
    let stats = on.config.stats();
    assert_eq!((stats.live_allocations, stats.live_streams, stats.live_host_buffers), (0, 1, 0));
    assert_eq!(stats.runs(MockCall::Fill), 200);
}

const HEADER: &str = include_str!("../../../cuda/include/vram_mock.h");

/// `#define VRAM_MOCK_<name> <number>u` of the header.
fn number(name: &str) -> u32 {
    let start = format!("#define VRAM_MOCK_{name} ");
    let line = HEADER.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {name}"));
    line.split('u').next().unwrap().parse().unwrap()
}

#[test]
fn calls_and_lies_have_the_numbers_of_the_header() {
    // covers: DEV-2
    let calls = [
        ("ANY", MockCall::Any),
        ("ALLOC", MockCall::Alloc),
        ("FREE", MockCall::Free),
        ("COPY_TO_DEVICE", MockCall::CopyToDevice),
        ("COPY_TO_HOST", MockCall::CopyToHost),
        ("FILL", MockCall::Fill),
        ("DIGEST", MockCall::Digest),
        ("COUNT_NONZERO", MockCall::CountNonzero),
        ("SYNCHRONIZE", MockCall::Synchronize),
        ("MEMORY_INFO", MockCall::MemoryInfo),
        ("RESIDENCY", MockCall::Residency),
        ("STREAM", MockCall::Stream),
        ("EVENT", MockCall::Event),
        ("PROTECT", MockCall::Protect),
        ("HOST_ALLOC", MockCall::HostAlloc),
    ];
    assert_eq!(HEADER.matches("#define VRAM_MOCK_CALL_").count(), calls.len());
    for (name, call) in calls {
        assert_eq!(number(&format!("CALL_{name}")), call.number(), "{name}");
    }
    let lies = [
        ("HOST", ResidencyLie::Host),
        ("MANAGED", ResidencyLie::Managed),
        ("HOST_MAPPED", ResidencyLie::HostMapped),
        ("EXPORTABLE", ResidencyLie::Exportable),
        ("ORDINAL", ResidencyLie::WrongOrdinal),
        ("ZEROS", ResidencyLie::AllZero),
        ("SHORT_RANGE", ResidencyLie::ShortRange),
    ];
    assert_eq!(HEADER.matches("#define VRAM_MOCK_LIE_").count(), lies.len());
    for (name, lie) in lies {
        assert_eq!(u64::from(number(&format!("LIE_{name}"))), Fault::Residency(lie).raw().value, "{name}");
    }
}

//! The driver over the mock: its contract, what goes wrong to order, and a manager's whole life. What a real driver answers where its
//! documentation is silent is not shown here.
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod contract;
mod digests;
mod engine;
mod faults;
mod keyed;
mod life;
mod machines;
mod opening;
mod order;
mod sealed;

use std::sync::Arc;

use super::images::Images;
use super::mock::{FaultOrder, MockConfig};
use super::open::{OpenError, open_with};
use super::*;
use crate::error::VramError;
use crate::ffi::Api;
use crate::ffi::mock::tests::{contexts, number};
use crate::ffi::mock::{Kind, Machine, RawFault, Setting};
use crate::types::{DeviceKind, DeviceUuid, LaunchResult, MemoryKind};

/// 2 MiB.
const GRANULE: u64 = 2 << 20;
/// `VRAM_MOCK_PROTECT` and `VRAM_MOCK_RESIDENCY`.
const PROTECT: u32 = 13;
const RESIDENCY: u32 = 10;

/// A machine of its own, and what a test does to it behind the driver's back.
struct Fake {
    config: MockConfig,
    machine: Arc<Machine>,
    without: Option<String>,
}

impl Fake {
    /// Two devices as GPUs are: large, in granules, with kernels that run, and with contexts that die of an illegal access.
    fn new() -> Self {
        let config = MockConfig::new().devices(2).capacity_bytes(1 << 32).granularity(GRANULE).kernel_bodies(true);
        let fake = Self::of(config);
        fake.set(Setting::Strict, 1);
        fake.set(Setting::Backwards, 1);
        fake
    }

    fn of(config: MockConfig) -> Self {
        Self { machine: config.machine().unwrap(), config, without: None }
    }

    /// With a driver that has no function of this name.
    fn without(symbol: &str) -> Self {
        Self { without: Some(symbol.to_owned()), ..Self::new() }
    }

    fn set(&self, setting: Setting, value: u64) {
        self.machine.set(setting, value);
    }

    /// Something goes wrong from now on, on a function or an operation of the first device.
    fn always(&self, kind: Kind, call: u32, code: u32, value: u64) {
        let fault = RawFault { kind, call, code, reserved: 0, value, nth: 1, times: u64::MAX };
        self.machine.order(0, &fault).unwrap();
    }

    /// Answers an attribute of addresses with `value` from now on, and tells the truth otherwise.
    fn lie(&self, attribute: u32, value: u64) {
        self.tell_the_truth();
        self.always(Kind::Answer, number("cuPointerGetAttributes"), attribute, value);
    }

    /// Forgets all lies and orders.
    fn tell_the_truth(&self) {
        let _dead = self.machine.forget(0);
        let _dead = self.machine.forget(1);
    }

    /// The `nth` call of that name from now on returns `code` and does nothing; so do those after it, `times` in all.
    fn order(&self, call: &str, code: u32, nth: u64, times: u64) {
        let fault = RawFault { kind: Kind::Fail, call: number(call), code, reserved: 0, value: 0, nth, times };
        self.machine.order(0, &fault).unwrap();
    }

    fn get(&self, name: &str) -> u64 {
        let of = |device| {
            let stats = self.machine.stats(device);
            match name {
                "reservations" => stats.reservations,
                "physical" => stats.live_allocations,
                "used" => stats.live_bytes,
                "streams" => stats.live_streams,
                "events" => stats.live_events + stats.live_marks,
                "pinned" => stats.live_host_buffers,
                "modules" => stats.modules,
                "retained" => stats.retained,
                "pending" => stats.pending_operations,
                "violations" => stats.violations,
                "unwiped" => stats.unwiped_device_bytes,
                "unwiped host" => stats.unwiped_host_bytes,
                other => panic!("nobody counts {other}"),
            }
        };
        of(0) + of(1)
    }

    /// How often a function was called.
    fn calls(&self, name: &str) -> u64 {
        self.machine.calls(name)
    }

    /// Device memory as it is now; runs nothing.
    fn peek(&self, ptr: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.machine.look(DevicePtr(ptr), &mut out).unwrap();
        out
    }

    /// Places and lengths of the live mappings.
    fn mappings(&self) -> Vec<(u64, u64)> {
        self.machine.mappings().into_iter().map(|(ptr, bytes, _)| (ptr, bytes)).collect()
    }

    /// What the mapping at this address allows: 0 nothing, 1 reading, 3 reading and writing.
    fn access(&self, ptr: u64) -> u32 {
        let mappings = self.machine.mappings();
        mappings.iter().find(|(at, bytes, _)| *at <= ptr && ptr < at + bytes).map_or(0, |(.., access)| *access)
    }
}

fn open_on(fake: &Fake, wanted: Wanted) -> Result<Arc<Driver>, OpenError> {
    let load = || Api::of_mock(&fake.machine, fake.without.as_deref());
    open_with(load, &Images::of_mock(), wanted).map(Arc::new)
}

/// A driver on a machine of its own, with a stream.
struct Bench {
    fake: Fake,
    driver: Arc<Driver>,
    stream: StreamId,
}

fn bench() -> Bench {
    Bench::on(Fake::new())
}

/// On a mock as it is when nobody asks for anything else.
fn plain() -> Bench {
    Bench::of(MockConfig::new())
}

impl Bench {
    fn of(config: MockConfig) -> Self {
        Self::on(Fake::of(config))
    }

    fn on(fake: Fake) -> Self {
        let driver = open_on(&fake, Wanted::First).unwrap();
        let stream = driver.stream().unwrap();
        Self { fake, driver, stream }
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
        self.fake.peek(at.0, bytes)
    }

    fn result(&self, at: DevicePtr) -> LaunchResult {
        LaunchResult::from_bytes(&self.peek(at, 32).try_into().unwrap())
    }

    fn order(&self, order: impl Into<FaultOrder>) -> Result<(), VramError> {
        self.fake.config.fail(order)
    }

    /// Drops the driver; nothing of it may be left, and nothing may have gone wrong unseen.
    fn close(self) {
        drop(self.driver);
        clean(&self.fake);
    }
}

/// Nothing is left on the machine, and it saw nothing that a real driver would have made undefined.
fn clean(fake: &Fake) {
    for what in ["reservations", "physical", "streams", "events", "pinned", "modules", "used", "retained"] {
        assert_eq!(fake.get(what), 0, "{what}");
    }
    assert_eq!((fake.get("violations"), fake.get("unwiped host"), contexts().0), (0, 0, 0));
}

fn kind<T: std::fmt::Debug>(result: Result<T, DriverError>) -> DriverErrorKind {
    result.unwrap_err().kind
}

fn code<T: std::fmt::Debug>(result: Result<T, DriverError>) -> u32 {
    result.unwrap_err().code
}

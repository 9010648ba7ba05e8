//! The CUDA driver against a stand-in for NVIDIA's library (cuda/fake), with the kernels' bodies compiled for the host. It has
//! not been run on a GPU: what a real driver answers where its documentation is silent is not shown here.
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod contract;
mod digests;
mod life;
mod opening;
mod sealed;

use std::sync::Arc;

use super::images::Images;
use super::open::{OpenError, open_with};
use super::*;
use crate::ffi::cuda::Api;
use crate::types::{DeviceKind, DeviceUuid, LaunchResult, MemoryKind};
use vram_residency_rig::StandIn as Fake;

/// 2 MiB.
const GRANULE: u64 = 2 << 20;

fn open_on(fake: &Fake, wanted: Wanted) -> Result<Arc<CudaDriver>, OpenError> {
    open_with(|| Api::load_from(fake.path()), &Images::stand_in(), wanted).map(Arc::new)
}

/// A driver on a stand-in of its own, with a stream.
struct Bench {
    fake: Fake,
    driver: Arc<CudaDriver>,
    stream: StreamId,
}

fn bench() -> Bench {
    let fake = Fake::new();
    let driver = open_on(&fake, Wanted::First).unwrap();
    let stream = driver.stream().unwrap();
    Bench { fake, driver, stream }
}

impl Bench {
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

    /// Drops the driver; nothing of it may be left, and nothing may have gone wrong unseen.
    fn close(self) {
        drop(self.driver);
        clean(&self.fake);
    }
}

/// Nothing is left in the stand-in, and it saw nothing that a real driver would have made undefined.
fn clean(fake: &Fake) {
    for what in ["reservations", "physical", "streams", "events", "pinned", "modules", "used", "retained", "depth"] {
        assert_eq!(fake.get(what), 0, "{what}");
    }
    assert_eq!((fake.get("violations"), fake.get("unwiped host")), (0, 0));
}

fn kind<T: std::fmt::Debug>(result: Result<T, DriverError>) -> DriverErrorKind {
    result.unwrap_err().kind
}

fn code<T: std::fmt::Debug>(result: Result<T, DriverError>) -> u32 {
    result.unwrap_err().code
}

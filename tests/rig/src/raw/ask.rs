//! Questions to the driver that change nothing.

use super::{Location, Raw};

/// CU_STREAM_NOT_READY.
const NOT_READY: u32 = 600;

/// CUmemAllocationProp.
#[repr(C)]
struct Properties {
    kind: u32,
    handle_types: u32,
    location: Location,
    win32: usize,
    flags: [u8; 8],
}

impl Raw {
    pub fn is_mock(&self) -> bool {
        matches!(self.driver(), super::Driver::Mock(_))
    }

    /// Devices that the driver sees.
    pub fn devices(&self) -> u32 {
        let ask: unsafe extern "C" fn(*mut i32) -> u32 = self.find("cuDeviceGetCount");
        let mut count = 0;
        // SAFETY: the driver writes one number to the local.
        assert_eq!(unsafe { ask(&raw mut count) }, 0, "cuDeviceGetCount");
        u32::try_from(count).unwrap()
    }

    /// The device's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        let ask: unsafe extern "C" fn(*mut [u8; 16], i32) -> u32 = self.find("cuDeviceGetUuid_v2");
        let mut uuid = [0; 16];
        // SAFETY: the driver writes 16 bytes to the local.
        assert_eq!(unsafe { ask(&raw mut uuid, self.device) }, 0, "cuDeviceGetUuid_v2");
        uuid
    }

    /// The unit of pinned device memory, in bytes.
    pub fn granularity(&self) -> u64 {
        let ask: unsafe extern "C" fn(*mut usize, *const Properties, u32) -> u32 =
            self.find("cuMemGetAllocationGranularity");
        let location = Location { kind: 1, id: self.device };
        let wanted = Properties { kind: 1, handle_types: 0, location, win32: 0, flags: [0; 8] };
        let mut unit = 0;
        // SAFETY: the driver reads one description and writes one number to the local; 0 asks for the least unit.
        let code = self.inside(|| unsafe { ask(&raw mut unit, &raw const wanted, 0) });
        assert_eq!(code, 0, "cuMemGetAllocationGranularity");
        unit as u64
    }

    /// Whether everything on the stream has run.
    pub fn is_idle(&self, stream: usize) -> bool {
        let ask: unsafe extern "C" fn(usize) -> u32 = self.find("cuStreamQuery");
        // SAFETY: the handle came from `stream`.
        match self.inside(|| unsafe { ask(stream) }) {
            0 => true,
            NOT_READY => false,
            code => panic!("cuStreamQuery: {code}"),
        }
    }
}

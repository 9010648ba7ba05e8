//! What only an attacker does: a context of its own besides the primary one, and mappings whose access it switches.
//!
//! Owns [`Mapped`]. Every refusal is an answer here, so these functions give the driver's number instead of panicking.

use std::sync::Arc;

use crate::Raw;
use crate::raw::{AccessDesc, Context, Location, check};

/// CUmemAllocationProp: memory of one device, without a handle type for other processes.
#[repr(C)]
struct Properties {
    kind: u32,
    handle_types: u32,
    location: Location,
    win32: usize,
    flags: [u8; 8],
}

/// CUmemAccess_flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read = 1,
    ReadWrite = 3,
}

/// Memory of the virtual-memory API that the suite made itself. Given back when dropped.
#[derive(Debug)]
pub struct Mapped {
    raw: Arc<Raw>,
    handle: u64,
    place: u64,
    bytes: usize,
}

impl Raw {
    /// A context besides the primary one, on the same device.
    ///
    /// # Errors
    /// The driver's call and number, where it does not let one be made.
    pub fn second_context(&self) -> Result<Arc<Self>, String> {
        let create: unsafe extern "C" fn(*mut usize, u32, i32) -> u32 = self.try_find("cuCtxCreate_v2")?;
        let pop: unsafe extern "C" fn(*mut usize) -> u32 = self.find("cuCtxPopCurrent_v2");
        let (mut context, mut popped) = (0, 0);
        // SAFETY: the driver writes one handle to the local.
        check("cuCtxCreate", unsafe { create(&raw mut context, 0, self.device) })?;
        // SAFETY: as above; a new context is current on this thread, and `inside` makes it so again.
        check("cuCtxPopCurrent", unsafe { pop(&raw mut popped) })?;
        Ok(self.with_context(Context::Created(context)))
    }

    /// Destroys the primary context whoever uses it, and what it holds.
    ///
    /// # Errors
    /// The driver's call and number.
    pub fn reset_primary(&self) -> Result<(), String> {
        let reset: unsafe extern "C" fn(i32) -> u32 = self.try_find("cuDevicePrimaryCtxReset_v2")?;
        // SAFETY: takes a number. Whoever calls this ends the process soon.
        check("cuDevicePrimaryCtxReset", unsafe { reset(self.device) })
    }

    /// Memory of the virtual-memory API: a multiple of 2 MiB, readable and writable.
    ///
    /// # Errors
    /// The driver's call and number.
    pub fn map(self: &Arc<Self>, bytes: usize) -> Result<Mapped, String> {
        let create: unsafe extern "C" fn(*mut u64, usize, *const Properties, u64) -> u32 = self.find("cuMemCreate");
        let wanted = Properties {
            kind: 1,
            handle_types: 0,
            location: Location { kind: 1, id: self.device },
            win32: 0,
            flags: [0; 8],
        };
        let mut handle = 0;
        // SAFETY: the driver reads one description and writes one handle to the local.
        let code = self.inside(|| unsafe { create(&raw mut handle, bytes, &raw const wanted, 0) });
        check("cuMemCreate", code)?;
        let mapped = self.map_handle(handle, bytes);
        if mapped.is_err() {
            self.release_handle(handle);
        }
        mapped
    }

    fn map_handle(self: &Arc<Self>, handle: u64, bytes: usize) -> Result<Mapped, String> {
        let reserve: unsafe extern "C" fn(*mut u64, usize, usize, u64, u64) -> u32 = self.find("cuMemAddressReserve");
        let map: unsafe extern "C" fn(u64, usize, usize, u64, u64) -> u32 = self.find("cuMemMap");
        let mut place = 0;
        self.inside(|| {
            // SAFETY: the driver writes one address to the local.
            check("cuMemAddressReserve", unsafe { reserve(&raw mut place, bytes, 0, 0, 0) })?;
            // SAFETY: takes numbers that the driver checks.
            check("cuMemMap", unsafe { map(place, bytes, 0, handle, 0) })
        })?;
        self.set_access(place, bytes, Access::ReadWrite)?;
        Ok(Mapped { raw: Arc::clone(self), handle, place, bytes })
    }

    fn release_handle(&self, handle: u64) {
        let release: unsafe extern "C" fn(u64) -> u32 = self.find("cuMemRelease");
        // SAFETY: made once by `map`, or retained once.
        let _ = self.inside(|| unsafe { release(handle) });
    }

    /// Switches what a whole mapping allows, whoever made it.
    ///
    /// # Errors
    /// The driver's call and number.
    pub fn set_access(&self, place: u64, bytes: usize, access: Access) -> Result<(), String> {
        let set: unsafe extern "C" fn(u64, usize, *const AccessDesc, usize) -> u32 = self.find("cuMemSetAccess");
        let wanted = AccessDesc { location: Location { kind: 1, id: self.device }, flags: access as u32 };
        // SAFETY: one description, of the type that the driver reads.
        check("cuMemSetAccess", self.inside(|| unsafe { set(place, bytes, &raw const wanted, 1) }))
    }

    /// What the driver says that a mapping allows: 1 to read, 3 to write too.
    ///
    /// # Errors
    /// The driver's call and number.
    pub fn access(&self, place: u64) -> Result<u64, String> {
        let ask: unsafe extern "C" fn(*mut u64, *const Location, u64) -> u32 = self.find("cuMemGetAccess");
        let location = Location { kind: 1, id: self.device };
        let mut flags = 0;
        // SAFETY: the driver reads one location and writes one number to the local.
        check("cuMemGetAccess", self.inside(|| unsafe { ask(&raw mut flags, &raw const location, place) }))?;
        Ok(flags)
    }
}

impl Mapped {
    pub fn address(&self) -> u64 {
        self.place
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// # Errors
    /// As [`Raw::set_access`].
    pub fn set_access(&self, access: Access) -> Result<(), String> {
        self.raw.set_access(self.place, self.bytes, access)
    }

    /// The same physical memory, mapped once more in another context. Forget it or drop it before this one.
    ///
    /// # Errors
    /// The driver's call and number.
    pub fn again_in(&self, other: &Arc<Raw>) -> Result<Mapped, String> {
        let retain: unsafe extern "C" fn(*mut u64, u64) -> u32 = other.find("cuMemRetainAllocationHandle");
        let mut handle = 0;
        // SAFETY: the driver writes one handle to the local.
        let code = other.inside(|| unsafe { retain(&raw mut handle, self.place) });
        // The handle as it was made serves where the driver does not give it again.
        let handle = if code == 0 { handle } else { self.handle };
        other.map_handle(handle, self.bytes)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let unmap: unsafe extern "C" fn(u64, usize) -> u32 = self.raw.find("cuMemUnmap");
        let free: unsafe extern "C" fn(u64, usize) -> u32 = self.raw.find("cuMemAddressFree");
        self.raw.inside(|| {
            // SAFETY: mapped and reserved once in `map_handle`.
            let _ = unsafe { unmap(self.place, self.bytes) };
            // SAFETY: as above.
            let _ = unsafe { free(self.place, self.bytes) };
        });
        self.raw.release_handle(self.handle);
    }
}

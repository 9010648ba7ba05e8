//! Memory that no manager may take for its device's own.

use std::ffi::c_void;
use std::sync::Arc;

use super::{AccessDesc, Location, Raw, check};

/// A handle type that other processes can be given: a file descriptor.
const EXPORTABLE: u32 = 1;

/// CUmemAllocationProp.
#[repr(C)]
struct Properties {
    kind: u32,
    handle_types: u32,
    location: Location,
    win32: *mut c_void,
    flags: [u8; 8],
}

/// Memory that no manager may take for the device's own. Given back when dropped.
#[derive(Debug)]
pub struct Foreign {
    raw: Arc<Raw>,
    what: What,
    place: u64,
    bytes: usize,
}

#[derive(Debug)]
enum What {
    /// Device memory that other processes can be given.
    Exportable,
    Managed,
    /// Host memory that the driver knows.
    Pinned,
}

impl Foreign {
    pub fn address(&self) -> u64 {
        self.place
    }
}

impl Raw {
    /// Device memory that was made so that other processes can be given it.
    ///
    /// # Errors
    /// The driver's call and number, where it cannot make such.
    pub fn exportable(self: &Arc<Self>, bytes: usize) -> Result<Foreign, String> {
        let granule: unsafe extern "C" fn(*mut usize, *const Properties, u32) -> u32 =
            self.find("cuMemGetAllocationGranularity");
        let create: unsafe extern "C" fn(*mut u64, usize, *const Properties, u64) -> u32 = self.find("cuMemCreate");
        let location = Location { kind: 1, id: self.device };
        let wanted =
            Properties { kind: 1, handle_types: EXPORTABLE, location, win32: std::ptr::null_mut(), flags: [0; 8] };
        self.inside(|| {
            let mut unit = 0;
            // SAFETY: the driver reads one description and writes one number to the local.
            let asked = unsafe { granule(&raw mut unit, &raw const wanted, 0) };
            check("cuMemGetAllocationGranularity", asked)?;
            let (bytes, mut handle) = (bytes.next_multiple_of(unit), 0);
            // SAFETY: the driver reads one description and writes one handle to the local.
            let made = unsafe { create(&raw mut handle, bytes, &raw const wanted, 0) };
            check("cuMemCreate", made)?;
            let mapped = self.map_somewhere(handle, bytes);
            self.let_go(handle); // the mapping keeps the memory
            Ok(Foreign { raw: Arc::clone(self), what: What::Exportable, place: mapped?, bytes })
        })
    }

    /// Managed memory, which migrates between host and device.
    ///
    /// # Errors
    /// The driver's call and number, where it cannot make such.
    pub fn managed(self: &Arc<Self>, bytes: usize) -> Result<Foreign, String> {
        let call: unsafe extern "C" fn(*mut u64, usize, u32) -> u32 = self.find("cuMemAllocManaged");
        let mut place = 0;
        // SAFETY: the driver writes one address to the local; 1 attaches the memory to all streams.
        let code = self.inside(|| unsafe { call(&raw mut place, bytes, 1) });
        check("cuMemAllocManaged", code)?;
        Ok(Foreign { raw: Arc::clone(self), what: What::Managed, place, bytes })
    }

    /// Host memory that the driver pinned, in one address space with the device's.
    ///
    /// # Errors
    /// The driver's call and number, where it cannot make such.
    pub fn page_locked(self: &Arc<Self>, bytes: usize) -> Result<Foreign, String> {
        let call: unsafe extern "C" fn(*mut u64, usize, u32) -> u32 = self.find("cuMemHostAlloc");
        let mut place = 0;
        // SAFETY: the driver writes one address to the local; 1 is CU_MEMHOSTALLOC_PORTABLE.
        let code = self.inside(|| unsafe { call(&raw mut place, bytes, 1) });
        check("cuMemHostAlloc", code)?;
        // SAFETY: as many bytes as were asked for, which nobody else has.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(place as usize).write_bytes(0, bytes) };
        Ok(Foreign { raw: Arc::clone(self), what: What::Pinned, place, bytes })
    }

    /// Reserves a place, maps the memory there and makes it readable and writable. The context is current.
    pub(super) fn map_somewhere(&self, handle: u64, bytes: usize) -> Result<u64, String> {
        let reserve: unsafe extern "C" fn(*mut u64, usize, usize, u64, u64) -> u32 = self.find("cuMemAddressReserve");
        let map: unsafe extern "C" fn(u64, usize, usize, u64, u64) -> u32 = self.find("cuMemMap");
        let access: unsafe extern "C" fn(u64, usize, *const AccessDesc, usize) -> u32 = self.find("cuMemSetAccess");
        let wanted = AccessDesc { location: Location { kind: 1, id: self.device }, flags: 3 };
        let mut place = 0;
        // SAFETY: the driver writes one address to the local.
        check("cuMemAddressReserve", unsafe { reserve(&raw mut place, bytes, 0, 0, 0) })?;
        // SAFETY: takes numbers that the driver checks.
        let mapped = check("cuMemMap", unsafe { map(place, bytes, 0, handle, 0) });
        // SAFETY: one description, of the type that the driver reads.
        let open = mapped.and_then(|()| check("cuMemSetAccess", unsafe { access(place, bytes, &raw const wanted, 1) }));
        open.map(|()| place).inspect_err(|_| self.unmap(place, bytes))
    }

    /// Gives a handle back. The context is current.
    pub(super) fn let_go(&self, handle: u64) {
        let release: unsafe extern "C" fn(u64) -> u32 = self.find("cuMemRelease");
        // SAFETY: takes a number that the driver checks; every handle is given back once.
        let _ = unsafe { release(handle) };
    }

    /// Takes a mapping off its place, where there is one, and gives the place back. The context is current.
    fn unmap(&self, place: u64, bytes: usize) {
        let unmap: unsafe extern "C" fn(u64, usize) -> u32 = self.find("cuMemUnmap");
        let free: unsafe extern "C" fn(u64, usize) -> u32 = self.find("cuMemAddressFree");
        // SAFETY: takes numbers that the driver checks; nothing uses the place any more.
        let _ = unsafe { unmap(place, bytes) };
        // SAFETY: as above.
        let _ = unsafe { free(place, bytes) };
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let free = |name: &str| {
            let call: unsafe extern "C" fn(u64) -> u32 = self.raw.find(name);
            // SAFETY: the address came from the call that this one reverses, and is given back once.
            let _ = self.raw.inside(|| unsafe { call(self.place) });
        };
        match self.what {
            What::Exportable => self.raw.inside(|| self.raw.unmap(self.place, self.bytes)),
            What::Managed => free("cuMemFree_v2"),
            What::Pinned => free("cuMemFreeHost"),
        }
    }
}

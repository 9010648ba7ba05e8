//! Memory of the virtual-memory API: made by the suite, or somebody else's mapped a second time.

use std::sync::Arc;

use super::{Raw, Refused};

/// A handle type that other processes can be given: a file descriptor.
const EXPORTABLE: u32 = 1;

/// CUmemLocation.
#[repr(C)]
pub(crate) struct Location {
    kind: u32,
    id: i32,
}

/// CUmemAccessDesc.
#[repr(C)]
pub(crate) struct AccessDesc {
    location: Location,
    flags: u32,
}

/// CUmemAllocationProp.
#[repr(C)]
pub(crate) struct Properties {
    kind: u32,
    handle_types: u32,
    location: Location,
    win32: usize,
    flags: [u8; 8],
}

declare! { inside:
    fn cuMemGetAllocationGranularity(unit: &mut usize, wanted: &Properties, option: u32);
    fn cuMemCreate(handle: &mut u64, bytes: usize, wanted: &Properties, flags: u64);
    fn cuMemRetainAllocationHandle(handle: &mut u64, address: u64);
    fn cuMemRelease(handle: u64);
    fn cuMemAddressReserve(place: &mut u64, bytes: usize, alignment: usize, wanted: u64, flags: u64);
    fn cuMemAddressFree(place: u64, bytes: usize);
    fn cuMemMap(place: u64, bytes: usize, offset: usize, handle: u64, flags: u64);
    fn cuMemUnmap(place: u64, bytes: usize);
    [unsafe] fn cuMemSetAccess(place: u64, bytes: usize, wanted: *const AccessDesc, count: usize);
    fn cuMemGetAccess(flags: &mut u64, location: &Location, place: u64);
}

/// CUmemAccess_flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read = 1,
    ReadWrite = 3,
}

/// A mapping of the suite's own, readable and writable at first. Given back when dropped; it outlives any other of the same memory.
#[derive(Debug)]
pub struct Mapping {
    raw: Arc<Raw>,
    handle: u64,
    /// Where it begins, and where what it is a second mapping of does.
    place: u64,
    original: Option<u64>,
    bytes: usize,
}

impl Raw {
    fn properties(&self, handle_types: u32) -> Properties {
        let location = Location { kind: 1, id: self.device };
        Properties { kind: 1, handle_types, location, win32: 0, flags: [0; 8] }
    }

    /// The unit of pinned device memory, in bytes.
    pub fn granularity(&self) -> u64 {
        let mut unit = 0;
        self.cuMemGetAllocationGranularity(&mut unit, &self.properties(0), 0).unwrap();
        unit as u64
    }

    /// Device memory of its own: a multiple of the granularity.
    pub fn map(self: &Arc<Self>, bytes: usize) -> Result<Mapping, Refused> {
        self.create(bytes, 0)
    }

    /// Device memory that was made so that other processes can be given it.
    pub fn exportable(self: &Arc<Self>, bytes: usize) -> Result<Mapping, Refused> {
        let mut unit = 0;
        self.cuMemGetAllocationGranularity(&mut unit, &self.properties(EXPORTABLE), 0)?;
        self.create(bytes.next_multiple_of(unit), EXPORTABLE)
    }

    fn create(self: &Arc<Self>, bytes: usize, handle_types: u32) -> Result<Mapping, Refused> {
        let mut handle = 0;
        self.cuMemCreate(&mut handle, bytes, &self.properties(handle_types), 0)?;
        self.map_handle(handle, None, bytes)
    }

    /// Maps memory that somebody else mapped a second time, writable whatever the first mapping allows.
    pub fn alias(self: &Arc<Self>, address: u64) -> Result<Mapping, Refused> {
        let (original, bytes) = self.range(address)?;
        let mut handle = 0;
        self.cuMemRetainAllocationHandle(&mut handle, original)?;
        self.map_handle(handle, Some(original), bytes)
    }

    /// What is not done when the driver refuses a step is undone by the drop.
    fn map_handle(self: &Arc<Self>, handle: u64, original: Option<u64>, bytes: usize) -> Result<Mapping, Refused> {
        let mut mapping = Mapping { raw: Arc::clone(self), handle, place: 0, original, bytes };
        self.cuMemAddressReserve(&mut mapping.place, bytes, 0, 0, 0)?;
        self.cuMemMap(mapping.place, bytes, 0, handle, 0)?;
        self.set_access(mapping.place, bytes, Access::ReadWrite)?;
        Ok(mapping)
    }

    /// Switches what a whole mapping allows, whoever made it.
    pub fn set_access(&self, place: u64, bytes: usize, access: Access) -> Result<(), Refused> {
        let wanted = AccessDesc { location: Location { kind: 1, id: self.device }, flags: access as u32 };
        // SAFETY: one description.
        unsafe { self.cuMemSetAccess(place, bytes, &raw const wanted, 1) }
    }

    /// What the driver says that a mapping allows: 1 to read, 3 to write too.
    pub fn access(&self, place: u64) -> Result<u64, Refused> {
        let mut flags = 0;
        self.cuMemGetAccess(&mut flags, &Location { kind: 1, id: self.device }, place).map(|()| flags)
    }
}

impl Mapping {
    pub fn address(&self) -> u64 {
        self.place
    }

    /// Bytes of the whole allocation.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a byte of the other mapping lies in this one.
    pub fn of(&self, address: u64) -> u64 {
        let original = self.original.expect("a second mapping");
        assert!(address >= original && address - original < self.bytes as u64, "outside of what the mapping shows");
        self.place + (address - original)
    }

    /// All of it, as it is now.
    pub fn read(&self) -> Vec<u8> {
        self.raw.read(self.place, self.bytes)
    }

    /// Flips a bit of the byte at the other mapping's `address`.
    pub fn flip(&self, address: u64, bit: u8) {
        let byte = self.raw.read(self.of(address), 1)[0];
        self.write(address, &[byte ^ (1 << bit)]);
    }

    /// Writes from the other mapping's `address` on.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        if let Some(last) = bytes.len().checked_sub(1) {
            self.of(address + last as u64);
            self.raw.write(self.of(address), bytes);
        }
    }

    pub fn set_access(&self, access: Access) -> Result<(), Refused> {
        self.raw.set_access(self.place, self.bytes, access)
    }

    /// The same physical memory, mapped once more in another context, which need not know this mapping.
    pub fn again_in(&self, other: &Arc<Raw>) -> Result<Mapping, Refused> {
        let mut handle = 0;
        // The handle as it was made serves where the driver does not give it again.
        if other.cuMemRetainAllocationHandle(&mut handle, self.place).is_err() {
            handle = self.handle;
        }
        other.map_handle(handle, Some(self.place), self.bytes)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = self.raw.cuMemUnmap(self.place, self.bytes);
        let _ = self.raw.cuMemAddressFree(self.place, self.bytes);
        let _ = self.raw.cuMemRelease(self.handle);
    }
}

//! Second mappings of memory that somebody else allocated.

use std::sync::Arc;

use super::{Raw, check};

/// A second mapping of memory that somebody else allocated, writable whatever the first one allows. It outlives the first.
#[derive(Debug)]
pub struct Alias {
    raw: Arc<Raw>,
    handle: u64,
    /// Where the alias begins, and where what it is an alias of does.
    place: u64,
    original: u64,
    bytes: usize,
}

impl Raw {
    /// Maps memory of the virtual-memory API a second time.
    ///
    /// # Errors
    /// The driver's call and number, where it does not allow that.
    pub fn alias(self: &Arc<Self>, ptr: u64) -> Result<Alias, String> {
        let (original, bytes) = self.try_range(ptr)?;
        let retain: unsafe extern "C" fn(*mut u64, u64) -> u32 = self.find("cuMemRetainAllocationHandle");
        let mut handle = 0;
        self.inside(|| {
            // SAFETY: the driver writes one handle to the local.
            check("cuMemRetainAllocationHandle", unsafe { retain(&raw mut handle, original) })?;
            let place = self.map_somewhere(handle, bytes).inspect_err(|_| self.let_go(handle))?;
            Ok(Alias { raw: Arc::clone(self), handle, place, original, bytes })
        })
    }
}

impl Alias {
    /// Where the alias of an address lies.
    pub fn of(&self, ptr: u64) -> u64 {
        assert!(ptr >= self.original && ptr - self.original < self.bytes as u64, "outside of what the alias shows");
        self.place + (ptr - self.original)
    }

    /// Bytes of the whole allocation.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it, as it is now.
    pub fn read(&self) -> Vec<u8> {
        self.raw.read(self.place, self.bytes)
    }

    /// Flips a bit of the byte at the original's address `ptr`.
    pub fn flip(&self, ptr: u64, bit: u8) {
        let at = self.of(ptr);
        let byte = self.raw.read(at, 1)[0];
        self.raw.write(at, &[byte ^ (1 << bit)]);
    }

    /// Writes from the original's address `ptr` on.
    pub fn write(&self, ptr: u64, bytes: &[u8]) {
        if let Some(last) = bytes.len().checked_sub(1) {
            self.of(ptr + last as u64);
            self.raw.write(self.of(ptr), bytes);
        }
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        let unmap: unsafe extern "C" fn(u64, usize) -> u32 = self.raw.find("cuMemUnmap");
        let free: unsafe extern "C" fn(u64, usize) -> u32 = self.raw.find("cuMemAddressFree");
        let release: unsafe extern "C" fn(u64) -> u32 = self.raw.find("cuMemRelease");
        self.raw.inside(|| {
            // SAFETY: mapped, reserved and retained once in `alias`.
            let _ = unsafe { unmap(self.place, self.bytes) };
            // SAFETY: as above.
            let _ = unsafe { free(self.place, self.bytes) };
            // SAFETY: as above.
            let _ = unsafe { release(self.handle) };
        });
    }
}

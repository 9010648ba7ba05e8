//! Memory that an engine allocated itself.

use std::sync::Arc;

use vram_residency::RawRegion;

use crate::Raw;

/// An engine's own device memory. Given back when dropped.
#[derive(Debug)]
pub struct Memory {
    raw: Arc<Raw>,
    ptr: u64,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(raw: &Arc<Raw>, bytes: usize) -> Self {
        Self { raw: Arc::clone(raw), ptr: raw.alloc(bytes), bytes }
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The device address of a byte.
    pub fn address(&self, at: usize) -> u64 {
        assert!(at <= self.bytes);
        self.ptr + at as u64
    }

    pub fn region(&self, at: usize, bytes: usize) -> RawRegion {
        assert!(at + bytes <= self.bytes);
        RawRegion::new(self.address(at), bytes as u64).writable()
    }

    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.bytes);
        self.raw.write(self.address(at), bytes);
    }

    pub fn read(&self, at: usize, bytes: usize) -> Vec<u8> {
        assert!(at + bytes <= self.bytes);
        self.raw.read(self.address(at), bytes)
    }

    pub fn flip(&self, at: usize, bit: u8) {
        let byte = self.read(at, 1)[0];
        self.write(at, &[byte ^ (1 << bit)]);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.raw.free(self.ptr);
    }
}

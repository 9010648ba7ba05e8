//! Memory that an engine allocated itself.

use std::sync::Arc;

use vram_residency::{AdoptError, Adopted, RawRegion, ShardSpec, VramManager};

use crate::{Raw, Refused};

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

    /// Managed memory, which migrates between host and device.
    pub fn managed(raw: &Arc<Raw>, bytes: usize) -> Result<Self, Refused> {
        let mut ptr = 0;
        // 1 attaches the memory to all streams.
        raw.cuMemAllocManaged(&mut ptr, bytes, 1)?;
        Ok(Self { raw: Arc::clone(raw), ptr, bytes })
    }

    pub fn len(&self) -> usize {
        self.bytes
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

    /// Has a manager adopt places of it, which it keeps allocated as their owner.
    pub fn adopt(
        self: &Arc<Self>,
        manager: &VramManager,
        spec: ShardSpec,
        places: &[(usize, usize)],
    ) -> Result<Adopted<Arc<Self>>, AdoptError<Arc<Self>>> {
        let regions: Vec<RawRegion> = places.iter().map(|(at, bytes)| self.region(*at, *bytes)).collect();
        // SAFETY: the regions lie in this memory, which the owner keeps allocated and which does not move; suites change it only
        // between calls, when no check runs.
        unsafe { manager.adopt(spec, Arc::clone(self), &regions) }
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

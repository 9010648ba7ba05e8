//! Memory that an engine allocated itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vram_residency::RawRegion;

use crate::Raw;

/// An engine's memory: device memory of its own, or host bytes, which the mock takes for a device's. Given back when dropped.
#[derive(Debug)]
pub struct Memory(Place);

#[derive(Debug)]
enum Place {
    /// Cells, because the device may write them.
    Host(Box<[AtomicU8]>),
    Device {
        raw: Arc<Raw>,
        ptr: u64,
        bytes: usize,
    },
}

impl Memory {
    pub(crate) fn host(bytes: usize) -> Self {
        Self(Place::Host((0..bytes).map(|_| AtomicU8::new(0)).collect()))
    }

    pub(crate) fn device(raw: &Arc<Raw>, bytes: usize) -> Self {
        Self(Place::Device { raw: Arc::clone(raw), ptr: raw.alloc(bytes), bytes })
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Place::Host(cells) => cells.len(),
            Place::Device { bytes, .. } => *bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device address of a byte.
    pub fn address(&self, at: usize) -> u64 {
        assert!(at <= self.len());
        let start = match &self.0 {
            Place::Host(cells) => cells.as_ptr().expose_provenance() as u64,
            Place::Device { ptr, .. } => *ptr,
        };
        start + at as u64
    }

    pub fn region(&self, at: usize, bytes: usize) -> RawRegion {
        assert!(at + bytes <= self.len());
        RawRegion::new(self.address(at), bytes as u64).writable()
    }

    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len());
        match &self.0 {
            Place::Host(cells) => {
                cells[at..].iter().zip(bytes).for_each(|(cell, byte)| cell.store(*byte, Ordering::SeqCst))
            }
            Place::Device { raw, .. } => raw.write(self.address(at), bytes),
        }
    }

    pub fn read(&self, at: usize, bytes: usize) -> Vec<u8> {
        assert!(at + bytes <= self.len());
        match &self.0 {
            Place::Host(cells) => cells[at..at + bytes].iter().map(|cell| cell.load(Ordering::SeqCst)).collect(),
            Place::Device { raw, .. } => raw.read(self.address(at), bytes),
        }
    }

    pub fn flip(&self, at: usize, bit: u8) {
        let byte = self.read(at, 1)[0];
        self.write(at, &[byte ^ (1 << bit)]);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Place::Device { raw, ptr, .. } = &self.0 {
            raw.free(*ptr);
        }
    }
}

//! Host memory that the driver pinned, copies in the background, and streams with a priority.

use std::ffi::c_void;
use std::sync::Arc;

use super::{Raw, Refused};

declare! { inside:
    fn cuMemHostAlloc(ptr: &mut *mut c_void, bytes: usize, flags: u32);
    [unsafe] fn cuMemFreeHost(ptr: *mut c_void);
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize);
    [unsafe] fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, stream: usize);
    [unsafe] fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, stream: usize);
    fn cuCtxGetStreamPriorityRange(least: &mut i32, greatest: &mut i32);
    fn cuStreamCreateWithPriority(stream: &mut usize, flags: u32, priority: i32);
}

/// Host memory that the driver copies from and to by itself. Given back when dropped.
#[derive(Debug)]
pub struct Pinned {
    raw: Arc<Raw>,
    ptr: *mut u8,
    bytes: usize,
}

impl Raw {
    /// Pinned memory, zeroed, in one address space with the device's.
    pub fn pinned(self: &Arc<Self>, bytes: usize) -> Result<Pinned, Refused> {
        let mut ptr = std::ptr::null_mut();
        self.cuMemHostAlloc(&mut ptr, bytes, 1)?;
        // SAFETY: as many bytes as were asked for, which nobody else has.
        unsafe { ptr.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { raw: Arc::clone(self), ptr: ptr.cast(), bytes })
    }

    /// Enqueues a copy within the device.
    pub fn copy(&self, stream: usize, to: u64, from: u64, bytes: usize) -> Result<(), Refused> {
        self.cuMemcpyDtoDAsync_v2(to, from, bytes, stream)
    }

    /// A stream that goes before all others, where the driver knows priorities.
    pub fn urgent_stream(&self) -> usize {
        let (mut least, mut greatest, mut stream) = (0, 0, 0);
        self.cuCtxGetStreamPriorityRange(&mut least, &mut greatest).unwrap();
        self.cuStreamCreateWithPriority(&mut stream, 1, greatest).unwrap();
        stream
    }
}

impl Pinned {
    pub fn address(&self) -> u64 {
        self.ptr.expose_provenance() as u64
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    fn at(&self, at: usize, bytes: usize) -> *mut u8 {
        assert!(at + bytes <= self.bytes);
        // SAFETY: within the memory, by the check above.
        unsafe { self.ptr.add(at) }
    }

    /// Enqueues a copy of `bytes` bytes at `at` to the device.
    pub fn copy_to_device(&mut self, stream: usize, to: u64, at: usize, bytes: usize) -> Result<(), Refused> {
        // SAFETY: as many bytes as are there; they live until the driver gives them back, which waits for its copies.
        unsafe { self.raw.cuMemcpyHtoDAsync_v2(to, self.at(at, bytes), bytes, stream) }
    }

    /// Enqueues a copy of `bytes` bytes from the device to `at`.
    pub fn copy_to_host(&mut self, stream: usize, from: u64, at: usize, bytes: usize) -> Result<(), Refused> {
        // SAFETY: as much room as is there, as above.
        unsafe { self.raw.cuMemcpyDtoHAsync_v2(self.at(at, bytes), from, bytes, stream) }
    }

    /// A part of it. No copy into that part is under way: whoever enqueued one has waited for it.
    pub fn bytes(&self, at: usize, bytes: usize) -> &[u8] {
        // SAFETY: initialised when it was made; the driver writes elsewhere, as this function asks for.
        unsafe { std::slice::from_raw_parts(self.at(at, bytes), bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: made once by `pinned`.
        let _ = unsafe { self.raw.cuMemFreeHost(self.ptr.cast()) };
    }
}

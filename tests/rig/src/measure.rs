//! What benches call besides: copies in the background, pinned memory, streams with a priority.

use std::ffi::c_void;
use std::sync::Arc;

use crate::Raw;

/// Host memory that the driver copies from and to by itself. Given back when dropped.
#[derive(Debug)]
pub struct Pinned {
    raw: Arc<Raw>,
    ptr: *mut u8,
    bytes: usize,
}

impl Raw {
    /// Pinned memory, zeroed.
    ///
    /// # Errors
    /// The driver's number.
    pub fn pinned(self: &Arc<Self>, bytes: usize) -> Result<Pinned, u32> {
        let call: unsafe extern "C" fn(*mut *mut c_void, usize, u32) -> u32 = self.find("cuMemHostAlloc");
        let mut ptr = std::ptr::null_mut();
        // SAFETY: the driver writes one address to the local.
        match self.inside(|| unsafe { call(&raw mut ptr, bytes, 1) }) {
            0 => {
                // SAFETY: as many bytes as were asked for, which nobody else has.
                unsafe { ptr.cast::<u8>().write_bytes(0, bytes) };
                Ok(Pinned { raw: Arc::clone(self), ptr: ptr.cast(), bytes })
            }
            code => Err(code),
        }
    }

    /// Enqueues a copy within the device.
    ///
    /// # Errors
    /// The driver's number.
    pub fn copy(&self, stream: usize, to: u64, from: u64, bytes: usize) -> Result<(), u32> {
        let call: unsafe extern "C" fn(u64, u64, usize, usize) -> u32 = self.find("cuMemcpyDtoDAsync_v2");
        // SAFETY: takes numbers; the driver checks the ranges and the handle came from `stream`.
        match self.inside(|| unsafe { call(to, from, bytes, stream) }) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// A stream that goes before all others, where the driver knows priorities.
    pub fn urgent_stream(&self) -> usize {
        let ask: unsafe extern "C" fn(*mut i32, *mut i32) -> u32 = self.find("cuCtxGetStreamPriorityRange");
        let call: unsafe extern "C" fn(*mut usize, u32, i32) -> u32 = self.find("cuStreamCreateWithPriority");
        let (mut least, mut greatest, mut stream) = (0, 0, 0);
        self.inside(|| {
            // SAFETY: the driver writes one number to each local.
            assert_eq!(unsafe { ask(&raw mut least, &raw mut greatest) }, 0, "cuCtxGetStreamPriorityRange");
            // SAFETY: the driver writes one handle to the local.
            assert_eq!(unsafe { call(&raw mut stream, 1, greatest) }, 0, "cuStreamCreateWithPriority");
        });
        stream
    }
}

impl Pinned {
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Enqueues a copy of `bytes` bytes at `at` to the device.
    ///
    /// # Errors
    /// The driver's number.
    pub fn copy_to_device(&mut self, stream: usize, to: u64, at: usize, bytes: usize) -> Result<(), u32> {
        assert!(at + bytes <= self.bytes);
        let call: unsafe extern "C" fn(u64, *const u8, usize, usize) -> u32 = self.raw.find("cuMemcpyHtoDAsync_v2");
        // SAFETY: within the memory, by the check above.
        let from = unsafe { self.ptr.add(at) };
        // SAFETY: as many bytes as are there; the handle came from `stream`.
        match self.raw.inside(|| unsafe { call(to, from, bytes, stream) }) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// Enqueues a copy of `bytes` bytes from the device to `at`.
    ///
    /// # Errors
    /// The driver's number.
    pub fn copy_to_host(&mut self, stream: usize, from: u64, at: usize, bytes: usize) -> Result<(), u32> {
        assert!(at + bytes <= self.bytes);
        let call: unsafe extern "C" fn(*mut u8, u64, usize, usize) -> u32 = self.raw.find("cuMemcpyDtoHAsync_v2");
        // SAFETY: within the memory, by the check above.
        let to = unsafe { self.ptr.add(at) };
        // SAFETY: as much room as is there; the handle came from `stream`.
        match self.raw.inside(|| unsafe { call(to, from, bytes, stream) }) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// A part of it. No copy into that part is under way: whoever enqueued one has waited for it.
    pub fn bytes(&self, at: usize, bytes: usize) -> &[u8] {
        assert!(at + bytes <= self.bytes);
        // SAFETY: within the memory, by the check above.
        let start = unsafe { self.ptr.add(at) };
        // SAFETY: initialised when it was made; the driver writes elsewhere, as this function asks for.
        unsafe { std::slice::from_raw_parts(start, bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let free: unsafe extern "C" fn(*mut c_void) -> u32 = self.raw.find("cuMemFreeHost");
        // SAFETY: made once by `pinned`.
        let _ = self.raw.inside(|| unsafe { free(self.ptr.cast()) });
    }
}

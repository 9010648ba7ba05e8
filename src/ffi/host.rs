//! Host staging memory.
//!
//! Owns [`HostBuffer`]: memory that a driver allocated for copies. Promises that its bytes are lent only when no copy uses
//! them, and that it is wiped before it goes back. Refuses to lend a shared slice at all: a copy may write at any time.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::erase::erase;
use crate::types::DriverError;

/// What a driver does for the host buffers that it made.
pub(crate) trait HostMemory: Send + Sync + fmt::Debug {
    /// Blocks until no copy uses the buffer at `base`. **When it returns, none does, unless [`is_used`](Self::is_used) says
    /// so.** An error is that of a copy which ran, or of the device.
    fn wait(&self, base: NonNull<u8>) -> Result<(), DriverError>;

    /// Whether a copy may still use the buffer at `base` although it was waited for: the driver would not tell.
    fn is_used(&self, _base: NonNull<u8>) -> bool {
        false
    }

    /// Gives the buffer back.
    ///
    /// # Safety
    /// `base` and `bytes` are those of a buffer that this driver made and that nobody uses afterwards.
    unsafe fn free(&self, base: NonNull<u8>, bytes: usize);
}

/// Staging memory that a driver can copy from and to.
pub(crate) struct HostBuffer {
    base: NonNull<u8>,
    len: usize,
    owner: Arc<dyn HostMemory>,
}

// SAFETY: the buffer is memory of its own, not tied to the thread that made it, and its owner is Send and Sync.
unsafe impl Send for HostBuffer {}
// SAFETY: a shared HostBuffer gives out its length only; every access to its bytes takes `&mut self`.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    /// Takes charge of a buffer.
    ///
    /// # Safety
    /// `base` is the start of `len` initialised bytes that `owner` made, that stay valid until `owner.free`, and that
    /// nobody touches but the owner's copies between being enqueued and `owner.wait`.
    pub(super) unsafe fn from_raw(base: NonNull<u8>, len: usize, owner: Arc<dyn HostMemory>) -> Self {
        Self { base, len, owner }
    }

    /// Its length in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Its bytes, once the copies that use them have run. An error is the one that such a copy ended with.
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8], DriverError> {
        self.owner.wait(self.base)?;
        Ok(self.settled())
    }

    /// Overwrites it with zeros, once the copies that use it have run. Wipes also when it returns their error, unless it is not
    /// known whether one of them still runs.
    pub(crate) fn wipe(&mut self) -> Result<(), DriverError> {
        self.wipe_first(self.len)
    }

    /// As [`wipe`](Self::wipe), for its first `bytes` bytes: all that were used.
    pub(crate) fn wipe_first(&mut self, bytes: usize) -> Result<(), DriverError> {
        let waited = self.owner.wait(self.base);
        if waited.is_err() && self.owner.is_used(self.base) {
            return waited;
        }
        let settled = self.settled();
        let used = bytes.min(settled.len());
        erase(settled.get_mut(..used).unwrap_or_default());
        waited
    }

    /// The address of the byte at `offset`, for a copy of `bytes` bytes from or to it; `None` when that is out of range.
    pub(super) fn address(&self, offset: usize, bytes: usize) -> Option<u64> {
        let end = offset.checked_add(bytes)?;
        if end > self.len {
            return None;
        }
        u64::try_from(self.base.addr().get()).ok()?.checked_add(u64::try_from(offset).ok()?)
    }

    /// The bytes. Only to be called after `owner.wait` has returned `Ok`, or `owner.is_used` has denied.
    fn settled(&mut self) -> &mut [u8] {
        // SAFETY: from_raw's caller vouched for `len` initialised bytes at `base`. No copy is pending, because every caller
        // in this file has waited and, after an error, asked `is_used`; and none is enqueued while the slice lives, because that takes `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        // The copy's error belongs to its stream's next synchronize; what counts here is that no copy runs any more.
        let _ = self.wipe();
        // SAFETY: from_raw's caller vouched that `owner` made this buffer; it is being dropped, so nobody uses it again.
        unsafe { self.owner.free(self.base, self.len) }
    }
}

impl fmt::Debug for HostBuffer {
    /// Its length only: neither address nor bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::types::DriverErrorKind;

    /// A driver that may not know whether a copy still runs.
    #[derive(Debug, Default)]
    struct Unsure {
        fails: AtomicBool,
        used: AtomicBool,
        freed: AtomicU64,
    }

    impl HostMemory for Unsure {
        fn wait(&self, _base: NonNull<u8>) -> Result<(), DriverError> {
            let error = DriverError { operation: "wait", code: 1, name: "n", kind: DriverErrorKind::Other };
            if self.fails.load(Ordering::SeqCst) { Err(error) } else { Ok(()) }
        }

        fn is_used(&self, _base: NonNull<u8>) -> bool {
            self.used.load(Ordering::SeqCst)
        }

        unsafe fn free(&self, _base: NonNull<u8>, _bytes: usize) {
            self.freed.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn bytes_that_a_copy_may_still_use_are_not_touched() {
        // covers: RES-1
        let mut bytes = [7_u8; 16];
        let base = NonNull::from(&mut bytes).cast::<u8>();
        let owner = Arc::new(Unsure::default());
        let driver: Arc<dyn HostMemory> = Arc::<Unsure>::clone(&owner);
        // SAFETY: `bytes` is 16 initialised bytes that outlive the buffer, and are read again only after it is gone.
        let mut buffer = unsafe { HostBuffer::from_raw(base, 16, driver) };
        owner.fails.store(true, Ordering::SeqCst);
        owner.used.store(true, Ordering::SeqCst);
        assert!(buffer.wipe_first(8).is_err() && buffer.bytes_mut().is_err());
        owner.used.store(false, Ordering::SeqCst);
        assert!(buffer.bytes_mut().is_err(), "the copy's own error");
        owner.fails.store(false, Ordering::SeqCst);
        assert_eq!(buffer.bytes_mut().unwrap(), [7; 16], "nothing was written");
        owner.fails.store(true, Ordering::SeqCst);
        assert!(buffer.wipe_first(8).is_err());
        owner.fails.store(false, Ordering::SeqCst);
        assert_eq!(buffer.bytes_mut().unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
        // The end of the buffer does not write either.
        owner.fails.store(true, Ordering::SeqCst);
        owner.used.store(true, Ordering::SeqCst);
        drop(buffer);
        assert_eq!((bytes[8..].to_vec(), owner.freed.load(Ordering::SeqCst)), (vec![7; 8], 1));
    }
}

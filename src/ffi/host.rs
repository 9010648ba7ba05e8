//! Host staging memory.
//!
//! Owns [`HostBuffer`]: memory that a driver allocated for copies. Promises that its bytes are lent only when no copy uses
//! them, and that it is wiped before it goes back. Refuses to lend a shared slice at all: a copy may write at any time.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::pinned::Block;
use crate::erase::erase;
use crate::types::DriverError;

/// Staging memory that a driver can copy from and to.
pub(crate) struct HostBuffer {
    base: NonNull<u8>,
    len: usize,
    owner: Arc<Block>,
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
    pub(super) unsafe fn from_raw(base: NonNull<u8>, len: usize, owner: Arc<Block>) -> Self {
        Self { base, len, owner }
    }

    /// Its length in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Its bytes, once the copies that use them have run. An error is the one that such a copy ended with.
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8], DriverError> {
        self.owner.wait()?;
        Ok(self.settled())
    }

    /// Overwrites it with zeros, once the copies that use it have run. Wipes also when it returns their error, unless it is not
    /// known whether one of them still runs.
    pub(crate) fn wipe(&mut self) -> Result<(), DriverError> {
        self.wipe_first(self.len)
    }

    /// As [`wipe`](Self::wipe), for its first `bytes` bytes: all that were used.
    pub(crate) fn wipe_first(&mut self, bytes: usize) -> Result<(), DriverError> {
        let waited = self.owner.wait();
        if waited.is_err() && self.owner.is_used() {
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
        unsafe { self.owner.free(self.base) }
    }
}

impl fmt::Debug for HostBuffer {
    /// Its length only: neither address nor bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

//! Scratch: unsealed working memory — KV caches, activations — counted beside the weights and wiped like them.
//!
//! Owns [`Scratch`] and [`Purpose`]. It is never confused with sealed memory: it has no seal, no digest and no execution.

use std::sync::Arc;

use crate::audit::Operation;
use crate::error::VramError;
use crate::id::ShardId;
use crate::manager::inner::Inner;
use crate::memory::ScratchMemory;
use crate::types::{RawDevicePtr, RawStream};

words! {
    /// What working memory is for. It appears in events.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Purpose {
        /// Keys and values of attention.
        KvCache = "kv_cache",
        /// Activations between layers.
        Activations = "activations",
        /// Anything else.
        Workspace = "workspace",
    }
}

/// Working memory, zeroed when it is handed out. Wiped, proven zero and freed when dropped.
#[derive(Debug)]
pub struct Scratch {
    inner: Arc<Inner>,
    key: u64,
    purpose: Purpose,
    bytes: u64,
    ptr: RawDevicePtr,
}

impl Scratch {
    pub(crate) fn allocate(inner: &Arc<Inner>, purpose: Purpose, bytes: u64) -> Result<Self, VramError> {
        let _underway = inner.shards.underway();
        inner.reap();
        let none = || VramError::InvalidParams { field: "scratch length", problem: "is 0; give at least 1".to_owned() };
        let permitted = inner.permit().and_then(|()| if bytes == 0 { Err(none()) } else { Ok(()) });
        permitted.inspect_err(|error| inner.report_failed(Operation::AllocateScratch, None, error))?;
        let key = inner.scratch.next();
        let name = ShardId::of_scratch(purpose.as_str(), key);
        let allocated = inner.allocate_scratch(&name, bytes, |room, check_room| {
            ScratchMemory::allocate(&inner.device, room, check_room)
        });
        let (memory, reservation) = allocated.inspect_err(|error| inner.note_device_failure(error))?;
        let ptr = RawDevicePtr::of(memory.ptr());
        inner.scratch.insert(key, name, memory, reservation);
        inner.report_memory();
        Ok(Self { inner: Arc::clone(inner), key, purpose, bytes, ptr })
    }

    /// What it is for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Its length in bytes, as asked for.
    #[must_use]
    pub const fn byte_len(&self) -> u64 {
        self.bytes
    }

    /// Its address on the device.
    ///
    /// # Safety
    /// The address is valid for reads and writes of [`byte_len`](Self::byte_len) bytes by the device, from streams named by
    /// [`used_on`](Self::used_on) or otherwise finished, until this value or the manager is dropped.
    #[must_use]
    #[allow(unsafe_code, reason = "the contract of a raw device address is the caller's to keep")]
    pub const unsafe fn device_ptr(&self) -> RawDevicePtr {
        self.ptr
    }

    #[cfg(feature = "mock")]
    pub(crate) const fn address(&self) -> crate::types::DevicePtr {
        crate::types::DevicePtr(self.ptr.as_u64())
    }

    /// Names a stream whose work uses the memory: the wipe waits for it.
    ///
    /// # Safety
    /// The stream belongs to the manager's device and lives until this value has been dropped.
    /// It is not `CU_STREAM_PER_THREAD`: that handle is another stream on every thread, and this crate waits on threads of its choice.
    #[allow(unsafe_code, reason = "whether a foreign stream lives only its engine knows")]
    pub unsafe fn used_on(&mut self, stream: RawStream) {
        self.inner.scratch.used_on(self.key, stream.id());
    }

    /// Wipes, proves zero, and frees now.
    ///
    /// # Errors
    /// `WIPE_FAILED` when the wipe could not be proven: the memory is quarantined then.
    pub fn release(self) -> Result<(), VramError> {
        self.retire()
    }

    fn retire(&self) -> Result<(), VramError> {
        let retired = self.inner.retire_scratch(self.key);
        self.inner.trail.settle();
        retired
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failed wipe is quarantined and in the trail.
        let _reported = self.retire();
    }
}

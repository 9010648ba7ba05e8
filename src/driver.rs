//! The seam below which devices differ.
//!
//! Owns [`Driver`], about two dozen calls that a GPU driver and the mock both answer, and the plain data they exchange.
//! Promises nothing about policy: no ledger, no verdicts, no audit. Everything above this file runs unchanged on every
//! device. No raw pointer crosses it: device memory is a [`DevicePtr`], host staging is a [`HostBuffer`].

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "mock")]
pub(crate) mod mock;
mod uuid;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use crate::ffi::host::HostBuffer;
pub use uuid::DeviceUuid;

/// What sort of device a manager runs on. It is signed into every seal and named in every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceKind {
    /// A CUDA GPU.
    Cuda,
    /// Host memory that behaves like a GPU. It protects nothing.
    Mock,
}

impl DeviceKind {
    /// The word used in events and reports: `cuda` or `mock`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Mock => "mock",
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a driver says of its device once, when it is opened.
#[derive(Clone, Debug)]
pub(crate) struct DeviceInfo {
    /// CUDA or mock.
    pub(crate) kind: DeviceKind,
    /// The driver's ordinal of the device.
    pub(crate) ordinal: u32,
    /// The driver's identity of the device.
    pub(crate) uuid: DeviceUuid,
    /// The marketing name.
    pub(crate) name: String,
    /// All of its memory, in bytes.
    pub(crate) total_bytes: u64,
    /// The allocation unit: a power of two; every allocation takes a multiple of it.
    pub(crate) granularity: u64,
}

/// An address on a device. Never dereferenced by the host, never printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DevicePtr(pub(crate) u64);

impl DevicePtr {
    /// The address `bytes` further on; `None` on overflow.
    pub(crate) fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }
}

impl fmt::Debug for DevicePtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevicePtr(..)")
    }
}

/// A stretch of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its first byte.
    pub(crate) ptr: DevicePtr,
    /// Its length in bytes.
    pub(crate) bytes: u64,
}

impl Span {
    /// Whether the two have a byte in common. Spans that wrap around overlap everything.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let ends = self.ptr.checked_add(self.bytes).zip(other.ptr.checked_add(other.bytes));
        ends.is_none_or(|(end, other_end)| self.ptr < other_end && other.ptr < end)
    }
}

/// A stream of the driver: operations on one stream run in order, those on different streams in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(pub(crate) u64);

/// A point on a stream that others can wait for.
#[allow(dead_code, reason = "the seam is cut for the CUDA driver and for engine streams, which use all of it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EventId(pub(crate) u64);

/// The driver's view of the device's memory, in bytes. Other processes count too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Free now.
    pub free: u64,
    /// On the device in all.
    pub total: u64,
}

/// Where a driver says that an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryKind {
    /// The driver gave no answer, or an all-zero one.
    Unknown,
    /// Host memory.
    Host,
    /// Memory of a device.
    Device,
    /// Managed memory, which migrates.
    Managed,
}

/// A driver's answers about one allocation. Judged in `device/region.rs`, not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Residency {
    /// Where the memory lies.
    pub(crate) kind: MemoryKind,
    /// The host can address it.
    pub(crate) host_mapped: bool,
    /// Another process could be given it: it was allocated with a handle type for that.
    pub(crate) exportable: bool,
    /// Another process could be given it by CUDA's older calls, as all memory of engines' own allocators can.
    pub(crate) ipc_capable: bool,
    /// The device it lies on, if the driver says.
    pub(crate) ordinal: Option<u32>,
    /// The allocation that contains the address.
    pub(crate) range: Span,
}

/// What a mapping allows.
#[allow(dead_code, reason = "the seam is cut for the CUDA driver and for engine streams, which use all of it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Kernels and copies may only read.
    ReadOnly,
    /// Kernels and copies may read and write.
    ReadWrite,
}

/// One digest launch: the level-1 table of the fs-verity tree over an image.
///
/// The image is `regions` in order, each zero-padded to a block. With `arity = block_size / 32` and L leaves, the kernel
/// writes to `table`: the one leaf hash when L = 1, else the ceil(L / arity) hashes of the blocks of leaf hashes (with the
/// default 4096-byte blocks, one 32-byte entry for each 512 KiB of image). The host finishes the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DigestJob<'a> {
    /// The image, in order. No region is empty.
    pub(crate) regions: &'a [Span],
    /// Bytes per block: a power of two from 1024 to 65536.
    pub(crate) block_size: u32,
    /// Prepended to every block, zero-padded to 64 bytes, when not empty; at most 32 bytes.
    pub(crate) salt: &'a [u8],
    /// Room for the leaf hashes of one chunk: a multiple of `block_size`, or 32 × L if that is less.
    pub(crate) scratch: Span,
    /// Room for the table: exactly 32 bytes an entry.
    pub(crate) table: Span,
    /// Room for a list of the regions, at least [`REGION_BYTES`](Self::REGION_BYTES) each, for drivers whose kernels look them up
    /// on the device.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "the mock's kernels get the regions from the host"))]
    pub(crate) region_list: Span,
    /// Where the kernel writes a [`LaunchResult`].
    pub(crate) result: DevicePtr,
    /// Comes back in the result.
    pub(crate) nonce: u64,
}

impl DigestJob<'_> {
    /// What one region takes of the list of regions, on the device and on its way there.
    pub(crate) const REGION_BYTES: u64 = 24;
}

/// What a kernel writes back to show that this launch ran, and how far. 32 bytes, little-endian words in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaunchResult {
    /// The job's nonce.
    pub(crate) nonce: u64,
    /// Blocks hashed (digest) or bytes read (zero proof).
    pub(crate) covered: u64,
    /// Digest: table entries written. Zero proof: bytes that are not zero.
    pub(crate) found: u64,
    /// Zero.
    pub(crate) reserved: u64,
}

impl LaunchResult {
    /// Bytes of a result on the device.
    pub(crate) const BYTES: usize = 32;

    /// Decodes the 32 bytes that a kernel wrote.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(bytes.get(at..).and_then(|rest| rest.get(..8)).unwrap_or(&[0; 8]));
            u64::from_le_bytes(word)
        };
        Self { nonce: word(0), covered: word(8), found: word(16), reserved: word(24) }
    }
}

/// Why a driver call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverErrorKind {
    /// The device has no room.
    OutOfMemory,
    /// The driver refused an argument: a bug above it, or a stale handle.
    InvalidValue,
    /// The context is dead: every later call fails, and its memory cannot be wiped.
    Sticky,
    /// The device is gone or was never there.
    Unavailable,
    /// The driver does not offer this.
    NotSupported,
    /// Anything else, transient failures included.
    Other,
}

/// A failed driver call: which, and the driver's own number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} failed with driver error {code} ({name})")]
pub struct DriverError {
    /// The driver's name of the call.
    pub operation: &'static str,
    /// The driver's number, kept even when this crate does not know it.
    pub code: u32,
    /// The driver's word for the number, or `unknown`.
    pub name: &'static str,
    /// What it means to a caller.
    pub kind: DriverErrorKind,
}

/// A GPU driver, or the mock, on one device.
///
/// All calls are safe to make from any thread; the driver serialises what it must. Copies, fills and kernels are enqueued
/// and may run at any later time unless a `synchronize`, `wait_event` or the buffer's own wait orders them. Out-of-range
/// device addresses are an error, never host undefined behaviour.
#[allow(dead_code, reason = "the seam is cut for the CUDA driver and for engine streams, which use all of it")]
pub(crate) trait Driver: Send + Sync + fmt::Debug {
    /// What the device is.
    fn info(&self) -> &DeviceInfo;
    /// How much memory is free.
    fn memory_info(&self) -> Result<MemoryInfo, DriverError>;

    /// Allocates `bytes` (a multiple of the granularity) of device memory. Its contents are arbitrary.
    fn alloc(&self, bytes: u64) -> Result<DevicePtr, DriverError>;
    /// Frees an allocation by its first byte.
    fn free(&self, ptr: DevicePtr) -> Result<(), DriverError>;
    /// Asks where an address lies.
    fn residency(&self, ptr: DevicePtr) -> Result<Residency, DriverError>;
    /// Makes memory that an engine allocated known to the driver, where the driver has to be told (the mock does).
    ///
    /// # Safety
    /// The span is memory of this device, or initialised host memory where the driver is the mock, that stays allocated, and that
    /// nobody writes while an operation of this driver uses it, until [`unregister`](Self::unregister). With
    /// [`Access::ReadWrite`] it may also be written, and nobody uses it while an operation may write it; otherwise the mock,
    /// whose memory is the process's, refuses every write.
    #[allow(unsafe_code, reason = "whether an engine's memory is really there only the engine knows")]
    unsafe fn register(&self, span: Span, access: Access) -> Result<(), DriverError>;
    /// The reverse of [`register`](Self::register).
    fn unregister(&self, span: Span) -> Result<(), DriverError>;
    /// Switches a whole allocation; `Ok(true)` when the driver confirms the new access, `Ok(false)` when it cannot. Where it says
    /// [`NotSupported`](DriverErrorKind::NotSupported) nothing was switched; after any other error the access is not known. A
    /// switch to read-write that does not happen is an error: writing all the same may cost the whole context.
    fn protect(&self, span: Span, access: Access) -> Result<bool, DriverError>;
    /// Allocates host staging memory, zeroed.
    fn host_buffer(&self, bytes: usize) -> Result<HostBuffer, DriverError>;

    /// Makes a stream that does not synchronise with the default one.
    fn stream(&self) -> Result<StreamId, DriverError>;
    /// Finishes what the stream holds and destroys it.
    fn destroy_stream(&self, stream: StreamId) -> Result<(), DriverError>;
    /// Blocks until everything on the stream has run.
    fn synchronize(&self, stream: StreamId) -> Result<(), DriverError>;
    /// Makes an event.
    fn event(&self) -> Result<EventId, DriverError>;
    /// Destroys an event.
    fn destroy_event(&self, event: EventId) -> Result<(), DriverError>;
    /// Puts an event behind what the stream holds.
    fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), DriverError>;
    /// Makes later work on the stream wait for the event.
    fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), DriverError>;
    /// Blocks until the event has passed.
    fn synchronize_event(&self, event: EventId) -> Result<(), DriverError>;
    /// Whether the event has passed.
    fn query_event(&self, event: EventId) -> Result<bool, DriverError>;

    /// Enqueues a copy of `bytes` from the start of `source` at `from` to device memory.
    fn copy_to_device(
        &self,
        stream: StreamId,
        to: DevicePtr,
        source: &mut HostBuffer,
        from: usize,
        bytes: usize,
    ) -> Result<(), DriverError>;
    /// Enqueues a copy of device memory into `target` at `to`.
    fn copy_to_host(
        &self,
        stream: StreamId,
        target: &mut HostBuffer,
        to: usize,
        from: DevicePtr,
        bytes: usize,
    ) -> Result<(), DriverError>;
    /// Enqueues filling a span with one byte value.
    fn fill(&self, stream: StreamId, span: Span, value: u8) -> Result<(), DriverError>;
    /// Enqueues a digest of the level-1 table. A list of the regions may travel through `staging`, from byte `from` on, where it has
    /// as much room as on the device: nothing is allocated for a digest.
    fn digest(
        &self,
        stream: StreamId,
        job: &DigestJob<'_>,
        staging: &mut HostBuffer,
        from: usize,
    ) -> Result<(), DriverError>;
    /// Enqueues a count of the bytes of `span` that are not zero.
    fn count_nonzero(&self, stream: StreamId, span: Span, result: DevicePtr, nonce: u64) -> Result<(), DriverError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_out_of_debug_output() {
        let span = Span { ptr: DevicePtr(0xdead_beef), bytes: 4096 };
        let text = format!("{span:?}");
        assert!(text.contains("4096") && !text.contains("dead") && !text.contains("3735928559"), "{text}");
    }

    #[test]
    fn results_decode_word_by_word() {
        let mut bytes = [0; 32];
        for (at, byte) in [(0, 1), (8, 2), (16, 3), (24, 4)] {
            bytes[at] = byte;
        }
        let result = LaunchResult { nonce: 1, covered: 2, found: 3, reserved: 4 };
        assert_eq!(LaunchResult::from_bytes(&bytes), result);
    }
}

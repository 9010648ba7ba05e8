//! What engines hand over and are handed: memory, streams and addresses of any CUDA binding, as numbers.

use super::{DevicePtr, Span, StreamId};

/// A stretch of device memory that an engine allocated. On the mock it is a stretch of host memory. It is only read, unless it is
/// [`writable`](Self::writable) or adopted with [`ShardSpec::wipe_adopted`](crate::ShardSpec::wipe_adopted).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RawRegion {
    ptr: u64,
    bytes: u64,
    element_bytes: u64,
    pub(crate) writable: bool,
    pub(crate) tensor: Option<Tensor>,
}

impl RawRegion {
    /// `bytes` bytes from the device address `ptr` on.
    #[must_use]
    pub const fn new(ptr: u64, bytes: u64) -> Self {
        Self { ptr, bytes, element_bytes: 1, writable: false, tensor: None }
    }

    /// The size of one element, in bytes: address and length must be multiples of it.
    #[must_use]
    pub const fn element_bytes(mut self, bytes: u64) -> Self {
        self.element_bytes = bytes;
        self
    }

    /// Says that the region may be written, where it is adopted under the promise that
    /// [`VramManager::adopt`](crate::VramManager::adopt) asks for that. Only the mock makes use of it: its test controls change
    /// an engine's memory only where that was allowed.
    #[must_use]
    pub const fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// What it is in the model: name, type in the spelling of safetensors (`F32`), and elements along each dimension. Regions that
    /// are all described, in the order of the file, have the layout of the file; others have one that only knows their lengths.
    #[must_use]
    pub fn tensor(mut self, name: &str, dtype: &str, shape: &[u64]) -> Self {
        self.tensor = Some(Tensor { name: name.to_owned(), dtype: dtype.to_owned(), shape: shape.to_vec() });
        self
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn byte_len(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn span(&self) -> Result<Span, &'static str> {
        if self.ptr == 0 {
            return Err("is null");
        }
        if self.bytes == 0 {
            return Err("is empty");
        }
        if self.ptr.checked_add(self.bytes).is_none() {
            return Err("wraps around the address space");
        }
        match (self.ptr.checked_rem(self.element_bytes), self.bytes.checked_rem(self.element_bytes)) {
            (Some(0), Some(0)) => Ok(Span { ptr: DevicePtr(self.ptr), bytes: self.bytes }),
            (None, _) => Err("has elements of 0 bytes"),
            (Some(0), _) => Err("is not a whole number of elements long"),
            _ => Err("is misaligned for its element type"),
        }
    }
}

shown!(RawRegion, this: bytes = this.bytes);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
}

/// A stream of an engine, as the driver's `CUstream` holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawStream(u64);

impl RawStream {
    /// Takes the handle.
    #[must_use]
    pub const fn new(handle: u64) -> Self {
        Self(handle)
    }

    pub(crate) const fn id(self) -> StreamId {
        StreamId(self.0)
    }
}

/// An address in device memory, for an engine of any CUDA binding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawDevicePtr(u64);

impl RawDevicePtr {
    pub(crate) const fn of(ptr: DevicePtr) -> Self {
        Self(ptr.0)
    }

    /// The address as the driver's `CUdeviceptr` holds it.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

shown!(RawStream RawDevicePtr);

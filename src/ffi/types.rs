//! Numbers and structures of the driver's interface.
//!
//! Structures that the driver fills in have plain integers, because cudarc's have closed enums in them and a newer driver may
//! answer with a value that those do not have. With the feature `cuda` all of this is compared with cudarc's.

pub(crate) const STREAM_NON_BLOCKING: u32 = 1;
pub(crate) const EVENT_DISABLE_TIMING: u32 = 2;
/// Usable from every context. Not write-combined: the CPU hashes what it holds.
pub(crate) const HOST_ALLOC_PORTABLE: u32 = 1;

pub(crate) const CAPABILITY_MAJOR: u32 = 75;
pub(crate) const CAPABILITY_MINOR: u32 = 76;
/// CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED.
pub(crate) const VIRTUAL_MEMORY: u32 = 102;

pub(crate) const GRANULARITY_MINIMUM: u32 = 0;
pub(crate) const ALLOCATION_PINNED: u32 = 1;
pub(crate) const LOCATION_DEVICE: u32 = 1;
pub(crate) const ACCESS_READ: u32 = 1;
pub(crate) const ACCESS_READ_WRITE: u32 = 3;
/// CU_MEM_HANDLE_TYPE_NONE: the memory can be given to no other process.
pub(crate) const HANDLE_TYPE_NONE: u32 = 0;

pub(crate) const MEMORY_HOST: u32 = 1;
pub(crate) const MEMORY_DEVICE: u32 = 2;
pub(crate) const MEMORY_UNIFIED: u32 = 4;

/// What is asked about an address, in the order of [`super::memory::Attributes`]: memory type, host pointer, whether managed, device
/// ordinal, whether capable of the older calls for other processes, range start, range size, allowed handle types.
pub(crate) const POINTER_ATTRIBUTES: [u32; 8] = [2, 4, 8, 9, 10, 11, 12, 14];

/// Where a mapping of the virtual-memory API begins, and how long it is; a range may be all that was reserved around it.
pub(crate) const MAPPING_ATTRIBUTES: [u32; 2] = [19, 18];

/// CUmemLocation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemLocation {
    pub(crate) kind: u32,
    pub(crate) id: i32,
}

/// CUmemAllocationProp.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AllocationProp {
    pub(crate) kind: u32,
    pub(crate) handle_types: u32,
    pub(crate) location: MemLocation,
    pub(crate) win32_metadata: usize,
    pub(crate) flags: AllocationFlags,
}

/// The last member of CUmemAllocationProp.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AllocationFlags {
    pub(crate) compression: u8,
    pub(crate) rdma_capable: u8,
    pub(crate) usage: u16,
    pub(crate) reserved: [u8; 4],
}

/// CUmemAccessDesc.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessDesc {
    pub(crate) location: MemLocation,
    pub(crate) flags: u32,
}

#[cfg(feature = "cuda")]
mod same {
    //! As cudarc has them.
    #![allow(clippy::as_conversions, reason = "the discriminant of a C enum has no other way out")]

    use core::mem::{align_of, offset_of, size_of};

    use cudarc::driver::sys::{
        self, CUdevice_attribute as Device, CUmemAccess_flags as MemAccess, CUmemLocationType as Location,
        CUmemorytype as Memory, CUpointer_attribute as Pointer,
    };

    use super::*;

    macro_rules! same {
        ($($ours:expr => $theirs:expr;)*) => { $(const _: () = assert!($ours == $theirs as u32);)* };
    }

    same! {
        STREAM_NON_BLOCKING => sys::CUstream_flags::CU_STREAM_NON_BLOCKING;
        EVENT_DISABLE_TIMING => sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        HOST_ALLOC_PORTABLE => sys::CU_MEMHOSTALLOC_PORTABLE;
        CAPABILITY_MAJOR => Device::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
        CAPABILITY_MINOR => Device::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
        VIRTUAL_MEMORY => Device::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
        GRANULARITY_MINIMUM => sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
        ALLOCATION_PINNED => sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        LOCATION_DEVICE => Location::CU_MEM_LOCATION_TYPE_DEVICE;
        ACCESS_READ => MemAccess::CU_MEM_ACCESS_FLAGS_PROT_READ;
        ACCESS_READ_WRITE => MemAccess::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        MEMORY_HOST => Memory::CU_MEMORYTYPE_HOST;
        MEMORY_DEVICE => Memory::CU_MEMORYTYPE_DEVICE;
        MEMORY_UNIFIED => Memory::CU_MEMORYTYPE_UNIFIED;
        POINTER_ATTRIBUTES[0] => Pointer::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        POINTER_ATTRIBUTES[1] => Pointer::CU_POINTER_ATTRIBUTE_HOST_POINTER;
        POINTER_ATTRIBUTES[2] => Pointer::CU_POINTER_ATTRIBUTE_IS_MANAGED;
        POINTER_ATTRIBUTES[3] => Pointer::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
        POINTER_ATTRIBUTES[4] => Pointer::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE;
        POINTER_ATTRIBUTES[5] => Pointer::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR;
        POINTER_ATTRIBUTES[6] => Pointer::CU_POINTER_ATTRIBUTE_RANGE_SIZE;
        POINTER_ATTRIBUTES[7] => Pointer::CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES;
        MAPPING_ATTRIBUTES[0] => Pointer::CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR;
        MAPPING_ATTRIBUTES[1] => Pointer::CU_POINTER_ATTRIBUTE_MAPPING_SIZE;
    }

    macro_rules! same_layout {
        ($ours:ty, $theirs:ty $(, $our:ident = $their:ident)*) => {
            const _: () = assert!(size_of::<$ours>() == size_of::<$theirs>());
            const _: () = assert!(align_of::<$ours>() == align_of::<$theirs>());
            $(const _: () = assert!(offset_of!($ours, $our) == offset_of!($theirs, $their));)*
        };
    }

    same_layout!(MemLocation, sys::CUmemLocation, kind = type_, id = id);
    same_layout!(
        AllocationProp,
        sys::CUmemAllocationProp,
        kind = type_,
        handle_types = requestedHandleTypes,
        location = location,
        win32_metadata = win32HandleMetaData,
        flags = allocFlags
    );
    same_layout!(
        AllocationFlags,
        sys::CUmemAllocationProp_st__bindgen_ty_1,
        compression = compressionType,
        rdma_capable = gpuDirectRDMACapable,
        usage = usage,
        reserved = reserved
    );
    same_layout!(AccessDesc, sys::CUmemAccessDesc, location = location, flags = flags);
    // Handles and addresses travel as integers of the same size.
    const _: () = assert!(size_of::<usize>() == 8 && size_of::<sys::CUstream>() == size_of::<usize>());
    const _: () = assert!(size_of::<sys::CUdeviceptr>() == 8 && size_of::<sys::CUmemGenericAllocationHandle>() == 8);
    const _: () = assert!(size_of::<sys::CUuuid>() == 16 && size_of::<sys::CUdevice>() == 4);
}

//! Numbers and structures of the driver's interface.
//!
//! Constants come from cudarc. Structures that the driver fills in are mirrored with plain integers, because cudarc's have
//! closed enums in them and a newer driver may answer with a value that those do not have; the layouts are compared below.
#![allow(clippy::as_conversions, reason = "the discriminant of a C enum has no other way out")]

use core::mem::{align_of, offset_of, size_of};

use cudarc::driver::sys;

pub(crate) const STREAM_NON_BLOCKING: u32 = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
pub(crate) const EVENT_DISABLE_TIMING: u32 = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
/// Usable from every context. Not write-combined: the CPU hashes what it holds.
pub(crate) const HOST_ALLOC_PORTABLE: u32 = sys::CU_MEMHOSTALLOC_PORTABLE;

pub(crate) const CAPABILITY_MAJOR: u32 = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as u32;
pub(crate) const CAPABILITY_MINOR: u32 = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as u32;
/// CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED. cudarc has it under its older name only.
pub(crate) const VIRTUAL_MEMORY: u32 =
    sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED as u32;

pub(crate) const GRANULARITY_MINIMUM: u32 =
    sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM as u32;
pub(crate) const ALLOCATION_PINNED: u32 = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED as u32;
pub(crate) const LOCATION_DEVICE: u32 = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE as u32;
pub(crate) const ACCESS_READ: u32 = sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READ as u32;
pub(crate) const ACCESS_READ_WRITE: u32 = sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE as u32;
/// CU_MEM_HANDLE_TYPE_NONE: the memory can be given to no other process.
pub(crate) const HANDLE_TYPE_NONE: u32 = 0;

pub(crate) const MEMORY_HOST: u32 = sys::CUmemorytype::CU_MEMORYTYPE_HOST as u32;
pub(crate) const MEMORY_DEVICE: u32 = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32;
pub(crate) const MEMORY_UNIFIED: u32 = sys::CUmemorytype::CU_MEMORYTYPE_UNIFIED as u32;

/// What is asked about an address, in the order of [`super::memory::Attributes`].
pub(crate) const POINTER_ATTRIBUTES: [u32; 8] = [
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE as u32,
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER as u32,
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED as u32,
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL as u32,
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE as u32,
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR as u32,
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE as u32,
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES as u32,
];

/// Where a mapping of the virtual-memory API begins, and how long it is; a range may be all that was reserved around it.
pub(crate) const MAPPING_ATTRIBUTES: [u32; 2] = [
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR as u32,
    sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPING_SIZE as u32,
];

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

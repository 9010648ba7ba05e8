//! The functions that are called, and who has them: the NVIDIA driver's library, or the mock.
//!
//! Owns [`Table`]. Results are plain numbers in a type of our own: cudarc's closed enum would be undefined behaviour for a
//! number that it does not know. Handles and device addresses are integers here, which the ABI passes as it passes pointers.
//! Once the driver has started, its library is never unloaded.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

#[cfg(feature = "cuda")]
use libloading::Library;
#[cfg(feature = "cuda")]
use libloading::os::unix;

use super::status::Status;
use super::types::{AccessDesc, AllocationProp, MemLocation};

#[cfg(feature = "cuda")]
const NOWHERE: &str =
    "libcuda.so.1 is neither in the loader's cache nor in a usual folder, and LD_LIBRARY_PATH does not choose it";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadError {
    /// No library.
    #[cfg(feature = "cuda")]
    #[error("no NVIDIA driver library could be loaded ({0}); install the NVIDIA driver, or name its library")]
    NoLibrary(String),
    /// A library without this function.
    #[error(
        "the NVIDIA driver library has no function {0}: it is too old, or not NVIDIA's; install a newer NVIDIA driver"
    )]
    NoSymbol(&'static str),
}

/// Declares the table: a field, the driver's name of it, and its parameters.
macro_rules! table {
    (required { $($field:ident = $symbol:literal ($($argument:ty),*);)* }
     optional { $($maybe:ident = $maybe_symbol:literal ($($maybe_argument:ty),*);)* }) => {
        pub(super) struct Table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> Status,)*
            $(pub(super) $maybe: Option<unsafe extern "C" fn($($maybe_argument),*) -> Status>,)*
            /// Where they are the mock's: the machine.
            #[cfg(feature = "mock")]
            pub(super) machine: Option<std::sync::Arc<super::mock::Machine>>,
        }

        impl Table {
            /// Fills the table with what `find` finds by name, which ends in a zero byte.
            fn fill(find: &dyn Fn(&[u8]) -> Option<NonNull<c_void>>) -> Result<Self, LoadError> {
                Ok(Self {
                    $($field: {
                        let found = find(concat!($symbol, "\0").as_bytes()).ok_or(LoadError::NoSymbol($symbol))?;
                        // SAFETY: the function of this name, whose type is that of its declaration in cuda.h, with handles and
                        // device addresses as integers of the same size (asserted in types.rs) and CUresult as the number it is.
                        unsafe { std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn($($argument),*) -> Status>(found) }
                    },)*
                    $($maybe: find(concat!($maybe_symbol, "\0").as_bytes()).map(|found| {
                        // SAFETY: as above: the type is that of the declaration in cuda.h, integers for handles.
                        unsafe { std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn($($maybe_argument),*) -> Status>(found) }
                    }),)*
                    #[cfg(feature = "mock")]
                    machine: None,
                })
            }
        }

        #[cfg(test)]
        pub(crate) const REQUIRED: &[&str] = &[$($symbol),*];
        #[cfg(test)]
        pub(crate) const OPTIONAL: &[&str] = &[$($maybe_symbol),*];
    };
}

table! {
    required {
        init = "cuInit"(u32);
        driver_version = "cuDriverGetVersion"(*mut i32);
        device_count = "cuDeviceGetCount"(*mut i32);
        device_get = "cuDeviceGet"(*mut i32, i32);
        device_name = "cuDeviceGetName"(*mut u8, i32, i32);
        device_uuid = "cuDeviceGetUuid_v2"(*mut [u8; 16], i32);
        device_total = "cuDeviceTotalMem_v2"(*mut usize, i32);
        device_attribute = "cuDeviceGetAttribute"(*mut i32, u32, i32);
        context_retain = "cuDevicePrimaryCtxRetain"(*mut usize, i32);
        context_release = "cuDevicePrimaryCtxRelease_v2"(i32);
        context_push = "cuCtxPushCurrent_v2"(usize);
        context_pop = "cuCtxPopCurrent_v2"(*mut usize);
        memory_info = "cuMemGetInfo_v2"(*mut usize, *mut usize);
        granularity = "cuMemGetAllocationGranularity"(*mut usize, *const AllocationProp, u32);
        address_reserve = "cuMemAddressReserve"(*mut u64, usize, usize, u64, u64);
        address_free = "cuMemAddressFree"(u64, usize);
        memory_create = "cuMemCreate"(*mut u64, usize, *const AllocationProp, u64);
        memory_release = "cuMemRelease"(u64);
        memory_map = "cuMemMap"(u64, usize, usize, u64, u64);
        memory_unmap = "cuMemUnmap"(u64, usize);
        set_access = "cuMemSetAccess"(u64, usize, *const AccessDesc, usize);
        retain_handle = "cuMemRetainAllocationHandle"(*mut u64, usize);
        handle_properties = "cuMemGetAllocationPropertiesFromHandle"(*mut AllocationProp, u64);
        pointer_attributes = "cuPointerGetAttributes"(u32, *const u32, *mut *mut c_void, u64);
        host_alloc = "cuMemHostAlloc"(*mut *mut c_void, usize, u32);
        host_free = "cuMemFreeHost"(*mut c_void);
        stream_create = "cuStreamCreate"(*mut usize, u32);
        stream_destroy = "cuStreamDestroy_v2"(usize);
        stream_synchronize = "cuStreamSynchronize"(usize);
        stream_wait = "cuStreamWaitEvent"(usize, usize, u32);
        is_capturing = "cuStreamIsCapturing"(usize, *mut u32);
        capture_mode = "cuThreadExchangeStreamCaptureMode"(*mut u32);
        event_create = "cuEventCreate"(*mut usize, u32);
        event_destroy = "cuEventDestroy_v2"(usize);
        event_record = "cuEventRecord"(usize, usize);
        event_query = "cuEventQuery"(usize);
        event_synchronize = "cuEventSynchronize"(usize);
        copy_to_device = "cuMemcpyHtoDAsync_v2"(u64, usize, usize, usize);
        copy_to_host = "cuMemcpyDtoHAsync_v2"(usize, u64, usize, usize);
        fill = "cuMemsetD8Async"(u64, u8, usize, usize);
        module_load = "cuModuleLoadData"(*mut usize, *const c_void);
        module_unload = "cuModuleUnload"(usize);
        module_function = "cuModuleGetFunction"(*mut usize, usize, *const c_char);
        launch = "cuLaunchKernel"(usize, u32, u32, u32, u32, u32, u32, u32, usize, *mut *mut c_void, *mut *mut c_void);
    }
    optional {
        // Without it a switch to read-only is not confirmed, and not claimed.
        get_access = "cuMemGetAccess"(*mut u64, *const MemLocation, u64);
    }
}

#[cfg(feature = "cuda")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// With a slash: for a bare name `LD_LIBRARY_PATH` would choose.
    pub(crate) path: std::path::PathBuf,
    /// What has to be there before it, in this order; the loader would ask `LD_LIBRARY_PATH` for what is not.
    pub(crate) needs: Vec<Needed>,
}

#[cfg(feature = "cuda")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    /// By which the loader knows it.
    pub(crate) name: String,
    /// With a slash, where it was found.
    pub(crate) path: Option<std::path::PathBuf>,
}

/// Finds what is loaded, and loads nothing (dlopen(3)).
#[cfg(feature = "cuda")]
const RTLD_NOLOAD: std::ffi::c_int = 4;

#[cfg(feature = "mock")]
impl Table {
    /// The functions of the mock, which are told to speak to the machine. One without a function is an old driver.
    pub(super) fn of_mock(
        machine: &std::sync::Arc<super::mock::Machine>,
        without: Option<&str>,
    ) -> Result<Self, LoadError> {
        let is_there = |name: &[u8]| without.is_none_or(|missing| name.strip_suffix(&[0]) != Some(missing.as_bytes()));
        let found = Self::fill(&|name| super::mock::function(name).filter(|_| is_there(name)))?;
        Ok(Self { machine: Some(std::sync::Arc::clone(machine)), ..found })
    }
}

#[cfg(feature = "cuda")]
impl Table {
    pub(super) fn open(candidates: &[Candidate]) -> Result<Self, LoadError> {
        let mut problem = NOWHERE.to_owned();
        for candidate in candidates {
            match load(candidate) {
                Ok(library) => {
                    let table = Self::fill(&|name| {
                        // SAFETY: nothing is read: the address of a symbol is looked up, as a pointer of no type.
                        let symbol = unsafe { library.get::<*mut c_void>(name) };
                        symbol.ok().and_then(|symbol| NonNull::new(*symbol))
                    })?;
                    // The functions outlive every handle, and a started driver has threads of its own: it stays loaded.
                    std::mem::forget(library);
                    return Ok(table);
                }
                Err(error) => problem = error,
            }
        }
        Err(LoadError::NoLibrary(problem))
    }
}

/// Loads a library after those that it needs.
#[cfg(feature = "cuda")]
fn load(candidate: &Candidate) -> Result<Library, String> {
    for Needed { name, path } in &candidate.needs {
        // SAFETY: RTLD_NOLOAD runs no initialiser: it only counts one more user of a library that is loaded already.
        let loaded = unsafe { unix::Library::open(Some(name), RTLD_NOLOAD | unix::RTLD_LAZY) };
        if let (Err(_), Some(path)) = (loaded, path) {
            // SAFETY: runs the initialisers of a library that the driver needs and that the loader would load with it.
            let needed = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
            std::mem::forget(needed);
        }
    }
    // SAFETY: loading runs the library's initialisers. The path is one that driver/library.rs found or was told: the system's own
    // NVIDIA driver, which every CUDA program loads, or in tests a library that they made.
    unsafe { Library::new(&candidate.path) }.map_err(|error| error.to_string())
}

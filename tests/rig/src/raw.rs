//! The driver's library as engines and attackers call it: their own allocations, streams, kernels and mappings in the primary
//! context that the library under test shares with them.
//!
//! Owns [`Raw`]. Its functions panic where the driver refuses what a suite relies on; those whose refusal is the question give
//! the driver's number.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use libloading::Library;
use vram_residency::MockConfig;

mod alias;
mod ask;
mod foreign;
mod kernels;

pub use alias::Alias;
pub use foreign::Foreign;
pub use kernels::EngineKernels;

/// CU_POINTER_ATTRIBUTE_RANGE_START_ADDR and _SIZE.
const RANGE_START: u32 = 11;
const RANGE_SIZE: u32 = 12;
/// CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
const MAJOR: u32 = 75;
const MINOR: u32 = 76;

/// CUmemLocation.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Location {
    pub(crate) kind: u32,
    pub(crate) id: i32,
}

/// CUmemAccessDesc.
#[repr(C)]
pub(crate) struct AccessDesc {
    pub(crate) location: Location,
    pub(crate) flags: u32,
}

/// The driver, started, with the primary context of one device retained.
#[derive(Debug)]
pub struct Raw {
    driver: Driver,
    pub(crate) device: i32,
    pub(crate) context: Context,
}

/// Whose functions are called.
#[derive(Clone, Debug)]
pub(crate) enum Driver {
    /// The NVIDIA driver's. Never unloaded: a driver that has started has threads of its own.
    Library(&'static Library),
    /// A mock machine's.
    Mock(MockConfig),
}

impl Driver {
    /// The system's NVIDIA driver.
    pub(crate) fn system() -> Result<Self, String> {
        // SAFETY: NVIDIA's driver, which every CUDA program loads; loading it runs only its own initialisers.
        let library = unsafe { Library::new("libcuda.so.1") }.map_err(|error| error.to_string())?;
        Ok(Self::Library(Box::leak(Box::new(library))))
    }
}

unsafe extern "C" {
    fn vram_mock_enter(machine: *mut c_void);
    fn vram_mock_function(name: *const c_char) -> *mut c_void;
}

/// The context that calls are made in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Context {
    /// The device's primary one, retained.
    Primary(usize),
    /// One that was created.
    Created(usize),
}

impl Raw {
    /// Starts the driver and retains the primary context of a device.
    ///
    /// # Errors
    /// Why there is no such device, in words.
    pub(crate) fn open(driver: Driver, ordinal: i32) -> Result<Arc<Self>, String> {
        let mut raw = Self { driver, device: 0, context: Context::Primary(0) };
        // SAFETY (for this and each `call` below): the type is that of the function's declaration in cuda.h, with handles and
        // device addresses as integers; pointers are to locals of the type and length that the declaration asks for.
        let init: unsafe extern "C" fn(u32) -> u32 = raw.find("cuInit");
        // SAFETY: see above.
        check("cuInit", unsafe { init(0) })?;
        let get: unsafe extern "C" fn(*mut i32, i32) -> u32 = raw.find("cuDeviceGet");
        let mut device = 0;
        // SAFETY: see above.
        check("cuDeviceGet", unsafe { get(&raw mut device, ordinal) })?;
        let retain: unsafe extern "C" fn(*mut usize, i32) -> u32 = raw.find("cuDevicePrimaryCtxRetain");
        let mut context = 0;
        // SAFETY: see above.
        check("cuDevicePrimaryCtxRetain", unsafe { retain(&raw mut context, device) })?;
        (raw.device, raw.context) = (device, Context::Primary(context));
        Ok(Arc::new(raw))
    }

    pub(crate) const fn driver(&self) -> &Driver {
        &self.driver
    }

    /// A function, for a call right away: this thread speaks to the machine from now on.
    pub(crate) fn find<F: Copy>(&self, name: &str) -> F {
        self.try_find(name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A function that not every driver has. The caller names the type of its declaration in cuda.h.
    pub(crate) fn try_find<F: Copy>(&self, name: &str) -> Result<F, String> {
        let c_name = CString::new(name).unwrap();
        let found = match &self.driver {
            // SAFETY: nothing is read: the address of a symbol is looked up, as a pointer of no type.
            Driver::Library(library) => match unsafe { library.get::<*mut c_void>(c_name.as_bytes_with_nul()) } {
                Ok(symbol) => *symbol,
                Err(error) => return Err(format!("{name}: {error}")),
            },
            Driver::Mock(config) => {
                let machine = config.raw_machine().map_err(|error| error.to_string())?;
                // SAFETY: the machine lives as long as the config, which `self` holds.
                unsafe { vram_mock_enter(machine) };
                // SAFETY: the C side reads a zero-terminated name.
                unsafe { vram_mock_function(c_name.as_ptr()) }
            }
        };
        assert_eq!(size_of::<F>(), size_of_val(&found), "a function is a pointer");
        if found.is_null() {
            return Err(format!("{name}: the driver does not have it"));
        }
        // SAFETY: every caller names the type of the function's declaration in cuda.h.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&found) })
    }

    /// Runs `call` with the context current on this thread.
    pub(crate) fn inside<T>(&self, call: impl FnOnce() -> T) -> T {
        let (Context::Primary(context) | Context::Created(context)) = self.context;
        let push: unsafe extern "C" fn(usize) -> u32 = self.find("cuCtxPushCurrent_v2");
        let pop: unsafe extern "C" fn(*mut usize) -> u32 = self.find("cuCtxPopCurrent_v2");
        // SAFETY: the context is retained while `self` lives.
        assert_eq!(unsafe { push(context) }, 0, "cuCtxPushCurrent");
        let answer = call();
        let mut popped = 0;
        // SAFETY: the driver writes one handle to the local.
        assert_eq!(unsafe { pop(&raw mut popped) }, 0, "cuCtxPopCurrent");
        answer
    }

    /// Compute capability, major times ten plus minor.
    pub fn capability(&self) -> u32 {
        let ask: unsafe extern "C" fn(*mut i32, u32, i32) -> u32 = self.find("cuDeviceGetAttribute");
        let value = |attribute| {
            let mut value = 0;
            // SAFETY: the driver writes one number to the local.
            assert_eq!(unsafe { ask(&raw mut value, attribute, self.device) }, 0, "cuDeviceGetAttribute");
            u32::try_from(value).unwrap()
        };
        value(MAJOR) * 10 + value(MINOR)
    }

    /// A device attribute by its number, as `cuDeviceGetAttribute` gives it; `None` when the driver does not know it.
    pub fn attribute(&self, attribute: u32) -> Option<i32> {
        let ask: unsafe extern "C" fn(*mut i32, u32, i32) -> u32 = self.find("cuDeviceGetAttribute");
        let mut value = 0;
        // SAFETY: the driver writes one number to the local.
        (unsafe { ask(&raw mut value, attribute, self.device) } == 0).then_some(value)
    }

    /// The CUDA version that the driver speaks: 1000 × major + 10 × minor.
    pub fn driver_version(&self) -> i32 {
        let ask: unsafe extern "C" fn(*mut i32) -> u32 = self.find("cuDriverGetVersion");
        let mut version = 0;
        // SAFETY: the driver writes one number to the local.
        assert_eq!(unsafe { ask(&raw mut version) }, 0, "cuDriverGetVersion");
        version
    }

    /// Free and total bytes of the device.
    pub fn memory_info(&self) -> (u64, u64) {
        let ask: unsafe extern "C" fn(*mut usize, *mut usize) -> u32 = self.find("cuMemGetInfo_v2");
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes one number to each local.
        assert_eq!(self.inside(|| unsafe { ask(&raw mut free, &raw mut total) }), 0, "cuMemGetInfo");
        (free as u64, total as u64)
    }

    /// The same device through another context.
    pub(crate) fn with_context(&self, context: Context) -> Arc<Self> {
        Arc::new(Self { driver: self.driver.clone(), device: self.device, context })
    }

    /// An engine's own allocation.
    pub fn alloc(&self, bytes: usize) -> u64 {
        self.try_alloc(bytes).unwrap_or_else(|code| panic!("cuMemAlloc of {bytes} bytes: {code}"))
    }

    /// # Errors
    /// The driver's number.
    pub fn try_alloc(&self, bytes: usize) -> Result<u64, u32> {
        let call: unsafe extern "C" fn(*mut u64, usize) -> u32 = self.find("cuMemAlloc_v2");
        let mut ptr = 0;
        // SAFETY: the driver writes one address to the local.
        match self.inside(|| unsafe { call(&raw mut ptr, bytes) }) {
            0 => Ok(ptr),
            code => Err(code),
        }
    }

    /// Gives an engine's own allocation back.
    pub fn free(&self, ptr: u64) {
        let call: unsafe extern "C" fn(u64) -> u32 = self.find("cuMemFree_v2");
        // SAFETY: takes a number; a wrong one is an error.
        let code = self.inside(|| unsafe { call(ptr) });
        // A test that already panics may have left a dead context behind.
        assert!(code == 0 || std::thread::panicking(), "cuMemFree: {code}");
    }

    /// Writes device memory. Blocks.
    ///
    /// # Errors
    /// The driver's number, for one where the memory is read-only.
    pub fn try_write(&self, to: u64, bytes: &[u8]) -> Result<(), u32> {
        let call: unsafe extern "C" fn(u64, *const u8, usize) -> u32 = self.find("cuMemcpyHtoD_v2");
        // SAFETY: the driver reads as many bytes as the slice has, and checks the device range.
        match self.inside(|| unsafe { call(to, bytes.as_ptr(), bytes.len()) }) {
            // The driver may return when it has read the slice, and write later; other streams do not wait for that.
            0 => self.synchronize(0),
            code => Err(code),
        }
    }

    /// Writes device memory. Blocks.
    pub fn write(&self, to: u64, bytes: &[u8]) {
        self.try_write(to, bytes).unwrap_or_else(|code| panic!("cuMemcpyHtoD: {code}"));
    }

    /// Reads device memory. Blocks.
    pub fn read(&self, from: u64, bytes: usize) -> Vec<u8> {
        self.try_read(from, bytes).unwrap_or_else(|code| panic!("cuMemcpyDtoH: {code}"))
    }

    /// Reads device memory. Blocks.
    ///
    /// # Errors
    /// The driver's number.
    pub fn try_read(&self, from: u64, bytes: usize) -> Result<Vec<u8>, u32> {
        let call: unsafe extern "C" fn(*mut u8, u64, usize) -> u32 = self.find("cuMemcpyDtoH_v2");
        let mut out = vec![0; bytes];
        // SAFETY: the driver writes as many bytes as the vector has, and checks the device range.
        match self.inside(|| unsafe { call(out.as_mut_ptr(), from, bytes) }) {
            0 => Ok(out),
            code => Err(code),
        }
    }

    /// An engine's own stream, which does not synchronise with the default one.
    pub fn stream(&self) -> usize {
        let call: unsafe extern "C" fn(*mut usize, u32) -> u32 = self.find("cuStreamCreate");
        let mut stream = 0;
        // SAFETY: the driver writes one handle to the local.
        assert_eq!(self.inside(|| unsafe { call(&raw mut stream, 1) }), 0, "cuStreamCreate");
        stream
    }

    /// Ends what the stream holds, and the stream.
    pub fn destroy_stream(&self, stream: usize) {
        let call: unsafe extern "C" fn(usize) -> u32 = self.find("cuStreamDestroy_v2");
        // SAFETY: the handle came from `stream`, and each suite destroys it once.
        let code = self.inside(|| unsafe { call(stream) });
        assert!(code == 0 || std::thread::panicking(), "cuStreamDestroy: {code}");
    }

    /// Blocks until everything on the stream has run.
    ///
    /// # Errors
    /// The driver's number.
    pub fn synchronize(&self, stream: usize) -> Result<(), u32> {
        let call: unsafe extern "C" fn(usize) -> u32 = self.find("cuStreamSynchronize");
        // SAFETY: the handle came from `stream`.
        match self.inside(|| unsafe { call(stream) }) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// Enqueues a fill on an engine's stream.
    ///
    /// # Errors
    /// The driver's number.
    pub fn fill(&self, stream: usize, to: u64, value: u8, bytes: usize) -> Result<(), u32> {
        let call: unsafe extern "C" fn(u64, u8, usize, usize) -> u32 = self.find("cuMemsetD8Async");
        // SAFETY: takes numbers; the driver checks the device range and the handle came from `stream`.
        match self.inside(|| unsafe { call(to, value, bytes, stream) }) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// The allocation that an address lies in: its first byte and its length.
    pub fn range(&self, ptr: u64) -> (u64, usize) {
        self.try_range(ptr).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// # Errors
    /// Why the driver does not know one.
    pub fn try_range(&self, ptr: u64) -> Result<(u64, usize), String> {
        let ask: unsafe extern "C" fn(u32, *const u32, *mut *mut c_void, u64) -> u32 =
            self.find("cuPointerGetAttributes");
        let (mut start, mut bytes) = (0_u64, 0_usize);
        let mut out: [*mut c_void; 2] = [(&raw mut start).cast(), (&raw mut bytes).cast()];
        // SAFETY: two attributes, and two locals of the types that the driver writes for them.
        let code = self.inside(|| unsafe { ask(2, [RANGE_START, RANGE_SIZE].as_ptr(), out.as_mut_ptr(), ptr) });
        check("cuPointerGetAttributes", code)?;
        if bytes > 0 { Ok((start, bytes)) } else { Err("the driver knows no allocation there".to_owned()) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        match self.context {
            Context::Primary(_) => {
                let release: unsafe extern "C" fn(i32) -> u32 = self.find("cuDevicePrimaryCtxRelease_v2");
                // SAFETY: retained once in `open`.
                let _ = unsafe { release(self.device) };
            }
            Context::Created(context) => {
                let destroy: unsafe extern "C" fn(usize) -> u32 = self.find("cuCtxDestroy_v2");
                // SAFETY: created once for this value.
                let _ = unsafe { destroy(context) };
            }
        }
    }
}

pub(crate) fn check(call: &str, code: u32) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{call}: driver error {code}")) }
}

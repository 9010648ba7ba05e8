//! The driver as engines and attackers call it: their own allocations, streams, kernels and mappings in the primary context that the
//! library under test shares with them.
//!
//! Owns [`Raw`]. Its functions panic where the driver refuses what a suite relies on; those whose refusal is the question give
//! the [`Refused`] call.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use libloading::Library;
use vram_residency::MockConfig;

/// CU_POINTER_ATTRIBUTE_RANGE_START_ADDR and _SIZE.
const RANGE: [u32; 2] = [11, 12];
/// CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
const MAJOR: u32 = 75;
const MINOR: u32 = 76;
/// CUDA_ERROR_NOT_FOUND and _NOT_READY.
const NOT_FOUND: u32 = 500;
const NOT_READY: u32 = 600;

/// A call that the driver answered with an error, and the error's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub call: &'static str,
    pub code: u32,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: driver error {}", self.call, self.code)
    }
}

/// The driver, started, with one context of one device.
#[derive(Debug)]
pub struct Raw {
    pub(crate) driver: Driver,
    device: i32,
    context: Context,
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
enum Context {
    /// The device's primary one, retained.
    Primary(usize),
    /// One that was created.
    Created(usize),
}

/// Declares functions of the driver as cuda.h does, with handles and device addresses as integers and pointers to one value as
/// references; `[unsafe]` those that are given other pointers. `bare` or `inside`: without a context, or with it current.
macro_rules! declare {
    ($how:ident: $($([$unsafe:tt])? fn $name:ident($($argument:ident: $type:ty),*);)*) => {
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "as in cuda.h")]
        impl Raw {$(
            pub(crate) $($unsafe)? fn $name(&self, $($argument: $type),*) -> Result<(), Refused> {
                let function: unsafe extern "C" fn($($type),*) -> u32 = self.find(stringify!($name))?;
                // SAFETY: the type is that of the declaration in cuda.h. The driver checks numbers, reads and writes through
                // references what they refer to, and through other pointers what the caller vouches for.
                match self.$how(|| unsafe { function($($argument),*) }) {
                    0 => Ok(()),
                    code => Err(Refused { call: stringify!($name), code }),
                }
            }
        )*}
    };
}

mod kernels;
mod mapping;
mod pinned;

pub use kernels::EngineKernels;
pub use mapping::{Access, Mapping};
pub use pinned::Pinned;

declare! { bare:
    fn cuInit(flags: u32);
    fn cuDriverGetVersion(version: &mut i32);
    fn cuDeviceGet(device: &mut i32, ordinal: i32);
    fn cuDeviceGetCount(count: &mut i32);
    fn cuDeviceGetAttribute(value: &mut i32, attribute: u32, device: i32);
    fn cuDeviceGetUuid_v2(uuid: &mut [u8; 16], device: i32);
    fn cuDevicePrimaryCtxRetain(context: &mut usize, device: i32);
    fn cuDevicePrimaryCtxRelease_v2(device: i32);
    fn cuDevicePrimaryCtxReset_v2(device: i32);
    fn cuCtxCreate_v2(context: &mut usize, flags: u32, device: i32);
    fn cuCtxDestroy_v2(context: usize);
    fn cuCtxPushCurrent_v2(context: usize);
    fn cuCtxPopCurrent_v2(context: &mut usize);
}

declare! { inside:
    fn cuMemGetInfo_v2(free: &mut usize, total: &mut usize);
    fn cuMemAlloc_v2(address: &mut u64, bytes: usize);
    fn cuMemAllocManaged(address: &mut u64, bytes: usize, flags: u32);
    fn cuMemFree_v2(address: u64);
    [unsafe] fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize);
    [unsafe] fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize);
    fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: usize);
    fn cuStreamCreate(stream: &mut usize, flags: u32);
    fn cuStreamDestroy_v2(stream: usize);
    fn cuStreamQuery(stream: usize);
    fn cuStreamBeginCapture_v2(stream: usize, mode: u32);
    fn cuStreamEndCapture(stream: usize, graph: &mut usize);
    fn cuGraphDestroy(graph: usize);
    fn cuStreamSynchronize(stream: usize);
    [unsafe] fn cuPointerGetAttributes(count: u32, which: *const u32, out: *mut *mut c_void, address: u64);
}

impl Raw {
    /// Starts the driver and retains the primary context of a device.
    pub(crate) fn open(driver: Driver, ordinal: i32) -> Result<Arc<Self>, Refused> {
        // No context is current yet, and none is needed; the one that is not retained yet is given back nowhere.
        let mut raw = Self { driver, device: 0, context: Context::Created(0) };
        let (mut device, mut context) = (0, 0);
        raw.cuInit(0)?;
        raw.cuDeviceGet(&mut device, ordinal)?;
        raw.cuDevicePrimaryCtxRetain(&mut context, device)?;
        (raw.device, raw.context) = (device, Context::Primary(context));
        Ok(Arc::new(raw))
    }

    /// A context besides the primary one, on the same device.
    pub fn second_context(&self) -> Result<Arc<Self>, Refused> {
        let (mut context, mut popped) = (0, 0);
        self.cuCtxCreate_v2(&mut context, 0, self.device)?;
        // A new context is current on this thread; each call makes it so again.
        self.cuCtxPopCurrent_v2(&mut popped)?;
        Ok(Arc::new(Self { driver: self.driver.clone(), device: self.device, context: Context::Created(context) }))
    }

    /// Destroys the primary context whoever uses it, and what it holds. Whoever calls this ends the process soon.
    pub fn reset_primary(&self) -> Result<(), Refused> {
        self.cuDevicePrimaryCtxReset_v2(self.device)
    }

    /// A function, for a call right away: this thread speaks to the machine from now on. The caller names the type of its
    /// declaration in cuda.h.
    fn find<F: Copy>(&self, name: &'static str) -> Result<F, Refused> {
        let missing = Refused { call: name, code: NOT_FOUND };
        let c_name = CString::new(name).unwrap();
        let found = match &self.driver {
            // SAFETY: nothing is read: the address of a symbol is looked up, as a pointer of no type.
            Driver::Library(library) => match unsafe { library.get::<*mut c_void>(c_name.as_bytes_with_nul()) } {
                Ok(symbol) => *symbol,
                Err(_) => return Err(missing),
            },
            Driver::Mock(config) => {
                // SAFETY: the machine lives as long as the config, which `self` holds.
                unsafe { vram_mock_enter(config.raw_machine().unwrap()) };
                // SAFETY: the C side reads a zero-terminated name.
                unsafe { vram_mock_function(c_name.as_ptr()) }
            }
        };
        assert_eq!(size_of::<F>(), size_of_val(&found), "a function is a pointer");
        if found.is_null() {
            return Err(missing);
        }
        // SAFETY: every caller names the type of the function's declaration in cuda.h.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&found) })
    }

    fn bare<T>(&self, call: impl FnOnce() -> T) -> T {
        call()
    }

    /// Runs `call` with the context current on this thread.
    fn inside<T>(&self, call: impl FnOnce() -> T) -> T {
        let (Context::Primary(context) | Context::Created(context)) = self.context;
        let mut popped = 0;
        self.cuCtxPushCurrent_v2(context).unwrap();
        let answer = call();
        self.cuCtxPopCurrent_v2(&mut popped).unwrap();
        answer
    }

    pub fn is_mock(&self) -> bool {
        matches!(self.driver, Driver::Mock(_))
    }

    /// Devices that the driver sees.
    pub fn devices(&self) -> u32 {
        let mut count = 0;
        self.cuDeviceGetCount(&mut count).unwrap();
        u32::try_from(count).unwrap()
    }

    /// The device's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        self.cuDeviceGetUuid_v2(&mut uuid, self.device).unwrap();
        uuid
    }

    /// Compute capability, major times ten plus minor.
    pub fn capability(&self) -> u32 {
        let value = |attribute| u32::try_from(self.attribute(attribute).unwrap()).unwrap();
        value(MAJOR) * 10 + value(MINOR)
    }

    /// A device attribute by its number, as `cuDeviceGetAttribute` gives it; `None` when the driver does not know it.
    pub fn attribute(&self, attribute: u32) -> Option<i32> {
        let mut value = 0;
        self.cuDeviceGetAttribute(&mut value, attribute, self.device).is_ok().then_some(value)
    }

    /// The CUDA version that the driver speaks: 1000 × major + 10 × minor.
    pub fn driver_version(&self) -> i32 {
        let mut version = 0;
        self.cuDriverGetVersion(&mut version).unwrap();
        version
    }

    /// Free and total bytes of the device.
    pub fn memory_info(&self) -> (u64, u64) {
        let (mut free, mut total) = (0, 0);
        self.cuMemGetInfo_v2(&mut free, &mut total).unwrap();
        (free as u64, total as u64)
    }

    /// An engine's own allocation.
    pub fn alloc(&self, bytes: usize) -> u64 {
        self.try_alloc(bytes).unwrap_or_else(|refused| panic!("{refused}, for {bytes} bytes"))
    }

    pub fn try_alloc(&self, bytes: usize) -> Result<u64, Refused> {
        let mut address = 0;
        self.cuMemAlloc_v2(&mut address, bytes).map(|()| address)
    }

    /// Gives an engine's own allocation back, unless its context is dead.
    pub fn free(&self, address: u64) {
        let freed = self.cuMemFree_v2(address);
        assert!(freed.is_ok() || self.is_dead() || std::thread::panicking(), "{freed:?}");
    }

    /// Whether the context has died of a fault: it answers every call with an error then.
    pub fn is_dead(&self) -> bool {
        self.synchronize(0).is_err()
    }

    /// Writes device memory. Blocks.
    pub fn try_write(&self, to: u64, bytes: &[u8]) -> Result<(), Refused> {
        // SAFETY: the driver reads as many bytes as the slice has, and checks the device range.
        unsafe { self.cuMemcpyHtoD_v2(to, bytes.as_ptr(), bytes.len()) }?;
        // The driver may return when it has read the slice, and write later; other streams do not wait for that.
        self.synchronize(0)
    }

    /// Writes device memory. Blocks.
    pub fn write(&self, to: u64, bytes: &[u8]) {
        self.try_write(to, bytes).unwrap();
    }

    /// Reads device memory. Blocks.
    pub fn read(&self, from: u64, bytes: usize) -> Vec<u8> {
        self.try_read(from, bytes).unwrap()
    }

    /// Reads device memory. Blocks.
    pub fn try_read(&self, from: u64, bytes: usize) -> Result<Vec<u8>, Refused> {
        let mut out = vec![0; bytes];
        // SAFETY: the driver writes as many bytes as the vector has, and checks the device range.
        unsafe { self.cuMemcpyDtoH_v2(out.as_mut_ptr(), from, bytes) }.map(|()| out)
    }

    /// An engine's own stream, which does not synchronise with the default one.
    pub fn stream(&self) -> usize {
        let mut stream = 0;
        self.cuStreamCreate(&mut stream, 1).unwrap();
        stream
    }

    /// Ends what the stream holds, and the stream.
    pub fn destroy_stream(&self, stream: usize) {
        let destroyed = self.cuStreamDestroy_v2(stream);
        assert!(destroyed.is_ok() || std::thread::panicking(), "{destroyed:?}");
    }

    /// Whether everything on the stream has run.
    pub fn is_idle(&self, stream: usize) -> bool {
        match self.cuStreamQuery(stream) {
            Err(Refused { code: NOT_READY, .. }) => false,
            other => other.map(|()| true).unwrap(),
        }
    }

    /// Records what is enqueued on the stream from now on, in the mode that any thread's unsafe call ends.
    pub fn begin_capture(&self, stream: usize) -> Result<(), Refused> {
        self.cuStreamBeginCapture_v2(stream, 0)
    }

    /// Ends the recording, and forgets it; an error where something ended it before.
    pub fn end_capture(&self, stream: usize) -> Result<(), Refused> {
        let mut graph = 0;
        self.cuStreamEndCapture(stream, &mut graph)?;
        self.cuGraphDestroy(graph)
    }

    /// Blocks until everything on the stream has run.
    pub fn synchronize(&self, stream: usize) -> Result<(), Refused> {
        self.cuStreamSynchronize(stream)
    }

    /// Enqueues a fill on an engine's stream.
    pub fn fill(&self, stream: usize, to: u64, value: u8, bytes: usize) -> Result<(), Refused> {
        self.cuMemsetD8Async(to, value, bytes, stream)
    }

    /// The allocation that an address lies in: its first byte and its length.
    pub fn range(&self, address: u64) -> Result<(u64, usize), Refused> {
        let (mut start, mut bytes) = (0_u64, 0_usize);
        let mut out: [*mut c_void; 2] = [(&raw mut start).cast(), (&raw mut bytes).cast()];
        // SAFETY: two attributes, and two locals of the types that the driver writes for them.
        unsafe { self.cuPointerGetAttributes(2, RANGE.as_ptr(), out.as_mut_ptr(), address) }?;
        if bytes > 0 { Ok((start, bytes)) } else { Err(Refused { call: "cuPointerGetAttributes", code: NOT_FOUND }) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = match self.context {
            Context::Primary(_) => self.cuDevicePrimaryCtxRelease_v2(self.device),
            Context::Created(0) => Ok(()),
            Context::Created(context) => self.cuCtxDestroy_v2(context),
        };
    }
}

//! The library, started, and the primary context of a device.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "mock")]
use super::mock::Machine;
#[cfg(feature = "cuda")]
use super::table::Candidate;
#[cfg(any(feature = "cuda", feature = "mock"))]
use super::table::LoadError;
use super::table::Table;
use super::types::{CAPABILITY_MAJOR, CAPABILITY_MINOR, VIRTUAL_MEMORY};
use super::wide;
use crate::panics::aside;
use crate::types::{DeviceKind, DriverError, MemoryInfo};

const NAME_BYTES: usize = 256;

#[derive(Clone)]
pub(crate) struct Api(Arc<Table>);

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// Loads the first of these driver libraries that can be. Starts nothing.
    #[cfg(feature = "cuda")]
    pub(crate) fn load(candidates: &[Candidate]) -> Result<Self, LoadError> {
        Table::open(candidates).map(|table| Self(Arc::new(table)))
    }

    /// The mock's driver, speaking to a machine; `without` one of its functions, as an old driver would be.
    #[cfg(feature = "mock")]
    pub(crate) fn of_mock(machine: &Arc<Machine>, without: Option<&str>) -> Result<Self, LoadError> {
        Table::of_mock(machine, without).map(|table| Self(Arc::new(table)))
    }

    #[cfg(feature = "mock")]
    pub(crate) fn machine(&self) -> Option<&Arc<Machine>> {
        self.0.machine.as_ref()
    }

    pub(crate) fn kind(&self) -> DeviceKind {
        #[cfg(feature = "mock")]
        if self.0.machine.is_some() {
            return DeviceKind::Mock;
        }
        DeviceKind::Cuda
    }

    /// The functions, to be called at once: where they are the mock's, this thread speaks to the machine from now on.
    pub(super) fn table(&self) -> &Table {
        #[cfg(feature = "mock")]
        if let Some(machine) = &self.0.machine {
            machine.enter();
        }
        &self.0
    }

    pub(crate) fn start(&self) -> Result<(), DriverError> {
        // SAFETY: cuInit takes no pointer; 0 is the only flags value that it knows.
        unsafe { (self.table().init)(0) }.check("cuInit")
    }

    /// The CUDA version that the driver speaks: 1000 × major + 10 × minor.
    pub(crate) fn version(&self) -> Result<i32, DriverError> {
        let mut out = 0;
        // SAFETY: the one argument is a local that the driver writes an int to during the call.
        unsafe { (self.table().driver_version)(&raw mut out) }.check("cuDriverGetVersion")?;
        Ok(out)
    }

    pub(crate) fn devices(&self) -> Result<u32, DriverError> {
        let mut out = 0;
        // SAFETY: the one argument is a local that the driver writes an int to during the call.
        unsafe { (self.table().device_count)(&raw mut out) }.check("cuDeviceGetCount")?;
        Ok(u32::try_from(out).unwrap_or(0))
    }

    /// The driver's handle of a device: a number that its other calls check.
    pub(crate) fn device(&self, ordinal: u32) -> Result<i32, DriverError> {
        let ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
        let mut out = 0;
        // SAFETY: the driver writes one CUdevice, an int, to the local and checks the ordinal.
        unsafe { (self.table().device_get)(&raw mut out, ordinal) }.check("cuDeviceGet")?;
        Ok(out)
    }

    pub(crate) fn name(&self, device: i32) -> Result<String, DriverError> {
        let mut out = [0_u8; NAME_BYTES];
        let room = i32::try_from(out.len()).unwrap_or(0);
        // SAFETY: the driver writes at most `room` bytes, the length of the local; it checks the device.
        unsafe { (self.table().device_name)(out.as_mut_ptr(), room, device) }.check("cuDeviceGetName")?;
        let text = out.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// The 16 bytes that tell it, or the MIG instance that it is, from all others.
    pub(crate) fn uuid(&self, device: i32) -> Result<[u8; 16], DriverError> {
        let mut out = [0; 16];
        // SAFETY: the driver writes a CUuuid, 16 bytes (asserted in types.rs), to the local; it checks the device.
        unsafe { (self.table().device_uuid)(&raw mut out, device) }.check("cuDeviceGetUuid_v2")?;
        Ok(out)
    }

    pub(crate) fn total_bytes(&self, device: i32) -> Result<u64, DriverError> {
        let mut out = 0;
        // SAFETY: the driver writes one size_t to the local; it checks the device.
        unsafe { (self.table().device_total)(&raw mut out, device) }.check("cuDeviceTotalMem_v2")?;
        Ok(wide(out))
    }

    pub(crate) fn capability(&self, device: i32) -> Result<(u32, u32), DriverError> {
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        let major = self.attribute(device, CAPABILITY_MAJOR)?;
        Ok((number(major), number(self.attribute(device, CAPABILITY_MINOR)?)))
    }

    pub(crate) fn has_virtual_memory(&self, device: i32) -> Result<bool, DriverError> {
        Ok(self.attribute(device, VIRTUAL_MEMORY)? != 0)
    }

    fn attribute(&self, device: i32, attribute: u32) -> Result<i32, DriverError> {
        let mut out = 0;
        // SAFETY: the driver writes one int to the local; it checks the attribute's number and the device.
        unsafe { (self.table().device_attribute)(&raw mut out, attribute, device) }.check("cuDeviceGetAttribute")?;
        Ok(out)
    }
}

#[derive(Debug)]
pub(crate) struct Context {
    api: Api,
    device: i32,
    raw: usize,
    kept: AtomicBool,
}

impl Context {
    /// Retains the primary context, which engines of this process share, with whatever flags it has.
    pub(crate) fn retain(api: &Api, device: i32) -> Result<Arc<Self>, DriverError> {
        let mut raw = 0;
        // SAFETY: the driver writes one handle to the local; it checks the device.
        unsafe { (api.table().context_retain)(&raw mut raw, device) }.check("cuDevicePrimaryCtxRetain")?;
        Ok(Arc::new(Self { api: api.clone(), device, raw, kept: AtomicBool::new(false) }))
    }

    pub(crate) fn id(&self) -> u64 {
        wide(self.raw)
    }

    /// Never gives the context back: memory in it may still hold what must not return to the pool.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    pub(super) fn table(&self) -> &Table {
        self.api.table()
    }

    #[cfg(feature = "mock")]
    pub(super) const fn api(&self) -> &Api {
        &self.api
    }

    pub(super) const fn device(&self) -> i32 {
        self.device
    }

    /// Makes the context current on this thread until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Current<'_>, DriverError> {
        // SAFETY: `raw` is the handle that Context::retain got, which lives until this Context's drop releases it.
        unsafe { (self.table().context_push)(self.raw) }.check("cuCtxPushCurrent_v2")?;
        let mut current = Current { context: self, capture_mode: None, _this_thread: PhantomData };
        let mut mode = CAPTURE_RELAXED;
        // SAFETY: the driver exchanges the local's value with this thread's.
        unsafe { (self.table().capture_mode)(&raw mut mode) }.check("cuThreadExchangeStreamCaptureMode")?;
        current.capture_mode = Some(mode);
        Ok(current)
    }

    pub(crate) fn memory_info(&self) -> Result<MemoryInfo, DriverError> {
        let _current = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes one size_t to each local; the context is current, by the guard above.
        unsafe { (self.table().memory_info)(&raw mut free, &raw mut total) }.check("cuMemGetInfo_v2")?;
        Ok(MemoryInfo { free: wide(free), total: wide(total) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: takes a number. It is the one release for the one retain; everything in the context holds an Arc of self.
        let released = unsafe { (self.table().context_release)(self.device) };
        if let Err(error) = released.check("cuDevicePrimaryCtxRelease_v2") {
            aside!(|| tracing::debug!(%error, "a primary context could not be released"));
        }
    }
}

/// In which a thread's calls leave the captures of others alone (`CU_STREAM_CAPTURE_MODE_RELAXED`): what this crate calls is no part of
/// an engine's graph, and ends none.
const CAPTURE_RELAXED: u32 = 2;

/// The context is on top of this thread's stack. Tied to the thread; dropped in the reverse order of entering.
pub(super) struct Current<'a> {
    context: &'a Context,
    /// The mode that the thread had before.
    capture_mode: Option<u32>,
    _this_thread: PhantomData<*const ()>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if let Some(mut mode) = self.capture_mode {
            // SAFETY: the driver exchanges the local's value with this thread's. The guard is !Send, so this is the same thread.
            let status = unsafe { (self.context.table().capture_mode)(&raw mut mode) };
            if let Err(error) = status.check("cuThreadExchangeStreamCaptureMode") {
                aside!(|| tracing::debug!(%error, "a thread's capture mode could not be restored"));
            }
        }
        let mut popped = 0_usize;
        // SAFETY: the driver writes one handle to the local. The guard is !Send, so this is the thread that pushed.
        let status = unsafe { (self.context.table().context_pop)(&raw mut popped) };
        if let Err(error) = status.check("cuCtxPopCurrent_v2") {
            aside!(|| tracing::error!(%error, "a context could not be taken off the stack"));
        }
    }
}

//! The mock device, made safe.
//!
//! Owns [`Machine`] (a C machine, destroyed with its last holder) and [`MockDevice`] (one device of it). Promises that no
//! call passes a pointer that the C side could misuse: device addresses are plain numbers which it checks itself, and all
//! else are references of this file. Refuses nothing itself: the C side judges, [`Status::check`] translates.

pub(crate) mod abi;
#[cfg(test)]
mod tests;

use std::ptr::NonNull;
use std::sync::Arc;

use super::host::{HostBuffer, HostMemory};
use crate::types::{
    Access, DevicePtr, DigestJob, DriverError, DriverErrorKind, EventId, MemoryInfo, MemoryKind, Residency, Span,
    StreamId,
};
use abi::{RawConfig, RawDigestJob, RawFault, RawMachine, RawResidency, RawSpan, RawStats, Status};

/// The word and the meaning of each number that the mock returns, or is ordered to return.
const STATUSES: &[(u32, &str, DriverErrorKind)] = &[
    (1, "invalid_value", DriverErrorKind::InvalidValue),
    (2, "out_of_memory", DriverErrorKind::OutOfMemory),
    (100, "no_device", DriverErrorKind::Unavailable),
    (101, "invalid_device", DriverErrorKind::Unavailable),
    (214, "ecc_uncorrectable", DriverErrorKind::Sticky),
    (400, "invalid_handle", DriverErrorKind::InvalidValue),
    (700, "illegal_address", DriverErrorKind::Sticky),
    (702, "launch_timeout", DriverErrorKind::Sticky),
    (709, "context_is_destroyed", DriverErrorKind::Sticky),
    (719, "launch_failed", DriverErrorKind::Sticky),
    (740, "read_only", DriverErrorKind::InvalidValue),
    (801, "not_supported", DriverErrorKind::NotSupported),
    (999, "unknown", DriverErrorKind::Other),
];

fn failure(operation: &'static str, code: u32) -> DriverError {
    let known = STATUSES.iter().find(|(known, ..)| *known == code);
    let (name, kind) = known.map_or(("unknown", DriverErrorKind::Other), |(_, name, kind)| (*name, *kind));
    DriverError { operation, code, name, kind }
}

/// `value` as the C side's `uint64_t`; a size that does not fit is out of any range.
fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl Status {
    /// The one place where a status of the mock becomes a `Result`.
    fn check(self, operation: &'static str) -> Result<(), DriverError> {
        match self.0 {
            0 => Ok(()),
            code => Err(failure(operation, code)),
        }
    }
}

impl From<Span> for RawSpan {
    fn from(span: Span) -> Self {
        Self { ptr: span.ptr.0, bytes: span.bytes }
    }
}

/// What a machine is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MachineSettings {
    pub(crate) devices: u32,
    pub(crate) capacity_bytes: u64,
    pub(crate) granularity: u64,
    pub(crate) late_streams: bool,
    pub(crate) poison: bool,
    pub(crate) read_only: bool,
    pub(crate) sparse: bool,
}

/// A machine with its devices.
#[derive(Debug)]
pub(crate) struct Machine {
    raw: NonNull<RawMachine>,
    settings: MachineSettings,
}

// SAFETY: the C machine is tied to no thread (vram_mock.h: every call may be made from any thread).
unsafe impl Send for Machine {}
// SAFETY: every C call but destroy locks the device it works on; destroy takes `&mut self`, in Drop.
unsafe impl Sync for Machine {}

impl Machine {
    /// Makes one; `seed` makes its devices' UUIDs its own.
    pub(crate) fn create(settings: MachineSettings, seed: [u8; 16]) -> Result<Arc<Self>, DriverError> {
        if abi::vram_mock_abi_version() != abi::ABI_VERSION {
            return Err(failure("vram_mock_abi_version", 801));
        }
        let config = RawConfig {
            abi_version: abi::ABI_VERSION,
            devices: settings.devices,
            capacity_bytes: settings.capacity_bytes,
            granularity: settings.granularity,
            late_streams: u32::from(settings.late_streams),
            poison: u32::from(settings.poison),
            read_only: u32::from(settings.read_only),
            sparse: u32::from(settings.sparse),
            seed,
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: both arguments are references to locals of the mirrored types, used only during the call.
        let status = unsafe { abi::vram_mock_create(&raw const config, &raw mut raw) };
        status.check("vram_mock_create")?;
        let raw = NonNull::new(raw).ok_or_else(|| failure("vram_mock_create", 999))?;
        Ok(Arc::new(Self { raw, settings }))
    }

    /// What it was made of.
    pub(crate) const fn settings(&self) -> &MachineSettings {
        &self.settings
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: `raw` came from vram_mock_create and is destroyed here only. Every user of it (MockDevice, and through it
        // each HostBuffer) holds an Arc of this Machine, so no call is in progress and no host buffer is left.
        unsafe { abi::vram_mock_destroy(self.raw.as_ptr()) }
    }
}

/// One device of a machine.
#[derive(Clone, Debug)]
pub(crate) struct MockDevice {
    machine: Arc<Machine>,
    ordinal: u32,
}

/// Calls a function of the mock on this device. Its further arguments are numbers and structures by value, which the C
/// side checks itself, or pointers to locals that live through the call.
macro_rules! call {
    ($device:expr, $function:ident $(, $argument:expr)*) => {{
        let (machine, ordinal) = ($device.machine.raw.as_ptr(), $device.ordinal);
        // SAFETY: `machine` is live because `$device` holds an Arc of it; the C side checks `ordinal` and every device
        // address against its own tables. All pointer arguments of all uses are `&raw` of locals or fields of borrowed
        // structures of the mirrored type (layouts compared in mock/tests.rs), except in digest, peek, uuid and register_foreign, which
        // say at the call what they rest on. The C side keeps none of them after it returns.
        let status = unsafe { abi::$function(machine, ordinal $(, $argument)*) };
        status.check(stringify!($function))
    }};
}

#[allow(dead_code, reason = "the seam is cut for the CUDA driver and for engine streams, which use all of it")]
impl MockDevice {
    /// Device `ordinal` of a machine; an ordinal that it does not have fails every call.
    pub(crate) const fn new(machine: Arc<Machine>, ordinal: u32) -> Self {
        Self { machine, ordinal }
    }

    pub(crate) fn uuid(&self) -> Result<[u8; 16], DriverError> {
        let mut out = [0; 16];
        // Rests on: the C side writes exactly 16 bytes, the length of `out`.
        call!(self, vram_mock_uuid, out.as_mut_ptr())?;
        Ok(out)
    }

    pub(crate) fn stats(&self) -> Result<RawStats, DriverError> {
        let mut out = RawStats::default();
        call!(self, vram_mock_stats_of, &raw mut out)?;
        Ok(out)
    }

    pub(crate) fn memory_info(&self) -> Result<MemoryInfo, DriverError> {
        let (mut free, mut total) = (0, 0);
        call!(self, vram_mock_memory_info, &raw mut free, &raw mut total)?;
        Ok(MemoryInfo { free, total })
    }

    pub(crate) fn alloc(&self, bytes: u64) -> Result<DevicePtr, DriverError> {
        let mut out = 0;
        call!(self, vram_mock_alloc, bytes, &raw mut out)?;
        Ok(DevicePtr(out))
    }

    pub(crate) fn free(&self, ptr: DevicePtr) -> Result<(), DriverError> {
        call!(self, vram_mock_free, ptr.0)
    }

    /// Lets operations use host memory that someone else allocated, until [`unregister_foreign`](Self::unregister_foreign).
    ///
    /// # Safety
    /// `span` is initialised memory, valid for reads, and with [`Access::ReadWrite`] for writes, until it is unregistered. While an
    /// operation on it may run, nobody writes it; where writes are allowed nobody reads it either while something of the mock may
    /// write it, and no reference is in use then but to cells.
    pub(crate) unsafe fn register_foreign(&self, span: Span, access: Access) -> Result<(), DriverError> {
        // Rests on: this function's own contract; the C side refuses ranges that overlap its own memory, and writes where
        // they are not allowed, no more.
        call!(self, vram_mock_register_foreign, span.into(), u32::from(access == Access::ReadWrite))
    }

    /// Takes registered memory back. Operations still queued on it fail instead of touching it. Works on a dead device too.
    pub(crate) fn unregister_foreign(&self, ptr: DevicePtr) -> Result<(), DriverError> {
        call!(self, vram_mock_unregister_foreign, ptr.0)
    }

    pub(crate) fn residency(&self, ptr: DevicePtr) -> Result<Residency, DriverError> {
        let mut out = RawResidency::default();
        call!(self, vram_mock_residency_of, ptr.0, &raw mut out)?;
        let kind = match out.kind {
            1 => MemoryKind::Host,
            2 => MemoryKind::Device,
            3 => MemoryKind::Managed,
            _ => MemoryKind::Unknown,
        };
        Ok(Residency {
            kind,
            host_mapped: out.host_mapped != 0,
            exportable: out.exportable != 0,
            ipc_capable: false,
            ordinal: (out.has_ordinal != 0).then_some(out.ordinal),
            range: Span { ptr: DevicePtr(out.range.ptr), bytes: out.range.bytes },
        })
    }

    pub(crate) fn protect(&self, span: Span, access: Access) -> Result<bool, DriverError> {
        let mut confirmed = 0;
        let read_only = u32::from(access == Access::ReadOnly);
        call!(self, vram_mock_protect, span.into(), read_only, &raw mut confirmed)?;
        Ok(confirmed != 0)
    }

    pub(crate) fn host_buffer(&self, bytes: usize) -> Result<HostBuffer, DriverError> {
        let mut out = 0_u64;
        call!(self, vram_mock_host_alloc, wide(bytes), &raw mut out)?;
        let base = usize::try_from(out).ok().map(std::ptr::with_exposed_provenance_mut);
        let base = base.and_then(NonNull::new).ok_or_else(|| failure("vram_mock_host_alloc", 999))?;
        // SAFETY: vram_mock_host_alloc returned `bytes` zeroed bytes at `base`, valid until vram_mock_host_free, which only
        // HostMemory::free below calls; the C side touches them in queued copies only, which vram_mock_host_wait runs.
        Ok(unsafe { HostBuffer::from_raw(base, bytes, Arc::new(self.clone())) })
    }

    pub(crate) fn stream(&self) -> Result<StreamId, DriverError> {
        let mut out = 0;
        call!(self, vram_mock_stream_create, &raw mut out)?;
        Ok(StreamId(out))
    }

    pub(crate) fn destroy_stream(&self, stream: StreamId) -> Result<(), DriverError> {
        call!(self, vram_mock_stream_destroy, stream.0)
    }

    pub(crate) fn synchronize(&self, stream: StreamId) -> Result<(), DriverError> {
        call!(self, vram_mock_stream_synchronize, stream.0)
    }

    pub(crate) fn event(&self) -> Result<EventId, DriverError> {
        let mut out = 0;
        call!(self, vram_mock_event_create, &raw mut out)?;
        Ok(EventId(out))
    }

    pub(crate) fn destroy_event(&self, event: EventId) -> Result<(), DriverError> {
        call!(self, vram_mock_event_destroy, event.0)
    }

    pub(crate) fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), DriverError> {
        call!(self, vram_mock_event_record, event.0, stream.0)
    }

    pub(crate) fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), DriverError> {
        call!(self, vram_mock_event_wait, stream.0, event.0)
    }

    pub(crate) fn synchronize_event(&self, event: EventId) -> Result<(), DriverError> {
        call!(self, vram_mock_event_synchronize, event.0)
    }

    pub(crate) fn query_event(&self, event: EventId) -> Result<bool, DriverError> {
        match call!(self, vram_mock_event_query, event.0) {
            Ok(()) => Ok(true),
            Err(error) if error.code == abi::NOT_READY => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn copy_to_device(
        &self,
        stream: StreamId,
        to: DevicePtr,
        source: &mut HostBuffer,
        from: usize,
        bytes: usize,
    ) -> Result<(), DriverError> {
        // The C side also checks that the bytes lie in a live host buffer of this device, so another device's is refused.
        let host = source.address(from, bytes).ok_or_else(|| failure("vram_mock_copy_to_device", 1))?;
        call!(self, vram_mock_copy_to_device, stream.0, to.0, host, wide(bytes))
    }

    pub(crate) fn copy_to_host(
        &self,
        stream: StreamId,
        target: &mut HostBuffer,
        to: usize,
        from: DevicePtr,
        bytes: usize,
    ) -> Result<(), DriverError> {
        let host = target.address(to, bytes).ok_or_else(|| failure("vram_mock_copy_to_host", 1))?;
        call!(self, vram_mock_copy_to_host, stream.0, host, from.0, wide(bytes))
    }

    pub(crate) fn fill(&self, stream: StreamId, span: Span, value: u8) -> Result<(), DriverError> {
        call!(self, vram_mock_fill, stream.0, span.into(), u32::from(value))
    }

    pub(crate) fn digest(&self, stream: StreamId, job: &DigestJob<'_>) -> Result<(), DriverError> {
        let regions: Vec<RawSpan> = job.regions.iter().copied().map(RawSpan::from).collect();
        let mut salt = [0; 32];
        let room = salt.get_mut(..job.salt.len()).ok_or_else(|| failure("vram_mock_digest", 1))?;
        room.copy_from_slice(job.salt);
        let raw = RawDigestJob {
            regions: regions.as_ptr(),
            region_count: wide(regions.len()),
            block_size: job.block_size,
            salt_bytes: u32::try_from(job.salt.len()).map_err(|_| failure("vram_mock_digest", 1))?,
            salt,
            scratch: job.scratch.into(),
            table: job.table.into(),
            result: job.result.0,
            nonce: job.nonce,
        };
        // Rests on: `regions` lives to the end of this function and holds `region_count` spans; the C side copies them.
        call!(self, vram_mock_digest, stream.0, &raw const raw)
    }

    pub(crate) fn count_nonzero(
        &self,
        stream: StreamId,
        span: Span,
        result: DevicePtr,
        nonce: u64,
    ) -> Result<(), DriverError> {
        call!(self, vram_mock_count_nonzero, stream.0, span.into(), result.0, nonce)
    }

    pub(crate) fn order_fault(&self, fault: &RawFault) -> Result<(), DriverError> {
        call!(self, vram_mock_order_fault, &raw const *fault)
    }

    pub(crate) fn clear_faults(&self) -> Result<(), DriverError> {
        call!(self, vram_mock_clear_faults)
    }

    pub(crate) fn flip_bit(&self, ptr: DevicePtr, bit: u8) -> Result<(), DriverError> {
        call!(self, vram_mock_flip_bit, ptr.0, u32::from(bit))
    }

    /// Reads device memory as it is now, running nothing.
    pub(crate) fn peek(&self, ptr: DevicePtr, out: &mut [u8]) -> Result<(), DriverError> {
        // Rests on: the C side writes exactly `out.len()` bytes, or none.
        call!(self, vram_mock_peek, ptr.0, out.as_mut_ptr(), wide(out.len()))
    }
}

impl HostMemory for MockDevice {
    fn wait(&self, base: NonNull<u8>) -> Result<(), DriverError> {
        call!(self, vram_mock_host_wait, wide(base.addr().get()))
    }

    unsafe fn free(&self, base: NonNull<u8>, _bytes: usize) {
        // A dead device frees too, and returns its own status: there is nothing left to do with it.
        let _ = call!(self, vram_mock_host_free, wide(base.addr().get()));
    }
}

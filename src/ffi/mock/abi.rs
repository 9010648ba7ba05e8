//! `cuda/include/vram_mock.h` in Rust: its structures, numbers and functions, and nothing else.

/// `VRAM_MOCK_ABI_VERSION`.
pub(crate) const ABI_VERSION: u32 = 5;
/// `VRAM_MOCK_CALLS`.
pub(crate) const CALLS: usize = 16;
/// `VRAM_MOCK_NOT_READY`.
pub(super) const NOT_READY: u32 = 600;

/// `VRAM_MOCK_FAULT_*`.
pub(crate) mod fault {
    pub(crate) const FAIL: u32 = 1;
    pub(crate) const CORRUPT: u32 = 2;
    pub(crate) const SKIP: u32 = 3;
    pub(crate) const HALF: u32 = 4;
    pub(crate) const DIGEST_SHORT: u32 = 5;
    pub(crate) const DIGEST_SHORT_LIES: u32 = 6;
    pub(crate) const DIGEST_STALE: u32 = 7;
    pub(crate) const DIGEST_REPLAYED: u32 = 8;
    pub(crate) const COUNT_ZERO: u32 = 9;
    pub(crate) const FREE_BYTES: u32 = 10;
    pub(crate) const RESIDENCY: u32 = 11;
    pub(crate) const UNCONFIRMED: u32 = 12;
    pub(crate) const STICKY: u32 = 13;
}

/// A machine; only ever behind a pointer.
#[repr(C)]
pub(super) struct RawMachine {
    _opaque: [u8; 0],
    // Neither Send nor Sync nor Unpin: `Machine` decides.
    _marker: core::marker::PhantomData<(*mut u8, core::marker::PhantomPinned)>,
}

/// `vram_mock_config`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RawConfig {
    pub(super) abi_version: u32,
    pub(super) devices: u32,
    pub(super) capacity_bytes: u64,
    pub(super) granularity: u64,
    pub(super) late_streams: u32,
    pub(super) poison: u32,
    pub(super) read_only: u32,
    pub(super) sparse: u32,
    pub(super) seed: [u8; 16],
}

/// `vram_mock_span`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct RawSpan {
    pub(super) ptr: u64,
    pub(super) bytes: u64,
}

/// `vram_mock_residency`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct RawResidency {
    pub(super) kind: u32,
    pub(super) host_mapped: u32,
    pub(super) exportable: u32,
    pub(super) has_ordinal: u32,
    pub(super) ordinal: u32,
    pub(super) reserved: u32,
    pub(super) range: RawSpan,
}

/// `vram_mock_digest_job`.
#[repr(C)]
pub(super) struct RawDigestJob {
    pub(super) regions: *const RawSpan,
    pub(super) region_count: u64,
    pub(super) block_size: u32,
    pub(super) salt_bytes: u32,
    pub(super) salt: [u8; 32],
    pub(super) scratch: RawSpan,
    pub(super) table: RawSpan,
    pub(super) result: u64,
    pub(super) nonce: u64,
}

/// `vram_mock_fault`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RawFault {
    pub(crate) kind: u32,
    pub(crate) call: u32,
    pub(crate) code: u32,
    pub(crate) reserved: u32,
    pub(crate) value: u64,
    pub(crate) nth: u64,
    pub(crate) times: u64,
}

/// `vram_mock_stats`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct RawStats {
    pub(crate) live_allocations: u64,
    pub(crate) live_bytes: u64,
    pub(crate) live_foreign: u64,
    pub(crate) live_streams: u64,
    pub(crate) live_events: u64,
    pub(crate) live_host_buffers: u64,
    pub(crate) live_host_bytes: u64,
    pub(crate) pending_operations: u64,
    pub(crate) unmet_faults: u64,
    pub(crate) unwiped_device_bytes: u64,
    pub(crate) unwiped_host_bytes: u64,
    pub(crate) runs: [u64; CALLS],
}

/// A status of the mock. [`Status::check`](super::Status::check) makes a `Result` of it.
#[must_use]
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(pub(super) u32);

#[allow(dead_code, reason = "the seam is cut for the CUDA driver and for engine streams, which use all of it")]
unsafe extern "C" {
    pub(super) safe fn vram_mock_abi_version() -> u32;
    #[cfg(test)]
    pub(super) fn vram_mock_layout(out: *mut u64, room: u64) -> u64;
    pub(super) fn vram_mock_create(config: *const RawConfig, out: *mut *mut RawMachine) -> Status;
    pub(super) fn vram_mock_destroy(machine: *mut RawMachine);
    pub(super) fn vram_mock_uuid(machine: *mut RawMachine, device: u32, out: *mut u8) -> Status;
    pub(super) fn vram_mock_stats_of(machine: *mut RawMachine, device: u32, out: *mut RawStats) -> Status;

    pub(super) fn vram_mock_memory_info(
        machine: *mut RawMachine,
        device: u32,
        free: *mut u64,
        total: *mut u64,
    ) -> Status;
    pub(super) fn vram_mock_alloc(machine: *mut RawMachine, device: u32, bytes: u64, out: *mut u64) -> Status;
    pub(super) fn vram_mock_free(machine: *mut RawMachine, device: u32, ptr: u64) -> Status;
    pub(super) fn vram_mock_register_foreign(
        machine: *mut RawMachine,
        device: u32,
        span: RawSpan,
        writable: u32,
    ) -> Status;
    pub(super) fn vram_mock_unregister_foreign(machine: *mut RawMachine, device: u32, ptr: u64) -> Status;
    pub(super) fn vram_mock_residency_of(
        machine: *mut RawMachine,
        device: u32,
        ptr: u64,
        out: *mut RawResidency,
    ) -> Status;
    pub(super) fn vram_mock_protect(
        machine: *mut RawMachine,
        device: u32,
        span: RawSpan,
        read_only: u32,
        confirmed: *mut u32,
    ) -> Status;
    pub(super) fn vram_mock_host_alloc(machine: *mut RawMachine, device: u32, bytes: u64, out: *mut u64) -> Status;
    pub(super) fn vram_mock_host_wait(machine: *mut RawMachine, device: u32, ptr: u64) -> Status;
    pub(super) fn vram_mock_host_free(machine: *mut RawMachine, device: u32, ptr: u64) -> Status;

    pub(super) fn vram_mock_stream_create(machine: *mut RawMachine, device: u32, out: *mut u64) -> Status;
    pub(super) fn vram_mock_stream_destroy(machine: *mut RawMachine, device: u32, stream: u64) -> Status;
    pub(super) fn vram_mock_stream_synchronize(machine: *mut RawMachine, device: u32, stream: u64) -> Status;
    pub(super) fn vram_mock_event_create(machine: *mut RawMachine, device: u32, out: *mut u64) -> Status;
    pub(super) fn vram_mock_event_destroy(machine: *mut RawMachine, device: u32, event: u64) -> Status;
    pub(super) fn vram_mock_event_record(machine: *mut RawMachine, device: u32, event: u64, stream: u64) -> Status;
    pub(super) fn vram_mock_event_wait(machine: *mut RawMachine, device: u32, stream: u64, event: u64) -> Status;
    pub(super) fn vram_mock_event_synchronize(machine: *mut RawMachine, device: u32, event: u64) -> Status;
    pub(super) fn vram_mock_event_query(machine: *mut RawMachine, device: u32, event: u64) -> Status;

    pub(super) fn vram_mock_copy_to_device(
        machine: *mut RawMachine,
        device: u32,
        stream: u64,
        to: u64,
        host: u64,
        bytes: u64,
    ) -> Status;
    pub(super) fn vram_mock_copy_to_host(
        machine: *mut RawMachine,
        device: u32,
        stream: u64,
        host: u64,
        from: u64,
        bytes: u64,
    ) -> Status;
    pub(super) fn vram_mock_fill(
        machine: *mut RawMachine,
        device: u32,
        stream: u64,
        span: RawSpan,
        value: u32,
    ) -> Status;
    pub(super) fn vram_mock_digest(
        machine: *mut RawMachine,
        device: u32,
        stream: u64,
        job: *const RawDigestJob,
    ) -> Status;
    pub(super) fn vram_mock_count_nonzero(
        machine: *mut RawMachine,
        device: u32,
        stream: u64,
        span: RawSpan,
        result: u64,
        nonce: u64,
    ) -> Status;

    pub(super) fn vram_mock_order_fault(machine: *mut RawMachine, device: u32, fault: *const RawFault) -> Status;
    pub(super) fn vram_mock_clear_faults(machine: *mut RawMachine, device: u32) -> Status;
    pub(super) fn vram_mock_flip_bit(machine: *mut RawMachine, device: u32, ptr: u64, bit: u32) -> Status;
    pub(super) fn vram_mock_peek(machine: *mut RawMachine, device: u32, ptr: u64, out: *mut u8, bytes: u64) -> Status;
}

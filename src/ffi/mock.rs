//! The mock, made safe: what it has besides the functions of the CUDA driver API.
//!
//! Owns [`Machine`] (a C machine, dropped with its last holder). Mirrors `cuda/include/vram_mock.h`; both sides assert the layout.
//! Refuses nothing itself: the C side checks every device address, ordinal and number, and answers with a status.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::status::{Status, UNKNOWN, failure};
use super::step::Operation;
use super::wide;
use crate::digest::blocks::BlockHasher;
use crate::digest::keyed::{self as hash_keyed, LevelKey, hash_level};
use crate::digest::pool::default_threads;
use crate::types::{Access, DevicePtr, DriverError, Span};

pub(crate) const OPERATIONS: usize = 17;

/// What can go wrong to order: `VRAM_MOCK_FAIL` and so on.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "the last two are ordered by tests of the driver only"))]
pub(crate) enum Kind {
    Fail = 1,
    Sticky,
    Corrupt,
    Skip,
    Half,
    DigestShort,
    DigestShortLies,
    DigestStale,
    DigestReplayed,
    CountZero,
    FreeBytes,
    ResidencyLie,
    Unconfirmed,
    Flip,
    Answer,
    Crash,
}

/// `VRAM_MOCK_DEVICES` and so on.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "some are set by tests only, in this crate or beside it")]
pub(crate) enum Setting {
    Devices,
    Capacity,
    Granularity,
    Poison,
    Sparse,
    Late,
    RefuseReadOnly,
    Strict,
    Bodies,
    Backwards,
    Overhead,
    Version,
    Major,
    Minor,
    VirtualMemory,
    Traced,
}

/// `vram_mock_fault`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawFault {
    pub(crate) kind: Kind,
    pub(crate) call: u32,
    pub(crate) code: u32,
    pub(crate) reserved: u32,
    pub(crate) value: u64,
    pub(crate) nth: u64,
    pub(crate) times: u64,
}

/// `vram_mock_stats`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
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
    pub(crate) reservations: u64,
    pub(crate) modules: u64,
    pub(crate) retained: u64,
    pub(crate) violations: u64,
    pub(crate) live_marks: u64,
    pub(crate) runs: [u64; OPERATIONS],
}

const _: () = assert!(size_of::<RawFault>() == 40 && core::mem::offset_of!(RawFault, value) == 16);
const _: () = assert!(size_of::<RawStats>() == 264 && core::mem::offset_of!(RawStats, runs) == 128);
#[allow(clippy::as_conversions, reason = "the discriminants of enums that cross to C")]
const _: () = assert!(
    Kind::Crash as u32 == 16 && Setting::Traced as u32 == 15,
    "numbers have moved: cuda/include/vram_mock.h has them too"
);

/// A machine; only ever behind a pointer, and written by the C side under its own lock.
#[repr(C)]
struct RawMachine {
    _opaque: UnsafeCell<[u8; 0]>,
    _marker: core::marker::PhantomData<(*mut u8, core::marker::PhantomPinned)>,
}

type Hasher = extern "C" fn(&[u32; 8], u32, *const u8, u64, u32, *mut u8);
type KeyedHasher = extern "C" fn(&LevelKey, *const u8, u64, *mut u64);

unsafe extern "C" {
    fn vram_mock_machine_new(
        devices: u32,
        seed: &[u8; 16],
        hasher: Hasher,
        keyed: Option<KeyedHasher>,
    ) -> *mut RawMachine;
    fn vram_mock_machine_drop(machine: *mut RawMachine);
    fn vram_mock_enter(machine: *const RawMachine);
    fn vram_mock_function(name: *const c_char) -> *mut c_void;
    fn vram_mock_register(machine: &RawMachine, device: u32, ptr: u64, bytes: u64, writable: u32) -> Status;
    fn vram_mock_look(machine: &RawMachine, ptr: u64, out: *mut u8, bytes: u64) -> Status;
    // Those that take numbers and references: the C side checks the former, the types vouch for the latter.
    safe fn vram_mock_step(operation: Operation) -> Status;
    safe fn vram_mock_unstep();
    safe fn vram_mock_set(machine: &RawMachine, setting: Setting, value: u64);
    safe fn vram_mock_stats_of_device(machine: &RawMachine, device: u32, out: &mut RawStats) -> Status;
    safe fn vram_mock_order(machine: &RawMachine, device: u32, fault: &RawFault) -> Status;
    safe fn vram_mock_forget(machine: &RawMachine, device: u32) -> Status;
    safe fn vram_mock_unregister(machine: &RawMachine, device: u32, ptr: u64) -> Status;
    safe fn vram_mock_flip(machine: &RawMachine, ptr: u64, bit: u32) -> Status;
}

/// A function of the API by its name, which ends in a zero byte; `None` when the mock does not have it.
pub(super) fn function(name: &[u8]) -> Option<NonNull<c_void>> {
    let name = CStr::from_bytes_with_nul(name).ok()?;
    // SAFETY: the C side reads a zero-terminated name, which `name` is by its type, and gives an address of its own code.
    NonNull::new(unsafe { vram_mock_function(name.as_ptr()) })
}

#[derive(Debug)]
pub(crate) struct Machine {
    raw: NonNull<RawMachine>,
}

// SAFETY: the C machine is tied to no thread (vram_mock.h: every call may be made from any thread).
unsafe impl Send for Machine {}
// SAFETY: every C call but drop locks the machine; drop takes `&mut self`, in Drop.
unsafe impl Sync for Machine {}

impl Machine {
    /// Makes one; `seed` makes its devices' UUIDs its own.
    pub(crate) fn new(devices: u32, seed: [u8; 16]) -> Result<Arc<Self>, DriverError> {
        // SAFETY: the seed is a local that is copied during the call; `hash` and `KEYED` are functions of the declared types.
        let raw = unsafe { vram_mock_machine_new(devices, &seed, hash, KEYED) };
        let raw = NonNull::new(raw).ok_or_else(|| failure("vram_mock_machine_new", UNKNOWN))?;
        Ok(Arc::new(Self { raw }))
    }

    fn raw(&self) -> &RawMachine {
        // SAFETY: the machine lives until Drop; the type is empty and a cell, so the reference says nothing of what is behind it.
        unsafe { self.raw.as_ref() }
    }

    /// The C machine, for a make-believe engine of the project's own suites.
    pub(crate) const fn as_ptr(&self) -> *mut c_void {
        self.raw.as_ptr().cast()
    }

    /// From now on this thread's calls of the mock's functions are to this machine.
    pub(super) fn enter(&self) {
        // SAFETY: the C side keeps the address for this thread, and every call of a function of the API is made right after
        // another `enter`, by Api::table, whose table holds the machine; so it is never used when the machine is gone.
        unsafe { vram_mock_enter(self.raw.as_ptr()) }
    }

    /// Begins an operation of this thread, in the current context.
    pub(super) fn begin(&self, operation: Operation) -> Result<(), DriverError> {
        self.enter();
        vram_mock_step(operation).check("cuLaunchKernel") // a part is never refused
    }

    pub(super) fn end() {
        vram_mock_unstep();
    }

    pub(crate) fn set(&self, setting: Setting, value: u64) {
        vram_mock_set(self.raw(), setting, value);
    }

    pub(crate) fn stats(&self, device: u32) -> RawStats {
        let mut out = RawStats::default();
        let Status(_) = vram_mock_stats_of_device(self.raw(), device, &mut out); // a device that is not there has none
        out
    }

    pub(crate) fn order(&self, device: u32, fault: &RawFault) -> Result<(), DriverError> {
        vram_mock_order(self.raw(), device, fault).check("vram_mock_order")
    }

    pub(crate) fn forget(&self, device: u32) -> Result<(), DriverError> {
        vram_mock_forget(self.raw(), device).check("vram_mock_forget")
    }

    /// Lets operations of a device use host memory that someone else allocated, until [`unregister`](Self::unregister).
    ///
    /// # Safety
    /// `span` is initialised memory, valid for reads, and with [`Access::ReadWrite`] for writes, until it is unregistered. While an
    /// operation on it may run, nobody writes it; where writes are allowed nobody reads it either while something of the mock may
    /// write it, and no reference is in use then but to cells.
    pub(super) unsafe fn register(&self, device: i32, span: Span, access: Access) -> Result<(), DriverError> {
        let (device, writable) = (u32::try_from(device).unwrap_or(u32::MAX), u32::from(access == Access::ReadWrite));
        // SAFETY: rests on this function's own contract; the C side refuses ranges that overlap its own memory, and writes where
        // they are not allowed, no more.
        let status = unsafe { vram_mock_register(self.raw(), device, span.ptr.0, span.bytes, writable) };
        status.check("vram_mock_register")
    }

    /// Takes registered memory back. What is still queued on it fails instead of touching it.
    pub(super) fn unregister(&self, device: i32, span: Span) {
        let device = u32::try_from(device).unwrap_or(u32::MAX);
        let Status(_) = vram_mock_unregister(self.raw(), device, span.ptr.0); // what is not there is not there afterwards
    }

    pub(crate) fn flip(&self, ptr: DevicePtr, bit: u8) -> Result<(), DriverError> {
        vram_mock_flip(self.raw(), ptr.0, u32::from(bit)).check("vram_mock_flip")
    }

    /// Reads device memory as it is now, running nothing.
    pub(crate) fn look(&self, ptr: DevicePtr, out: &mut [u8]) -> Result<(), DriverError> {
        // SAFETY: the C side writes exactly as many bytes as `out` has, or none.
        unsafe { vram_mock_look(self.raw(), ptr.0, out.as_mut_ptr(), wide(out.len())) }.check("vram_mock_look")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: `raw` came from vram_mock_machine_new and is dropped here only. Everything that calls it holds an Arc of this
        // Machine: drivers by their table, so no call is in progress and no host buffer is left.
        unsafe { vram_mock_machine_drop(self.raw.as_ptr()) }
    }
}

/// `vram_mock_hasher`: the host digest's hash of whole blocks.
extern "C" fn hash(start: &[u32; 8], salted: u32, data: *const u8, blocks: u64, block_size: u32, out: *mut u8) {
    let (Ok(count), Ok(block)) = (usize::try_from(blocks), usize::try_from(block_size)) else { return };
    // SAFETY: the C side passes `blocks` blocks that it has looked up in one live allocation, which nobody writes during the call:
    // it holds its lock, and whoever registered memory of their own vouched for that.
    let data = unsafe { std::slice::from_raw_parts(data, count.saturating_mul(block)) };
    // SAFETY: as above, 32 bytes for each block, which overlap none of what is read (driver/digest.rs checks the job).
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<[u8; 32]>(), count) };
    BlockHasher::after(*start, salted != 0, block).hash_all(default_threads(), data, out);
}

/// Without optimisation the kernel's body, in C, is the faster one.
const KEYED: Option<KeyedHasher> = if cfg!(debug_assertions) { None } else { Some(keyed) };

/// `vram_mock_keyed_hasher`: the host's keyed hash of whole blocks.
extern "C" fn keyed(key: &LevelKey, data: *const u8, blocks: u64, sums: *mut u64) {
    let Ok(count) = usize::try_from(blocks) else { return };
    // SAFETY: as above, `blocks` blocks of 4,096 bytes.
    let data = unsafe { std::slice::from_raw_parts(data, count.saturating_mul(hash_keyed::BLOCK_BYTES)) };
    // SAFETY: as above, two sums for each block, aligned, which overlap none of what is read (driver/keyed.rs checks the job).
    let sums = unsafe { std::slice::from_raw_parts_mut(sums.cast::<[u64; 2]>(), count) };
    let mut outputs = Zeroizing::new(vec![[0; 16]; count]);
    hash_level(default_threads(), key, data, &mut outputs);
    for (sums, output) in sums.iter_mut().zip(outputs.iter()) {
        for (sum, output) in sums.iter_mut().zip(output.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*output));
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
pub(crate) mod tests {
    use super::*;

    unsafe extern "C" {
        fn vram_mock_number(name: *const c_char) -> u32;
        fn vram_mock_trace(machine: &RawMachine, out: *mut u32, room: u64) -> u64;
        safe fn vram_mock_mapping(machine: &RawMachine, n: u64, bytes: &mut u64, access: &mut u32) -> u64;
        safe fn vram_mock_calls(machine: &RawMachine, function: u32) -> u64;
        safe fn vram_mock_contexts(top: &mut u64) -> u64;
    }

    /// The number of a function; 0 when there is none.
    pub(crate) fn number(name: &str) -> u32 {
        let name = std::ffi::CString::new(name).unwrap();
        // SAFETY: the C side reads a zero-terminated name.
        unsafe { vram_mock_number(name.as_ptr()) }
    }

    /// How many contexts are on this thread's stack, and the topmost.
    pub(crate) fn contexts() -> (u64, u64) {
        let mut top = 0;
        (vram_mock_contexts(&mut top), top)
    }

    impl Machine {
        /// Place, length and access of every live mapping.
        pub(crate) fn mappings(&self) -> Vec<(u64, u64, u32)> {
            let (mut bytes, mut access) = (0, 0);
            let all =
                (0..).map(|n| vram_mock_mapping(self.raw(), n, &mut bytes, &mut access)).take_while(|at| *at != 0);
            let places: Vec<u64> = all.collect();
            let one = |n: usize| {
                let (mut bytes, mut access) = (0, 0);
                let at = vram_mock_mapping(self.raw(), wide(n), &mut bytes, &mut access);
                (at, bytes, access)
            };
            (0..places.len()).map(one).collect()
        }

        pub(crate) fn calls(&self, function: &str) -> u64 {
            vram_mock_calls(self.raw(), number(function))
        }

        /// The numbers of the functions that were called since the last time.
        pub(crate) fn trace(&self) -> Vec<u32> {
            let mut out = vec![0; 1 << 16];
            // SAFETY: the C side writes at most as many numbers as `out` has room for.
            let count = unsafe { vram_mock_trace(self.raw(), out.as_mut_ptr(), wide(out.len())) };
            out.truncate(usize::try_from(count).unwrap());
            out
        }

        /// A function of the API, for a call right away.
        ///
        /// # Safety
        /// `F` is the type of the function's declaration in cuda.h, with handles and device addresses as integers.
        pub(crate) unsafe fn function<F: Copy>(&self, name: &CStr) -> F {
            let found = function(name.to_bytes_with_nul()).unwrap();
            assert_eq!(size_of::<F>(), size_of_val(&found));
            self.enter();
            // SAFETY: the caller names the type of the function, which is a pointer, as just asserted.
            unsafe { std::mem::transmute_copy::<NonNull<c_void>, F>(&found) }
        }
    }
}

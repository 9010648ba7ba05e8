//! What an engine does with the driver that it shares with us.
#![allow(unsafe_code, reason = "an engine calls the driver itself")]

use std::ffi::CStr;

use super::*;

type Status = u32;

impl Fake {
    /// Runs `act` with the primary context of the first device current, as an engine holds it.
    fn as_engine<T>(&self, act: impl FnOnce() -> T) -> T {
        let mut context = 0_u64;
        // SAFETY: (for this and each call below) the type is that of the function's declaration in cuda.h, with handles and device
        // addresses as integers; pointers are to locals of the type that the declaration asks for.
        let retain: unsafe extern "C" fn(*mut u64, i32) -> Status =
            unsafe { self.machine.function(c"cuDevicePrimaryCtxRetain") };
        // SAFETY: see above.
        assert_eq!(unsafe { retain(&raw mut context, 0) }, 0);
        self.push(context);
        let answer = act();
        self.pop();
        // SAFETY: see above.
        let release: unsafe extern "C" fn(i32) -> Status =
            unsafe { self.machine.function(c"cuDevicePrimaryCtxRelease_v2") };
        // SAFETY: see above.
        assert_eq!(unsafe { release(0) }, 0);
        answer
    }

    /// Puts a context on this thread's stack.
    pub(super) fn push(&self, context: u64) {
        // SAFETY: see `as_engine`.
        let push: unsafe extern "C" fn(u64) -> Status = unsafe { self.machine.function(c"cuCtxPushCurrent_v2") };
        // SAFETY: see `as_engine`.
        assert_eq!(unsafe { push(context) }, 0);
    }

    /// Takes a context off again.
    pub(super) fn pop(&self) {
        let mut popped = 0_u64;
        // SAFETY: see `as_engine`.
        let pop: unsafe extern "C" fn(*mut u64) -> Status = unsafe { self.machine.function(c"cuCtxPopCurrent_v2") };
        // SAFETY: see `as_engine`.
        assert_eq!(unsafe { pop(&raw mut popped) }, 0);
    }

    /// Makes something of which the driver writes a number.
    fn make<A>(&self, name: &CStr, of: A) -> u64 {
        self.as_engine(|| {
            let mut out = 0_u64;
            // SAFETY: see `as_engine`.
            let call: unsafe extern "C" fn(*mut u64, A) -> Status = unsafe { self.machine.function(name) };
            // SAFETY: see `as_engine`.
            assert_eq!(unsafe { call(&raw mut out, of) }, 0);
            out
        })
    }

    pub(super) fn engine_alloc(&self, bytes: u64) -> u64 {
        self.make::<u64>(c"cuMemAlloc_v2", bytes)
    }

    pub(super) fn engine_stream(&self) -> u64 {
        self.make::<u32>(c"cuStreamCreate", 1)
    }

    pub(super) fn engine_free(&self, ptr: u64) {
        self.as_engine(|| {
            // SAFETY: see `as_engine`.
            let free: unsafe extern "C" fn(u64) -> Status = unsafe { self.machine.function(c"cuMemFree_v2") };
            // SAFETY: see `as_engine`.
            assert_eq!(unsafe { free(ptr) }, 0);
        });
    }

    /// Enqueues that an engine writes.
    pub(super) fn engine_fill(&self, stream: u64, ptr: u64, bytes: u64, value: u8) {
        self.as_engine(|| {
            // SAFETY: see `as_engine`.
            let fill: unsafe extern "C" fn(u64, u8, u64, u64) -> Status =
                unsafe { self.machine.function(c"cuMemsetD8Async") };
            // SAFETY: see `as_engine`.
            assert_eq!(unsafe { fill(ptr, value, bytes, stream) }, 0);
        });
    }
}

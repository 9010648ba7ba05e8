//! The stand-in for the driver's library: compiled by build.rs, opened by path, one copy for each test.
//!
//! What runs here runs against a fake, not on a GPU.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use libloading::{Library, Symbol};
use tempfile::TempDir;

/// The library that build.rs compiled; elsewhere `VRAM_TEST_STAND_IN` names it.
const LIBRARY: &str = env!("VRAM_RESIDENCY_STAND_IN");

/// One stand-in, shared by nothing else.
#[derive(Debug)]
pub struct StandIn {
    folder: TempDir,
    path: PathBuf,
    library: Library,
}

impl Default for StandIn {
    fn default() -> Self {
        Self::new()
    }
}

impl StandIn {
    pub fn new() -> Self {
        Self::made(|_| ())
    }

    /// A driver that has no function of this name: the name is changed in the copy's string table.
    pub fn without(symbol: &str) -> Self {
        Self::made(|bytes| {
            let wanted = [&[0], symbol.as_bytes(), &[0]].concat();
            let windows = bytes.windows(wanted.len()).enumerate();
            let found: Vec<usize> = windows.filter(|(_, window)| *window == wanted).map(|(at, _)| at).collect();
            assert!(!found.is_empty(), "{symbol}");
            for at in found {
                bytes[at..][1] = b'x';
            }
        })
    }

    fn made(change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let library = std::env::var_os("VRAM_TEST_STAND_IN").map_or_else(|| PathBuf::from(LIBRARY), PathBuf::from);
        let mut bytes = std::fs::read(&library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
        change(&mut bytes);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libcuda.so.1");
        std::fs::write(&path, bytes).unwrap();
        // SAFETY: the stand-in that build.rs compiled from this repository; its initialisers only set up its own state.
        let library = unsafe { Library::new(&path) }.unwrap();
        Self { folder, path, library }
    }

    /// Where it is. Whoever loads it as the driver's library never unloads it, so the copy outlives this value.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the same folder at which there is no library.
    pub fn missing(&self) -> PathBuf {
        self.folder.path().join("no-such-library.so")
    }

    pub fn set(&self, name: &str, value: u64) {
        let name = CString::new(name).unwrap();
        let call: Symbol<'_, unsafe extern "C" fn(*const i8, u64)> = self.find("fake_set");
        // SAFETY: declared so in context.cpp; it copies the zero-terminated name.
        unsafe { call(name.as_ptr().cast(), value) }
    }

    /// Answers an attribute of addresses with `value` from now on.
    pub fn lie(&self, attribute: u32, value: u64) {
        let call: Symbol<'_, unsafe extern "C" fn(u32, u64)> = self.find("fake_lie");
        // SAFETY: declared so in context.cpp; it takes numbers.
        unsafe { call(attribute, value) }
    }

    /// Forgets all lies and orders.
    pub fn tell_the_truth(&self) {
        let call: Symbol<'_, unsafe extern "C" fn()> = self.find("fake_tell_the_truth");
        // SAFETY: declared so in context.cpp; it takes nothing.
        unsafe { call() }
    }

    /// The `nth` call of that name from now on returns `code` and does nothing; so do those after it, `times` in all.
    pub fn order(&self, call_name: &str, code: u32, nth: u64, times: u64) {
        let name = CString::new(call_name).unwrap();
        let call: Symbol<'_, unsafe extern "C" fn(*const i8, u32, u64, u64)> = self.find("fake_order");
        // SAFETY: declared so in context.cpp; it copies the zero-terminated name.
        unsafe { call(name.as_ptr().cast(), code, nth, times) }
    }

    /// Something goes wrong without a call failing, from the `nth` occasion on and `times` times; `fake_quirk` names what can.
    pub fn quirk(&self, name: &str, nth: u64, times: u64) {
        let name = CString::new(name).unwrap();
        let call: Symbol<'_, unsafe extern "C" fn(*const i8, u64, u64)> = self.find("fake_quirk");
        // SAFETY: declared so in context.cpp; it copies the zero-terminated name.
        unsafe { call(name.as_ptr().cast(), nth, times) }
    }

    pub fn get(&self, name: &str) -> u64 {
        let name = CString::new(name).unwrap();
        let call: Symbol<'_, unsafe extern "C" fn(*const i8) -> u64> = self.find("fake_get");
        // SAFETY: declared so in context.cpp; it copies the zero-terminated name.
        unsafe { call(name.as_ptr().cast()) }
    }

    /// How often a function was called.
    pub fn calls(&self, name: &str) -> u64 {
        self.get(&format!("calls {name}"))
    }

    /// Device memory as it is now; runs nothing.
    pub fn peek(&self, ptr: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        let call: Symbol<'_, unsafe extern "C" fn(u64, *mut u8, u64) -> u32> = self.find("fake_peek");
        // SAFETY: declared so in memory.cpp; it checks the device range and writes `bytes` bytes, the length of `out`.
        assert_eq!(unsafe { call(ptr, out.as_mut_ptr(), u64::try_from(bytes).unwrap()) }, 0);
        out
    }

    /// Flips a bit through another mapping of the same memory.
    pub fn flip(&self, ptr: u64, bit: u32) {
        let call: Symbol<'_, unsafe extern "C" fn(u64, u32) -> u32> = self.find("fake_flip");
        // SAFETY: declared so in memory.cpp; it checks the address.
        assert_eq!(unsafe { call(ptr, bit) }, 0);
    }

    /// Places and lengths of the live mappings.
    pub fn mappings(&self) -> Vec<(u64, u64)> {
        let call: Symbol<'_, unsafe extern "C" fn(u64, *mut u64) -> u64> = self.find("fake_mapping");
        let mut all = Vec::new();
        loop {
            let mut bytes = 0;
            // SAFETY: declared so in memory.cpp; it writes one number to the local.
            match unsafe { call(u64::try_from(all.len()).unwrap(), &raw mut bytes) } {
                0 => return all,
                ptr => all.push((ptr, bytes)),
            }
        }
    }

    /// What the mapping at this address allows: 0 nothing, 1 reading, 3 reading and writing.
    pub fn access(&self, ptr: u64) -> u32 {
        let call: Symbol<'_, unsafe extern "C" fn(u64) -> u32> = self.find("fake_access");
        // SAFETY: declared so in memory.cpp; it looks the address up and touches nothing.
        unsafe { call(ptr) }
    }

    /// The functions called since this was last asked, in order.
    pub fn trace(&self) -> Vec<String> {
        let call: Symbol<'_, unsafe extern "C" fn(*mut u8, u64) -> u64> = self.find("fake_trace");
        let mut out = vec![0; 1 << 20];
        // SAFETY: declared so in context.cpp; it writes at most as many bytes as `out` has.
        let bytes = unsafe { call(out.as_mut_ptr(), u64::try_from(out.len()).unwrap()) };
        out.truncate(usize::try_from(bytes).unwrap());
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    pub fn engine_alloc(&self, bytes: u64) -> u64 {
        let call: Symbol<'_, unsafe extern "C" fn(u64) -> u64> = self.find("fake_engine_alloc");
        // SAFETY: declared so in engine.cpp; it takes a number.
        unsafe { call(bytes) }
    }

    pub fn engine_free(&self, ptr: u64) {
        let call: Symbol<'_, unsafe extern "C" fn(u64)> = self.find("fake_engine_free");
        // SAFETY: declared so in engine.cpp; `ptr` came from engine_alloc, and each test frees once.
        unsafe { call(ptr) }
    }

    pub fn engine_stream(&self) -> u64 {
        let call: Symbol<'_, unsafe extern "C" fn() -> u64> = self.find("fake_engine_stream");
        // SAFETY: declared so in stream.cpp; it takes nothing.
        unsafe { call() }
    }

    /// Enqueues that an engine writes.
    pub fn engine_fill(&self, stream: u64, ptr: u64, bytes: u64, value: u32) {
        let call: Symbol<'_, unsafe extern "C" fn(u64, u64, u64, u32)> = self.find("fake_engine_fill");
        // SAFETY: declared so in stream.cpp; the stream came from engine_stream; the range is checked when it runs.
        unsafe { call(stream, ptr, bytes, value) }
    }

    /// Puts an engine's own context on this thread's stack, or takes it off again.
    pub fn engine_context(&self, push: bool) {
        let call: Symbol<'_, unsafe extern "C" fn(u32)> = self.find("fake_engine_context");
        // SAFETY: declared so in context.cpp; each test takes off what it put on.
        unsafe { call(u32::from(push)) }
    }

    fn find<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: every caller above names the type of the function's definition in cuda/fake.
        unsafe { self.library.get(name.as_bytes()) }.unwrap()
    }
}

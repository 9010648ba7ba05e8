//! Kernels of an engine's.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use super::{Raw, Refused};

mod engine {
    include!(concat!(env!("OUT_DIR"), "/engine.rs"));
}

unsafe extern "C" {
    fn vram_harness_add_kernels();
}

declare! { inside:
    [unsafe] fn cuModuleLoadData(module: &mut usize, image: *const c_void);
    [unsafe] fn cuModuleGetFunction(function: &mut usize, module: usize, name: *const c_char);
    fn cuModuleUnload(module: usize);
    [unsafe] fn cuLaunchKernel(
        function: usize, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared: u32, stream: usize,
        parameters: *mut *mut c_void, extra: *mut *mut c_void
    );
}

/// Threads of a block of the engine's kernels, as in cuda/engine/engine.h.
const ENGINE_THREADS: u32 = 128;
/// Blocks that fill every GPU, for kernels that take any number.
const WIDE_GRID: u32 = 4096;
/// The engine's kernels, loaded.
#[derive(Debug)]
pub struct EngineKernels {
    raw: Arc<Raw>,
    module: usize,
}

impl Raw {
    /// The engine's kernels for this device; `None` when none were built for it.
    pub fn engine_kernels(self: &Arc<Self>) -> Option<EngineKernels> {
        #[repr(align(64))]
        struct Placeholder([u8; 64]);
        // The mock looks at the first bytes only, and has kernels of these names from the host's compiler.
        static PLACEHOLDER: Placeholder =
            Placeholder(*b"\x7fELF, as far as the mock looks; there is no machine code in here");
        let capability = self.capability();
        let fitting = |arch: u32| arch / 10 == capability / 10 && arch <= capability;
        let image = match engine::IMAGES.iter().filter(|(arch, _)| fitting(*arch)).max_by_key(|(arch, _)| *arch) {
            _ if self.is_mock() => &PLACEHOLDER.0,
            Some((_, image)) => *image,
            None => return None,
        };
        // SAFETY: takes nothing; the C side adds the same kernels each time.
        unsafe { vram_harness_add_kernels() };
        // The driver reads images as structures: they lie as structures must.
        let mut aligned = vec![0_u128; image.len().div_ceil(16) + 1];
        // SAFETY: `aligned` has at least as many bytes as the image, and nothing else refers to it.
        unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), aligned.as_mut_ptr().cast(), image.len()) };
        let mut module = 0;
        // SAFETY: a whole image, which the driver copies.
        unsafe { self.cuModuleLoadData(&mut module, aligned.as_ptr().cast()) }.unwrap();
        Some(EngineKernels { raw: Arc::clone(self), module })
    }
}

impl EngineKernels {
    /// Enqueues `y = weights · x` in float32 over `rows` rows of `columns`.
    pub fn matvec(&self, stream: usize, weights: u64, x: u64, y: u64, rows: u64, columns: u64) -> Result<(), Refused> {
        let grid = rows.div_ceil(u64::from(ENGINE_THREADS));
        self.launch("engine_matvec", stream, u32::try_from(grid).unwrap(), &[weights, x, y, rows, columns])
    }

    /// Enqueues a kernel that flips one bit.
    pub fn flip(&self, stream: usize, address: u64, bit: u8) -> Result<(), Refused> {
        self.launch("engine_flip", stream, 1, &[address, u64::from(bit)])
    }

    /// Enqueues a kernel that keeps the stream busy for so long.
    pub fn spin(&self, stream: usize, nanoseconds: u64) -> Result<(), Refused> {
        self.launch("engine_spin", stream, 1, &[nanoseconds])
    }

    /// Enqueues a count of the places, multiples of 8, at which `value` stands, added to the 8 bytes at `counter`.
    pub fn scan(&self, stream: usize, address: u64, bytes: u64, value: u64, counter: u64) -> Result<(), Refused> {
        self.launch("engine_scan", stream, WIDE_GRID.min(grid(bytes)), &[address, bytes / 16, value, counter])
    }

    /// Enqueues filling memory with random bytes, or with `repeat` over and over where it is not 0.
    pub fn random(&self, stream: usize, address: u64, bytes: u64, seed: u64, repeat: u64) -> Result<(), Refused> {
        self.launch("engine_random", stream, WIDE_GRID.min(grid(bytes)), &[address, bytes / 16, seed, repeat])
    }

    /// Every engine kernel takes one structure of 64-bit numbers.
    fn launch(&self, name: &str, stream: usize, grid: u32, args: &[u64]) -> Result<(), Refused> {
        let c_name = CString::new(name).unwrap();
        let (mut function, mut args) = (0, args.to_vec());
        // SAFETY: the driver copies the zero-terminated name.
        unsafe { self.raw.cuModuleGetFunction(&mut function, self.module, c_name.as_ptr()) }.unwrap();
        let mut parameters: [*mut c_void; 1] = [args.as_mut_ptr().cast()];
        let (one, all, nothing) = (1, parameters.as_mut_ptr(), std::ptr::null_mut());
        // SAFETY: one parameter, the structure that cuda/engine/engine.h declares for this kernel.
        unsafe { self.raw.cuLaunchKernel(function, grid, one, one, ENGINE_THREADS, one, one, 0, stream, all, nothing) }
    }
}

impl Drop for EngineKernels {
    fn drop(&mut self) {
        let _ = self.raw.cuModuleUnload(self.module);
    }
}

/// Blocks of a kernel whose threads each take 16 bytes.
fn grid(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(16 * u64::from(ENGINE_THREADS)).max(1)).unwrap_or(u32::MAX)
}

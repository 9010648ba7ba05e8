//! The kernels: a native image in the driver, its entry points, and the structures that they take.
//!
//! Mirrors `cuda/include/vram_kernels.h`; both sides assert the layout. Promises that nothing is compiled just in time: only a
//! native (ELF) image is loaded.

use std::ffi::{CStr, c_void};
use std::sync::Arc;

use super::context::Context;
use super::status::{INVALID_IMAGE, INVALID_VALUE, failure};
use super::stream::Stream;
use crate::panics::aside;
use crate::types::DriverError;

/// The value of every `one`, which the compiler of the kernels must not know.
pub(crate) const ONE: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) ptr: u64,
    pub(crate) bytes: u64,
    pub(crate) first_block: u64,
}

impl Region {
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        for (place, word) in out.chunks_exact_mut(8).zip([self.ptr, self.bytes, self.first_block]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

/// Of `vram_verity_leaves`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeavesArgs {
    pub(crate) regions: u64,
    pub(crate) region_count: u64,
    pub(crate) first_block: u64,
    pub(crate) block_count: u64,
    pub(crate) hashes: u64,
    pub(crate) counters: u64,
    pub(crate) start: [u32; 8],
    pub(crate) block_size: u32,
    pub(crate) message_bits: u32,
    pub(crate) one: u32,
    pub(crate) reserved: u32,
}

/// Of `vram_verity_nodes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodesArgs {
    pub(crate) hashes: u64,
    pub(crate) leaf_count: u64,
    pub(crate) table: u64,
    pub(crate) counters: u64,
    pub(crate) start: [u32; 8],
    pub(crate) block_size: u32,
    pub(crate) message_bits: u32,
    pub(crate) one: u32,
    pub(crate) single: u32,
}

/// Of `vram_finish`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FinishArgs {
    pub(crate) result: u64,
    pub(crate) counters: u64,
    pub(crate) nonce: u64,
}

/// Of `vram_count_nonzero`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountArgs {
    pub(crate) ptr: u64,
    pub(crate) bytes: u64,
    pub(crate) counters: u64,
}

/// Of `vram_keyed_level`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyedArgs {
    /// A list of regions; or, where `region_count` is 0, `bytes` bytes.
    pub(crate) regions: u64,
    pub(crate) region_count: u64,
    pub(crate) bytes: u64,
    pub(crate) first_block: u64,
    pub(crate) block_count: u64,
    pub(crate) key: u64,
    pub(crate) sums: u64,
    pub(crate) counters: u64,
    pub(crate) block_shift: u32,
    /// Blocks of a warp; [`Kernels::keyed`] decides it.
    pub(crate) share: u32,
}

macro_rules! layout {
    ($type:ty, $bytes:literal, $($field:ident = $offset:literal),*) => {
        const _: () = assert!(size_of::<$type>() == $bytes && align_of::<$type>() == 8);
        $(const _: () = assert!(core::mem::offset_of!($type, $field) == $offset);)*
    };
}

layout!(Region, 24, ptr = 0, bytes = 8, first_block = 16);
layout!(LeavesArgs, 96, regions = 0, region_count = 8, first_block = 16, block_count = 24, hashes = 32, counters = 40);
layout!(LeavesArgs, 96, start = 48, block_size = 80, message_bits = 84, one = 88, reserved = 92);
layout!(NodesArgs, 80, hashes = 0, leaf_count = 8, table = 16, counters = 24);
layout!(NodesArgs, 80, start = 32, block_size = 64, message_bits = 68, one = 72, single = 76);
layout!(FinishArgs, 24, result = 0, counters = 8, nonce = 16);
layout!(CountArgs, 24, ptr = 0, bytes = 8, counters = 16);
layout!(KeyedArgs, 72, regions = 0, region_count = 8, bytes = 16, first_block = 24, block_count = 32, key = 40);
layout!(KeyedArgs, 72, sums = 48, counters = 56, block_shift = 64, share = 68);

const LEAVES_THREADS: u32 = 128;
const NODES_THREADS: u32 = 32;
const COUNT_THREADS: u32 = 256;
/// Bytes that a thread block of the count should have to read, and the most thread blocks that are of use.
const COUNT_SHARE: u64 = 32768;
const COUNT_MOST_BLOCKS: u64 = 4096;
const KEYED_THREADS: u32 = 128;
const KEYED_WARPS: u64 = 4;
/// Beyond this, each warp takes a larger share.
const KEYED_MOST_WARPS: u64 = 32768;
/// The thread blocks of a grid: all that are needed, or none where the driver would not take so many.
fn grid(blocks: u64) -> Option<u32> {
    u32::try_from(blocks).ok().filter(|grid| (1..=0x7fff_ffff).contains(grid))
}

/// The kernels of one device. Unloaded when dropped: every launch was waited for by then.
#[derive(Debug)]
pub(crate) struct Kernels {
    context: Arc<Context>,
    module: usize,
    leaves: usize,
    nodes: usize,
    finish: usize,
    count: usize,
    keyed: usize,
}

impl Kernels {
    pub(crate) fn load(context: &Arc<Context>, image: &[u8]) -> Result<Self, DriverError> {
        const OPERATION: &str = "cuModuleLoadData";
        // Whatever is no ELF file is text or a container that the driver might compile.
        if !image.starts_with(b"\x7fELF") {
            return Err(failure(OPERATION, INVALID_IMAGE));
        }
        let _current = context.enter()?;
        // The driver reads words: an aligned copy, with zeros behind it.
        let mut aligned = vec![0_u128; image.len().div_ceil(16).saturating_add(1)];
        for (word, bytes) in aligned.iter_mut().zip(image.chunks(16)) {
            let mut padded = [0; 16];
            for (to, from) in padded.iter_mut().zip(bytes) {
                *to = *from;
            }
            *word = u128::from_ne_bytes(padded);
        }
        let mut module = 0;
        // SAFETY: the driver writes one handle to the local and reads an image that says its own length: in shipped code one
        // that nvcc made and build.rs embedded whole.
        unsafe { (context.table().module_load)(&raw mut module, aligned.as_ptr().cast()) }.check(OPERATION)?;
        let mut kernels =
            Self { context: Arc::clone(context), module, leaves: 0, nodes: 0, finish: 0, count: 0, keyed: 0 };
        kernels.leaves = kernels.function(c"vram_verity_leaves")?;
        kernels.nodes = kernels.function(c"vram_verity_nodes")?;
        kernels.finish = kernels.function(c"vram_finish")?;
        kernels.count = kernels.function(c"vram_count_nonzero")?;
        kernels.keyed = kernels.function(c"vram_keyed_level")?;
        Ok(kernels)
    }

    fn function(&self, name: &CStr) -> Result<usize, DriverError> {
        let mut out = 0;
        // SAFETY: the driver writes one handle to the local and reads a zero-terminated name; the module is `self`'s.
        let status = unsafe { (self.context.table().module_function)(&raw mut out, self.module, name.as_ptr()) };
        status.check("cuModuleGetFunction")?;
        Ok(out)
    }

    /// Enqueues the leaf hashes of one chunk. The caller has checked every address in `args`.
    pub(crate) fn leaves(&self, stream: &Stream, args: LeavesArgs) -> Result<(), DriverError> {
        let blocks = args.block_count.div_ceil(u64::from(LEAVES_THREADS));
        self.launch(self.leaves, stream, blocks, LEAVES_THREADS, args)
    }

    /// Enqueues the `entries` table entries over one chunk. The caller has checked every address in `args`.
    pub(crate) fn nodes(&self, stream: &Stream, entries: u64, args: NodesArgs) -> Result<(), DriverError> {
        self.launch(self.nodes, stream, entries.div_ceil(u64::from(NODES_THREADS)), NODES_THREADS, args)
    }

    /// Enqueues the result of a launch. The caller has checked every address in `args`.
    pub(crate) fn finish(&self, stream: &Stream, args: FinishArgs) -> Result<(), DriverError> {
        self.launch(self.finish, stream, 1, 1, args)
    }

    /// Enqueues a count. The caller has checked every address in `args`.
    pub(crate) fn count(&self, stream: &Stream, args: CountArgs) -> Result<(), DriverError> {
        let blocks = args.bytes.div_ceil(COUNT_SHARE).clamp(1, COUNT_MOST_BLOCKS);
        self.launch(self.count, stream, blocks, COUNT_THREADS, args)
    }

    /// Enqueues a level of a keyed hash, or a chunk of it. The caller has checked every address in `args`.
    pub(crate) fn keyed(&self, stream: &Stream, args: KeyedArgs) -> Result<(), DriverError> {
        let share = args.block_count.div_ceil(KEYED_MOST_WARPS).max(1);
        let blocks = args.block_count.div_ceil(share.saturating_mul(KEYED_WARPS));
        let share = u32::try_from(share).map_err(|_| failure("cuLaunchKernel", INVALID_VALUE))?;
        self.launch(self.keyed, stream, blocks, KEYED_THREADS, KeyedArgs { share, ..args })
    }

    /// `args` is the one parameter of `function`: each caller above passes the structure that its kernel is declared with.
    fn launch<A: Copy>(
        &self,
        function: usize,
        stream: &Stream,
        blocks: u64,
        threads: u32,
        mut args: A,
    ) -> Result<(), DriverError> {
        const OPERATION: &str = "cuLaunchKernel";
        let grid = grid(blocks).ok_or_else(|| failure(OPERATION, INVALID_VALUE))?;
        let _current = self.context.enter()?;
        let mut places: [*mut c_void; 1] = [(&raw mut args).cast()];
        let (places, launch) = (places.as_mut_ptr(), self.context.table().launch);
        // SAFETY: `function` is of this module and the stream lives (both borrowed). `places` has one element for the one
        // parameter, a structure laid out as the kernel's (asserted above and in vram_kernels.h), which the driver copies
        // before it returns. The device addresses in it were checked by the caller against live memory.
        let status =
            unsafe { launch(function, grid, 1, 1, threads, 1, 1, 0, stream.raw(), places, std::ptr::null_mut()) };
        status.check(OPERATION)
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        let Ok(_current) = self.context.enter() else { return };
        // SAFETY: the handle came from cuModuleLoadData in Kernels::load and is unloaded here only; functions of it are
        // reached through `self` alone.
        let status = unsafe { (self.context.table().module_unload)(self.module) };
        if let Err(error) = status.check("cuModuleUnload") {
            aside!(|| tracing::debug!(%error, "the kernels could not be unloaded"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_whole_or_refused() {
        // covers: RES-7
        for (blocks, wanted) in [
            (0, None),
            (1, Some(1)),
            ((1 << 31) - 1, Some(0x7fff_ffff)),
            (1 << 31, None),
            ((1 << 32) - 1, None),
            (1 << 32, None),
            ((1 << 32) + 1, None),
            (1 << 63, None),
            (u64::MAX, None),
        ] {
            assert_eq!(grid(blocks), wanted, "{blocks}");
        }
    }
}

//! The kernels' bodies on the CPU, for tests: what a change of a kernel is checked with where there is no GPU.
//!
//! Owns the loop over chunks that a driver does.
//! It borrows all memory for the length of one launch; the addresses in a launch come from slices that are alive.
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use std::ffi::{CStr, c_char, c_void};

use super::kernels::{CountArgs, FinishArgs, LeavesArgs, NodesArgs, Region};

mod tests;

const LEAVES: (&CStr, u32) = (c"vram_verity_leaves", 128);
const NODES: (&CStr, u32) = (c"vram_verity_nodes", 32);
const FINISH: (&CStr, u32) = (c"vram_finish", 1);
const COUNT: (&CStr, u32) = (c"vram_count_nonzero", 256);

unsafe extern "C" {
    fn vram_host_launch(
        name: *const c_char,
        args: *const c_void,
        args_bytes: u64,
        grid: u32,
        block: u32,
        backwards: u32,
    ) -> u32;
}

/// Launches a kernel whose arguments hold the addresses of live memory, of the sizes that the header asks for.
fn launch<T>((name, block): (&CStr, u32), args: &T, grid: u64, backwards: bool) {
    assert_eq!(status(name, args, u32::try_from(grid).unwrap(), block, backwards), 0, "{name:?}");
}

fn status<T>(name: &CStr, args: &T, grid: u32, block: u32, backwards: bool) -> u32 {
    let (args, bytes) = (std::ptr::from_ref(args).cast(), u64::try_from(size_of::<T>()).unwrap());
    // SAFETY: `name` ends in a zero byte, and `args` is the structure that this kernel takes, by its size, which the C side compares.
    // Those who call `launch` fill it with addresses of slices that they borrow across the call; the others launch nothing.
    unsafe { vram_host_launch(name.as_ptr(), args, bytes, grid, block, u32::from(backwards)) }
}

fn address<T>(of: &[T]) -> u64 {
    u64::try_from(of.as_ptr().expose_provenance()).unwrap()
}

fn address_mut<T>(of: &mut [T]) -> u64 {
    u64::try_from(of.as_mut_ptr().expose_provenance()).unwrap()
}

/// What a launch wrote: table, then nonce, covered, found, reserved.
type Outcome = (Vec<u8>, [u64; 4]);

/// Parameters of a digest launch.
struct Tree<'a> {
    block_size: usize,
    /// SHA-256's state after the salt block.
    start: [u32; 8],
    salted: bool,
    /// Leaf hashes that scratch holds.
    room: usize,
    nonce: u64,
    backwards: bool,
    regions: &'a [&'a [u8]],
}

/// Poison, leaves and nodes chunk by chunk, finish: as the driver does it.
fn digest(tree: &Tree<'_>) -> Outcome {
    const POISON: u128 = 0xEEEE_EEEE_EEEE_EEEE_EEEE_EEEE_EEEE_EEEE;
    let wide = |value: usize| u64::try_from(value).unwrap();
    let arity = tree.block_size / 32;
    let mut leaves = 0;
    let mut regions = Vec::new();
    for region in tree.regions {
        regions.push(Region { ptr: address(region), bytes: wide(region.len()), first_block: wide(leaves) });
        leaves += region.len().div_ceil(tree.block_size);
    }
    let entries = if leaves == 1 { 1 } else { leaves.div_ceil(arity) };
    let mut scratch = vec![POISON; leaves.min(tree.room) * 2];
    let mut table = vec![POISON; entries * 2 + 1];
    let mut result = [u64::MAX, 0, 0, u64::MAX];
    let (hashes, table_at, result_at) = (address_mut(&mut scratch), address_mut(&mut table), address_mut(&mut result));
    let block_size = u32::try_from(tree.block_size).unwrap();
    let message_bits = 8 * (block_size + if tree.salted { 64 } else { 0 });
    for from in (0..leaves).step_by(tree.room) {
        let count = (leaves - from).min(tree.room);
        let args = LeavesArgs {
            regions: address(&regions),
            region_count: wide(regions.len()),
            first_block: wide(from),
            block_count: wide(count),
            hashes,
            counters: result_at + 8,
            start: tree.start,
            block_size,
            message_bits,
            one: 1,
            reserved: 0,
        };
        launch(LEAVES, &args, wide(count).div_ceil(u64::from(LEAVES.1)), tree.backwards);
        let args = NodesArgs {
            hashes,
            leaf_count: wide(count),
            table: table_at + wide(from / arity * 32),
            counters: result_at + 8,
            start: tree.start,
            block_size,
            message_bits,
            one: 1,
            single: u32::from(leaves == 1),
        };
        launch(NODES, &args, wide(count.div_ceil(arity)).div_ceil(u64::from(NODES.1)), tree.backwards);
    }
    launch(FINISH, &FinishArgs { result: result_at, counters: result_at + 8, nonce: tree.nonce }, 1, false);
    assert_eq!(table.pop(), Some(POISON), "written past the table");
    (table.into_iter().flat_map(u128::to_ne_bytes).collect(), result)
}

/// Counts with a grid of `grid` thread blocks: nonce, covered, found, reserved.
fn count_nonzero(span: &[u8], grid: u64, nonce: u64) -> [u64; 4] {
    let mut result = [u64::MAX, 0, 0, u64::MAX];
    let at = address_mut(&mut result);
    let bytes = u64::try_from(span.len()).unwrap();
    launch(COUNT, &CountArgs { ptr: address(span), bytes, counters: at + 8 }, grid, false);
    launch(FINISH, &FinishArgs { result: at, counters: at + 8, nonce }, 1, false);
    result
}

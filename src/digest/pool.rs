//! The threads that hash.
//!
//! Owns the one pool of a process, which is made when it is first needed and stays. Promises that nobody waits for ever: what runs on
//! it only computes, takes no lock but to share work out, and calls nobody's code. Hence it is a pool of its own: on rayon's global
//! one a caller's jobs may hold all threads, waiting for a lock under which we hash; and who waits inside a pool runs other jobs of
//! that pool meanwhile, on the same stack, which may want that lock too. So a caller that is itself a thread of some other pool
//! hashes alone, as does everyone where the pool cannot be made.

use std::num::NonZeroUsize;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::available_parallelism;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Fewer bytes than this are hashed on the calling thread: waking others would cost more than they save.
pub(crate) const PARALLEL_BYTES: usize = 1 << 20;

/// What a thread takes at a time, in bytes; small, so that a thread on a slow or shared core holds the others up little …
const SHARE_BYTES: usize = 256 << 10;
/// … but not fewer blocks than there are lanes.
const SHARE_BLOCKS: usize = 16;

/// The threads that hashing uses unless told otherwise: the cores that this process may use. Asked for once, because the answer is
/// read from files, which takes longer than to hash a block.
pub(crate) fn default_threads() -> NonZeroUsize {
    static CORES: LazyLock<NonZeroUsize> = LazyLock::new(|| available_parallelism().unwrap_or(NonZeroUsize::MIN));
    *CORES
}

/// The pool, for who may wait for it and wants more than one thread.
fn pool(threads: NonZeroUsize) -> Option<&'static ThreadPool> {
    static POOL: LazyLock<Option<(ThreadPool, u32)>> = LazyLock::new(|| {
        let pool = ThreadPoolBuilder::new().num_threads(default_threads().get());
        let pool = pool.thread_name(|at| format!("vram-digest-{at}")).build().ok()?;
        Some((pool, std::process::id()))
    });
    if threads.get() == 1 {
        return None;
    }
    let (pool, process) = POOL.as_ref()?;
    let elsewhere = rayon::current_thread_index().is_some() && pool.current_thread_index().is_none();
    // A process that was forked off has no threads but the one that forked it.
    (!elsewhere && *process == std::process::id()).then_some(pool)
}

/// Has `work` make a result of each of consecutive blocks, of which the last may be short, on up to `threads` threads: it is given
/// some of the blocks at a time, and room for as many results.
pub(super) fn in_shares<T: Send>(
    threads: NonZeroUsize,
    block_len: usize,
    data: &[u8],
    out: &mut [T],
    work: impl Fn(&[u8], &mut [T]) + Sync,
) {
    // Block sizes divide the share.
    let share_blocks = SHARE_BYTES.checked_div(block_len).unwrap_or(1).max(SHARE_BLOCKS);
    let share_bytes = share_blocks.saturating_mul(block_len);
    let threads = NonZeroUsize::new(data.len().div_ceil(share_bytes)).map_or(threads, |shares| shares.min(threads));
    if threads.get() == 1 || data.len() < PARALLEL_BYTES {
        return work(data, out);
    }
    let shares = Mutex::new(data.chunks(share_bytes).zip(out.chunks_mut(share_blocks)));
    together(threads, || {
        loop {
            let share = shares.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((data, out)) = share else { break };
            work(data, out);
        }
    });
}

/// Runs `work` on this thread and at the same time on the pool's, on up to `threads` in all.
fn together(threads: NonZeroUsize, work: impl Fn() + Sync) {
    let Some(pool) = pool(threads) else { return work() };
    pool.in_place_scope(|scope| {
        for _ in 1..threads.get() {
            scope.spawn(|_| work());
        }
        work();
    });
}

/// Runs `there` on the pool while `here` runs on this thread; where there is no pool, `there` first. `there` only computes; `here`
/// may be anybody's code.
pub(crate) fn beside<T>(threads: NonZeroUsize, there: impl FnOnce() + Send, here: impl FnOnce() -> T) -> T {
    let Some(pool) = pool(threads) else {
        there();
        return here();
    };
    pool.in_place_scope(|scope| {
        scope.spawn(|_| there());
        here()
    })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests;

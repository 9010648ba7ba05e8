//! Locks, atomics and threads, from one place: the standard library's, or, under `--cfg vram_model`, those of a model checker that chooses
//! which thread goes next at every one of them.

#[cfg(vram_model)]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(vram_model)]
pub(crate) use shuttle::thread;
#[cfg(not(vram_model))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(vram_model))]
pub(crate) use std::thread;

/// Lets other threads go first.
pub(crate) fn yield_now() {
    thread::yield_now();
}

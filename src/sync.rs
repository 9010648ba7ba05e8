//! Locks, atomics and threads, from one place: the standard library's, or, under `--cfg vram_model`, those of a model checker that chooses
//! which thread goes next at every one of them.

use std::sync::PoisonError;
#[cfg(not(vram_model))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(vram_model))]
pub(crate) use std::thread;

#[cfg(vram_model)]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(vram_model)]
pub(crate) use shuttle::thread;

pub(crate) fn yield_now() {
    thread::yield_now();
}

/// Locks, also behind a panic: what these locks hold is whole whenever foreign code, which alone may panic, can run.
pub(crate) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

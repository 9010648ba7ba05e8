//! What is said aside: log lines and metrics, which nothing waits for.
//!
//! Owns [`aside`], which keeps a panic of whoever takes them away from the operation that says them.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what logs or counts. Subscribers and recorders are foreign code, and some panic (a writer whose stderr is full or closed);
/// a check must give its answer all the same, and a wipe go on to the next shard.
pub(crate) fn aside(say: impl FnOnce()) {
    // The panic's message is out by the panic hook; the state of whoever panicked is that one's business.
    let _panicked = catch_unwind(AssertUnwindSafe(say));
}

//! Foreign code: what is said aside, and panics that end where they are caught.
//!
//! Owns [`say_aside`], which keeps a panic of whoever takes log lines and metrics away from the operation that says them, and
//! [`caught`] and [`dispose`], for everything else that others wrote.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Foreign code panicked. What it said is out by the panic hook; what it threw is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs foreign code; a panic ends here, also that of what was thrown when it is dropped. The state of whoever panicked is that
/// one's business.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|thrown| {
        let _panicked = dispose(thrown);
        Panicked
    })
}

/// Drops a foreign value; a panic ends here.
pub(crate) fn dispose<T>(value: T) -> Result<(), Panicked> {
    catch_unwind(AssertUnwindSafe(|| drop(value))).map_err(|thrown| {
        // Whoever throws a value that throws another gets it leaked: this must end.
        std::mem::forget(thrown);
        Panicked
    })
}

/// Runs what logs or counts. Subscribers and recorders are foreign code, and some panic (a writer whose stderr is full or closed);
/// a check must give its answer all the same, and a wipe go on to the next shard.
pub(crate) fn say_aside(say: impl FnOnce()) {
    let _panicked = caught(say);
}

/// [`say_aside`], and the only place for the macros of `tracing` and `metrics`: clippy.toml disallows them elsewhere.
macro_rules! aside {
    ($say:expr $(,)?) => {{
        #[allow(clippy::disallowed_methods, reason = "a panic ends here")]
        let say = $say;
        $crate::panics::say_aside(say)
    }};
}
pub(crate) use aside;

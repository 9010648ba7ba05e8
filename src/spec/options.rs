//! How an execution is to be checked.

use std::time::Duration;

use super::Check;
use crate::types::{RawStream, StreamId};

/// How an execution is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ExecuteOptions {
    pub(crate) check: Option<Check>,
    pub(crate) verify_after: Option<bool>,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) stream: Option<StreamId>,
}

impl ExecuteOptions {
    setters! {
        /// What one check looks at, and how strongly; the manager's own choice when not set. A check that closes an execute looks at
        /// all bytes whatever is asked for.
        fn check(check: Check) => check = Some(check);
        /// Whether `finish` verifies once more, after the work, before the result counts; a mismatch discards it. As the policy
        /// demands when not set; asking for less than it demands is a policy violation. `renew` always verifies.
        fn verify_after(verify_after: bool) => verify_after = Some(verify_after);
        /// The longest that the guard should be held. A guard that is held longer is reported once, as `execute_overheld`, by the
        /// first call that notices; nothing is taken from it.
        fn max_hold(most: Duration) => max_hold = Some(most);
    }

    /// The stream on which the engine works: the check runs after what it already holds, and the end of the execution waits
    /// for what it holds then. A stream that records a graph (stream capture) is refused: check around the graph's launch.
    ///
    /// # Safety
    /// The stream belongs to the manager's device and lives until the execution has ended; after a guard was dropped without
    /// `finish`, until the manager has been dropped.
    /// It is not `CU_STREAM_PER_THREAD`: that handle is another stream on every thread, and this crate waits on threads of its choice.
    #[allow(unsafe_code, reason = "whether a foreign stream lives only its engine knows")]
    pub const unsafe fn on_stream(mut self, stream: RawStream) -> Self {
        self.stream = Some(stream.id());
        self
    }
}

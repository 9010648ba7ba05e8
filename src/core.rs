//! What guards and manager share.

use crate::error::StopReason;

/// What a manager permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManagerState {
    /// Everything.
    Ready,
    /// No new work; what runs may finish.
    Draining,
    /// No work, and results in flight are discarded. Final.
    Stopped(StopReason),
}

impl std::fmt::Display for ManagerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Draining => f.write_str("draining"),
            Self::Stopped(reason) => write!(f, "stopped after {reason}"),
        }
    }
}

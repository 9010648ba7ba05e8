//! The manager's state in one byte, changed forward only.

use crate::error::{ManagerState, StopReason};
use crate::sync::atomic::{AtomicU8, Ordering};

impl ManagerState {
    const ALL: [Self; 7] = [
        Self::Ready,
        Self::Draining,
        Self::Stopped(StopReason::IntegrityFailure),
        Self::Stopped(StopReason::DeviceUntrusted),
        Self::Stopped(StopReason::DeviceLost),
        Self::Stopped(StopReason::PolicyViolation),
        Self::Stopped(StopReason::Shutdown),
    ];

    const fn word(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Draining => 1,
            Self::Stopped(StopReason::IntegrityFailure) => 2,
            Self::Stopped(StopReason::DeviceUntrusted) => 3,
            Self::Stopped(StopReason::DeviceLost) => 4,
            Self::Stopped(StopReason::PolicyViolation) => 5,
            Self::Stopped(StopReason::Shutdown) => 6,
        }
    }

    /// A word that was never written reads as stopped: closed, not open.
    fn from_word(word: u8) -> Self {
        Self::ALL.into_iter().find(|state| state.word() == word).unwrap_or(Self::Stopped(StopReason::DeviceUntrusted))
    }
}

/// The state, readable without a lock.
#[derive(Debug, Default)]
pub(crate) struct StateCell(AtomicU8);

impl StateCell {
    pub(crate) fn get(&self) -> ManagerState {
        ManagerState::from_word(self.0.load(Ordering::SeqCst))
    }

    /// Ready → Draining. `false` when it was not ready.
    pub(crate) fn drain(&self) -> bool {
        let (ready, draining) = (ManagerState::Ready.word(), ManagerState::Draining.word());
        self.0.compare_exchange(ready, draining, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Anything but Stopped → Stopped. `false` when it had stopped before: the first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) -> bool {
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                let stopped = matches!(ManagerState::from_word(word), ManagerState::Stopped(_));
                (!stopped).then_some(ManagerState::Stopped(reason).word())
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_own_word() {
        for state in ManagerState::ALL {
            assert_eq!(ManagerState::from_word(state.word()), state);
        }
        assert!(matches!(ManagerState::from_word(255), ManagerState::Stopped(_)), "unknown is closed");
    }

    #[test]
    fn the_state_moves_forward_only() {
        // covers: VER-5
        let cell = StateCell::default();
        assert_eq!(cell.get(), ManagerState::Ready);
        assert!(cell.drain() && !cell.drain());
        assert_eq!(cell.get(), ManagerState::Draining);
        assert!(cell.stop(StopReason::IntegrityFailure) && !cell.stop(StopReason::Shutdown) && !cell.drain());
        assert_eq!(cell.get(), ManagerState::Stopped(StopReason::IntegrityFailure));
    }
}

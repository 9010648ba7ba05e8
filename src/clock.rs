//! Time, as seals, events and rate limits see it.
//!
//! Owns [`Clock`]. Wall time goes into what others read; monotonic time into durations and limits, so that a clock set back
//! never lengthens a limit. Tests hold both still.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clocks, or a test's.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    #[cfg(test)]
    fixed: Option<std::sync::Arc<std::sync::Mutex<(SystemTime, Instant)>>>,
}

impl Clock {
    pub(crate) const fn system() -> Self {
        Self {
            #[cfg(test)]
            fixed: None,
        }
    }

    /// A clock that stands at `unix_nanos` until it is advanced. Clones share the hands.
    #[cfg(test)]
    pub(crate) fn fixed(unix_nanos: u64) -> Self {
        let wall = from_unix_nanos(unix_nanos);
        Self { fixed: Some(std::sync::Arc::new(std::sync::Mutex::new((wall, Instant::now())))) }
    }

    #[cfg(test)]
    pub(crate) fn advance(&self, by: Duration) {
        if let Some(fixed) = &self.fixed {
            let mut hands = fixed.lock().unwrap();
            hands.0 = hands.0.checked_add(by).unwrap();
            hands.1 = hands.1.checked_add(by).unwrap();
        }
    }

    pub(crate) fn wall(&self) -> SystemTime {
        #[cfg(test)]
        if let Some(fixed) = &self.fixed {
            return fixed.lock().unwrap().0;
        }
        SystemTime::now()
    }

    /// Wall time in nanoseconds since 1970; 0 for a clock set before that.
    pub(crate) fn unix_nanos(&self) -> u64 {
        unix_nanos(self.wall())
    }

    pub(crate) fn instant(&self) -> Instant {
        #[cfg(test)]
        if let Some(fixed) = &self.fixed {
            return fixed.lock().unwrap().1;
        }
        Instant::now()
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.instant()
    }
}

/// Nanoseconds since 1970: 0 before it, `u64::MAX` from the year 2554 on.
pub(crate) fn unix_nanos(time: SystemTime) -> u64 {
    nanos(time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

/// A duration in nanoseconds, at most `u64::MAX`.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The moment so many nanoseconds after 1970.
pub(crate) fn from_unix_nanos(nanos: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_converts_both_ways() {
        for nanos in [0, 1, 1_700_000_000_123_456_789, u64::MAX] {
            assert_eq!(unix_nanos(from_unix_nanos(nanos)), nanos);
        }
        assert_eq!(unix_nanos(UNIX_EPOCH.checked_sub(Duration::from_secs(1)).unwrap()), 0);
    }

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let clock = Clock::fixed(5);
        let (copy, began) = (clock.clone(), clock.instant());
        assert_eq!(copy.unix_nanos(), 5);
        clock.advance(Duration::from_nanos(7));
        assert_eq!(copy.unix_nanos(), 12);
        assert_eq!(copy.instant().duration_since(began), Duration::from_nanos(7));
        assert!(Clock::system().unix_nanos() > 1_700_000_000_000_000_000);
    }
}

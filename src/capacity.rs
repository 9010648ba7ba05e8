//! The ledger: how much device memory is ours, reserved before it is allocated.
//!
//! Owns [`Ledger`] and [`Reservation`]. Promises that racing reservations never exceed the device less its headroom, that
//! every reservation is given back exactly once (when it is dropped), and that reading the ledger takes no lock and no
//! driver call. It knows bytes only: who uses them is for the slot table.

use std::sync::Arc;

use crate::error::VramError;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Headroom is at most this fraction of the device unless the caller chooses: one tenth …
const DEFAULT_HEADROOM_DIVISOR: u64 = 10;
/// … and at most 4 GiB.
const DEFAULT_HEADROOM_MOST: u64 = 4 << 30;

/// The headroom kept free when the caller does not choose: the smaller of 10 % and 4 GiB.
pub(crate) fn default_headroom(total: u64) -> u64 {
    total.checked_div(DEFAULT_HEADROOM_DIVISOR).unwrap_or(0).min(DEFAULT_HEADROOM_MOST)
}

/// Bytes in use on one device, by one manager.
#[derive(Debug)]
pub(crate) struct Ledger {
    total: u64,
    headroom: u64,
    granularity: u64,
    used: AtomicU64,
    residue: AtomicU64,
    evidence: AtomicU64,
    adopted: AtomicU64,
}

impl Ledger {
    /// A ledger for a device of `total` bytes of which `headroom` stay free.
    ///
    /// # Errors
    /// `CONFIG_ERROR` when the headroom leaves nothing.
    pub(crate) fn new(total: u64, headroom: u64, granularity: u64) -> Result<Arc<Self>, VramError> {
        if headroom >= total {
            return Err(VramError::Config {
                setting: "headroom",
                problem: format!("of {headroom} bytes leaves nothing of the device's {total} bytes; choose less"),
            });
        }
        if !granularity.is_power_of_two() {
            return Err(VramError::Internal { what: "the driver's allocation granularity is not a power of two" });
        }
        Ok(Arc::new(Self {
            total,
            headroom,
            granularity,
            used: AtomicU64::new(0),
            residue: AtomicU64::new(0),
            evidence: AtomicU64::new(0),
            adopted: AtomicU64::new(0),
        }))
    }

    /// `bytes` in allocator units; `None` when that is not a u64.
    pub(crate) fn rounded(&self, bytes: u64) -> Option<u64> {
        bytes.checked_next_multiple_of(self.granularity)
    }

    /// Sets `bytes` (already in allocator units) aside.
    ///
    /// # Errors
    /// `VRAM_OOM` with need and have; nothing has changed then.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, VramError> {
        let limit = self.total.saturating_sub(self.headroom);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|wanted| *wanted <= limit)
            })
            .map_err(|used| VramError::OutOfMemory { needed: bytes, available: limit.saturating_sub(used) })?;
        Ok(Reservation { ledger: Arc::clone(self), bytes, adopted: 0 })
    }

    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// What stays free for others.
    pub(crate) const fn headroom(&self) -> u64 {
        self.headroom
    }

    /// Reserved bytes, quarantined ones included.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Bytes that a further reservation may take.
    pub(crate) fn available(&self) -> u64 {
        self.total.saturating_sub(self.headroom).saturating_sub(self.used())
    }

    /// Used bytes that are out of service: not proven wiped, or kept as evidence.
    pub(crate) fn quarantined(&self) -> u64 {
        self.residue().saturating_add(self.evidence.load(Ordering::Acquire))
    }

    /// Bytes kept out of the pool because they could not be proven wiped.
    pub(crate) fn residue(&self) -> u64 {
        self.residue.load(Ordering::Acquire)
    }

    /// Bytes of engines' memory that are under seal. Not part of [`used`](Self::used).
    pub(crate) fn adopted(&self) -> u64 {
        self.adopted.load(Ordering::Acquire)
    }

    /// Counts used bytes as evidence: a live shard failed its check.
    pub(crate) fn hold_evidence(&self, bytes: u64) {
        self.evidence.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn let_evidence_go(&self, bytes: u64) {
        self.evidence.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Bytes set aside; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Reservation {
    ledger: Arc<Ledger>,
    bytes: u64,
    adopted: u64,
}

impl Reservation {
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts bytes of an engine's memory beside ours, for as long as the reservation lives. They are not used bytes.
    pub(crate) fn with_adopted(mut self, bytes: u64) -> Self {
        self.ledger.adopted.fetch_add(bytes, Ordering::AcqRel);
        self.adopted = self.adopted.saturating_add(bytes);
        self
    }

    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let back = self.bytes.saturating_sub(bytes);
        self.ledger.used.fetch_sub(back, Ordering::AcqRel);
        self.bytes = self.bytes.saturating_sub(back);
    }

    /// Counts the engine's memory no more: it was given back.
    pub(crate) fn let_adopted_go(&mut self) {
        self.ledger.adopted.fetch_sub(std::mem::take(&mut self.adopted), Ordering::AcqRel);
    }

    /// Counts the bytes as quarantined for as long as the returned value lives. They stay used.
    pub(crate) fn quarantine(self) -> Quarantined {
        self.ledger.residue.fetch_add(self.bytes, Ordering::AcqRel);
        Quarantined { reservation: self }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.ledger.adopted.fetch_sub(self.adopted, Ordering::AcqRel);
    }
}

/// Bytes that are used by nobody and reusable by nobody.
#[derive(Debug)]
pub(crate) struct Quarantined {
    reservation: Reservation,
}

impl Quarantined {
    pub(crate) const fn bytes(&self) -> u64 {
        self.reservation.bytes()
    }
}

impl Drop for Quarantined {
    fn drop(&mut self) {
        let reservation = &self.reservation;
        reservation.ledger.residue.fetch_sub(reservation.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(total: u64, headroom: u64) -> Arc<Ledger> {
        Ledger::new(total, headroom, 256).unwrap()
    }

    #[test]
    fn reservations_come_and_go_exactly() {
        // covers: RES-3 RES-5
        let ledger = ledger(1000, 100);
        let first = ledger.reserve(500).unwrap();
        assert_eq!((ledger.used(), ledger.available()), (500, 400));
        let second = ledger.reserve(400).unwrap();
        assert_eq!((ledger.used(), ledger.available()), (900, 0));
        drop(first);
        assert_eq!((ledger.used(), ledger.available(), second.bytes()), (400, 500, 400));
    }

    #[test]
    fn overshoot_is_refused_with_need_and_have_and_changes_nothing() {
        // covers: RES-3 RES-4 RES-6
        let ledger = ledger(1000, 100);
        let _held = ledger.reserve(600).unwrap();
        let error = ledger.reserve(301).unwrap_err();
        assert!(matches!(error, VramError::OutOfMemory { needed: 301, available: 300 }), "{error}");
        assert_eq!(ledger.used(), 600);
        assert!(ledger.reserve(300).is_ok(), "a smaller request then succeeds");
    }

    #[test]
    fn sizes_at_the_edge_of_u64_do_not_wrap() {
        // covers: RES-7
        let ledger = ledger(u64::MAX, 0);
        let held = ledger.reserve(u64::MAX - 1).unwrap();
        assert!(ledger.reserve(2).is_err());
        assert!(ledger.reserve(u64::MAX).is_err());
        drop(held);
        assert_eq!(ledger.used(), 0);
        assert_eq!(ledger.rounded(u64::MAX), None);
        assert_eq!(ledger.rounded(130 << 30), Some(130 << 30));
        assert_eq!(ledger.rounded(1), Some(256));
    }

    #[test]
    fn quarantined_bytes_stay_used() {
        // covers: SCR-2
        let ledger = ledger(1000, 0);
        let kept = ledger.reserve(400).unwrap().quarantine();
        assert_eq!((ledger.used(), ledger.quarantined(), ledger.available()), (400, 400, 600));
        drop(kept);
        assert_eq!((ledger.used(), ledger.quarantined(), ledger.available()), (0, 0, 1000));
    }

    #[test]
    fn every_kind_of_bytes_has_its_own_count() {
        // covers: RES-5 SCR-2
        let ledger = ledger(10_000, 1000);
        assert_eq!((ledger.total(), ledger.headroom(), ledger.available()), (10_000, 1000, 9000));
        let mut engines = ledger.reserve(512).unwrap().with_adopted(70).with_adopted(7);
        assert_eq!((ledger.adopted(), ledger.used(), ledger.quarantined()), (77, 512, 0));
        engines.let_adopted_go();
        engines.let_adopted_go();
        assert_eq!((ledger.adopted(), ledger.used()), (0, 512));
        let lasting = ledger.reserve(256).unwrap().with_adopted(30);
        assert_eq!(ledger.adopted(), 30);
        drop(lasting);
        assert_eq!((ledger.adopted(), ledger.used()), (0, 512));
        engines.shrink_to(600);
        assert_eq!((engines.bytes(), ledger.used()), (512, 512), "it never grows");
        engines.shrink_to(300);
        assert_eq!((engines.bytes(), ledger.used()), (300, 300));
        ledger.hold_evidence(40);
        ledger.hold_evidence(2);
        assert_eq!((ledger.quarantined(), ledger.residue(), ledger.used()), (42, 0, 300));
        ledger.let_evidence_go(40);
        let kept = engines.quarantine();
        assert_eq!((kept.bytes(), ledger.residue(), ledger.quarantined(), ledger.used()), (300, 300, 302, 300));
        drop(kept);
        ledger.let_evidence_go(2);
        assert_eq!((ledger.residue(), ledger.quarantined(), ledger.used()), (0, 0, 0));
    }

    #[test]
    fn headroom_defaults_to_a_tenth_and_at_most_four_gibibytes() {
        // covers: RES-4
        assert_eq!(default_headroom(1000), 100);
        assert_eq!(default_headroom(141 << 30), 4 << 30);
        assert!(matches!(Ledger::new(100, 100, 256), Err(VramError::Config { .. })));
        assert!(Ledger::new(100, 99, 256).is_ok());
    }

    #[test]
    fn racing_reservations_never_overshoot() {
        // covers: RES-3
        let ledger = ledger(64 * 100, 0);
        let most = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for round in 0..500 {
                        let held = ledger.reserve(64 * (1 + round % 40));
                        most.fetch_max(ledger.used(), Ordering::AcqRel);
                        drop(held);
                    }
                });
            }
        });
        assert!(most.load(Ordering::Acquire) <= 6400);
        assert_eq!(ledger.used(), 0);
    }
}

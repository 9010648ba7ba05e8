//! A data race, so that the race detector can show that it finds one: `ci/deep.sh race` must see this test fail.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::cell::UnsafeCell;
use std::sync::Barrier;

/// A ledger that forgot its lock.
struct Unlocked(UnsafeCell<u64>);

// SAFETY: none. That this is not sound is the point: the threads below reach the cell at once.
unsafe impl Sync for Unlocked {}

impl Unlocked {
    fn add(&self) {
        // SAFETY: the address is valid; that nobody else is there is untrue, and what the detector must say.
        let now = unsafe { std::ptr::read_volatile(self.0.get()) };
        // SAFETY: as above.
        unsafe { std::ptr::write_volatile(self.0.get(), now.wrapping_add(1)) };
    }
}

#[test]
#[ignore = "a race: ci/deep.sh race looks for it"]
fn two_threads_on_a_ledger_without_a_lock() {
    let (ledger, start) = (Unlocked(UnsafeCell::new(0)), Barrier::new(2));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..1000 {
                    ledger.add();
                }
            });
        }
    });
    assert!((1000..=2000).contains(&ledger.0.into_inner()));
}

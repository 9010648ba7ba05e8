//! Nobody waits for ever, whoever hashes under whatever lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::digest::blocks::BlockHasher;
use crate::digest::tests::noise;
use crate::digest::{Hash, TreeParams};

const THREADS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

fn hashes(threads: NonZeroUsize, data: &[u8]) -> Vec<Hash> {
    let mut out = vec![[0; 32]; data.len().div_ceil(4096)];
    BlockHasher::new(&TreeParams::default()).hash_all(threads, data, &mut out);
    out
}

/// A pool as a caller may have it.
fn foreign(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Whether a pool's thread, while it does this, also does what else is to be done in that pool.
fn does_other_work_meanwhile(work: impl Fn(&AtomicBool) + Sync) -> bool {
    let (here, met) = (AtomicBool::new(false), AtomicBool::new(false));
    foreign(1).in_place_scope(|scope| {
        scope.spawn(|scope| {
            here.store(true, Ordering::SeqCst);
            scope.spawn(|_| met.store(here.load(Ordering::SeqCst), Ordering::SeqCst));
            work(&met);
            here.store(false, Ordering::SeqCst);
        });
    });
    met.into_inner()
}

#[test]
fn a_thread_of_another_pool_does_nothing_else_while_it_hashes() {
    // covers: DIG-2
    let data = noise(1, 8 << 20);
    let expected = hashes(NonZeroUsize::MIN, &data);
    assert!(!does_other_work_meanwhile(|_| assert_eq!(hashes(THREADS, &data), expected)));
    assert!(!does_other_work_meanwhile(|_| beside(THREADS, || (), || ())));
    // The twin: one that waits for a pool, even for ours, does. That is what must not happen under a lock.
    assert!(does_other_work_meanwhile(|met| {
        assert!(pool(THREADS).is_none());
        foreign(2).in_place_scope(|scope| {
            scope.spawn(|_| {
                let start = Instant::now();
                while !met.load(Ordering::SeqCst) && start.elapsed() < Duration::from_secs(30) {
                    thread::yield_now();
                }
            });
        });
    }));
}

#[test]
fn hashing_under_a_lock_that_all_threads_of_a_pool_want_ends() {
    // covers: DIG-2
    let (done, waiting) = channel();
    thread::spawn(move || {
        let (data, lock) = (noise(2, 2 << 20), Mutex::new(()));
        let expected = hashes(NonZeroUsize::MIN, &data);
        let hash = || {
            let _held = lock.lock().unwrap();
            assert_eq!(hashes(THREADS, &data), expected);
        };
        foreign(2).in_place_scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|_| hash());
                hash();
            }
        });
        done.send(()).unwrap();
    });
    waiting.recv_timeout(Duration::from_secs(120)).expect("hashing did not end");
}

#[test]
fn what_runs_beside_runs_once_and_a_panic_here_waits_for_it() {
    // covers: DIG-2
    for threads in [NonZeroUsize::MIN, THREADS] {
        let ran = Arc::new(Mutex::new(0));
        let count = || *ran.lock().unwrap() += 1;
        assert_eq!(beside(threads, count, || 7), 7);
        let panicked = std::panic::catch_unwind(|| beside(threads, count, || panic!("the reader")));
        assert_eq!((*ran.lock().unwrap(), panicked.is_err()), (2, true));
        together(threads, count);
        assert!((3..=5).contains(&*ran.lock().unwrap()));
    }
}

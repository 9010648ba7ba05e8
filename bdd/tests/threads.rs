//! Threads that begin together, and must end within a time limit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

/// How long they may take together: far more than they need on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `work` on so many threads at once, and gives what each came to, in their order: `None` where one panicked.
#[track_caller]
pub(crate) fn at_once<T: Send + 'static>(
    count: usize,
    work: impl Fn(usize) -> T + Send + Sync + 'static,
) -> Vec<Option<T>> {
    let (work, start) = (Arc::new(work), Arc::new(Barrier::new(count)));
    let (ended, all) = mpsc::channel();
    let threads: Vec<_> = (0..count)
        .map(|at| {
            let (work, start, ended) = (Arc::clone(&work), Arc::clone(&start), ended.clone());
            std::thread::spawn(move || {
                start.wait();
                let came = catch_unwind(AssertUnwindSafe(|| work(at))).ok();
                drop(work); // it holds the manager
                ended.send((at, came)).expect("somebody waits");
            })
        })
        .collect();
    let (until, mut results) = (Instant::now() + LIMIT, Vec::new());
    results.resize_with(count, || None);
    for _ in 0..count {
        let left = until.saturating_duration_since(Instant::now());
        let (at, came) = all.recv_timeout(left).unwrap_or_else(|_| panic!("threads do not end within {LIMIT:?}"));
        results[at] = came;
    }
    threads.into_iter().for_each(|thread| thread.join().expect("it has ended"));
    results
}

/// The same where none may panic.
#[track_caller]
pub(crate) fn all_at_once<T: Send + 'static>(
    count: usize,
    work: impl Fn(usize) -> T + Send + Sync + 'static,
) -> Vec<T> {
    at_once(count, work).into_iter().map(|came| came.expect("a thread failed; see above")).collect()
}

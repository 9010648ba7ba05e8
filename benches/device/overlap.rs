//! Verification beside an engine's work that is bound by memory bandwidth. A report; nothing is asked of it.
//!
//! The engine's kernels run on a stream that goes before all others, so the check takes what they leave: the check needs the
//! integer pipe, they need the bandwidth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::table::{Table, Times, times};
use crate::world::{World, size};

/// Kernels that are enqueued before the engine waits for them.
const AT_ONCE: u64 = 4;

pub fn measure(world: &World, table: &mut Table) {
    let bytes: u64 = if world.options.tiny { 2 << 20 } else { 4 << 30 };
    let time = if world.options.tiny { Duration::from_millis(50) } else { Duration::from_secs(4) };
    let (Some(image), Some(work)) = (world.random(bytes, 1), world.random(bytes, 2)) else {
        table.leave_out(format!("two times {}: not so much is free", size(bytes)));
        return;
    };
    let manager = world.manager(4096);
    let shard = world.adopt(&manager, "image", &Arc::new(image), &[(0, bytes)]);
    let (raw, stream) = (world.raw(), world.raw().urgent_stream());
    let counter = raw.alloc(256);
    let kernels = || {
        for _ in 0..AT_ONCE {
            world.kernels.scan(stream, work.address(0), bytes, 1, counter).unwrap();
        }
        raw.synchronize(stream).unwrap();
    };
    let engine = times(1000, time, kernels);
    table.add(format!("the engine alone, {AT_ONCE} × {}", size(bytes)), AT_ONCE * bytes, engine);
    let alone = times(1000, time, || drop(manager.verify_sealed(&shard).unwrap()));
    table.add(format!("verify {} alone", size(bytes)), bytes, alone);

    let (done, ran) = (AtomicBool::new(false), AtomicU64::new(0));
    let (beside, engine_beside) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut all = Vec::new();
            while !done.load(Ordering::SeqCst) || all.is_empty() {
                let began = Instant::now();
                kernels();
                all.push(began.elapsed());
                ran.fetch_add(1, Ordering::SeqCst);
            }
            all.sort();
            Times { median: all[all.len() / 2], least: all[0], most: all[all.len() - 1], rounds: all.len() }
        });
        while ran.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let beside = times(1000, time, || drop(manager.verify_sealed(&shard).unwrap()));
        done.store(true, Ordering::SeqCst);
        (beside, thread.join().unwrap())
    });
    table.add("the engine beside verification", AT_ONCE * bytes, engine_beside);
    table.share(engine.seconds() / engine_beside.seconds(), "of its speed alone");
    table.add("verification beside the engine", bytes, beside);
    table.share(alone.seconds() / beside.seconds(), "of its speed alone");
    raw.free(counter);
    raw.destroy_stream(stream);
    manager.release(&shard).unwrap();
}

//! Beside an engine that records graphs: its captures survive what this crate does, and nothing of this crate gets into one.
// covers: VER-10

use vram_residency::{ErrorCode, ExecuteOptions};

use crate::bench::{Bench, everywhere, noise, on};

crate::cases! {
    everywhere:
        a_capture_of_another_thread_survives,
        a_stream_that_captures_is_refused_in_words,
        a_result_does_not_leave_while_its_stream_captures
}

fn a_capture_of_another_thread_survives() {
    let bench = Bench::new();
    let stream = bench.stream();
    let raw = &bench.machine.raw;
    raw.begin_capture(stream.handle()).unwrap();
    let elsewhere = || {
        let shard = bench.seal("a", &noise(300_000, 1));
        bench.manager.begin(&shard, ExecuteOptions::default().verify_after(true)).unwrap().finish().unwrap();
        bench.manager.verify_sealed(&shard).unwrap();
        bench.manager.release(&shard).unwrap();
    };
    std::thread::scope(|scope| scope.spawn(elsewhere).join().unwrap());
    elsewhere(); // nor does it matter which thread
    raw.end_capture(stream.handle()).unwrap();
    // The twin: what others call ends it.
    raw.begin_capture(stream.handle()).unwrap();
    std::thread::scope(|scope| scope.spawn(|| drop(bench.machine.alloc(4096))).join().unwrap());
    raw.end_capture(stream.handle()).unwrap_err();
    drop(stream);
    bench.close();
}

fn a_stream_that_captures_is_refused_in_words() {
    let bench = Bench::new();
    let (shard, stream) = (bench.seal("a", &noise(9000, 1)), bench.stream());
    bench.machine.raw.begin_capture(stream.handle()).unwrap();
    let refused = bench.manager.begin(&shard, on(&stream)).map(drop).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidParams);
    assert!(refused.to_string().contains("end the capture"), "{refused}");
    bench.machine.raw.end_capture(stream.handle()).unwrap();
    bench.manager.begin(&shard, on(&stream)).unwrap().finish().unwrap();
    drop(stream);
    bench.close();
}

fn a_result_does_not_leave_while_its_stream_captures() {
    let bench = Bench::new();
    let (shard, stream) = (bench.seal("a", &noise(9000, 1)), bench.stream());
    let guard = bench.manager.begin(&shard, on(&stream)).unwrap();
    bench.machine.raw.begin_capture(stream.handle()).unwrap();
    assert_eq!(guard.finish().unwrap_err().code(), ErrorCode::InvalidParams);
    assert_eq!(bench.manager.release(&shard).unwrap_err().code(), ErrorCode::ShardBusy);
    bench.machine.raw.end_capture(stream.handle()).unwrap();
    bench.manager.release(&shard).unwrap();
    drop(stream);
    bench.close();
}

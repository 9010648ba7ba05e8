//! Work on an engine's stream: seen by the check, waited for by `finish`.

use super::*;

#[test]
fn a_write_that_the_engine_has_queued_is_seen_by_the_check() {
    // covers: VER-10 RES-9
    let rig = Rig::lenient_writable();
    let arena = Arc::new(Arena::new(20_000, 3));
    let all = [arena.region(5, 9000), arena.region(10_001, 5000)];
    for (offset, bytes) in [(0, 1), (8999, 1), (9216, 5000), (9216 + 4999, 1)] {
        let stream = rig.stream();
        let (adopted, _drops) = adopt(&rig.manager, spec("engine"), &arena, &all);
        let adopted = adopted.unwrap();
        let shard = adopted.shard();
        // The twin: a stream that holds nothing.
        rig.manager.begin(shard, on(&stream)).unwrap().finish().unwrap();
        let before = arena.bytes();
        let mut here = [0];
        rig.controls().peek(shard, offset, &mut here).unwrap();
        stream.enqueue_write(shard, offset, bytes, here[0] ^ 0x10).unwrap();
        assert!(arena.bytes() == before, "the stream is late");
        let others = rig.manager.begin(shard, options()).unwrap();
        assert!(
            arena.bytes() == before && rig.pending() == 1,
            "a check that does not follow the stream sees old bytes"
        );
        others.finish().unwrap();
        assert_error!(rig.manager.begin(shard, on(&stream)), VramError::IntegrityFailure { .. });
        assert!(arena.bytes() != before);
        assert_eq!(rig.pending(), 0);
        rig.manager.release(shard).unwrap();
        drop(stream);
    }
    let memory = rig.stream();
    let shard = rig.seal("owned", &[9; 5000]);
    memory.enqueue_write(&shard, 100, 4000, 9).unwrap();
    // Work that leaves the bytes as they are is found to have left them as they are.
    rig.manager.begin(&shard, on(&memory)).unwrap().finish().unwrap();
    memory.enqueue_write(&shard, 100, 4000, 8).unwrap();
    assert_error!(rig.manager.begin_all(&[&shard], on(&memory)), VramError::IntegrityFailure { .. });
    drop(memory);
    rig.close_clean();
}

#[test]
fn a_batch_follows_the_stream_too() {
    // covers: VER-10 VER-7
    let rig = Rig::lenient_writable();
    let stream = rig.stream();
    let shards: Vec<SealedShard> = (0..3).map(|at| rig.seal(&format!("s{at}"), &[at; 3000])).collect();
    let all: Vec<&SealedShard> = shards.iter().collect();
    for guard in rig.manager.begin_all(&all, on(&stream)).unwrap() {
        guard.finish().unwrap();
    }
    stream.enqueue_write(&shards[2], 2999, 1, 0xFF).unwrap();
    let error = rig.manager.begin_all(&all, on(&stream)).unwrap_err();
    assert!(matches!(&error, VramError::IntegrityFailure { shard, .. } if shard == shards[2].id()), "{error}");
    drop(stream);
    rig.close_clean();
}

#[test]
fn finish_waits_for_what_the_engine_enqueued() {
    // covers: VER-10
    let rig = Rig::writable();
    let stream = rig.stream();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream)).unwrap();
    for _ in 0..20 {
        stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
    }
    assert_eq!(rig.pending(), 20);
    guard.finish().unwrap();
    assert_eq!(rig.pending(), 0);
    rig.manager.release(&shard).unwrap();
    // The twin: a guard that does not know of the stream waits for nothing.
    let shard = rig.seal("b", &[9; 5000]);
    let guard = rig.begin(&shard);
    stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
    guard.finish().unwrap();
    assert_eq!(rig.pending(), 1);
    drop(stream);
    rig.close_clean();
}

#[test]
fn a_bracket_sees_what_the_engine_enqueued_during_the_work() {
    // covers: VER-6 VER-10
    let rig = Rig::lenient_writable();
    let stream = rig.stream();
    let shard = rig.seal("a", &[9; 5000]);
    let guard = rig.manager.begin(&shard, on(&stream).verify_after(true)).unwrap();
    stream.enqueue_write(&shard, 0, 5000, 9).unwrap();
    guard.finish().unwrap();
    let guard = rig.manager.begin(&shard, on(&stream).verify_after(true)).unwrap();
    stream.enqueue_write(&shard, 4999, 1, 8).unwrap();
    assert_error!(guard.finish(), VramError::IntegrityFailure { .. });
    assert_eq!(rig.outcomes(), [ExecuteOutcome::Finished, ExecuteOutcome::Discarded]);
    drop(stream);
    rig.close_clean();
}

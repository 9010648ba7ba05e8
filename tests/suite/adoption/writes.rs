//! Safe code writes an engine's memory only where whoever adopted it allowed that.

use crate::*;

/// Read-only memory of the program: a write to it is the end of the process.
static CONSTANT: [u8; 8192] = [7; 8192];

fn constant() -> u64 {
    CONSTANT.as_ptr().expose_provenance() as u64
}

fn adopt_constant(rig: &Rig) -> Adopted<()> {
    // SAFETY: the memory is the program's own, never freed, moved or written.
    unsafe { rig.manager.adopt(spec("constant"), (), &[RawRegion::new(constant(), 8192)]) }.unwrap()
}

/// Whether everything by which a test can write is refused, and says what to do.
fn assert_unwritable(rig: &Rig, shard: &SealedShard, address: u64) {
    let read_only = |error: VramError| matches!(error, VramError::Device(error) if error.code == 740);
    let told = |error: VramError| match error {
        VramError::InvalidParams { field: "shard", problem } => problem.contains("writable()"),
        _ => false,
    };
    let (controls, stream) = (rig.controls(), rig.stream());
    assert!(told(controls.flip_bit(shard, 0, 0).unwrap_err()));
    assert!(told(stream.enqueue_write(shard, 0, 8, 0xAA).unwrap_err()));
    assert!(read_only(controls.flip_address(address, 0).unwrap_err()));
    assert!(read_only(stream.enqueue_fill(address, 1, 0).unwrap_err()));
    stream.synchronize().unwrap();
}

#[test]
fn memory_that_was_adopted_for_reading_is_never_written_by_no_fault_either() {
    // covers: RES-9 DEV-1
    for late in [true, false] {
        let rig = Rig::with(small().late_streams(late), |b| b);
        let adopted = adopt_constant(&rig);
        assert_unwritable(&rig, adopted.shard(), constant());
        rig.manager.execute(adopted.shard(), |_| ()).unwrap();
        rig.manager.release(adopted.shard()).unwrap();
        assert_error!(rig.controls().flip_address(constant(), 0), VramError::Device(_));
        rig.close_clean();
    }
    for fault in [
        Fault::CopyToDeviceCorrupts { bit: 5 },
        Fault::CopyToHostCorrupts { bit: 5 },
        Fault::FillHalf,
        Fault::DigestShort,
        Fault::DigestStale,
        Fault::DigestReplayed,
        Fault::CountFindsNothing,
        Fault::ProtectCorrupts { bit: 5 },
        Fault::call(MockCall::Fill),
        Fault::Sticky,
    ] {
        let rig = Rig::new();
        let adopted = adopt_constant(&rig);
        rig.order(fault.always());
        // What they come to is for others to test: here the process must live.
        let _ = rig.manager.verify_sealed(adopted.shard());
        let _ = rig.manager.release(adopted.shard());
        assert!(CONSTANT.iter().all(|byte| *byte == 7), "{fault:?}");
    }
}

#[test]
fn memory_is_written_where_its_region_or_its_wipe_allows_that() {
    // covers: RES-9
    let arena = Arc::new(Arena::new(9000, 1));
    let rig = Rig::lenient();
    let read_only = |at, bytes| RawRegion::new(arena.address(at), bytes);
    let regions = [read_only(0, 1024), read_only(2000, 1024).writable()];
    let (adopted, _) = adopt(&rig.manager, spec("mixed"), &arena, &regions);
    let adopted = adopted.unwrap();
    assert_unwritable(&rig, adopted.shard(), arena.address(0));
    rig.manager.execute(adopted.shard(), |_| ()).unwrap();
    rig.flip(adopted.shard(), 1024);
    assert_error!(rig.manager.execute(adopted.shard(), |_| ()), VramError::IntegrityFailure { .. });
    let before = arena.bytes();
    rig.manager.release(adopted.shard()).unwrap();
    assert!(arena.bytes() == before, "that it may be written is no order to wipe it");

    let (adopted, _) = adopt(&rig.manager, spec("wiped").wipe_adopted(true), &arena, &[read_only(5, 1000)]);
    let adopted = adopted.unwrap();
    let stream = rig.stream();
    stream.enqueue_write(adopted.shard(), 999, 1, !arena.get(1004)).unwrap();
    stream.synchronize().unwrap();
    assert_error!(rig.manager.execute(adopted.shard(), |_| ()), VramError::IntegrityFailure { .. });
    rig.manager.release(adopted.shard()).unwrap();
    drop((stream, adopted));
    rig.close_clean();
}

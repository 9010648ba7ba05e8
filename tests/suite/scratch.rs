//! Working memory: counted, wiped, never taken for a shard.

use crate::*;

/// The make-believe engine's view of working memory.
fn peek(rig: &Rig, scratch: &Scratch, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    // SAFETY: the value lives, and the address is looked up by the mock.
    rig.controls().peek_address(unsafe { scratch.device_ptr() }.as_u64(), &mut out).unwrap();
    out
}

#[test]
fn scratch_is_zeroed_counted_named_and_wiped() {
    // covers: RES-10 RES-5 AUD-1
    let rig = Rig::new();
    for (purpose, word) in
        [(Purpose::KvCache, "kv_cache"), (Purpose::Activations, "activations"), (Purpose::Workspace, "workspace")]
    {
        for bytes in [1, 255, 256, 257, 100_000] {
            let from = rig.mark();
            let scratch = rig.manager.allocate_scratch(purpose, bytes).unwrap();
            assert_eq!((scratch.purpose(), scratch.byte_len(), purpose.as_str()), (purpose, bytes, word));
            assert_eq!(rig.manager.used_vram(), bytes.next_multiple_of(256) + 256);
            assert_eq!((rig.manager.adopted_vram(), rig.manager.quarantined_vram()), (0, 0));
            rig.assert_recount();
            assert!(peek(&rig, &scratch, bytes as usize).iter().all(|byte| *byte == 0), "the mock hands out poison");
            let stream = rig.stream();
            stream.enqueue_scratch_write(&scratch, bytes, 0x77).unwrap();
            drop(stream); // finishes its work
            assert!(peek(&rig, &scratch, bytes as usize).iter().all(|byte| *byte == 0x77));
            if bytes % 2 == 0 {
                scratch.release().unwrap()
            } else {
                drop(scratch)
            }
            assert_eq!(rig.manager.used_vram(), 0);
            rig.assert_recount();
            assert_eq!(rig.names_since(from), ["vram_allocated", "vram_wiped", "vram_deallocated"]);
            let events = rig.sink.events();
            let shard = events.last().unwrap().kind.shard().unwrap();
            assert!(shard.as_str().starts_with(&format!("scratch.{word}.")), "{shard:?}");
        }
    }
    rig.close_clean();
}

#[test]
fn scratch_is_no_shard() {
    // covers: RES-10
    let rig = Rig::new();
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 1000).unwrap();
    let events = rig.sink.events();
    let id = events.last().unwrap().kind.shard().unwrap().clone();
    assert_error!(rig.manager.release_by_id(&id), VramError::InvalidParams { .. });
    assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().resident_shards, 0);
    // No shard has a name like it: neither one made of text, nor the event's own. One that looks almost like it is another.
    assert_error!(ShardId::new(id.as_str()), VramError::InvalidParams { .. });
    let seal = |id| rig.manager.seal_model(ShardSpec::new(id), ShardSource::bytes(&[1; 500]));
    assert_error!(seal(id.clone()), VramError::InvalidParams { field: "shard id", .. });
    let other = seal(ShardId::new("scratch.kv_cache.1").unwrap()).unwrap();
    assert_ne!(other.id(), &id);
    rig.manager.release(&other).unwrap();
    assert_eq!(rig.manager.used_vram(), 1024 + 256);
    drop(scratch);
    rig.close_clean();
}

#[test]
fn scratch_that_must_not_be_is_refused_and_leaves_nothing() {
    // covers: RES-10 RES-6 RES-3
    let rig = Rig::with(small().capacity_bytes(100_000).poison(false), |b| b);
    let allocate = |bytes| rig.manager.allocate_scratch(Purpose::Workspace, bytes).map(drop);
    assert_error!(allocate(0), VramError::InvalidParams { field: "scratch length", .. });
    for bytes in [100_000, 99_900, u64::MAX, u64::MAX - 255, 1 << 63] {
        assert_error!(allocate(bytes), VramError::OutOfMemory { .. });
        assert_eq!(rig.manager.used_vram(), 0);
    }
    assert_eq!(rig.count("vram_allocation_failed"), 5);
    allocate(99_000).unwrap();
    let mut failed = 0;
    for nth in 1_u64.. {
        rig.order(Fault::call(MockCall::Any).nth(nth));
        let allocated = rig.manager.allocate_scratch(Purpose::Workspace, 5000);
        rig.controls().clear_faults().unwrap();
        if let Ok(scratch) = allocated {
            scratch.release().unwrap();
            break;
        }
        failed += 1;
        rig.assert_recount();
        assert_eq!(rig.manager.used_vram(), 0, "{nth}");
    }
    println!("{failed} calls of an allocation can fail");
    assert!(failed >= 10, "{failed}");
    rig.manager.shutdown(Duration::ZERO);
    assert_error!(allocate(10), VramError::ManagerStopped { .. });
    let Rig { config, manager, .. } = rig;
    drop(manager);
    // What a half-made allocation leaves behind is a proof of zeros, never the caller's bytes.
    let stats = config.stats();
    assert_eq!((stats.live_bytes, stats.live_streams, stats.live_host_buffers), (0, 0, 0));
    assert!(stats.unwiped_bytes_freed <= 32 * failed, "{stats:?}");
}

#[test]
fn the_wipe_waits_for_the_streams_that_used_the_scratch() {
    // covers: RES-10 VER-10 SCR-1
    for by_drop in [true, false] {
        let rig = Rig::new();
        let (one, two) = (rig.stream(), rig.stream());
        let mut scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
        for stream in [&one, &two] {
            stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
            // SAFETY: both streams are of this device and outlive the scratch.
            unsafe { scratch.used_on(stream.raw()) };
        }
        assert_eq!(rig.pending(), 2);
        if by_drop {
            drop(scratch)
        } else {
            scratch.release().unwrap()
        }
        assert_eq!(rig.pending(), 0);
        drop((one, two));
        rig.close_clean();
    }
    // The twin: a stream that nobody named is not waited for; its write comes too late and is refused by the device.
    let rig = Rig::new();
    let stream = rig.stream();
    let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
    stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
    scratch.release().unwrap();
    assert_eq!(rig.pending(), 1);
    drop(stream);
    rig.close_clean();
}

#[test]
fn the_end_of_the_manager_wipes_live_scratch_behind_its_engines_work() {
    // covers: RES-10 SCR-3 VER-10
    let rig = Rig::new();
    let mut scratch = rig.manager.allocate_scratch(Purpose::Activations, 5000).unwrap();
    let stream = rig.stream();
    stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
    // SAFETY: the stream is of this device and is never destroyed.
    unsafe { scratch.used_on(stream.raw()) };
    std::mem::forget(stream); // the engine outlives the manager
    let Rig { config, sink, manager } = rig;
    drop(manager);
    let stats = config.stats();
    assert_eq!((stats.pending_operations, stats.live_bytes), (0, 0), "wiped under the engine's work");
    assert_eq!(stats.unwiped_bytes_freed, 0);
    let events = sink.names().len();
    drop(scratch); // nothing is left to do
    assert_eq!(sink.names().len(), events);
    assert_eq!(config.stats().live_bytes, 0);
}

#[test]
fn scratch_that_cannot_be_wiped_is_kept_and_tried_again() {
    // covers: SCR-2 RES-10
    for fault in [Fault::FillSkipped, Fault::FillHalf, Fault::CountSkipped, Fault::call(MockCall::Fill)] {
        let rig = Rig::new();
        let scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
        let stream = rig.stream();
        stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
        drop(stream);
        let used = rig.manager.used_vram();
        rig.order(fault);
        assert_error!(scratch.release(), VramError::WipeFailed { .. });
        assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (used, used));
        rig.assert_recount();
        let events = rig.sink.events();
        let quarantined = events.iter().any(|event| {
            matches!(&event.kind, EventKind::ShardQuarantined { cause: QuarantineCause::Residue, bytes, .. } if *bytes == used)
        });
        assert!(quarantined, "{fault:?}");
        rig.close_clean();
    }
}

#[test]
fn scratch_whose_engine_cannot_be_waited_for_is_not_freed() {
    // covers: RES-10 SCR-2 VER-10
    for (failures, freed) in [(1, true), (2, false)] {
        let rig = Rig::of(Policy::development().require_expected_digest(true)); // of which scratch is no matter
        let (one, two) = (rig.stream(), rig.stream());
        let mut scratch = rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap();
        for stream in [&one, &two] {
            stream.enqueue_scratch_write(&scratch, 5000, 0x55).unwrap();
            // SAFETY: both streams are of this device and outlive the scratch.
            unsafe { scratch.used_on(stream.raw()) };
        }
        rig.order(Fault::call(MockCall::Synchronize).times(failures)); // of two tries of the first stream
        let (released, used) = (scratch.release(), rig.manager.used_vram());
        assert_eq!((released.is_ok(), used == 0), (freed, freed), "{released:?}");
        assert_eq!(rig.pending(), u64::from(!freed), "the second was waited for all the same");
        assert_eq!(rig.manager.quarantined_vram(), used);
        drop((one, two));
        rig.close_clean();
    }
}

//! A device that lies. It is never believed: a check passes only over bytes that are the sealed ones, and the ledger is exact
//! afterwards.

use crate::*;

const UNTRUSTED: ManagerState = ManagerState::Stopped(StopReason::DeviceUntrusted);

#[test]
fn a_digest_that_does_not_prove_itself_is_not_believed() {
    // covers: VER-11 VER-5
    // Did not run; ran short and says so; repeats an old result; did not come back; ran short and claims all.
    let faults = [Fault::DigestSkipped, Fault::DigestShort, Fault::DigestStale, Fault::CopyToHostSkipped];
    for (fault, bytes) in
        faults.into_iter().chain([Fault::DigestShortClaimsFull]).flat_map(|it| [10, 1024, 100_000].map(|to| (it, to)))
    {
        let rig = Rig::new();
        let shard = rig.seal("sealed", &noise(bytes, 1));
        rig.order(fault.nth(2));
        // The twin: what is refused is the fault, not the situation.
        assert!(matches!(rig.execute(&shard), (Ok(()), true)), "{fault:?}");
        let (outcome, ran) = rig.execute(&shard);
        assert!(!ran, "{fault:?}");
        if fault == Fault::DigestShortClaimsFull {
            assert_error!(outcome, VramError::IntegrityFailure { .. });
            assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
        } else {
            assert_error!(outcome, VramError::DeviceUntrusted { .. });
            assert_eq!(rig.manager.state(), UNTRUSTED, "{fault:?}");
        }
        rig.assert_recount();
        rig.close_clean();
    }
}

#[test]
fn every_bit_of_a_result_that_arrives_changed_is_refused() {
    // covers: VER-11
    // 32 bytes of result, then one table entry of 32 bytes.
    for bit in 0..512 {
        let rig = Rig::new();
        let shard = rig.seal("sealed", &noise(3000, 1));
        rig.order(Fault::CopyToHostCorrupts { bit });
        let (outcome, ran) = rig.execute(&shard);
        let right = match outcome {
            Err(VramError::DeviceUntrusted { .. }) => bit < 256,
            Err(VramError::IntegrityFailure { .. }) => bit >= 256,
            _ => false,
        };
        assert!(!ran && right, "bit {bit}: {outcome:?}");
        rig.close_clean();
    }
}

#[test]
fn a_replayed_table_passes_only_where_it_is_true() {
    // covers: VER-11
    // Nothing changed since: the replayed table is the truth.
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(100_000, 1));
    rig.order(Fault::DigestReplayed);
    rig.manager.verify_sealed(&shard).unwrap();
    // The previous launch was over this shard before the flip: a driver that answers for memory as it was, under this
    // launch's nonce, cannot be told from an honest one. The threat model says so. It must lie at every check, though.
    rig.flip_bit(&shard, 0, 0);
    rig.order(Fault::DigestReplayed);
    rig.manager.verify_sealed(&shard).unwrap();
    assert!(matches!(rig.execute(&shard), (Err(VramError::IntegrityFailure { .. }), false)));
    rig.close_clean();
    // The previous launch was over other bytes: its table does not serve this shard.
    let rig = Rig::new();
    let (shard, _other) = (rig.seal("one", &noise(100_000, 1)), rig.seal("two", &noise(100_000, 2)));
    rig.order(Fault::DigestReplayed);
    assert!(matches!(rig.execute(&shard), (Err(VramError::IntegrityFailure { .. }), false)));
    rig.close_clean();
}

#[test]
fn a_lie_while_sealing_seals_nothing() {
    // covers: SEAL-1 VER-11 RES-6
    let (untrusted, mismatch) = (ErrorCode::DeviceUntrusted, ErrorCode::DigestMismatch);
    for (fault, wanted) in [
        (Fault::DigestSkipped, untrusted),
        (Fault::DigestShort, untrusted),
        (Fault::DigestStale, untrusted),
        (Fault::DigestShortClaimsFull, mismatch),
        (Fault::DigestReplayed, mismatch),
        (Fault::CopyToDeviceCorrupts { bit: 12_345 }, mismatch),
        (Fault::CopyToDeviceSkipped, mismatch),
    ] {
        for expecting in [false, true] {
            let (rig, bytes) = (Rig::new(), noise(100_000, 9));
            let earlier = rig.seal("earlier", &noise(2000, 1));
            let used = rig.manager.used_vram();
            let spec = if expecting { rig.vouched("new", &bytes) } else { spec("new") };
            rig.order(fault);
            let error = rig.manager.seal_model(spec, ShardSource::bytes(&bytes)).unwrap_err();
            assert_eq!((error.code(), rig.manager.used_vram()), (wanted, used), "{fault:?}: {error:?}");
            if wanted == mismatch {
                let sealed = digest_bytes(rig.manager.tree_params(), &bytes);
                assert!(matches!(&error, VramError::DigestMismatch { expected, .. } if *expected == sealed));
                assert_eq!(rig.manager.state(), ManagerState::Ready);
                rig.seal("new", &bytes);
            } else {
                assert_eq!(rig.manager.state(), UNTRUSTED);
            }
            rig.manager.verify_sealed(&earlier).unwrap();
            rig.assert_recount();
            rig.close_clean();
        }
    }
}

#[test]
fn a_wipe_that_is_not_proven_keeps_the_memory_out_of_the_pool() {
    // covers: SCR-1 SCR-2 RES-10
    for (fault, scratch) in [
        Fault::FillSkipped.nth(1),
        Fault::FillHalf.nth(1),
        Fault::CountSkipped.nth(1),
        Fault::CopyToHostSkipped.nth(1),
        Fault::CopyToHostCorrupts { bit: 130 }.nth(1),
        Fault::call(MockCall::Fill).nth(1),
        Fault::call(MockCall::CountNonzero).nth(1),
        // The first one asks only whether earlier work failed, which is not the wipe's business.
        Fault::call(MockCall::Synchronize).nth(2),
    ]
    .into_iter()
    .flat_map(|fault| [(fault, false), (fault, true)])
    {
        let rig = Rig::new();
        let (shard, other) = (rig.seal("sealed", &noise(9000, 1)), rig.seal("other", &noise(9000, 2)));
        let working = scratch.then(|| rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap());
        if let Some(working) = &working {
            rig.stream().enqueue_scratch_write(working, 5000, 0x55).unwrap();
        }
        let used = rig.manager.used_vram();
        rig.order(fault);
        let released = working.map_or_else(|| rig.manager.release(&shard).map(drop), Scratch::release);
        let Err(VramError::WipeFailed { bytes, .. }) = released else { panic!("{fault:?}: {released:?}") };
        assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (used, bytes), "{fault:?}");
        assert!(bytes >= 5000 && bytes < used);
        rig.assert_recount();
        let said = said!(rig, EventKind::ShardQuarantined { cause, bytes, .. } => (cause, bytes));
        assert_eq!(said, [(QuarantineCause::Residue, bytes)], "{fault:?}: residue is in the trail");
        assert!(matches!(rig.execute(&other), (Ok(()), true)), "{fault:?}");
        if !scratch {
            assert_error!(rig.manager.release(&shard), VramError::StaleHandle { .. });
            // The name is free again, the memory is not; at the end it is wiped after all.
            rig.seal("sealed", &noise(9000, 1));
        }
        assert_eq!(rig.manager.quarantined_vram(), bytes);
        rig.close_clean();
    }
}

#[test]
fn no_single_missed_fill_or_count_of_a_wipe_leaves_anything_behind() {
    // covers: SCR-1 SCR-2
    let mut refused = 0;
    for fault in [Fault::FillSkipped, Fault::FillHalf, Fault::CountSkipped, Fault::CountFindsNothing] {
        for nth in 1..=8 {
            let rig = Rig::new();
            let shard = rig.seal("sealed", &noise(9000, 1));
            rig.order(fault.nth(nth));
            refused += u32::from(rig.manager.release(&shard).is_err());
            rig.assert_recount();
            assert_eq!(rig.config.stats().unwiped_bytes_freed, 0, "{fault:?} {nth}");
            rig.controls().clear_faults().unwrap();
            rig.close_clean();
        }
    }
    assert!(refused >= 6, "{refused}: skipped fills and counts were noticed");
}

#[test]
fn residency_lies_are_refused_at_allocation() {
    // covers: RES-2 RES-10
    // The memory itself, then where its digest or its zeros are proven.
    for (lie, nth, scratch) in
        LIES.into_iter().flat_map(|lie| [(1, false), (2, false), (1, true), (2, true)].map(|(nth, it)| (lie, nth, it)))
    {
        let rig = Rig::new();
        let earlier = rig.seal("earlier", &noise(2000, 1));
        let (before, mark) = (rig.counts(), rig.mark());
        let allocate = || match scratch {
            true => rig.manager.allocate_scratch(Purpose::KvCache, 5000).map(drop),
            false => rig.try_seal("new", &noise(2000, 2)).map(drop),
        };
        rig.order(Fault::Residency(lie).nth(nth));
        assert_error!(allocate(), VramError::PolicyViolation { rule: "vram_only", .. });
        assert_eq!(rig.counts(), before, "{lie:?} {nth}: something is left");
        assert_eq!(rig.names_since(mark)[..2], ["vram_allocation_failed", "policy_violation"], "{lie:?} {nth}");
        // The twin: the same again without the lie.
        allocate().unwrap();
        rig.manager.verify_sealed(&earlier).unwrap();
        let (stats, _) = rig.close();
        assert_eq!((stats.live_bytes, stats.live_streams, stats.live_host_buffers), (0, 0, 0));
    }
    // On demand they stop the manager.
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(2000, 1));
    assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().resident_shards, 1);
    rig.order(Fault::Residency(ResidencyLie::Managed));
    assert_error!(rig.manager.enforce_vram_only_policy(), VramError::PolicyViolation { .. });
    assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::PolicyViolation));
    assert!(matches!(rig.execute(&shard), (Err(VramError::ManagerStopped { .. }), false)));
    rig.close_clean();
}

#[test]
fn a_driver_that_reports_no_room_gets_nothing() {
    // covers: RES-4 RES-6
    let rig = Rig::new();
    let used = rig.manager.used_vram();
    rig.order(Fault::MemoryInfoFree { free: 100 });
    let error = rig.try_seal("new", &noise(2000, 2)).unwrap_err();
    assert!(matches!(error, VramError::OutOfMemory { needed, available: 100 } if needed >= 2000), "{error:?}");
    assert!(error.is_retriable());
    assert_eq!(rig.manager.used_vram(), used);
    rig.seal("new", &noise(2000, 2));
    rig.close_clean();
}

#[test]
fn late_out_of_memory_gives_everything_back() {
    // covers: RES-4 RES-6
    for (nth, boast) in [(1, false), (1, true), (2, false), (2, true)] {
        let headroom = 10_000;
        let rig = Rig::with(small(), |builder| builder.headroom(headroom));
        let earlier = rig.seal("earlier", &noise(2000, 1));
        let (used, free) = (rig.manager.used_vram(), rig.manager.memory_info().unwrap().free);
        if boast {
            rig.order(Fault::MemoryInfoFree { free: u64::MAX });
        }
        rig.order(Fault::Call { call: MockCall::Alloc, code: 2 }.nth(nth));
        let error = rig.try_seal("new", &noise(50_000, 2)).unwrap_err();
        // The driver counts more than it gave: the message must not call that no room.
        let VramError::OutOfMemory { needed, available } = error else { panic!("{error:?}") };
        assert!(needed < available && available == free - headroom, "{needed} {available}");
        assert!(error.to_string().contains(&format!("although it counts {available} as available")), "{error}");
        assert_eq!((rig.manager.used_vram(), rig.config.stats().live_bytes), (used, used));
        rig.seal("new", &noise(50_000, 2));
        rig.manager.verify_sealed(&earlier).unwrap();
        assert_eq!(rig.close().0.live_bytes, 0);
    }
}

#[test]
fn a_device_that_answers_known_questions_wrongly_gets_no_manager() {
    // covers: VER-11
    for fault in [
        Fault::DigestSkipped.nth(1),
        Fault::DigestShort.nth(1),
        Fault::DigestShortClaimsFull.nth(1),
        Fault::DigestStale.nth(2),
        Fault::DigestReplayed.nth(2),
        Fault::CopyToDeviceCorrupts { bit: 99 }.nth(1),
        Fault::CountSkipped.nth(1),
        Fault::CountFindsNothing.times(4),
        Fault::FillSkipped.nth(1),
    ] {
        let config = small();
        config.fail(fault).unwrap();
        let error = builder(&config).build().unwrap_err();
        assert_eq!(error.code(), ErrorCode::DeviceUntrusted, "{fault:?}: {error:?}");
        assert_eq!(config.stats().live_host_buffers, 0, "{fault:?}");
    }
}

#[test]
fn what_others_left_behind_an_image_is_gone() {
    // covers: SCR-1
    let rig = Rig::new();
    let shard = rig.seal("a", &noise(1000, 1)); // of 1024 bytes that the mock handed out full of garbage
    let run = rig.begin(&shard);
    // SAFETY: the address is only looked up by the mock.
    let at = unsafe { run.regions()[0].device_ptr() }.as_u64();
    let mut tail = [1; 24];
    rig.controls().peek_address(at + 1000, &mut tail).unwrap();
    assert_eq!(tail, [0; 24]);
    run.finish().unwrap();
    rig.manager.release(&shard).unwrap();
    rig.close_clean();
}

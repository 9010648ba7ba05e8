//! A device that lies. It is never believed: a check passes only over bytes that are the sealed ones, and the ledger is exact
//! afterwards.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use support::{LIES, Rig, noise, small, spec, vouching};
use vram_residency::{
    ErrorCode, EventKind, Fault, ManagerState, MockCall, Purpose, ResidencyLie, ShardSource, StopReason, VramError,
    digest_bytes,
};

const UNTRUSTED: ManagerState = ManagerState::Stopped(StopReason::DeviceUntrusted);

/// A digest that does not prove itself, at an execute.
fn unproven_at_execute(fault: Fault) {
    for bytes in [noise(10, 1), noise(1024, 2), noise(100_000, 3)] {
        let rig = Rig::new();
        let shard = rig.seal("sealed", &bytes);
        rig.order(fault);
        let (outcome, ran) = rig.execute(&shard);
        let error = outcome.unwrap_err();
        assert!(!ran, "{fault:?}");
        assert!(matches!(error, VramError::DeviceUntrusted { .. }), "{fault:?}: {error:?}");
        assert_eq!(error.code(), ErrorCode::DeviceUntrusted);
        assert_eq!(rig.manager.state(), UNTRUSTED, "{fault:?}");
        rig.assert_recount();
        rig.close_clean();
    }
}

#[test]
fn a_digest_that_did_not_run_is_not_believed() {
    // covers: VER-11
    unproven_at_execute(Fault::DigestSkipped);
}

#[test]
fn a_digest_that_ran_short_and_says_so_is_not_believed() {
    // covers: VER-11
    unproven_at_execute(Fault::DigestShort);
}

#[test]
fn a_digest_that_repeats_an_old_result_is_not_believed() {
    // covers: VER-11
    unproven_at_execute(Fault::DigestStale);
}

#[test]
fn a_result_that_did_not_come_back_is_not_believed() {
    // covers: VER-11
    unproven_at_execute(Fault::CopyToHostSkipped);
}

#[test]
fn a_digest_that_ran_short_and_claims_all_disagrees_with_the_record() {
    // covers: VER-11 VER-5
    for bytes in [noise(10, 1), noise(1024, 2), noise(100_000, 3)] {
        let rig = Rig::new();
        let shard = rig.seal("sealed", &bytes);
        rig.order(Fault::DigestShortClaimsFull);
        let (outcome, ran) = rig.execute(&shard);
        assert!(!ran && matches!(outcome, Err(VramError::IntegrityFailure { .. })), "{outcome:?}");
        assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
        rig.close_clean();
    }
}

#[test]
fn an_honest_device_after_the_same_preparations_is_believed() {
    // covers: VER-11
    // The twin of the tests above: what they refuse is the fault, not the situation.
    for bytes in [noise(10, 1), noise(1024, 2), noise(100_000, 3)] {
        let rig = Rig::new();
        let shard = rig.seal("sealed", &bytes);
        rig.order(Fault::DigestSkipped.nth(2));
        assert!(matches!(rig.execute(&shard), (Ok(()), true)));
        rig.manager.mock_controls().unwrap().clear_faults().unwrap();
        assert!(matches!(rig.execute(&shard), (Ok(()), true)));
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
        let error = outcome.unwrap_err();
        let right = if bit < 256 {
            matches!(error, VramError::DeviceUntrusted { .. })
        } else {
            matches!(error, VramError::IntegrityFailure { .. })
        };
        assert!(!ran && right, "bit {bit}: {error:?}");
        rig.close_clean();
    }
}

#[test]
fn a_replayed_table_passes_only_where_it_is_true() {
    // covers: VER-11
    let (one, two) = (noise(100_000, 1), noise(100_000, 2));
    // Nothing changed since: the replayed table is the truth.
    let rig = Rig::new();
    let shard = rig.seal("one", &one);
    rig.order(Fault::DigestReplayed);
    rig.manager.verify_sealed(&shard).unwrap();
    rig.close_clean();
    // The previous launch was over other bytes: its table does not serve this shard, flipped or not.
    for flipped in [false, true] {
        let rig = Rig::new();
        let (shard, _other) = (rig.seal("one", &one), rig.seal("two", &two));
        if flipped {
            rig.flip_bit(&shard, 99_999, 0);
        }
        rig.order(Fault::DigestReplayed);
        let (outcome, ran) = rig.execute(&shard);
        assert!(!ran && matches!(outcome, Err(VramError::IntegrityFailure { .. })), "{outcome:?}");
        rig.close_clean();
    }
    // The previous launch was over this shard before the flip: a driver that answers for memory as it was, under this
    // launch's nonce, cannot be told from an honest one. The threat model says so. It must lie at every check, though.
    let rig = Rig::new();
    let shard = rig.seal("one", &one);
    rig.flip_bit(&shard, 0, 0);
    rig.order(Fault::DigestReplayed);
    rig.manager.verify_sealed(&shard).unwrap();
    let (outcome, ran) = rig.execute(&shard);
    assert!(!ran && matches!(outcome, Err(VramError::IntegrityFailure { .. })), "{outcome:?}");
    rig.close_clean();
}

#[test]
fn a_lie_while_sealing_seals_nothing() {
    // covers: SEAL-1 VER-11 RES-6
    for (fault, wanted) in [
        (Fault::DigestSkipped, ErrorCode::DeviceUntrusted),
        (Fault::DigestShort, ErrorCode::DeviceUntrusted),
        (Fault::DigestStale, ErrorCode::DeviceUntrusted),
        (Fault::DigestShortClaimsFull, ErrorCode::DigestMismatch),
        (Fault::DigestReplayed, ErrorCode::DigestMismatch),
        (Fault::CopyToDeviceCorrupts { bit: 12_345 }, ErrorCode::DigestMismatch),
        (Fault::CopyToDeviceSkipped, ErrorCode::DigestMismatch),
    ] {
        for expecting in [false, true] {
            let rig = Rig::new();
            let bytes = noise(100_000, 9);
            let earlier = rig.seal("earlier", &noise(2000, 1));
            let used = rig.manager.used_vram();
            let wanted_digest = digest_bytes(rig.manager.tree_params(), &bytes);
            let spec = if expecting {
                spec("new").expect(vouching::file(rig.manager.tree_params(), wanted_digest))
            } else {
                spec("new")
            };
            rig.order(fault);
            let error = rig.manager.seal_model(spec, ShardSource::bytes(&bytes)).unwrap_err();
            assert_eq!(error.code(), wanted, "{fault:?}: {error:?}");
            if wanted == ErrorCode::DigestMismatch {
                assert!(matches!(&error, VramError::DigestMismatch { expected, actual, .. }
                    if *expected == wanted_digest && actual != expected));
                assert_eq!(rig.manager.state(), ManagerState::Ready);
                assert!(matches!(rig.execute(&earlier), (Ok(()), true)));
                rig.seal("new", &bytes);
            } else {
                assert_eq!((rig.manager.state(), rig.manager.used_vram()), (UNTRUSTED, used));
                rig.manager.verify_sealed(&earlier).unwrap();
            }
            rig.assert_recount();
            rig.close_clean();
        }
    }
}

#[test]
fn a_wipe_that_is_not_proven_keeps_the_memory_out_of_the_pool() {
    // covers: SCR-1 SCR-2
    for fault in [
        Fault::FillSkipped.nth(1),
        Fault::FillHalf.nth(1),
        Fault::CountSkipped.nth(1),
        Fault::CopyToHostSkipped.nth(1),
        Fault::CopyToHostCorrupts { bit: 130 }.nth(1),
        Fault::call(MockCall::Fill).nth(1),
        Fault::call(MockCall::CountNonzero).nth(1),
        // The first one asks only whether earlier work failed, which is not the wipe's business.
        Fault::call(MockCall::Synchronize).nth(2),
    ] {
        let rig = Rig::new();
        let (shard, other) = (rig.seal("sealed", &noise(9000, 1)), rig.seal("other", &noise(9000, 2)));
        let used = rig.manager.used_vram();
        rig.order(fault);
        let error = rig.manager.release(&shard).expect_err(&format!("{fault:?}"));
        let VramError::WipeFailed { bytes, .. } = error else { panic!("{fault:?}: {error:?}") };
        assert_eq!(error.code(), ErrorCode::WipeFailed);
        assert_eq!((rig.manager.used_vram(), rig.manager.quarantined_vram()), (used, bytes), "{fault:?}");
        assert!(bytes >= 9000 && bytes < used);
        rig.assert_recount();
        assert!(matches!(rig.manager.release(&shard), Err(VramError::StaleHandle { .. })));
        assert!(matches!(rig.execute(&other), (Ok(()), true)), "{fault:?}");
        let quarantined = rig.sink.events().iter().any(|event| {
            matches!(&event.kind, EventKind::ShardQuarantined { cause, bytes: said, .. }
                if *cause == vram_residency::QuarantineCause::Residue && *said == bytes)
        });
        assert!(quarantined, "{fault:?}: residue is in the trail");
        // The name is free again, the memory is not; at the end it is wiped after all.
        rig.seal("sealed", &noise(9000, 1));
        assert_eq!(rig.manager.quarantined_vram(), bytes);
        rig.assert_recount();
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
            rig.manager.mock_controls().unwrap().clear_faults().unwrap();
            rig.close_clean();
        }
    }
    assert!(refused >= 6, "{refused}: skipped fills and counts were noticed");
}

#[test]
fn memory_that_can_never_be_proven_wiped_is_never_freed() {
    // covers: SCR-2 SCR-3
    let rig = Rig::new();
    rig.seal("one", &noise(9000, 1));
    let used = rig.manager.used_vram();
    rig.order(Fault::FillSkipped.always());
    let report = rig.manager.shutdown(std::time::Duration::ZERO);
    assert_eq!((report.wiped_bytes, report.residue_bytes), (0, used));
    let (stats, _) = rig.close();
    assert_eq!((stats.live_bytes, stats.unwiped_bytes_freed), (used, 0), "kept, not freed unwiped");
    assert_eq!((stats.live_streams, stats.live_host_buffers), (0, 0));
}

#[test]
fn residency_lies_are_refused_at_allocation() {
    // covers: RES-2
    for lie in LIES {
        for nth in 1..=2 {
            let rig = Rig::new();
            let earlier = rig.seal("earlier", &noise(2000, 1));
            rig.order(Fault::Residency(lie).nth(nth));
            let error = rig.try_seal("new", &noise(2000, 2)).unwrap_err();
            assert!(matches!(error, VramError::PolicyViolation { rule: "vram_only", .. }), "{lie:?}: {error:?}");
            rig.assert_recount();
            rig.manager.verify_sealed(&earlier).unwrap();
            let violated = rig.sink.names().contains(&"policy_violation");
            assert!(violated, "{lie:?}: a violation is in the trail");
            let (stats, _) = rig.close();
            assert_eq!((stats.live_bytes, stats.live_streams, stats.live_host_buffers), (0, 0, 0));
        }
    }
}

#[test]
fn residency_lies_are_refused_for_working_memory_too() {
    // covers: RES-2 RES-10
    for lie in LIES {
        // The memory itself, then where its zeros are proven.
        for nth in 1..=2 {
            let rig = Rig::new();
            let earlier = rig.seal("earlier", &noise(2000, 1));
            let (before, mark) = (rig.counts(), rig.mark());
            rig.order(Fault::Residency(lie).nth(nth));
            let error = rig.manager.allocate_scratch(Purpose::KvCache, 5000).map(drop).unwrap_err();
            assert!(matches!(error, VramError::PolicyViolation { rule: "vram_only", .. }), "{lie:?} {nth}: {error:?}");
            assert_eq!(rig.counts(), before, "{lie:?} {nth}: something is left");
            rig.assert_recount();
            assert_eq!(rig.names_since(mark), ["vram_allocation_failed", "policy_violation"], "{lie:?} {nth}");
            // The twin: the same again without the lie.
            rig.manager.allocate_scratch(Purpose::KvCache, 5000).unwrap().release().unwrap();
            rig.manager.verify_sealed(&earlier).unwrap();
            let (stats, _) = rig.close();
            assert_eq!((stats.live_bytes, stats.live_streams, stats.live_host_buffers), (0, 0, 0));
        }
    }
}

#[test]
fn residency_lies_on_demand_stop_the_manager() {
    // covers: RES-2
    let rig = Rig::new();
    let shard = rig.seal("one", &noise(2000, 1));
    assert_eq!(rig.manager.enforce_vram_only_policy().unwrap().resident_shards, 1);
    rig.order(Fault::Residency(ResidencyLie::Managed));
    let error = rig.manager.enforce_vram_only_policy().unwrap_err();
    assert!(matches!(error, VramError::PolicyViolation { .. }), "{error:?}");
    assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::PolicyViolation));
    assert!(matches!(rig.execute(&shard), (Err(VramError::ManagerStopped { .. }), false)));
    rig.close_clean();
}

#[test]
fn a_driver_that_reports_no_room_gets_nothing() {
    // covers: RES-4 RES-6
    let rig = Rig::new();
    let earlier = rig.seal("earlier", &noise(2000, 1));
    let used = rig.manager.used_vram();
    rig.order(Fault::MemoryInfoFree { free: 100 });
    let error = rig.try_seal("new", &noise(2000, 2)).unwrap_err();
    assert!(matches!(error, VramError::OutOfMemory { needed, available: 100 } if needed >= 2000), "{error:?}");
    assert!(error.is_retriable());
    assert_eq!(rig.manager.used_vram(), used);
    rig.seal("new", &noise(2000, 2));
    rig.manager.verify_sealed(&earlier).unwrap();
    rig.assert_recount();
    rig.close_clean();
}

#[test]
fn late_out_of_memory_gives_everything_back() {
    // covers: RES-4 RES-6
    for nth in 1..=2 {
        for boast in [false, true] {
            let headroom = 10_000;
            let rig = Rig::with(small(), |builder| builder.headroom(headroom));
            let earlier = rig.seal("earlier", &noise(2000, 1));
            let used = rig.manager.used_vram();
            let free = rig.manager.memory_info().unwrap().free;
            if boast {
                rig.order(Fault::MemoryInfoFree { free: u64::MAX });
            }
            rig.order(Fault::Call { call: MockCall::Alloc, code: 2 }.nth(nth));
            let error = rig.try_seal("new", &noise(50_000, 2)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::VramOom, "{error:?}");
            // The driver counts more than it gave: the message must not call that no room.
            let VramError::OutOfMemory { needed, available } = error else { panic!("{error:?}") };
            assert!(needed < available, "{needed} {available}");
            assert_eq!(available, free - headroom);
            let counted =
                format!("gave no {needed} bytes of device memory, although it counts {available} as available");
            assert!(error.to_string().contains(&counted), "{error}");
            assert_eq!((rig.manager.used_vram(), rig.config.stats().live_bytes), (used, used));
            rig.seal("new", &noise(50_000, 2));
            rig.manager.verify_sealed(&earlier).unwrap();
            let (stats, _) = rig.close();
            assert_eq!(stats.live_bytes, 0);
        }
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
        let error = support::builder(&config).build().unwrap_err();
        assert_eq!(error.code(), ErrorCode::DeviceUntrusted, "{fault:?}: {error:?}");
        assert_eq!(config.stats().live_host_buffers, 0, "{fault:?}");
    }
    // The twin: the same machine without the fault.
    support::builder(&small()).build().unwrap();
}

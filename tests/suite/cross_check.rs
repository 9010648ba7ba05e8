//! The cross-check: kernels that hide what has changed, and what hides nothing.

use crate::*;

/// Subtrees of 32 KiB, and a little.
const OF: u64 = 8;
const BYTES: usize = 7 * (32 << 10) + 700;

fn rig(subtrees: u32) -> (Rig, SealedShard) {
    let rig = Rig::with(small(), |builder| builder.tree_params(block(1024)).cross_check(subtrees));
    let shard = rig.seal("a", &noise(BYTES, 1));
    (rig, shard)
}

/// Whether a flip in one subtree is found behind a kernel that answers with what it remembers.
fn is_found(subtrees: u32, flipped: u64) -> bool {
    let (rig, shard) = rig(subtrees);
    rig.begin(&shard).finish().unwrap(); // the truth, which is remembered
    rig.order(Fault::DigestReplayed.always());
    rig.flip(&shard, flipped);
    let found = rig.manager.begin(&shard, ExecuteOptions::default()).map(drop);
    if found.is_err() {
        assert_error!(found, VramError::DeviceUntrusted { operation: "cross-check" });
        assert_eq!(rig.manager.state(), ManagerState::Stopped(StopReason::DeviceUntrusted));
        until("it is told", || rig.count("seal_verification_failed") > 0);
        let EventKind::SealVerificationFailed { reason, first_bad: Some(range), .. } =
            rig.event("seal_verification_failed").kind
        else {
            panic!("no place")
        };
        assert_eq!(reason, VerificationFailure::DeviceUntrusted);
        assert!((range.offset..range.offset + range.bytes).contains(&flipped), "{range:?}");
        return true;
    }
    false
}

#[test]
fn a_kernel_that_hides_a_change_is_caught_in_proportion() {
    for byte in (0..OF).map(|at| (at * (32 << 10)).min(BYTES as u64 - 1)) {
        assert!(!is_found(0, byte), "the kernel lies, and nobody looks");
        assert!(is_found(u32::try_from(OF).unwrap(), byte) && is_found(u32::MAX, byte));
    }
    // Binomial with p = 3/8 over 120: 45 ± 5.3; six deviations.
    let caught = (0..120).filter(|at| is_found(3, at * 977 % BYTES as u64)).count();
    assert!(caught.abs_diff(45) < 32, "{caught} of 120");
}

#[test]
fn honest_kernels_pass_and_a_lie_over_what_has_not_changed_is_invisible() {
    let (rig, shard) = rig(3);
    for check in [Check::Sample(2), Check::Rotating(3), Check::Digest] {
        let options = ExecuteOptions::default().check(check).verify_after(false);
        let report = rig.manager.begin(&shard, options).unwrap().finish().unwrap();
        assert_eq!((report.check, report.cross_checked), (check, 3));
    }
    assert_eq!(said!(rig, EventKind::SealVerified { cross_checked, .. } => cross_checked), [3; 3]);
    rig.order(Fault::DigestReplayed.always());
    rig.begin(&shard).finish().unwrap();
    rig.close_clean();
}

#[test]
fn scattered_memory_and_single_blocks_are_seen_by_copy_as_by_kernels() {
    let rig = Rig::with(small(), |builder| builder.cross_check(u32::MAX));
    let mut dice = Dice::new(5);
    let (arena, places) = scatter(&mut dice, &[1, 4096, 700_000, 4097, 3]);
    let adopted = adopt(&rig.manager, spec("a"), &arena, &regions(&arena, &places)).0.unwrap();
    let report = rig.begin(adopted.shard()).finish().unwrap();
    assert_eq!((report.cross_checked, report.of), (22, 22));
    for (name, bytes) in [("b", 1), ("c", 4096), ("d", 4097), ("e", (512 << 10) + 1)] {
        let shard = rig.seal(name, &noise(bytes, 2));
        rig.begin(&shard).finish().unwrap();
    }
}

#[test]
fn a_copy_that_fails_is_no_verdict() {
    let (rig, shard) = rig(2);
    // The first copy brings the digest back.
    rig.order(Fault::call(MockCall::CopyToHost).nth(2));
    assert_error!(rig.manager.begin(&shard, ExecuteOptions::default()), VramError::Device(_));
    rig.begin(&shard).finish().unwrap();
    rig.close_clean();
}

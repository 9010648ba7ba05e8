//! The main job, end to end, over the driver on the mock.
// covers: SEAL-1 VER-1 SCR-1 RES-2 RES-5 RES-6

use super::*;
use crate::audit::{AuditSink, MemorySink};
use crate::digest::digest_bytes;
use crate::error::{ManagerState, StopReason, VramError};
use crate::id::{ShardId, WorkerId};
use crate::keys::WorkerSecret;
use crate::manager::VramManager;
use crate::policy::Policy;
use crate::seal::SealedShard;
use crate::source::ShardSource;
use crate::spec::ShardSpec;
use crate::types::RawRegion;

fn manager(fake: &Fake) -> Result<VramManager, VramError> {
    manager_telling(fake, Arc::new(MemorySink::default()))
}

pub(super) fn manager_telling(fake: &Fake, sink: Arc<dyn AuditSink>) -> Result<VramManager, VramError> {
    let driver = open_on(fake, Wanted::First).unwrap();
    VramManager::builder(WorkerId::new("worker-1").unwrap(), WorkerSecret::random().unwrap())
        .policy(Policy::development())
        .headroom(64 << 20)
        .staging(64 << 10)
        .audit(sink)
        .build_with(driver)
}

pub(super) fn weights() -> Vec<u8> {
    (0..300_001u32).map(|i| u8::try_from((i.wrapping_mul(2_654_435_761) >> 13) & 0xff).unwrap()).collect()
}

pub(super) fn seal(manager: &VramManager, id: &str) -> Result<SealedShard, VramError> {
    manager.seal_model(ShardSpec::new(ShardId::new(id).unwrap()), ShardSource::bytes(&weights()))
}

/// Where the sealed bytes lie, found as an attacker would: by looking for them.
pub(super) fn find(fake: &Fake) -> u64 {
    let start = weights()[..64].to_vec();
    fake.mappings().into_iter().map(|(ptr, _)| ptr).find(|ptr| fake.peek(*ptr, 64) == start).unwrap()
}

#[test]
fn a_shard_lives_its_whole_life_and_leaves_no_byte_behind() {
    let fake = Fake::new();
    let manager = manager(&fake).unwrap();
    assert_eq!(manager.state(), ManagerState::Ready);
    let shard = seal(&manager, "model-a").unwrap();
    assert_eq!(shard.digest(), digest_bytes(manager.tree_params(), &weights()));
    let mut read = vec![0; weights().len()];
    manager.execute(&shard, |verified| verified.read_at(0, &mut read)).unwrap().unwrap();
    assert_eq!(read, weights());
    manager.release(&shard).unwrap();
    assert_eq!(manager.used_vram(), 0);
    assert!(fake.calls("cuMemUnmap") >= 2);
    assert_eq!(fake.get("unwiped"), 0, "everything that was unmapped had been wiped");
    drop(manager);
    clean(&fake);
}

#[test]
fn one_bit_changed_through_another_mapping_refuses_the_next_execute() {
    let fake = Fake::new();
    let manager = manager(&fake).unwrap();
    let shard = seal(&manager, "model-a").unwrap();
    manager.execute(&shard, |_| ()).unwrap();
    fake.machine.flip(DevicePtr(find(&fake) + 299_999), 3).unwrap();
    let mut ran = false;
    let error = manager.execute(&shard, |_| ran = true).unwrap_err();
    assert!(matches!(error, VramError::IntegrityFailure { .. }), "{error}");
    assert!(!ran);
    assert_eq!(manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
    manager.release(&shard).unwrap();
    assert_eq!((manager.used_vram(), fake.get("unwiped")), (0, 0));
    drop(manager);
    clean(&fake);
}

#[test]
fn a_wipe_that_does_not_happen_keeps_the_memory_and_says_so() {
    let fake = Fake::new();
    let manager = manager(&fake).unwrap();
    let shard = seal(&manager, "model-a").unwrap();
    let mapped = fake.get("physical");
    fake.always(Kind::Skip, number("cuMemsetD8Async"), 0, 0);
    assert!(manager.release(&shard).is_err());
    assert_eq!((fake.get("physical"), fake.get("unwiped")), (mapped, 0));
    drop(manager);
    assert_eq!(fake.get("retained"), 1, "the context stays with the memory");
}

#[test]
fn answers_that_prove_nothing_refuse_to_seal() {
    // covers: RES-2
    let fake = Fake::new();
    let manager = manager(&fake).unwrap();
    for (attribute, value) in [(2, 0), (2, 1), (8, 1), (9, 1), (10, 1), (14, 1), (12, 4096)] {
        fake.lie(attribute, value);
        let error = seal(&manager, "model-a").unwrap_err();
        assert!(matches!(error, VramError::PolicyViolation { rule: "vram_only", .. }), "{attribute}: {error}");
        fake.tell_the_truth();
        assert_eq!(manager.used_vram(), 0);
    }
    seal(&manager, "model-a").unwrap();
    drop(manager);
    clean(&fake);
}

#[test]
fn kernels_that_do_not_run_or_die_refuse_and_stop() {
    // covers: VER-11 ERR-3
    let fake = Fake::new();
    fake.always(Kind::Skip, number("cuLaunchKernel"), 0, 0);
    assert!(manager(&fake).is_err(), "the known answers");
    let fake = Fake::new();
    let on = manager(&fake).unwrap();
    let shard = seal(&on, "model-a").unwrap();
    fake.always(Kind::Skip, number("cuLaunchKernel"), 0, 0);
    let error = on.execute(&shard, |_| ()).unwrap_err();
    assert!(matches!(error, VramError::DeviceUntrusted { .. }), "{error}");
    drop(on);

    let fake = Fake::new();
    let on = manager(&fake).unwrap();
    let shard = seal(&on, "model-a").unwrap();
    fake.always(Kind::Crash, number("cuLaunchKernel"), 0, 0);
    let error = on.execute(&shard, |_| ()).unwrap_err();
    assert!(matches!(&error, VramError::Device(DriverError { code: 700, .. })), "{error}");
    assert!(error.to_string().contains("700 (CUDA_ERROR_ILLEGAL_ADDRESS)"), "{error}");
    assert!(matches!(on.state(), ManagerState::Stopped(_)));
    drop(on);
    assert_eq!(fake.get("violations"), 0);
}

#[test]
fn any_call_may_fail_at_any_time_with_any_number() {
    // covers: ERR-3 RES-6
    let calls = [
        "cuMemAddressReserve",
        "cuMemCreate",
        "cuMemMap",
        "cuMemSetAccess",
        "cuMemGetAccess",
        "cuPointerGetAttributes",
        "cuMemRetainAllocationHandle",
        "cuMemGetAllocationPropertiesFromHandle",
        "cuMemHostAlloc",
        "cuStreamCreate",
        "cuEventCreate",
        "cuEventRecord",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuMemsetD8Async",
        "cuLaunchKernel",
        "cuStreamSynchronize",
        "cuEventSynchronize",
        "cuCtxPushCurrent_v2",
        "cuMemGetInfo_v2",
    ];
    for call in calls {
        let fake = Fake::new();
        let manager = manager(&fake).unwrap();
        for nth in 1..=3 {
            for number in [2, 913, 916, 12_345] {
                fake.order(call, number, nth, 1);
                let sealed = seal(&manager, "model-a");
                fake.tell_the_truth();
                match sealed {
                    Ok(shard) => {
                        manager.execute(&shard, |_| ()).unwrap();
                        manager.release(&shard).unwrap();
                    }
                    Err(VramError::OutOfMemory { .. }) if number == 2 => {}
                    Err(VramError::Device(error)) => assert_eq!((error.operation, error.code), (call, number)),
                    Err(error) => panic!("{call} {number}: {error}"),
                }
                assert_eq!(contexts().0, 0);
            }
        }
        // An allocation that fails while it is proven zero holds results of the proof, a few bytes each, and nothing else yet.
        assert!(fake.get("violations") == 0 && fake.get("unwiped") < 1024, "{call}: {}", fake.get("unwiped"));
    }
}

#[test]
#[allow(unsafe_code, reason = "adopting memory is a promise that only its engine can make")]
fn an_engines_memory_is_adopted_watched_and_given_back() {
    // covers: RES-9
    let fake = Fake::new();
    let manager = manager(&fake).unwrap();
    let (ptr, engine) = (fake.engine_alloc(100_000), 0); // the legacy default stream
    fake.engine_fill(engine, ptr, 100_000, 5);
    let flush = open_on(&fake, Wanted::First).unwrap();
    flush.synchronize(StreamId(engine)).unwrap();
    drop(flush);
    let region = RawRegion::new(ptr, 100_000);
    let spec = ShardSpec::new(ShardId::new("adopted").unwrap());
    // SAFETY: the mock's memory lives until it is freed below, after the release; only this test writes it, and the check is meant to notice.
    let adopted = unsafe { manager.adopt(spec, (), &[region]) }.unwrap();
    manager.execute(adopted.shard(), |_| ()).unwrap();
    fake.engine_fill(engine, ptr + 77_777, 1, 6);
    let flush = open_on(&fake, Wanted::First).unwrap();
    flush.synchronize(StreamId(engine)).unwrap();
    drop(flush);
    let error = manager.execute(adopted.shard(), |_| ()).unwrap_err();
    assert!(matches!(error, VramError::IntegrityFailure { .. }), "{error}");
    manager.release(adopted.shard()).unwrap();
    fake.engine_free(ptr);
    assert_eq!(fake.get("unwiped"), 0);
    drop(manager);
    clean(&fake);
}

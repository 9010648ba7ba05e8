//! What holds for every input: a thousand random cases each.
// covers: ASR-2

mod engines;
mod history;
mod shards;
mod values;

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::*;

/// A thousand cases; what failed once is tried again first (`proptest-regressions/suite.txt`).
pub(crate) fn thousand() -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("proptest-regressions/suite.txt");
    ProptestConfig { cases: 1000, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

thread_local! {
    static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
}

/// Runs a case on a manager that the cases of one property share, which is a thread's: the known questions are asked once. Leaves
/// nothing behind.
fn on_rig(config: MockConfig, case: impl FnOnce(&Rig) -> Result<(), TestCaseError>) -> Result<(), TestCaseError> {
    RIG.with_borrow_mut(|kept| {
        // A case that fails leaves things behind: it is put back for the next case only when this one has passed.
        let lenient = OnIntegrityFailure::QuarantineShard;
        let rig = kept.take().unwrap_or_else(|| {
            Rig::with(config.poison(false), |b| b.on_integrity_failure(lenient).quarantine_limit(u64::MAX))
        });
        case(&rig)?;
        let stats = rig.config.stats();
        assert_eq!((rig.manager.used_vram(), stats.live_bytes, rig.manager.quarantined_vram()), (0, 0, 0));
        assert_eq!((rig.manager.adopted_vram(), stats.live_foreign, stats.live_events), (0, 0, 0));
        assert_eq!((stats.unwiped_bytes_freed, stats.unwiped_host_bytes_freed), (0, 0));
        assert_eq!(rig.manager.state(), ManagerState::Ready);
        *kept = Some(rig);
        Ok(())
    })
}

/// The calls that may fail without the device being lost for it; what cannot be given back is another matter.
fn call() -> impl Strategy<Value = MockCall> {
    prop::sample::select(vec![
        MockCall::Alloc,
        MockCall::CopyToDevice,
        MockCall::CopyToHost,
        MockCall::Digest,
        MockCall::MemoryInfo,
        MockCall::Residency,
        MockCall::Stream,
        MockCall::HostAlloc,
    ])
}

//! An owner's drop is foreign code that may call the manager: it gets an answer, and nobody waits for ever.

use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, Weak};
use std::time::Duration;

use vram_residency::{ExecuteOptions, MockConfig, RawRegion, SealedShard, VramError, VramManager, digest_bytes};

use crate::support::{self, Rig, name, noise, spec};

/// What the manager said to an owner that was just being dropped.
struct Said {
    own: VramError,
    verified: Result<(), VramError>,
    begun: Result<(), VramError>,
    drained: bool,
    /// Device memory of everybody when the drop began.
    live_bytes: u64,
}

/// An engine's value that calls the manager when it is dropped, here or on a thread that it waits for.
struct Caller {
    bytes: Vec<u8>,
    manager: Weak<VramManager>,
    config: MockConfig,
    other: SealedShard,
    elsewhere: bool,
    said: Mutex<Sender<Option<Said>>>,
}

impl Caller {
    fn call(&self) -> Option<Said> {
        let live_bytes = self.config.stats().live_bytes;
        let manager = self.manager.upgrade()?;
        Some(Said {
            live_bytes,
            own: manager.release_by_id(&name("engine")).unwrap_err(),
            verified: manager.verify_sealed(&self.other).map(drop),
            begun: manager.begin(&self.other, ExecuteOptions::default()).and_then(|run| run.finish()).map(drop),
            drained: manager.shutdown(Duration::MAX).drained,
        })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let said = if self.elsewhere {
            std::thread::scope(|scope| scope.spawn(|| self.call()).join().unwrap())
        } else {
            self.call()
        };
        self.said.lock().unwrap().send(said).unwrap();
    }
}

#[test]
fn an_owner_may_call_the_manager_from_its_drop() {
    // covers: RES-9 SCR-3
    for end in ["release", "release_by_id", "shutdown", "drop", "refused"] {
        for elsewhere in [false, true] {
            let rig = Rig::new();
            let (say, heard) = mpsc::channel();
            let owner = Caller {
                bytes: noise(5000, 1),
                manager: std::sync::Arc::downgrade(&rig.manager),
                config: rig.config.clone(),
                other: rig.seal("other", &noise(3000, 2)),
                elsewhere,
                said: Mutex::new(say),
            };
            let regions = [RawRegion::new(owner.bytes.as_ptr().expose_provenance() as u64, 5000)];
            let wrong = digest_bytes(rig.manager.tree_params(), b"other weights");
            let wrong = support::vouching::regions(rig.manager.tree_params(), &regions, wrong);
            let spec = if end == "refused" { spec("engine").expect(wrong) } else { spec("engine") };
            support::within(Duration::from_secs(60), || {
                // SAFETY: the bytes are the owner's, do not move with it, and nobody writes them.
                let adopted = unsafe { rig.manager.adopt(spec, owner, &regions) };
                let shard = adopted.map(|adopted| adopted.shard().clone()).map_err(|refused| refused.error);
                match (end, shard) {
                    ("refused", Err(VramError::DigestMismatch { .. })) => {}
                    ("release", Ok(shard)) => drop(rig.manager.release(&shard).unwrap()),
                    ("release_by_id", Ok(shard)) => drop(rig.manager.release_by_id(shard.id()).unwrap()),
                    ("shutdown", Ok(_)) => assert!(rig.manager.shutdown(Duration::MAX).drained),
                    ("drop", Ok(_)) => {}
                    (_, shard) => panic!("{end}: {shard:?}"),
                }
                rig.close_clean();
            });
            let said = heard.recv().unwrap();
            assert_eq!(said.is_none(), end == "drop", "the manager is gone only at its own end");
            let Some(said) = said else { continue };
            assert!(matches!(said.own, VramError::InvalidParams { field: "shard id", .. }), "{end}: {:?}", said.own);
            assert!(said.drained, "{end}");
            if end == "shutdown" {
                assert!(matches!(said.verified, Err(VramError::StaleHandle { .. })), "{:?}", said.verified);
                assert!(matches!(said.begun, Err(VramError::ManagerStopped { .. })), "{:?}", said.begun);
                assert_eq!(said.live_bytes, 0, "everything is wiped before any owner's code runs");
            } else {
                said.verified.and(said.begun).unwrap();
            }
        }
    }
}

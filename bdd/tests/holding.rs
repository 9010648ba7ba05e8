//! Executions that other threads hold open.

#![allow(unsafe_code, reason = "the suite does to the memory behind an address what no engine may")]

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use vram_residency::{ExecuteOptions, SealedShard, ShardId, VerifiedRegion, VerifyReport, VramError, VramManager};

/// Where an image lies on the device: its regions in order, of which the scenarios' shards have one.
pub(crate) fn place(regions: &[VerifiedRegion<'_>]) -> u64 {
    assert_eq!(regions.len(), 1, "an image of one region");
    // SAFETY: the address is used behind the library's back on purpose, and only while the shard is resident.
    unsafe { regions[0].device_ptr() }.as_u64()
}

/// An execution that another thread holds open.
#[derive(Debug)]
pub(crate) struct Held {
    end: mpsc::Sender<()>,
    thread: JoinHandle<Result<VerifyReport, VramError>>,
}

/// A batch of executions that another thread holds open, because its guards borrow the manager.
#[derive(Debug)]
pub(crate) struct Batch {
    end: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Result<VerifyReport, VramError>>>,
    /// Where the images of its shards lie.
    places: HashMap<ShardId, u64>,
}

impl Batch {
    /// Begins one, and gives what its checks found.
    pub(crate) fn begin(
        manager: &Arc<VramManager>,
        shards: Vec<SealedShard>,
        options: ExecuteOptions,
    ) -> Result<(Self, Vec<VerifyReport>), VramError> {
        let manager = Arc::clone(manager);
        let ((begun, has_begun), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let shards: Vec<&SealedShard> = shards.iter().collect();
            let guards = match manager.begin_all(&shards, options) {
                Ok(guards) => guards,
                Err(error) => {
                    begun.send(Err(error)).unwrap();
                    return Vec::new();
                }
            };
            let found: Vec<_> =
                guards.iter().map(|guard| (guard.verification().clone(), place(&guard.regions()))).collect();
            begun.send(Ok(found)).unwrap();
            let _ = ended.recv();
            guards.into_iter().map(|guard| guard.finish()).collect()
        });
        match has_begun.recv().expect("the batch's thread") {
            Ok(found) => {
                let places = found.iter().map(|(verified, at)| (verified.shard.clone(), *at)).collect();
                Ok((Self { end, thread, places }, found.into_iter().map(|(verified, _)| verified).collect()))
            }
            Err(error) => {
                thread.join().expect("the batch's thread"); // it lets go of the manager
                Err(error)
            }
        }
    }

    /// Where a shard's image lies, if it is one of the batch.
    pub(crate) fn place_of(&self, shard: &ShardId) -> Option<u64> {
        self.places.get(shard).copied()
    }

    pub(crate) fn finish(self) -> Vec<Result<VerifyReport, VramError>> {
        let _ = self.end.send(());
        self.thread.join().expect("the batch's thread")
    }
}

impl Held {
    /// Opens one and waits until it is open.
    pub(crate) fn begin(manager: &Arc<VramManager>, shard: &SealedShard) -> Self {
        let (manager, shard) = (Arc::clone(manager), shard.clone());
        let ((begun, has_begun), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let run = manager.begin(&shard, ExecuteOptions::default())?;
            begun.send(()).unwrap();
            let _ = ended.recv();
            run.finish()
        });
        has_begun.recv().expect("the execution began");
        Self { end, thread }
    }

    pub(crate) fn finish(self) -> Result<VerifyReport, VramError> {
        let _ = self.end.send(());
        self.thread.join().expect("the execution's thread")
    }
}

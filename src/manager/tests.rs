//! The main job, end to end, on the mock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::*;
use crate::audit::{Ack, AuditEvent, AuditRequirement, AuditSink, MemorySink};
use crate::digest::digest_bytes;
use crate::driver::mock::MockConfig;
use crate::error::{AuditError, StopReason};
use crate::id::{ShardId, WorkerId};
use crate::keys::WorkerSecret;
use crate::policy::Policy;
use crate::seal::SealMessage;
use crate::shards::is_signed;

pub(super) fn manager(config: &MockConfig, sink: &Arc<MemorySink>) -> VramManager {
    VramManager::builder(WorkerId::new("worker-1").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(config.clone()))
        .policy(Policy::development())
        .audit(Arc::clone(sink) as Arc<dyn crate::audit::AuditSink>)
        .build()
        .unwrap()
}

#[test]
fn a_shard_lives_its_whole_life() {
    // covers: SEAL-1 VER-1 SCR-1 AUD-1 RES-5
    let (config, sink) = (MockConfig::new().capacity_bytes(64 << 20), Arc::new(MemorySink::default()));
    let manager = manager(&config, &sink);
    let weights: Vec<u8> = (0..300_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let spec = ShardSpec::new(ShardId::new("model-a").unwrap());
    let shard = manager.seal_model(spec, ShardSource::bytes(&weights)).unwrap();
    assert_eq!(shard.digest(), digest_bytes(manager.tree_params(), &weights));
    let mut read = vec![0; weights.len()];
    manager.execute(&shard, |verified| verified.read_at(0, &mut read)).unwrap().unwrap();
    assert_eq!(read, weights);
    assert!(manager.used_vram() >= 300_001);
    manager.mock_controls().unwrap().flip_bit(&shard, 299_999, 3).unwrap();
    let mut ran = false;
    let error = manager.execute(&shard, |_| ran = true).unwrap_err();
    assert!(matches!(error, VramError::IntegrityFailure { .. }), "{error}");
    assert!(!ran);
    assert_eq!(manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
    let report = manager.release(&shard).unwrap();
    assert_eq!((manager.used_vram(), manager.quarantined_vram()), (0, 0));
    assert!(report.bytes >= 300_001);
    drop(manager);
    let names = sink.names();
    assert_eq!(
        names,
        [
            "manager_started",
            "vram_allocated",
            "vram_sealed",
            "seal_verified",
            "execute_started",
            "execute_finished",
            "seal_verification_failed",
            "shard_quarantined",
            "manager_stopped",
            "execute_refused",
            "vram_wiped",
            "vram_deallocated"
        ]
    );
    println!("{:?}", config.stats());
}

#[test]
fn an_authentic_seal_that_its_record_does_not_know_stops_the_manager() {
    // covers: VER-1
    let sink = Arc::new(MemorySink::default());
    let manager = manager(&MockConfig::new(), &sink);
    let shard = manager.seal_model(ShardSpec::new(ShardId::new("model-a").unwrap()), ShardSource::bytes(&[7; 100]));
    let shard = shard.unwrap();
    // The same slot and generation, signed with the manager's own key, but other words.
    let message = SealMessage { sealed_at: shard.message().sealed_at.wrapping_add(1), ..shard.message().clone() };
    let twin = SealedShard::sign(&manager.inner.key, message).unwrap();
    assert!(matches!(manager.release(&twin), Err(VramError::IntegrityFailure { .. })));
    assert!(matches!(manager.verify_sealed(&twin), Err(VramError::IntegrityFailure { .. })));
    assert_eq!(manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
    assert_eq!(sink.names().iter().filter(|name| **name == "shard_quarantined").count(), 1);
    manager.release(&shard).unwrap();
    assert_eq!((manager.used_vram(), manager.quarantined_vram()), (0, 0));
}

#[test]
fn a_table_counts_as_far_as_it_is_the_one_that_was_signed() {
    // covers: VER-8
    let manager = manager(&MockConfig::new().capacity_bytes(64 << 20), &Arc::default());
    let spec = ShardSpec::new(ShardId::new("a").unwrap());
    let shard = manager.seal_model(spec, ShardSource::bytes(&[7; 3 << 20])).unwrap();
    let record = manager.inner.admit(&shard).unwrap();
    let (params, message) = (manager.tree_params(), &record.message);
    assert!(is_signed(params, message, &record.sealed) && !is_signed(params, &message[1..], &record.sealed));
    for (entry, byte) in [(0, 0), (5, 31)] {
        let mut other = record.sealed.clone();
        other.table[entry][byte] ^= 1;
        assert!(!is_signed(params, message, &other));
        // Nor does another digest beside it help.
        other.digest = crate::digest::digest_from_table(params, other.image_bytes, &other.table).unwrap();
        assert!(!is_signed(params, message, &other));
    }
}

#[test]
fn a_change_that_is_found_while_a_shard_is_sealed_anew_is_not_lost() {
    // covers: VER-9 VER-5
    let (announced, reading) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let sink = Pauses(Arc::clone(&announced), Arc::clone(&reading), AtomicU64::new(0));
    let manager = VramManager::builder(WorkerId::new("worker-1").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(64 << 20)))
        .policy(Policy::development().require_audit(AuditRequirement::Accepted))
        .audit(Arc::new(sink))
        .build()
        .unwrap();
    let shard = manager.seal_model(ShardSpec::new(ShardId::new("a").unwrap()), ShardSource::bytes(&[7; 100])).unwrap();
    let record = manager.inner.shards.live().remove(0);
    std::thread::scope(|scope| {
        let renewing = scope.spawn(|| manager.reseal(&shard));
        announced.wait();
        let held = record.lock(); // as the patrol while it reads a part
        reading.wait();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(manager.inner.shards.live_count(), 1, "nobody else waits for the part");
        manager.inner.quarantine(&record, None);
        drop(held);
        assert!(matches!(renewing.join().unwrap(), Err(VramError::IntegrityFailure { .. })));
    });
    assert!(matches!(manager.begin(&shard, ExecuteOptions::default()), Err(VramError::ManagerStopped { .. })));
    manager.release(&shard).unwrap();
}

/// Waits for the first barrier at the second seal, and then for the second.
struct Pauses(Arc<Barrier>, Arc<Barrier>, AtomicU64);

impl AuditSink for Pauses {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        if event.kind.name() == "vram_sealed" && self.2.fetch_add(1, Ordering::SeqCst) == 1 {
            self.0.wait();
            self.1.wait();
        }
        Ok(Ack::Accepted)
    }
}

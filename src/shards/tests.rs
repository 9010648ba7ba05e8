//! The table by itself: records without memory.

use std::sync::OnceLock;

use super::*;
use crate::digest::layout::Layout;
use crate::digest::{TreeDigest, TreeParams};
use crate::memory::ImageMap;
use crate::sync::atomic::Ordering;
use crate::types::{DevicePtr, Digest};

fn id(text: &str) -> ShardId {
    ShardId::new(text).unwrap()
}

fn span(ptr: u64, bytes: u64) -> Span {
    Span { ptr: DevicePtr(ptr), bytes }
}

/// A record of 100 bytes at an address of the device.
fn record(name: &str, ptr: u64) -> Record {
    let params = TreeParams::default();
    Record {
        id: id(name),
        message: Vec::new(),
        sealed: TreeDigest { digest: Digest::from_bytes([0; 32]), table: Vec::new(), image_bytes: 100 },
        layout: Layout::of_regions(&params, &[100]).unwrap(),
        image: ImageMap::new(&params, &[span(ptr, 100)]).unwrap(),
        room: 256,
        resident: Mutex::new(None),
        weaker: 0.into(),
        ticks: 0.into(),
        sealed_at: Instant::now(),
        max_age: None,
        failure: OnceLock::new(),
    }
}

/// Publishes a shard; its slot and generation.
fn live(shards: &Arc<ShardTable>, name: &str, ptr: u64) -> (u32, u64) {
    let claim = shards.claim(&id(name), Vec::new()).unwrap();
    let place = (claim.slot(), claim.generation());
    claim.publish(record(name, ptr)).unwrap();
    place
}

#[test]
fn a_name_is_taken_from_the_claim_to_the_end() {
    let shards = Arc::new(ShardTable::default());
    let claim = shards.claim(&id("a"), Vec::new()).unwrap();
    assert_eq!((claim.slot(), claim.generation()), (0, 1));
    assert!(shards.claim(&id("a"), Vec::new()).is_err());
    assert_eq!((shards.find(&id("a")), shards.live_count()), (None, 0), "claimed, not live");
    assert_eq!(shards.pin(0, 1).unwrap_err(), Absent::Stale);
    drop(claim);
    let claim = shards.claim(&id("a"), Vec::new()).unwrap();
    assert_eq!((claim.slot(), claim.generation()), (0, 2), "the slot again, the generation never");
    claim.publish(record("a", 4096)).unwrap();
    assert_eq!((shards.find(&id("a")), shards.live_count()), (Some((0, 2)), 1));
    assert!(shards.claim(&id("a"), Vec::new()).is_err());
    assert_eq!(live(&shards, "b", 8192), (1, 3));
    assert_eq!(live(&shards, "c", 12_288), (2, 4));
    assert_eq!((shards.find(&id("c")), shards.find(&id("d")), shards.live_count()), (Some((2, 4)), None, 3));
    assert_eq!(shards.remove(1, 3).unwrap().id, id("b"));
    assert_eq!((shards.find(&id("b")), shards.live_count()), (None, 2));
    assert_eq!(live(&shards, "d", 8192), (1, 5));
    assert_eq!(shards.next_generation().unwrap(), 6);
    assert_eq!(live(&shards, "e", 16_384), (3, 7));
}

#[test]
fn another_generation_is_stale_or_was_never_given_out() {
    // covers: SEAL-4
    let shards = Arc::new(ShardTable::default());
    let first = live(&shards, "a", 4096);
    shards.remove(first.0, first.1).unwrap();
    let (slot, generation) = live(&shards, "a", 4096);
    assert_eq!((slot, generation), (0, 2));
    for (asked, absent) in [(1, Absent::Stale), (3, Absent::Unknown)] {
        assert_eq!(shards.pin(slot, asked).unwrap_err(), absent);
        assert_eq!(shards.peek(slot, asked).unwrap_err(), absent);
        assert_eq!(shards.remove(slot, asked).unwrap_err(), absent);
        assert_eq!(shards.renew(slot, asked, 9, || Some(record("a", 4096))).unwrap_err(), absent);
    }
    assert_eq!(shards.pin(1, 1).unwrap_err(), Absent::Unknown);
    assert_eq!(shards.peek(slot, generation).unwrap().id, id("a"));
    assert_eq!(shards.pin(slot, generation).unwrap().id, id("a"));
}

#[test]
fn what_is_pinned_is_neither_removed_nor_renewed() {
    // covers: VER-3
    let shards = Arc::new(ShardTable::default());
    live(&shards, "other", 4096);
    let (slot, generation) = live(&shards, "a", 8192);
    let one = shards.pin(slot, generation).unwrap();
    assert_eq!((one.slot(), shards.is_shared(&one)), (1, false));
    let two = shards.pin(slot, generation).unwrap();
    assert!(shards.is_shared(&one) && shards.is_shared(&two));
    let renew = |next| shards.renew(slot, generation, next, || Some(record("a", 8192)));
    let soon = || Instant::now().checked_add(Duration::from_millis(5));
    for _ in 0..2 {
        assert_eq!(shards.remove(slot, generation).unwrap_err(), Absent::Busy);
        assert_eq!(renew(9).unwrap_err(), Absent::Busy);
        assert!(!shards.wait_idle(soon()));
    }
    drop(two);
    assert!(!shards.is_shared(&one));
    assert_eq!(renew(9).unwrap_err(), Absent::Busy);
    drop(one);
    assert!(shards.wait_idle(soon()) && shards.wait_idle(None));
    renew(9).unwrap();
    assert_eq!(shards.find(&id("a")), Some((slot, 9)));
    assert_eq!(shards.remove(slot, generation).unwrap_err(), Absent::Stale);
    shards.peek(slot, 9).unwrap().failure.set(None).unwrap();
    assert_eq!(shards.renew(slot, 9, 10, || Some(record("a", 8192))).unwrap_err(), Absent::Failed);
    let all = shards.pin_all();
    assert_eq!(
        all.iter().map(|pinned| (pinned.slot(), pinned.id.clone())).collect::<Vec<_>>(),
        [(0, id("other")), (1, id("a"))]
    );
    assert_eq!(shards.remove(slot, 9).unwrap_err(), Absent::Busy);
    drop(all);
    shards.remove(slot, 9).unwrap();
}

#[test]
fn memory_belongs_to_one_shard() {
    // covers: RES-9
    let shards = Arc::new(ShardTable::default());
    let (slot, generation) = live(&shards, "owned", 4096);
    assert!(shards.claim(&id("b"), vec![span(4195, 1)]).is_err(), "the last byte of a live image");
    let claim = shards.claim(&id("b"), vec![span(4196, 10), span(9000, 10)]).unwrap();
    assert!(shards.claim(&id("c"), vec![span(9009, 1)]).is_err(), "claimed, not live");
    drop(claim);
    let claim = shards.claim(&id("c"), vec![span(9009, 1)]).unwrap();
    claim.publish(record("c", 9009)).unwrap();
    let (third, fourth) = shards.find(&id("c")).unwrap();
    assert!(shards.claim(&id("d"), vec![span(9000, 10)]).is_err());
    shards.remove(third, fourth).unwrap();
    shards.remove(slot, generation).unwrap();
    drop(shards.claim(&id("d"), vec![span(9000, 10), span(4096, 100)]).unwrap());
}

#[test]
fn a_closed_table_publishes_nothing_and_keeps_what_is_pinned() {
    let shards = Arc::new(ShardTable::default());
    let (slot, generation) = live(&shards, "busy", 4096);
    live(&shards, "idle", 8192);
    let pinned = shards.pin(slot, generation).unwrap();
    let late = shards.claim(&id("late"), Vec::new()).unwrap();
    let (idle, busy_bytes) = shards.close();
    assert_eq!(idle.iter().map(|record| record.id.clone()).collect::<Vec<_>>(), [id("idle")]);
    assert_eq!((busy_bytes, shards.live_count()), (256, 1));
    assert_eq!((shards.find(&id("idle")), shards.find(&id("busy"))), (None, Some((slot, generation))));
    assert_eq!(late.publish(record("late", 12_288)).unwrap_err().id, id("late"));
    assert_eq!((shards.find(&id("late")), shards.live_count()), (None, 1));
    assert_eq!(shards.drain().iter().map(|record| record.id.clone()).collect::<Vec<_>>(), [id("busy")]);
    assert_eq!((shards.find(&id("busy")), shards.live_count()), (None, 0));
    drop(pinned);
}

#[test]
fn ticks_rise_and_an_age_runs_out() {
    // covers: VER-1 SEAL-7
    let mut record = record("a", 4096);
    assert_eq!((record.tick(), record.tick(), record.tick()), (1, 2, 3));
    assert_eq!(record.ticks.load(Ordering::SeqCst), 3);
    assert!(!record.is_expired(), "it has no age");
    record.max_age = Some(Duration::from_secs(3600));
    assert!(!record.is_expired());
    record.max_age = Some(Duration::ZERO);
    std::thread::sleep(Duration::from_millis(1));
    assert!(record.is_expired());
    assert!(record.lock().is_none());
}

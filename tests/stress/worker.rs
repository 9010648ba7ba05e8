//! What one thread does, step by step, and gives back at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vram_residency::{
    ErrorCode, ExecuteOptions, Execution, Fault, ManagerState, MockCall, MockStream, OwnedExecution, Purpose, Scratch,
    SealedShard, ShardSource, VramError, VramManager,
};

use crate::support::{Arena, Dice, Drops, adopt, spec};
use crate::{Field, assert_error};

/// A shard that only its thread seals, releases and changes.
struct Own {
    shard: SealedShard,
    byte: u8,
    drops: Option<Drops>,
    changed: bool,
    /// The engine may still write the sealed byte over it, and so undo a change.
    worked: bool,
}

/// One thread's belongings.
pub(crate) struct Worker<'a> {
    field: &'a Field,
    dice: Dice,
    id: u64,
    shards: Vec<Own>,
    guards: Vec<Execution<'a>>,
    owned: Vec<OwnedExecution>,
    scratch: Vec<Scratch>,
    stream: &'a MockStream<'a>,
    number: u64,
}

pub(crate) fn stopped(manager: &VramManager) -> bool {
    matches!(manager.state(), ManagerState::Stopped(_))
}

/// Errors of these kinds never come, whatever the threads do.
fn judge(error: &VramError) {
    assert!(!matches!(error.code(), ErrorCode::Internal | ErrorCode::ConfigError), "{error:?}");
}

impl<'a> Worker<'a> {
    pub(crate) fn new(field: &'a Field, stream: &'a MockStream<'a>, id: u64, seed: u64) -> Self {
        Self {
            field,
            dice: Dice::new(seed.wrapping_mul(1000) + id),
            id,
            shards: Vec::new(),
            guards: Vec::new(),
            owned: Vec::new(),
            scratch: Vec::new(),
            stream,
            number: 0,
        }
    }

    fn manager(&self) -> &VramManager {
        &self.field.manager
    }

    fn options(&mut self) -> ExecuteOptions {
        let options = ExecuteOptions::default()
            .verify_after(self.dice.below(3) == 0)
            .max_hold(Duration::from_micros(self.dice.below(2000)));
        // SAFETY: the stream is of this manager's device and outlives every guard.
        if self.dice.below(3) == 0 { unsafe { options.on_stream(self.stream.raw()) } } else { options }
    }

    fn any_shard(&mut self) -> Option<SealedShard> {
        if self.dice.below(2) == 0 {
            let at = self.dice.below(self.field.common.len() as u64) as usize;
            return Some(self.field.common[at].lock().unwrap().clone());
        }
        let at = self.dice.below(self.shards.len().max(1) as u64) as usize;
        self.shards.get(at).map(|own| own.shard.clone())
    }

    fn name(&mut self) -> String {
        self.number += 1;
        format!("t{}.{}", self.id, self.number % 6)
    }

    fn seal(&mut self) {
        let (byte, bytes) = (self.dice.next() as u8, 1 + self.dice.below(6000) as usize);
        let name = self.name();
        match self.manager().seal_model(spec(&name), ShardSource::bytes(&vec![byte; bytes])) {
            Ok(shard) => self.shards.push(Own { shard, byte, drops: None, changed: false, worked: false }),
            Err(error) => judge(&error),
        }
    }

    fn adopt(&mut self) {
        let arena = Arc::new(Arena::new(4000, self.dice.next()));
        let (byte, cut) = (arena.get(0), 1 + self.dice.below(3000) as usize);
        let regions = [arena.region(0, cut), arena.region(cut + 1, 4000 - cut - 1)];
        let (before, wipe) = (arena.bytes(), self.dice.below(2) == 0);
        let name = self.name();
        let (adopted, drops) = adopt(self.manager(), spec(&name).wipe_adopted(wipe), &arena, &regions);
        match adopted {
            Ok(adopted) => {
                let shard = adopted.shard().clone();
                self.shards.push(Own { shard, byte, drops: Some(drops), changed: false, worked: false });
            }
            Err(refused) => {
                judge(&refused.error);
                assert_eq!(
                    (drops.count(), arena.bytes() == before),
                    (0, true),
                    "the engine's memory came back changed"
                );
            }
        }
    }

    fn read(&self, read: Result<(), VramError>, found: u8, own: Option<u8>) {
        match read {
            Ok(()) => assert!(own.is_none_or(|byte| byte == found), "verified bytes are not the sealed ones"),
            Err(error) => judge(&error),
        }
        self.field.results.fetch_add(1, Ordering::Relaxed);
    }

    fn own_byte(&self, shard: &SealedShard) -> Option<u8> {
        self.shards.iter().find(|own| own.shard.to_bytes() == shard.to_bytes()).map(|own| own.byte)
    }

    fn begin(&mut self) {
        let (Some(shard), options) = (self.any_shard(), self.options()) else { return };
        let (was_stopped, expected) = (stopped(self.manager()), self.own_byte(&shard));
        let mut byte = [0];
        let outcome = if self.dice.below(3) == 0 {
            self.field.manager.begin_owned(&shard, options).map(|guard| {
                let read = guard.read_at(0, &mut byte);
                self.owned.push(guard);
                read
            })
        } else {
            let field = self.field;
            field.manager.begin(&shard, options).map(|guard| {
                let read = guard.read_at(0, &mut byte);
                self.guards.push(guard);
                read
            })
        };
        match outcome {
            Ok(read) => {
                assert!(!was_stopped, "work began after the manager stopped");
                self.read(read, byte[0], expected);
            }
            Err(error) => judge(&error),
        }
    }

    fn begin_all(&mut self) {
        let options = self.options();
        let shards: Vec<SealedShard> = (0..1 + self.dice.below(4)).filter_map(|_| self.any_shard()).collect();
        let was_stopped = stopped(self.manager());
        let field = self.field;
        match field.manager.begin_all(&shards.iter().collect::<Vec<_>>(), options) {
            Ok(guards) => {
                assert!(!was_stopped || shards.is_empty(), "work began after the manager stopped");
                assert_eq!(guards.len(), shards.len());
                self.guards.extend(guards);
            }
            Err(error) => judge(&error),
        }
    }

    fn end_a_guard(&mut self) {
        let was_stopped = stopped(self.manager());
        let finish = self.dice.below(3) > 0;
        let finished = if self.dice.below(2) == 0 && !self.owned.is_empty() {
            let at = self.dice.below(self.owned.len() as u64) as usize;
            let guard = self.owned.swap_remove(at);
            finish.then(|| guard.finish())
        } else if self.guards.is_empty() {
            None
        } else {
            let at = self.dice.below(self.guards.len() as u64) as usize;
            let guard = self.guards.swap_remove(at);
            finish.then(|| guard.finish())
        };
        match finished {
            Some(Ok(_)) => assert!(!was_stopped, "a result was given after the manager stopped"),
            Some(Err(error)) => judge(&error),
            None => {}
        }
    }

    fn execute(&mut self) {
        let Some(shard) = self.any_shard() else { return };
        let (was_stopped, expected) = (stopped(self.manager()), self.own_byte(&shard));
        let mut byte = [0];
        match self.manager().execute(&shard, |verified| verified.read_at(0, &mut byte)) {
            Ok(read) => {
                assert!(!was_stopped, "a result was given after the manager stopped");
                self.read(read, byte[0], expected);
            }
            Err(error) => judge(&error),
        }
    }

    fn reseal(&mut self) {
        if self.dice.below(2) == 0 {
            let at = self.dice.below(self.field.common.len() as u64) as usize;
            let mut common = self.field.common[at].lock().unwrap();
            match self.manager().reseal(&common) {
                Ok(renewed) => *common = renewed,
                Err(error) => judge(&error),
            }
        } else if !self.shards.is_empty() {
            let at = self.dice.below(self.shards.len() as u64) as usize;
            match self.field.manager.reseal(&self.shards[at].shard) {
                Ok(renewed) => {
                    assert!(!self.shards[at].changed, "changed bytes were sealed anew");
                    self.shards[at].shard = renewed;
                }
                Err(error) => judge(&error),
            }
        }
    }

    /// Releases a shard of this thread's; `true` once it is gone.
    fn release(&mut self, at: usize) -> bool {
        let own = &self.shards[at];
        let released = if self.dice.below(3) == 0 {
            self.field.manager.release_by_id(own.shard.id())
        } else {
            self.field.manager.release(&own.shard)
        };
        match released {
            Err(VramError::ShardBusy { .. }) => return false,
            Ok(_) => {
                if let Some(drops) = &own.drops {
                    assert_eq!(drops.count(), 1, "the engine's memory was not given up");
                }
            }
            Err(VramError::WipeFailed { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        let gone = self.shards.swap_remove(at);
        let stale = self.manager().verify_sealed(&gone.shard);
        assert_error!(stale, VramError::StaleHandle { .. });
        true
    }

    fn change(&mut self) {
        if self.shards.is_empty() || !self.field.deadly.load(Ordering::SeqCst) {
            return;
        }
        let at = self.dice.below(self.shards.len() as u64) as usize;
        if self.shards[at].changed || self.shards[at].worked {
            return;
        }
        let shard = self.shards[at].shard.clone();
        self.manager().mock_controls().unwrap().flip_bit(&shard, 0, 1).unwrap();
        self.shards[at].changed = true;
        match self.manager().verify_sealed(&shard) {
            Ok(_) => panic!("a change was not found"),
            Err(error) => judge(&error),
        }
    }

    fn engine_work(&mut self) {
        let Some(own) = self.shards.last_mut().filter(|own| !own.changed) else { return };
        own.worked = true;
        // The first byte of a shard, written as it is: work that changes nothing.
        if let Err(error) = self.stream.enqueue_write(&own.shard, 0, 1, own.byte) {
            judge(&error);
        }
    }

    fn scratch(&mut self) {
        if self.scratch.len() > 2 {
            let at = self.dice.below(self.scratch.len() as u64) as usize;
            let scratch = self.scratch.swap_remove(at);
            if let Err(error) = scratch.release() {
                judge(&error);
            }
            return;
        }
        let bytes = 1 + self.dice.below(5000);
        match self.manager().allocate_scratch(Purpose::KvCache, bytes) {
            Ok(mut scratch) => {
                if self.dice.below(2) == 0 && self.stream.enqueue_scratch_write(&scratch, scratch.byte_len(), 9).is_ok()
                {
                    // SAFETY: the stream is of this device and outlives the scratch.
                    unsafe { scratch.used_on(self.stream.raw()) };
                }
                self.scratch.push(scratch);
            }
            Err(error) => judge(&error),
        }
    }

    fn look(&mut self) {
        let manager = self.manager();
        let (used, available) = (manager.used_vram(), manager.available_vram());
        assert!(used <= manager.total_vram() && available <= manager.total_vram());
        assert!(manager.quarantined_vram() <= manager.total_vram());
        if let Err(error) = manager.memory_info() {
            judge(&error);
        }
        if self.dice.below(4) == 0
            && let Err(error) = self.manager().enforce_vram_only_policy()
        {
            judge(&error);
        }
        if let Some(shard) = self.any_shard() {
            for outcome in
                [self.manager().verify_sealed(&shard).map(drop), self.manager().compute_vram_digest(&shard).map(drop)]
            {
                if let Err(error) = outcome {
                    judge(&error);
                }
            }
        }
    }

    fn fault(&mut self) {
        const CALLS: [MockCall; 11] = [
            MockCall::Alloc,
            MockCall::CopyToDevice,
            MockCall::CopyToHost,
            MockCall::Fill,
            MockCall::Digest,
            MockCall::CountNonzero,
            MockCall::Synchronize,
            MockCall::MemoryInfo,
            MockCall::Residency,
            MockCall::Event,
            MockCall::HostAlloc,
        ];
        let call = CALLS[self.dice.below(CALLS.len() as u64) as usize];
        let order = Fault::call(call).nth(1 + self.dice.below(20)).times(1 + self.dice.below(2));
        self.field.config.fail(order).unwrap();
    }

    pub(crate) fn step(&mut self) {
        match self.dice.below(40) {
            0..=4 => self.seal(),
            5..=7 => self.adopt(),
            8..=13 => self.begin(),
            14..=15 => self.begin_all(),
            16..=21 => self.end_a_guard(),
            22..=24 => self.execute(),
            25..=26 => self.reseal(),
            27..=30 if !self.shards.is_empty() => {
                let at = self.dice.below(self.shards.len() as u64) as usize;
                self.release(at);
            }
            31..=32 => self.change(),
            33..=34 => self.engine_work(),
            35..=37 => self.scratch(),
            38 => self.look(),
            39 if self.dice.below(4) == 0 => self.fault(),
            _ => {}
        }
        if self.guards.len() + self.owned.len() > 3 {
            self.end_a_guard();
        }
        self.field.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives everything back.
    pub(crate) fn leave(mut self) {
        self.guards.clear();
        self.owned.clear();
        self.scratch.clear();
        for _ in 0..1_000_000 {
            let Some(last) = self.shards.len().checked_sub(1) else { return };
            if !self.release(last) {
                std::thread::yield_now();
            }
        }
        panic!("{} shards are pinned for ever", self.shards.len());
    }
}

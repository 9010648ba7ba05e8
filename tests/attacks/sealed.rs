//! A manager with sealed weights, and what must be true of it before and after an attack.

use std::sync::Arc;

use vram_residency::{
    EventKind, ManagerState, MemorySink, Policy, SealedShard, Severity, ShardId, ShardSource, ShardSpec, StopReason,
    VramManager, WorkerId, WorkerSecret,
};
use vram_residency_rig::{Alias, Machine};

use crate::run::{Answers, CAPACITY};

/// Two shards of one length under seal.
pub struct Sealed {
    pub manager: VramManager,
    pub shard: SealedShard,
    pub other: SealedShard,
    pub events: Arc<MemorySink>,
    pub machine: Machine,
    pub bytes: Vec<u8>,
}

/// Bytes that look like weights.
pub fn weights(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..300_000).map(|_| byte()).collect()
}

pub fn manager(machine: &Machine, events: &Arc<MemorySink>) -> VramManager {
    VramManager::builder(WorkerId::new("attacked").unwrap(), WorkerSecret::random().unwrap())
        .device(machine.selector())
        .policy(Policy::development())
        .headroom(0)
        .audit(Arc::clone(events) as _)
        .build()
        .unwrap()
}

pub fn seal(manager: &VramManager, name: &str, bytes: &[u8]) -> SealedShard {
    manager.seal_model(ShardSpec::new(ShardId::new(name).unwrap()), ShardSource::bytes(bytes)).unwrap()
}

impl Sealed {
    pub fn new() -> Self {
        let machine = Machine::from_env(CAPACITY);
        let events = Arc::new(MemorySink::default());
        let manager = manager(&machine, &events);
        let bytes = weights(1);
        let shard = seal(&manager, "attacked", &bytes);
        let other = seal(&manager, "other", &weights(2));
        let sealed = Self { manager, shard, other, events, machine, bytes };
        sealed.runs();
        sealed
    }

    /// A second mapping of the shard, and where its first byte is there.
    pub fn alias(&self) -> (Alias, u64) {
        let address = self.address(&self.shard);
        let alias = self.machine.raw.alias(address).unwrap();
        let there = alias.of(address);
        (alias, there)
    }

    pub fn address(&self, shard: &SealedShard) -> u64 {
        // SAFETY: the address is used behind the library's back on purpose.
        self.manager.execute(shard, |weights| unsafe { weights.regions()[0].device_ptr() }.as_u64()).unwrap()
    }

    /// The twin: without an attack both shards execute.
    pub fn runs(&self) {
        for shard in [&self.shard, &self.other, &self.shard] {
            let mut ran = false;
            self.manager.execute(shard, |_| ran = true).unwrap();
            assert!(ran);
        }
        assert_eq!(self.manager.state(), ManagerState::Ready);
    }

    /// What lies there now.
    pub fn now(&self, address: u64) -> Vec<u8> {
        self.machine.peek(&self.manager, address, self.bytes.len())
    }

    /// Overwrites memory past every protection.
    pub fn overwrite(&self, address: u64, with: &[u8]) {
        let alias = self.machine.raw.alias(address).unwrap();
        self.machine.raw.write(alias.of(address), with);
        assert_eq!(self.machine.peek(&self.manager, address, with.len()), with, "the attack did not happen");
    }

    /// The bytes were changed: the next execute is refused, loudly, and nothing executes any more.
    pub fn refuses(&self, answers: &Answers) {
        let error = self.manager.execute(&self.shard, |_| panic!("changed weights were executed")).unwrap_err();
        assert_eq!(error.code().as_str(), "SEAL_VERIFICATION_FAILED", "{error}");
        answers.note("error", error.to_string());
        self.stopped(StopReason::IntegrityFailure);
        let mut names = Vec::new();
        for event in self.events.events() {
            if event.kind.severity() == Severity::Critical {
                names.push(event.kind.name());
            }
        }
        for wanted in ["seal_verification_failed", "shard_quarantined", "manager_stopped"] {
            assert!(names.contains(&wanted), "no critical event {wanted}: {names:?}");
        }
    }

    /// The manager stopped for this reason, and nothing was executed after the first sign of it.
    fn stopped(&self, reason: StopReason) {
        assert_eq!(self.manager.state(), ManagerState::Stopped(reason));
        self.executes_nothing();
    }

    pub fn executes_nothing(&self) {
        for shard in [&self.shard, &self.other] {
            assert!(self.manager.execute(shard, |_| panic!("it ran after the attack")).is_err());
        }
        let events = self.events.events();
        let first = events.iter().position(|event| event.kind.severity() == Severity::Critical);
        let started = |event: &&vram_residency::AuditEvent| matches!(event.kind, EventKind::ExecuteStarted { .. });
        assert_eq!(events.iter().skip(first.expect("a critical event")).filter(started).count(), 0);
    }

    /// After a write that the device may have refused or answered with a fault: changed bytes are refused, unchanged ones run.
    pub fn refuses_what_changed(&self, address: u64, answers: &Answers, fault: Option<String>) {
        if let Some(fault) = fault {
            answers.note("device", format!("fault: {fault}"));
            let error = self.manager.execute(&self.shard, |_| panic!("it ran on a dead context")).unwrap_err();
            answers.note("error", error.to_string());
            answers.note("state", self.manager.state().to_string());
            assert!(matches!(self.manager.state(), ManagerState::Stopped(_)), "{}", self.manager.state());
            self.executes_nothing();
        } else if self.now(address) == self.bytes {
            answers.note("device", "refused the write: nothing changed");
            self.runs();
        } else {
            answers.note("device", "let the write happen");
            self.refuses(answers);
        }
    }
}

//! What a scenario holds: a device, managers on it, weights, seals, and how the last call ended.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;

use vram_residency::{
    AuditSink, Digest, ManagerState, MemorySink, OwnedExecution, Scratch, SealedShard, ShardSource, ShardSpec,
    ShutdownReport, VerifiedRegion, VramError, VramManager, WorkerSecret, digest_bytes,
};
use vram_residency_harness::Machine;

use crate::device::{Device, first};
use crate::engine::{Engine, address};
use crate::setup::{BYTES, Setup, noise};
use crate::shell::Shell;

/// A second manager, with its device as an attacker there sees it.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) machine: Machine,
    pub(crate) manager: Arc<VramManager>,
}

#[derive(Debug, Default, cucumber::World)]
pub(crate) struct World {
    pub(crate) device: Option<Device>,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) manager: Option<Arc<VramManager>>,
    pub(crate) second: Option<Second>,
    /// Weights that are not the usual ones of their name.
    pub(crate) weights: HashMap<String, Vec<u8>>,
    pub(crate) seals: HashMap<String, SealedShard>,
    /// Names of the seals that the second manager made.
    pub(crate) elsewhere: HashSet<String>,
    pub(crate) executions: Vec<OwnedExecution>,
    pub(crate) scratch: Option<Scratch>,
    pub(crate) engines: HashMap<String, Engine>,
    pub(crate) ending: Option<JoinHandle<ShutdownReport>>,
    pub(crate) report: Option<ShutdownReport>,
    pub(crate) folder: Option<tempfile::TempDir>,
    pub(crate) secret: Option<WorkerSecret>,
    /// The bytes of the secret that the scenario chose.
    pub(crate) secret_bytes: Vec<u8>,
    /// What every error so far said, to people and to developers.
    pub(crate) said: Vec<String>,
    pub(crate) shell: Shell,
    /// How the last call ended.
    pub(crate) outcome: Option<Result<(), VramError>>,
    /// Whether a step looked at that, if it failed.
    seen: Cell<bool>,
    /// How the threads of the last call ended.
    pub(crate) outcomes: Vec<Result<(), VramError>>,
    pub(crate) ran: bool,
    pub(crate) read: Vec<u8>,
    pub(crate) digest: Option<Digest>,
    pub(crate) used_before: u64,
    pub(crate) mark: usize,
    /// Where images lie, as far as somebody asked.
    pub(crate) places: HashMap<String, u64>,
    pub(crate) sink_fails: bool,
    /// On a dead device nothing can be wiped or destroyed any more.
    pub(crate) dead: bool,
}

/// Where an image lies on the device: its regions in order, of which the scenarios' shards have one.
pub(crate) fn place(regions: &[VerifiedRegion<'_>]) -> u64 {
    assert_eq!(regions.len(), 1, "an image of one region");
    address(&regions[0])
}

impl World {
    /// Makes the scenario's manager, or gives the error.
    pub(crate) fn try_build(&mut self, setup: Setup) -> Result<(), VramError> {
        let device = Device::new(setup.units);
        self.sink = Arc::new(if setup.durable_sink { MemorySink::claiming_durable() } else { MemorySink::default() });
        let selector = device.machine.selector_of(first() + setup.ordinal);
        let unit = device.unit;
        self.device = Some(device);
        let sink: Arc<dyn AuditSink> = self.sink.clone();
        self.manager = Some(Arc::new(setup.build(selector, unit, Some(sink))?));
        Ok(())
    }

    pub(crate) fn build(&mut self, setup: Setup) {
        self.try_build(setup).unwrap();
        assert_eq!(self.manager().state(), ManagerState::Ready);
        assert_eq!(self.sink.names(), ["manager_started"]);
    }

    pub(crate) fn manager(&self) -> &Arc<VramManager> {
        self.manager.as_ref().expect("the scenario has a manager")
    }

    pub(crate) fn second(&self) -> &Arc<VramManager> {
        self.second.as_ref().map(|second| &second.manager).expect("the scenario has a second manager")
    }

    /// The second manager where words behind a step say so, else the first.
    pub(crate) fn on(&self, second: &str) -> &Arc<VramManager> {
        if second.is_empty() { self.manager() } else { self.second() }
    }

    /// The manager that made the seal.
    pub(crate) fn holder(&self, name: &str) -> &Arc<VramManager> {
        if self.elsewhere.contains(name) { self.second() } else { self.manager() }
    }

    pub(crate) fn device(&self) -> &Device {
        self.device.as_ref().expect("the scenario has a device")
    }

    pub(crate) fn engine(&mut self, name: &str) -> &mut Engine {
        self.engines.get_mut(name).unwrap_or_else(|| panic!("the scenario has an engine {name:?}"))
    }

    /// Where the image of a shard lies. It takes an execution to learn that, unless one is under way.
    pub(crate) fn place_of(&mut self, name: &str) -> u64 {
        if let Some(known) = self.places.get(name) {
            return *known;
        }
        let (seal, manager) = (self.seal_of(name), self.holder(name));
        let open = self.executions.iter().find(|execution| &execution.verification().shard == seal.id());
        let found = open.map(|execution| place(&execution.regions())).unwrap_or_else(|| {
            // Whoever attacks does not depend on the trail.
            self.sink.failing(false);
            let found = manager.execute(seal, |verified| place(&verified.regions())).expect("the shard is as it was");
            self.sink.failing(self.sink_fails);
            found
        });
        self.places.insert(name.to_owned(), found);
        found
    }

    /// The machine that holds a shard, as an attacker there sees it.
    pub(crate) fn machine_of(&self, name: &str) -> &Machine {
        match &self.second {
            Some(second) if self.elsewhere.contains(name) => &second.machine,
            _ => &self.device().machine,
        }
    }

    pub(crate) fn weights(&self, name: &str) -> Vec<u8> {
        self.weights.get(name).cloned().unwrap_or_else(|| noise(BYTES, name))
    }

    pub(crate) fn seal_of(&self, name: &str) -> &SealedShard {
        self.seals.get(name).unwrap_or_else(|| panic!("the scenario has a seal {name:?}"))
    }

    /// The digest of named weights under the manager's tree.
    pub(crate) fn digest_of(&self, weights: &str) -> Digest {
        digest_bytes(self.manager().tree_params(), &self.weights(weights))
    }

    #[track_caller]
    fn assert_seen(&self) {
        let unseen = matches!(self.outcome, Some(Err(_))) && !self.seen.get();
        assert!(!unseen, "an earlier step failed unseen: {:?}", self.outcome);
    }

    /// Marks the trail and the ledger, so that later steps can say what this step changed.
    #[track_caller]
    pub(crate) fn before_call(&mut self) {
        self.assert_seen();
        self.outcome = None;
        self.mark = self.sink.names().len();
        self.used_before = self.manager.as_ref().map_or(0, |manager| manager.used_vram());
        self.ran = false;
    }

    /// Keeps how a call ended.
    pub(crate) fn note<T>(&mut self, outcome: Result<T, VramError>) -> Option<T> {
        self.seen.set(false);
        if let Err(error) = &outcome {
            self.said.push(format!("{error} {error:?}"));
        }
        let (value, outcome) = match outcome {
            Ok(value) => (Some(value), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.outcome = Some(outcome);
        value
    }

    /// Seals named weights from a source, by the manager that `second` says.
    pub(crate) fn seal_from(&mut self, spec: ShardSpec, source: ShardSource<'_>, name: &str, second: &str) {
        self.before_call();
        let sealed = self.on(second).seal_model(spec, source);
        if let Some(seal) = self.note(sealed) {
            assert_eq!(seal.digest(), self.digest_of(name));
            self.places.remove(name);
            self.seals.insert(name.to_owned(), seal);
            if !second.is_empty() {
                self.elsewhere.insert(name.to_owned());
            }
        }
    }

    pub(crate) fn seal(&mut self, name: &str, spec: ShardSpec, second: &str) {
        let weights = self.weights(name);
        self.seal_from(spec, ShardSource::bytes(&weights), name, second);
    }

    /// The error of the last call, which must have failed.
    #[track_caller]
    pub(crate) fn error(&self) -> &VramError {
        self.seen.set(true);
        match &self.outcome {
            Some(Err(error)) => error,
            other => panic!("the last call did not fail: {other:?}"),
        }
    }

    /// Names of the events since the last call began.
    pub(crate) fn new_events(&self) -> Vec<&'static str> {
        self.sink.names().split_off(self.mark)
    }

    /// The ledgers against the driver's count: exactly what they say.
    #[track_caller]
    pub(crate) fn assert_recount(&self) {
        let Some(device) = &self.device else { return };
        let own = self.manager.as_ref().map_or(0, |manager| manager.used_vram());
        let Some(live) = device.live_bytes() else {
            return device.assert_taken(own);
        };
        let used = own + self.second.as_ref().map_or(0, |second| second.manager.used_vram());
        assert_eq!(live, used, "live bytes, and what the ledger says");
    }

    /// What holds after every scenario: an exact ledger, a trail without gaps, and nothing unwiped when the manager is gone.
    pub(crate) fn assert_invariants(&mut self, scenario: &str) {
        self.assert_seen();
        self.executions.drain(..).for_each(|execution| drop(execution.finish()));
        self.scratch = None;
        if let Some(ending) = self.ending.take() {
            ending.join().expect("the shutdown's thread");
        }
        self.sink.failing(false);
        self.assert_recount();
        let whole = !self.sink.names().contains(&"vram_allocation_failed");
        self.second = None;
        if let Some(manager) = self.manager.take() {
            Arc::into_inner(manager).unwrap_or_else(|| panic!("{scenario}: someone still holds the manager"));
        }
        for (name, engine) in &mut self.engines {
            (engine.adopted, engine.returned) = (None, None);
            assert!(!engine.is_held(), "{scenario}: somebody still holds the memory of {name}");
        }
        if let Some(device) = &self.device {
            device.assert_left(scenario, self.dead, whole);
        }
    }
}

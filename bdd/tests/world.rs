//! What a scenario holds: a device, managers on it, weights, seals, and how the last call ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;

use vram_residency::{
    Digest, ErrorCode, EventKind, ManagerState, MemorySink, OwnedExecution, Scratch, SealedShard, ShardSource,
    ShardSpec, ShutdownReport, VramError, VramManager, WorkerSecret, digest_bytes,
};
use vram_residency_rig::Machine;

use crate::device::{Device, Left, first};
use crate::engine::{Engine, Stream};
use crate::holding::{Batch, Held, place};
use crate::making::{Setup, builder_of, usual_secret};
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
    pub(crate) weights: HashMap<String, Vec<u8>>,
    pub(crate) seals: HashMap<String, SealedShard>,
    /// Names of the seals that the second manager made.
    pub(crate) elsewhere: HashSet<String>,
    /// Seals that were replaced by sealing anew.
    pub(crate) replaced: HashMap<String, SealedShard>,
    pub(crate) held: Option<Held>,
    pub(crate) guards: Vec<OwnedExecution>,
    pub(crate) batch: Option<Batch>,
    pub(crate) scratch: Vec<Scratch>,
    pub(crate) stream: Option<Stream>,
    pub(crate) engines: HashMap<String, Engine>,
    pub(crate) ending: Option<JoinHandle<ShutdownReport>>,
    pub(crate) report: Option<ShutdownReport>,
    pub(crate) folder: Option<tempfile::TempDir>,
    /// For the next manager, where the scenario chooses its secret.
    pub(crate) secret: Option<WorkerSecret>,
    /// The bytes of the last secret that the scenario chose.
    pub(crate) secret_bytes: Vec<u8>,
    /// What every error so far said, to people and to developers.
    pub(crate) said: Vec<String>,
    pub(crate) shell: Shell,
    /// How the last call ended; taken by the step that looks at it.
    pub(crate) outcome: Option<Result<(), VramError>>,
    /// How the threads of the last call ended, each in its own way.
    pub(crate) outcomes: Vec<Result<(), VramError>>,
    pub(crate) ran: bool,
    pub(crate) read: Vec<u8>,
    pub(crate) digest: Option<Digest>,
    pub(crate) used_before: u64,
    pub(crate) mark: usize,
    /// Digests that the device had taken when the last call began, as far as it counts them.
    pub(crate) digests_before: Option<u64>,
    /// The devices of this scenario do not map memory read-only.
    pub(crate) writable: bool,
    /// Where images lie, as far as somebody asked.
    places: HashMap<String, u64>,
    pub(crate) sink_fails: bool,
    /// On a dead device nothing can be destroyed any more.
    pub(crate) dead: bool,
    /// A device that was told to misbehave for good is not held to what every scenario must leave.
    pub(crate) unwipeable: bool,
}

impl World {
    /// Makes the scenario's manager, or gives the error.
    pub(crate) fn try_build(&mut self, setup: Setup) -> Result<(), VramError> {
        let device = Device::new(setup.units, !self.writable);
        self.sink = Arc::new(if setup.durable_sink { MemorySink::claiming_durable() } else { MemorySink::default() });
        let sink = Arc::clone(&self.sink);
        let selector = device.machine.selector_of(first() + setup.ordinal);
        let secret = self.secret.take().unwrap_or_else(usual_secret);
        let built = builder_of(secret, selector, device.unit, &setup).audit(sink).build();
        let device = self.device.insert(device);
        let manager = built?;
        device.note_manager(0);
        self.manager = Some(Arc::new(manager));
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

    /// The manager that made the seal.
    pub(crate) fn holder(&self, name: &str) -> &Arc<VramManager> {
        if self.elsewhere.contains(name) { self.second() } else { self.manager() }
    }

    pub(crate) fn second(&self) -> &Arc<VramManager> {
        self.second.as_ref().map(|second| &second.manager).expect("the scenario has a second manager")
    }

    pub(crate) fn device(&self) -> &Device {
        self.device.as_ref().expect("the scenario has a device")
    }

    pub(crate) fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("the scenario has an engine's stream")
    }

    pub(crate) fn engine(&mut self, name: &str) -> &mut Engine {
        self.engines.get_mut(name).unwrap_or_else(|| panic!("the scenario has an engine {name:?}"))
    }

    /// So many digests have run since the device counted `before`, as far as it counts them.
    #[track_caller]
    pub(crate) fn assert_digests_since(&self, before: Option<u64>, wanted: u64, why: &str) {
        assert_eq!(self.device().digests(), before.map(|before| before + wanted), "{why}");
    }

    /// Where the image of a shard lies. It takes an execution to learn that, unless one is under way.
    pub(crate) fn place_of(&mut self, name: &str) -> u64 {
        if let Some(known) = self.places.get(name) {
            return *known;
        }
        let (seal, manager) = (self.seal_of(name), self.holder(name));
        let guard = self.guards.iter().find(|guard| &guard.verification().shard == seal.id());
        let guarded = guard.map(|guard| place(&guard.regions()));
        let guarded = guarded.or_else(|| self.batch.as_ref().and_then(|batch| batch.place_of(seal.id())));
        let place = guarded.unwrap_or_else(|| {
            // Whoever attacks does not depend on the trail.
            self.sink.failing(false);
            let found = manager.execute(seal, |verified| place(&verified.regions())).expect("the shard is as it was");
            self.sink.failing(self.sink_fails);
            found
        });
        self.places.insert(name.to_owned(), place);
        place
    }

    /// The machine that holds a shard, as an attacker there sees it.
    pub(crate) fn machine_of(&self, name: &str) -> &Machine {
        match &self.second {
            Some(second) if self.elsewhere.contains(name) => &second.machine,
            _ => &self.device().machine,
        }
    }

    pub(crate) fn weights(&self, name: &str) -> &[u8] {
        self.weights.get(name).unwrap_or_else(|| panic!("the scenario has weights {name:?}"))
    }

    pub(crate) fn seal_of(&self, name: &str) -> &SealedShard {
        self.seals.get(name).unwrap_or_else(|| panic!("the scenario has a seal {name:?}"))
    }

    /// The digest of named weights under the manager's tree.
    pub(crate) fn digest_of(&self, weights: &str) -> Digest {
        digest_bytes(self.manager().tree_params(), self.weights(weights))
    }

    /// Marks the trail and the ledger, so that later steps can say what this step changed.
    pub(crate) fn before_call(&mut self) {
        assert!(!matches!(self.outcome, Some(Err(_))), "an earlier step failed unseen: {:?}", self.outcome);
        self.mark = self.sink.names().len();
        self.digests_before = self.device.as_ref().and_then(Device::digests);
        self.used_before = self.manager.as_ref().map_or(0, |manager| manager.used_vram());
        self.ran = false;
    }

    /// Keeps how a call ended.
    pub(crate) fn note<T>(&mut self, outcome: Result<T, VramError>) -> Option<T> {
        let (value, outcome) = match outcome {
            Ok(value) => (Some(value), Ok(())),
            Err(error) => {
                self.said.push(format!("{error} {error:?}"));
                (None, Err(error))
            }
        };
        self.outcome = Some(outcome);
        value
    }

    pub(crate) fn seal(&mut self, name: &str, spec: ShardSpec, weights: &str) {
        self.before_call();
        let sealed = self.manager().seal_model(spec, ShardSource::bytes(self.weights(weights)));
        if let Some(seal) = self.note(sealed) {
            self.places.remove(name);
            self.seals.insert(name.to_owned(), seal);
        }
    }

    /// The error of the last call, which must have failed.
    pub(crate) fn error(&self) -> &VramError {
        match &self.outcome {
            Some(Err(error)) => error,
            other => panic!("the last call did not fail: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: &str) {
        let found: ErrorCode = self.error().code();
        assert_eq!(found.as_str(), code, "{}", self.error());
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

    /// Ends what may still be open, streams last: guards and working memory may follow them.
    fn end_everything(&mut self) {
        if let Some(held) = self.held.take() {
            let _ = held.finish();
        }
        self.guards.drain(..).for_each(|guard| drop(guard.finish()));
        if let Some(batch) = self.batch.take() {
            let _ = batch.finish();
        }
        self.scratch.clear();
        self.stream = None;
        if let Some(ending) = self.ending.take() {
            ending.join().expect("the shutdown's thread");
        }
    }

    /// What holds after every scenario: an exact ledger, a trail without gaps, and nothing unwiped when the manager is gone.
    pub(crate) fn assert_invariants(&mut self, scenario: &str) {
        self.shell.assert_looked(scenario);
        self.end_everything();
        self.sink.failing(false);
        self.assert_recount();
        let allocated = !self.sink.names().contains(&"vram_allocation_failed");
        self.second = None;
        if let Some(manager) = self.manager.take() {
            Arc::into_inner(manager).unwrap_or_else(|| panic!("{scenario}: someone still holds the manager"));
        }
        for (name, engine) in &mut self.engines {
            (engine.adopted, engine.returned) = (None, None);
            assert!(!engine.is_held(), "{scenario}: somebody still holds the memory of {name}");
        }
        if let Some(device) = &self.device {
            device.assert_left(scenario, &Left { dead: self.dead, unwipeable: self.unwipeable, allocated });
        }
        let events = self.sink.events();
        let refused = events.iter().any(|event| matches!(event.kind, EventKind::SealRefused { suppressed: 1.., .. }));
        assert!(!refused, "{scenario}: refusals were suppressed");
    }
}

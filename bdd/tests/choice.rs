//! Which scenarios a device can run. What it cannot is named at the end, and counts neither as passed nor as failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cucumber::gherkin::{Feature, Rule, Scenario};
use vram_residency_harness::{Kind, Machine};

use crate::shell;

/// What the device of this run has.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    kind: Kind,
    second: bool,
    worker: bool,
}

/// Scenarios that are not run, by reason, each with the number of its examples.
static LEFT_OUT: Mutex<BTreeMap<&'static str, BTreeMap<String, usize>>> = Mutex::new(BTreeMap::new());

impl Choice {
    pub(crate) fn from_env() -> Self {
        let kind = Kind::from_env();
        let second = match kind {
            Kind::Mock => true,
            // The second device is the one after the first.
            Kind::Cuda(ordinal) => ordinal + 1 < Machine::new(kind, 0).devices(),
        };
        let worker = match kind {
            Kind::Mock => true,
            // The one that cargo would build may have no kernels.
            Kind::Cuda(_) => shell::given().is_some(),
        };
        Self { kind, second, worker }
    }

    /// Why a scenario with this tag cannot run, if it cannot.
    fn misses(self, tag: &str) -> Option<&'static str> {
        let orders = !matches!(self.kind, Kind::Cuda(_));
        let (has, reason) = match tag {
            "mock" => (self.kind == Kind::Mock, "it is about the mock itself"),
            "faults" => (orders, "a GPU does not fail or lie to order"),
            "capacity" => (orders, "a GPU's size cannot be chosen"),
            "two-devices" => (self.second, "there is no second device"),
            "worker" => (self.worker, "no vram-worker is given that can use it"),
            other => panic!("no such tag: @{other}"),
        };
        (!has).then_some(reason)
    }

    /// The device in file names.
    pub(crate) fn file_name(self) -> String {
        match self.kind {
            Kind::Cuda(ordinal) => format!("cuda-{ordinal}"),
            kind => kind.as_str().to_owned(),
        }
    }

    /// Whether this device can run the scenario. Keeps the names of those that it cannot.
    pub(crate) fn takes(self, feature: &Feature, rule: Option<&Rule>, scenario: &Scenario) -> bool {
        let tags = feature.tags.iter().chain(rule.iter().flat_map(|rule| &rule.tags)).chain(&scenario.tags);
        let mut needs = tags.filter(|tag| tag.starts_with(|first: char| first.is_ascii_lowercase()));
        let Some(reason) = needs.find_map(|tag| self.misses(tag)) else { return true };
        let mut left_out = LEFT_OUT.lock().unwrap_or_else(PoisonError::into_inner);
        let named = format!("{}: {}", feature.name, scenario.name);
        *left_out.entry(reason).or_default().entry(named).or_default() += 1;
        false
    }
}

/// Prints what was not run.
pub(crate) fn report_left_out() {
    let left_out = LEFT_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    for (reason, names) in &*left_out {
        println!("not run on this device, because {reason}:");
        names.iter().for_each(|(name, examples)| println!("  {name} ({examples})"));
    }
    println!("not run on this device: {} in all", left_out.values().flat_map(BTreeMap::values).sum::<usize>());
}

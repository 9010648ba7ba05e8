//! The device, its memory, and managers on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vram_residency::{Policy, SealedShard, TreeParams, VramManager, WorkerId, WorkerSecret};
use vram_residency_harness::{EngineKernels, Kind, Machine, Memory, Raw, silent, spec};

use crate::limit;

pub struct Options {
    pub tiny: bool,
    pub sanitized: bool,
    pub overlap: bool,
    pub plain: bool,
    pub most: u64,
    pub budget: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let (most, budget) = (120 << 30, Duration::from_secs(120));
        Self { tiny: false, sanitized: false, overlap: false, plain: false, most, budget }
    }
}

/// Memory of a mock.
const CAPACITY: u64 = 256 << 20;

pub struct World {
    pub options: Options,
    pub kernels: EngineKernels,
    machine: Machine,
    began: Instant,
}

impl World {
    /// `None` on the mock.
    pub fn new(options: Options) -> Option<Self> {
        let machine = Machine::from_env(CAPACITY);
        let kernels = machine.raw.engine_kernels().expect("engine kernels for this device; build with nvcc");
        Some(Self { options, kernels, machine, began: Instant::now() })
    }

    pub fn raw(&self) -> &Arc<Raw> {
        &self.machine.raw
    }

    pub fn is_gpu(&self) -> bool {
        matches!(self.machine.kind(), Kind::Cuda(_))
    }

    pub fn ordinal(&self) -> i32 {
        match self.machine.kind() {
            Kind::Cuda(ordinal) => i32::try_from(ordinal).unwrap(),
            _ => 0,
        }
    }

    pub fn name(&self) -> String {
        if self.is_gpu() { self.manager(4096).device_name().to_owned() } else { "mock".to_owned() }
    }

    pub fn variant(&self) -> &'static str {
        if self.options.plain { "plain" } else { "mad" }
    }

    pub fn limits(&self) -> Value {
        let raw = self.raw();
        let clock = limit::clock(raw);
        let of = |block| clock.and_then(|clock| limit::bytes_per_second(raw, clock, block, self.options.plain));
        json!({
            "capability": raw.capability(), "multiprocessors": raw.attribute(16), "clock_hz": clock, "l2_bytes": raw.attribute(38),
            "integer_pipe_bytes_per_s": { "1024": of(1024), "4096": of(4096), "65536": of(65536) },
        })
    }

    /// Time for one row: a share of what is left, so that late rows get their turn.
    pub fn share(&self, of: u32) -> Duration {
        (self.left() / of).min(Duration::from_secs(5))
    }

    pub fn left(&self) -> Duration {
        self.options.budget.saturating_sub(self.began.elapsed())
    }

    pub fn manager(&self, block: u32) -> VramManager {
        VramManager::builder(WorkerId::new("bench").unwrap(), WorkerSecret::random().unwrap())
            .device(self.machine.selector())
            .policy(Policy::development())
            .headroom(0)
            .tree_params(TreeParams::new(block, b"").unwrap())
            .audit(silent())
            .build()
            .unwrap()
    }

    /// Random bytes on the device; `None` when there is no room.
    pub fn random(&self, bytes: u64, seed: u64) -> Option<Memory> {
        // Working memory of a check, and what others need.
        let room = self.raw().memory_info().0.saturating_sub(if self.is_gpu() { 2 << 30 } else { 32 << 20 });
        if bytes > room {
            return None;
        }
        let memory = self.machine.alloc(bytes as usize);
        let stream = self.raw().stream();
        self.kernels.random(stream, memory.address(0), bytes, seed, 0).unwrap();
        self.raw().synchronize(stream).unwrap();
        self.raw().destroy_stream(stream);
        Some(memory)
    }

    /// Puts parts of memory under one seal, where they lie.
    pub fn adopt(&self, manager: &VramManager, name: &str, memory: &Arc<Memory>, parts: &[(u64, u64)]) -> SealedShard {
        let places: Vec<_> = parts.iter().map(|(at, bytes)| (*at as usize, *bytes as usize)).collect();
        memory.adopt(manager, spec(name), &places).unwrap().shard().clone()
    }
}

/// `1.5 GiB`, `64 KiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}

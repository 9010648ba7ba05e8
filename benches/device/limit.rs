//! What the digest cannot be faster than: the integer pipe.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use vram_residency_harness::Raw;

/// Integer-pipe instructions of one compression of 64 bytes on sm_90, byte swaps included; counted by cuobjdump, in
/// .specs/60-device-abi.md.
const MAD: f64 = 946.0;
const PLAIN: f64 = 1283.0;
/// Integer lanes of a multiprocessor of compute capability 9.0.
const LANES: f64 = 64.0;
const CAPABILITY: u32 = 90;
/// CU_DEVICE_ATTRIBUTE_CLOCK_RATE (kHz) and _MULTIPROCESSOR_COUNT.
const CLOCK: u32 = 13;
const MULTIPROCESSORS: u32 = 16;

/// The most bytes of image a second at `clock` Hz with blocks of `block` bytes, of which each takes one compression more than it
/// has 64 bytes. `None` for devices whose instructions were not counted.
pub fn bytes_per_second(raw: &Raw, clock: f64, block: u32, plain: bool) -> Option<f64> {
    if raw.capability() != CAPABILITY {
        return None;
    }
    let instructions = if plain { PLAIN } else { MAD };
    let compressions = f64::from(raw.attribute(MULTIPROCESSORS)?) * LANES * clock / instructions;
    let of_image = f64::from(block / 64) / f64::from(block / 64 + 1);
    Some(compressions * 64.0 * of_image)
}

/// The highest clock that the device says it has, in Hz.
pub fn clock(raw: &Raw) -> Option<f64> {
    raw.attribute(CLOCK).filter(|khz| *khz > 0).map(|khz| f64::from(khz) * 1000.0)
}

/// Asks nvidia-smi, where there is one, every 50 ms for the clock that the multiprocessors have.
pub struct Sampler(Option<Child>);

impl Sampler {
    pub fn start(wanted: bool, ordinal: i32) -> Self {
        let mut command = Command::new("nvidia-smi");
        command.args([
            "--query-gpu=clocks.sm",
            "--format=csv,noheader,nounits",
            "-lms",
            "50",
            "-i",
            &ordinal.to_string(),
        ]);
        let child = wanted.then(|| command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn());
        Self(child.and_then(Result::ok))
    }

    /// The median, in Hz.
    pub fn stop(mut self) -> Option<f64> {
        let mut child = self.0.take()?;
        let _ = child.kill();
        let mut text = String::new();
        let _ = child.stdout.take()?.read_to_string(&mut text);
        let _ = child.wait();
        let mut all: Vec<u64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        all.sort_unstable();
        all.get(all.len() / 2).map(|mhz| *mhz as f64 * 1e6)
    }
}

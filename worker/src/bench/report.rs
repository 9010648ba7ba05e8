//! What `bench` tells: tables for people, or one JSON object for programs.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, Color};
use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use vram_residency::DeviceKind;

use super::SERIES;
use crate::exit::Failure;
use crate::output;
use crate::report::Device;
use crate::report::table::{name, seconds, speed, table};
use crate::stats::to_f64;

const MOCK_FIGURES: &str = "MOCK DEVICE: all figures are of this machine's processor and memory, none is of a GPU";

/// Serialised, it is the documented JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) device: Device,
    /// What must not be overlooked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<&'static str>,
    /// The version of the NVIDIA kernel module, of a GPU.
    driver: Option<String>,
    /// When it was measured, in UTC.
    pub(super) date: String,
    version: &'static str,
    /// `debug` is slow, and says nothing of how fast `release` is.
    build: &'static str,
    /// How many threads this process may run at once. `sha2` and `read` are one.
    threads: usize,
    runs: u32,
    one_block: Fixed,
    pub(super) sizes: Vec<Size>,
}

/// Seconds of what does not grow with the size.
#[derive(Debug, Serialize)]
pub(super) struct Fixed {
    bytes: usize,
    execute_seconds: f64,
    sha2_seconds: f64,
}

/// One size, and what was measured of it.
#[derive(Debug, Serialize)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) measured: [Measured; SERIES.len()],
}

/// A median, and the bytes of the image for each second of it.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    what: &'static str,
    seconds: f64,
    pub(super) bytes_per_second: f64,
}

impl Fixed {
    pub(super) const fn new(bytes: usize, execute: Duration, sha2: Duration) -> Self {
        Self { bytes, execute_seconds: execute.as_secs_f64(), sha2_seconds: sha2.as_secs_f64() }
    }
}

impl Size {
    pub(super) fn new(bytes: usize, medians: [Duration; SERIES.len()]) -> Self {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut names = SERIES.into_iter();
        let measured = medians.map(|median| {
            let seconds = median.max(Duration::from_nanos(1)).as_secs_f64();
            Measured { what: names.next().unwrap_or_default(), seconds, bytes_per_second: to_f64(bytes) / seconds }
        });
        Self { bytes, measured }
    }
}

impl Report {
    pub(super) fn new(device: Device, threads: usize, runs: u32, one_block: Fixed, sizes: Vec<Size>) -> Self {
        let mock = device.kind == DeviceKind::Mock;
        let module = || fs::read_to_string("/sys/module/nvidia/version").ok();
        let driver = module().filter(|_| !mock).map(|version| version.trim().to_owned());
        let warning = mock.then_some(MOCK_FIGURES);
        let (version, build) = (env!("CARGO_PKG_VERSION"), if cfg!(debug_assertions) { "debug" } else { "release" });
        Self { device, warning, driver, date: now(), version, build, threads, runs, one_block, sizes }
    }

    /// Fails when stdout does not take it.
    pub(super) fn tell(&self, json: bool) -> Result<(), Failure> {
        if json { output::write_json(self) } else { output::write(|out| writeln!(out, "{}", self.tables())) }
    }

    fn tables(&self) -> String {
        let columns = output::columns(io::stdout());
        let mut facts = table(columns);
        let device = format!("{} {}: {}", self.device.kind, self.device.ordinal, name(&self.device.name));
        facts.add_row(vec![
            Cell::new("device"),
            match self.warning {
                Some(warning) => {
                    Cell::new(format!("{device}\n{warning}")).fg(Color::Red).add_attribute(Attribute::Bold)
                }
                None => Cell::new(device),
            },
        ]);
        facts.add_row(["driver", &self.driver.as_deref().map_or_else(|| "—".to_owned(), name)]);
        facts.add_row([
            "measured",
            &format!("{}, vram-worker {} ({} build), medians of {}", self.date, self.version, self.build, self.runs),
        ]);
        facts.add_row(["threads", &format!("{}; sha2 and read are one thread of the host", self.threads)]);
        let Fixed { bytes, execute_seconds, sha2_seconds } = self.one_block;
        let [execute, sha2] = [execute_seconds, sha2_seconds].map(|took| seconds(Duration::from_secs_f64(took)));
        facts.add_row(["one block", &format!("{bytes} bytes: verify and execute {execute}, sha2 {sha2}")]);
        let mut speeds = table(columns);
        speeds.set_header(["image"].into_iter().chain(SERIES));
        for size in &self.sizes {
            let took = |measured: &Measured| {
                let took = seconds(Duration::from_secs_f64(measured.seconds));
                format!("{}\n{took}", speed(size.bytes, measured.seconds))
            };
            speeds.add_row(
                [format!("{} MiB", short(to_f64(size.bytes) / 1_048_576.0))]
                    .into_iter()
                    .chain(size.measured.iter().map(took)),
            );
        }
        for column in speeds.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!(
            "{facts}\n{speeds}\nSpeeds are those at which images are done with; of one, sample:16 looks at 16 subtrees at most."
        )
    }
}

/// A number, as short as can be.
pub(super) fn short(value: f64) -> String {
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The time in UTC, as RFC 3339 has it, to the second.
fn now() -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

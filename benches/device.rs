//! How fast a device verifies, on the machine that `VRAM_TEST_DEVICE` names, with what limits it in the same run.
//!
//! ```text
//! cargo bench --bench device -- [--check] [--json FILE] [--tiny] [--most GIB] [--budget SECONDS] [--variant mad|plain] [--overlap]
//! ```
//!
//! Random bytes, made on the device; medians of rounds after one that is not counted, with the fastest and the slowest beside
//! them. Sizes above what is free, and rows for which the time is used up, are left out and said so. `--check` fails when a
//! requirement on a GPU is not met, and is refused on anything but a GPU. `--tiny` is for trying the bench itself; `--overlap`
//! measures verification beside a kernel that is bound by memory bandwidth, and nothing else.
#![allow(
    unsafe_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "a bench may stop at once when something is wrong; its memory is its own"
)]

#[path = "device/copies.rs"]
mod copies;
#[path = "device/digests.rs"]
mod digests;
#[path = "device/limit.rs"]
mod limit;
#[path = "device/overlap.rs"]
mod overlap;
#[path = "device/small.rs"]
mod small;
#[path = "device/table.rs"]
mod table;
#[path = "device/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use table::Table;
use world::{Options, World};

fn options() -> (Options, bool, Option<String>) {
    let mut options = Options::default();
    let (mut check, mut file) = (false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--check" => check = true,
            "--json" => file = Some(value()),
            "--tiny" => options.tiny = true,
            "--sanitized" => options.sanitized = true,
            "--overlap" => options.overlap = true,
            "--variant" => options.plain = value() == "plain",
            "--most" => options.most = value().parse::<u64>().expect("--most GIB") << 30,
            "--budget" => options.budget = Duration::from_secs(value().parse().expect("--budget SECONDS")),
            // What cargo gives every bench.
            "--bench" => {}
            other => panic!("unknown argument {other}"),
        }
    }
    (options, check, file)
}

fn main() -> ExitCode {
    let (options, check, file) = options();
    let Some(world) = World::new(options) else {
        println!("SKIPPED device: the mock has no driver to compare with; VRAM_TEST_DEVICE=cuda:0 names a GPU");
        return if check { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    };
    let mut table = Table::default();
    let (name, limits) = (world.name(), world.limits());
    println!("device: {name}, {} kernels", world.variant());
    let topics: &[fn(&World, &mut Table)] = match (world.options.overlap, world.options.sanitized) {
        (true, _) => &[overlap::measure],
        (false, true) => &[digests::measure, small::measure],
        (false, false) => &[copies::measure, digests::measure, small::measure],
    };
    for topic in topics {
        topic(&world, &mut table);
        // After each topic: whoever stops the bench has these.
        if let Some(file) = &file {
            let report = json!({
                "device": name, "variant": world.variant(), "tiny": world.options.tiny, "limits": limits,
                "rows": table.rows(), "left_out": table.left_out(), "unmet": table.unmet(),
            });
            std::fs::write(file, format!("{report}\n")).unwrap();
        }
    }
    println!("\n{table}");
    let unmet = table.unmet();
    unmet.iter().for_each(|line| println!("not met: {line}"));
    if check && (!world.is_gpu() || !unmet.is_empty()) {
        println!("FAILED: {}", if world.is_gpu() { "see above" } else { "requirements on speed are for a GPU" });
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

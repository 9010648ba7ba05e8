//! Attacks on sealed memory, from outside of the library, on the machine that `VRAM_TEST_DEVICE` names.
//!
//! Every attack runs in a process of its own under a time limit, because some of them kill the driver's context. What a device
//! has to answer is recorded, not asserted; that nothing executes on changed bytes is asserted everywhere. Each attack has a twin
//! without it, in the same process, that must pass.
//!
//! ```text
//! attacks [--json FILE] [--limit SECONDS] [--group attack|question|residue] [--list] [--probe] [NAME…]
//! ```
//!
//! `--json` writes one line for each: `name`, `group`, `outcome` (`held`, `failed`, `skipped`, `answered`, `timeout`), `why`,
//! `seconds`, `answers`. A question without an answer fails nothing.
// covers: VER-1 VER-2

#![allow(missing_docs, unsafe_code, unreachable_pub)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

#[path = "attacks/cases.rs"]
mod cases;
#[path = "attacks/questions.rs"]
mod questions;
#[path = "attacks/residue.rs"]
mod residue;
#[path = "attacks/run.rs"]
mod run;
#[path = "attacks/sealed.rs"]
mod sealed;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut options = run::Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--child" => run::child(&value()),
            "--probe" => return run::probe(),
            "--list" => options.list = true,
            "--json" => options.json = Some(value().into()),
            "--limit" => options.limit = std::time::Duration::from_secs(value().parse().expect("--limit SECONDS")),
            "--group" => options.group = Some(value()),
            "--skip" | "--test-threads" | "--color" | "--format" => drop(value()),
            // What every test binary is given.
            flag if flag.starts_with('-') => {}
            name => options.names.push(name.to_owned()),
        }
    }
    run::all(&options)
}

//! The device suite: what must hold on every device, on the one that `VRAM_TEST_DEVICE` names (`mock` or
//! `cuda:ORDINAL`; the mock when unset).
//!
//! A runner of its own, with libtest's arguments, because a case that cannot be asked of a device is ignored, and its label is the
//! reason. A fault ends every context of its process: on a GPU `cargo nextest run` gives each case a process of its own. A suite of
//! which no case ran on the device has failed.

#![allow(missing_docs, unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::redundant_pub_crate
)]

mod adopted;
mod attacks;
mod bench;
mod capture;
mod digests;
mod engine;
mod history;
mod life;
mod questions;
mod residency;
mod residue;
mod soak;
mod tampering;
mod wipe;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use vram_residency_harness::Kind;

/// Why a case cannot be asked of a device, if it cannot.
type Unless = fn(Kind) -> Option<&'static str>;

/// One case: its name, where it cannot be asked, and what it does.
type Case = (&'static str, Unless, fn());

/// Makes a topic's table of cases: `cases! { everywhere: a_case, another; kernels: a_third }`.
macro_rules! cases {
    ($($unless:path: $($case:ident),+ $(,)?);+ $(;)?) => {
        pub(crate) const CASES: &[$crate::Case] = &[$($((stringify!($case), $unless, $case)),+),+];
    };
}
pub(crate) use cases;

const TOPICS: &[(&str, &[Case])] = &[
    ("adopted", adopted::CASES),
    ("attacks", attacks::CASES),
    ("digests", digests::CASES),
    ("capture", capture::CASES),
    ("engine", engine::CASES),
    ("history", history::CASES),
    ("life", life::CASES),
    ("questions", questions::CASES),
    ("residency", residency::CASES),
    ("residue", residue::CASES),
    ("soak", soak::CASES),
    ("tampering", tampering::CASES),
    ("wipe", wipe::CASES),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let kind = Kind::from_env();
    if matches!(kind, Kind::Cuda(_)) {
        arguments.test_threads.get_or_insert(1);
    }
    let trials = TOPICS.iter().flat_map(|(topic, cases)| cases.iter().map(move |case| (topic, *case)));
    let filter = arguments.filter.clone().unwrap_or_default();
    let trials = trials.map(|(topic, (name, unless, run))| {
        let name = format!("{topic}::{name}");
        // The device is asked about the cases that this process may run, not about all of them in the process of each.
        let reason = if name.contains(&filter) { unless(kind) } else { None };
        let trial = Trial::test(name, move || {
            run();
            Ok(())
        });
        match reason {
            Some(reason) => trial.with_ignored_flag(true).with_kind(reason),
            None => trial,
        }
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // A filter that leaves nothing is the caller's choice, as with libtest; a suite that does not apply is not.
    let asked = conclusion.num_ignored > 0 || conclusion.num_filtered_out == 0;
    if !arguments.list && asked && conclusion.num_passed + conclusion.num_failed == 0 {
        eprintln!("error: no case ran on {}", kind.as_str());
        return ExitCode::from(101);
    }
    conclusion.exit_code()
}

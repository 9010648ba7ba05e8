//! The behaviour suite: every scenario in `features/` against a device, through the public API only.
//!
//! `VRAM_TEST_DEVICE` names the device: `mock` (also when unset) or `cuda:ORDINAL`. A scenario counts as failed when
//! a step is undefined, ambiguous or skipped; a run without scenarios fails. What the device cannot run is told by tags, and
//! named at the end. The report goes to `bdd/junit-DEVICE.xml` in the target folder, which `CARGO_TARGET_DIR` names.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::needless_pass_by_value)]

mod choice;
mod device;
mod engine;
mod faults;
mod setup;
mod shell;
mod steps;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use cucumber::event::ScenarioFinished;
use cucumber::writer::{self, Coloring, Verbosity};
use cucumber::{World as _, WriterExt as _};

use crate::choice::Choice;
use crate::world::World;

static PASSED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Where the report goes.
fn report(choice: Choice) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| package.join("../target"), PathBuf::from);
    let folder = target.join("bdd");
    std::fs::create_dir_all(&folder).expect("the report's folder");
    folder.canonicalize().expect("the report's folder").join(format!("junit-{}.xml", choice.file_name()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let choice = Choice::from_env();
    let anchor = device::Anchor::new();
    let device = anchor.describe();
    println!("device: {device}");
    let path = report(choice);
    let file = std::fs::File::create(&path).expect("the report");
    let basic = writer::Basic::raw(std::io::stdout(), Coloring::Auto, Verbosity::Default);
    // Elsewhere than in the repository they are where `VRAM_TEST_FEATURES` says.
    let features = std::env::var_os("VRAM_TEST_FEATURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("features"), PathBuf::from);
    let writer = World::cucumber()
        .with_writer(basic.summarized().tee::<World, _>(writer::JUnit::for_tee(file, Verbosity::Default)).normalized())
        .fail_on_skipped()
        // The scenarios share nothing, but some of them look at the clock.
        .max_concurrent_scenarios(1)
        .after(|_, _, scenario, finished, world| {
            let passed = matches!(finished, ScenarioFinished::StepPassed);
            let name = scenario.name.clone();
            Box::pin(async move {
                // Counted as failed first: what must hold after every scenario may panic.
                FAILED.fetch_add(1, Ordering::SeqCst);
                if passed {
                    if let Some(world) = world {
                        world.assert_invariants(&name);
                    }
                    FAILED.fetch_sub(1, Ordering::SeqCst);
                    PASSED.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .filter_run(features, move |feature, rule, scenario| choice.takes(feature, rule, scenario))
        .await;
    let (passed, failed) = (PASSED.load(Ordering::SeqCst), FAILED.load(Ordering::SeqCst));
    choice::report_left_out();
    println!("device: {device}; report: {}", path.display());
    println!("{passed} passed, {failed} failed");
    let lost = anchor.lost();
    if let Some(bytes) = lost {
        eprintln!("error: {bytes} bytes of the device are no longer free");
    }
    let broken = cucumber::writer::Stats::<World>::execution_has_failed(&writer);
    if broken || failed > 0 || passed == 0 || lost.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

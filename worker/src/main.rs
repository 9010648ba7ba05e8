//! `vram-worker`: the reference client of `vram-residency`.
//!
//! Owns nothing but the start: arguments, logging, signals and the exit code. The work is in [`run`], [`digest`] and [`mod@bench`].
//! Everything goes through the public API of the library, as any other client's code would.

#![allow(clippy::disallowed_methods, reason = "a log line of the worker hinders no check")]

mod bench;
mod cli;
mod digest;
mod exit;
mod expect;
mod help;
mod image;
mod model_index;
mod output;
mod report;
mod run;
mod sample;
mod session;
mod set;
mod signals;
mod split;
mod stats;

use std::env::VarError;
use std::process::ExitCode;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::prelude::*;
use vram_residency::{TracingSink, VramError};

use crate::cli::Command;
use crate::exit::Failure;
use crate::signals::Signals;

fn main() -> ExitCode {
    let cli = match help::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(error),
    };
    let json = match &cli.command {
        Command::Run(options) => options.json,
        Command::Bench(options) => options.json,
        Command::Digest(_) => false,
    };
    if let Err(failure) = start_logging() {
        return exit::refuse(&failure, json);
    }
    if let Err(error) = keep_out_of_core_dumps() {
        tracing::warn!(%error, "a crash of this process could leave its memory in a core dump");
    }
    let wiping = |work: &dyn Fn(&Signals) -> ExitCode| match Signals::listen() {
        Ok(signals) => work(&signals),
        Err(failure) => exit::refuse(&failure, json),
    };
    match cli.command {
        Command::Run(options) => wiping(&|signals| run::run(&options, signals)),
        Command::Bench(options) => wiping(&|signals| bench::bench(&options, signals)),
        Command::Digest(options) => digest::digest(&options),
    }
}

/// Log lines go to stderr, one write each: warnings and errors whatever `RUST_LOG` says of other targets, and critical audit events
/// whatever it says, `off` included. A stderr that takes nothing is no failure: the subscriber would complain there, and panic.
fn start_logging() -> Result<(), Failure> {
    let asked = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(asked) => asked,
        Err(VarError::NotPresent) => String::new(),
        Err(VarError::NotUnicode(_)) => return Err(bad_filter().into()),
    };
    let filter = EnvFilter::builder().parse(format!("{},{asked}", LevelFilter::WARN)).map_err(|_| bad_filter())?;
    let critical = filter_fn(|line| line.target() == TracingSink::TARGET && *line.level() == Level::ERROR)
        .with_max_level_hint(LevelFilter::ERROR);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(output::styled(&std::io::stderr()))
        .log_internal_errors(false)
        .with_filter(filter.or(critical));
    tracing_subscriber::registry().with(lines).init();
    Ok(())
}

fn bad_filter() -> VramError {
    VramError::Config {
        setting: EnvFilter::DEFAULT_ENV,
        problem: "is no filter of log lines; give, for example, vram_residency::audit=info".to_owned(),
    }
}

/// Weights on the mock, staging and keys are this process's memory: no core dump of it, and no debugger of the same user.
fn keep_out_of_core_dumps() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

//! `vram-worker`: the reference client of `vram-residency`.
//!
//! Owns nothing but the start: arguments, logging, signals and the exit code. The work is in [`run`] and [`digest`]. Everything
//! goes through the public API of the library, as any other client's code would.

mod cli;
mod digest;
mod exit;
mod image;
mod report;
mod run;
mod sample;
mod session;
mod signals;
mod split;
mod stats;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Cli, Command};
use crate::signals::Signals;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    start_logging();
    if let Err(error) = keep_out_of_core_dumps() {
        tracing::warn!(%error, "a crash of this process could leave its memory in a core dump");
    }
    match cli.command {
        Command::Run(options) => match Signals::listen() {
            Ok(signals) => run::run(&options, &signals),
            Err(failure) => exit::refuse(&failure, options.json),
        },
        Command::Digest(options) => digest::digest(&options),
    }
}

/// Log lines go to stderr, one write each. Warnings and errors unless `RUST_LOG` says otherwise, so that critical audit events
/// are seen without asking.
fn start_logging() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Weights on the mock, staging and keys are this process's memory: no core dump of it, and no debugger of the same user.
fn keep_out_of_core_dumps() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_leaves_no_core_dump() {
        // covers: KEY-3
        super::keep_out_of_core_dumps().unwrap();
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(behavior, rustix::process::DumpableBehavior::NotDumpable);
    }
}

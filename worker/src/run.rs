//! `vram-worker run`: seal, verify and execute some times, release.
//!
//! Owns the order of these steps and their report. Promises that whatever happens after the device was opened, a failure or a
//! signal included, everything is wiped and released before the process ends, and the report says how far it came.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use vram_residency::{Digest, ExecuteOptions, SealedShard, ShardId, ShardSource, ShardSpec, TreeParams, digest_source};

use crate::cli::RunOptions;
use crate::digest;
use crate::exit::{self, Failure};
use crate::report::{Device, Report, Shard, Tensor, Timing, Vram};
use crate::sample;
use crate::session::{Session, Wishes};
use crate::signals::Signals;
use crate::stats::{self, Summary};

/// Runs the command and reports.
pub(crate) fn run(options: &RunOptions, signals: &Signals) -> ExitCode {
    let mut report = Report::new(options.executes.get());
    let ended = attempt(options, signals, &mut report);
    let told = report.tell(ended.as_ref().err(), options.json);
    match (ended, told) {
        (Err(failure), _) => ExitCode::from(failure.exit_code()),
        (Ok(()), Err(unwritten)) => exit::refuse(&unwritten, false),
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
    }
}

/// What to seal.
struct Model {
    name: String,
    source: ShardSource<'static>,
    bytes: u64,
    expected: Option<Digest>,
}

fn attempt(options: &RunOptions, signals: &Signals, report: &mut Report) -> Result<(), Failure> {
    let params = TreeParams::new(options.block_size, &[])?;
    let expected = options.expect.as_deref().map(str::parse).transpose()?;
    let model = match &options.model {
        Some(path) => Model::from_file(path, options, expected),
        None => Model::sample(options, &params, expected),
    }?;
    signals.check()?;
    let wishes = Wishes { options, params, expected: model.expected.is_some(), model_bytes: model.bytes };
    let session = Session::open(&wishes)?;
    report.device = Some(Device::of(&session.manager));

    let started = Instant::now();
    let sealed = model.seal(&session);
    let mut worked = Ok(());
    let used_sealed = sealed.as_ref().ok().map(|_| session.manager.used_vram());
    if let Ok(shard) = &sealed {
        report.timing = Some(Timing::of_seal(started.elapsed(), shard.byte_len()));
        report.shard = Some(Shard::of(shard, options.layout));
        worked = executes(&session, shard, signals, report, options.json);
    }
    let (used_after, released) = session.end(sealed.as_ref().ok());
    let (total, used_before) = (session.manager.total_vram(), session.used_before);
    report.vram = Some(Vram { total, used_before, used_sealed, used_after });
    // Memory that stays behind is the graver news than an interruption.
    match worked {
        Err(Failure::Interrupted(signal)) => released.map_err(Failure::from).and(Err(Failure::Interrupted(signal))),
        worked => sealed.map(drop).and(worked).and(released.map_err(Failure::from)),
    }
}

impl Model {
    fn from_file(path: &Path, options: &RunOptions, expected: Option<Digest>) -> Result<Self, Failure> {
        let source = digest::open(path, options.layout)?;
        // Only to size the mock; the source has judged the file.
        let bytes = fs::metadata(path).map_or(0, |file| file.len());
        let name = path.file_stem().map(|name| name.to_string_lossy()).unwrap_or_default();
        Ok(Self { name: shard_name(&name), source, bytes, expected })
    }

    /// The sample is sealed under its own digest, unless another one is asked for. Its file vanishes here; the open source
    /// keeps the bytes.
    fn sample(options: &RunOptions, params: &TreeParams, expected: Option<Digest>) -> Result<Self, Failure> {
        let file = sample::write()?;
        let threads = std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN);
        let own = digest_source(digest::open(file.path(), options.layout)?, params, threads)?;
        let source = digest::open(file.path(), options.layout)?;
        let expected = Some(expected.unwrap_or(own.digest));
        Ok(Self { name: sample::NAME.to_owned(), source, bytes: own.byte_len, expected })
    }

    fn seal(self, session: &Session) -> Result<SealedShard, Failure> {
        let spec = ShardSpec::new(ShardId::new(self.name)?);
        let spec = match self.expected {
            Some(digest) => spec.expect_digest(digest),
            None => spec,
        };
        Ok(session.manager.seal_model(spec, self.source)?)
    }
}

/// A shard id from a file's name: what is not allowed in one becomes a dash.
fn shard_name(file: &str) -> String {
    let mut name = String::new();
    for character in file.chars().take(64) {
        let allowed = character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
        let dot = character == '.' && !name.is_empty() && !name.ends_with('.');
        name.push(if allowed || dot { character } else { '-' });
    }
    if name.is_empty() { "model".to_owned() } else { name }
}

/// Executes as often as asked. The numbers of the first execute are the report's; the others must agree with them.
fn executes(
    session: &Session,
    shard: &SealedShard,
    signals: &Signals,
    report: &mut Report,
    json: bool,
) -> Result<(), Failure> {
    let progress = progress(report.executes, json);
    let mut first: Option<Vec<Summary>> = None;
    while report.executed < report.executes {
        signals.check()?;
        let execution = session.manager.begin(shard, ExecuteOptions::default())?;
        let numbers = stats::summarize(&execution, signals)?;
        let tensors = first.is_none().then(|| Tensor::all(&execution.regions(), &numbers));
        let check: Duration = execution.finish()?.duration;
        // From here on the execute counts.
        match (&first, tensors) {
            (Some(first), _) if *first != numbers => return Err(stats::disagreement().into()),
            (Some(_), _) => {}
            (None, tensors) => {
                report.tensors = tensors.unwrap_or_default();
                first = Some(numbers);
            }
        }
        report.executed = report.executed.saturating_add(1);
        if let Some(timing) = &mut report.timing {
            timing.checked(check);
        }
        progress.inc(1);
    }
    Ok(())
}

/// A bar on stderr for people who watch; for nobody else.
fn progress(executes: u64, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(executes).with_finish(ProgressFinish::AndClear);
    match ProgressStyle::with_template("executing {bar:40} {pos}/{len} ({per_sec}, {eta} left)") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_name_gives_a_shard_id() {
        for (file, name) in [
            ("model", "model"),
            ("a b/ü", "a-b--"),
            (".hidden", "-hidden"),
            ("a..b", "a.-b"),
            ("...", "-.-"),
            ("", "model"),
        ] {
            assert_eq!(shard_name(file), name);
            assert!(ShardId::new(name).is_ok(), "{name}");
        }
        assert!(ShardId::new(shard_name(&"x.".repeat(300))).is_ok());
    }
}

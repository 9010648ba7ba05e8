//! `vram-worker run`: seal, verify and execute some times, release.
//!
//! Owns the order of these steps and their report. Promises that whatever happens after the device was opened, a failure or a
//! signal included, everything is wiped and released before the process ends, and the report says how far it came.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use indicatif::{HumanBytes, ProgressBar, ProgressFinish, ProgressStyle};
use vram_residency::{Digest, ShardId, ShardSource, ShardSpec, TreeParams, VramError, digest_source};

use crate::cli::RunOptions;
use crate::digest;
use crate::exit::{self, Failure};
use crate::image::{self, Sealed};
use crate::output;
use crate::report::{Device, Report, Tensor, Timing, Vram};
use crate::sample;
use crate::session::{Session, Wishes};
use crate::signals::Signals;
use crate::split::{self, Split};
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
    split: Option<Split>,
}

fn attempt(options: &RunOptions, signals: &Signals, report: &mut Report) -> Result<(), Failure> {
    let params = TreeParams::new(options.block_size, &[])?;
    if let Some(part_bytes) = options.part_bytes {
        split::judge(part_bytes, &params)?;
    }
    let expected = options.expect.as_deref().map(str::parse).transpose()?;
    let wanted = Wanted { options, params: &params, expected, signals };
    let model = match &options.model {
        Some(path) => Model::from_file(path, &wanted),
        None => Model::sample(&wanted),
    }?;
    signals.check()?;
    let wishes =
        Wishes { options, params: params.clone(), expected: model.expected.is_some(), model_bytes: model.bytes };
    let session = Session::open(&wishes)?;
    report.device = Some(Device::of(&session.manager));

    let started = Instant::now();
    let sealed = model.seal(&session, signals, options.json);
    let mut worked = Ok(());
    let used_sealed = sealed.as_ref().ok().map(|_| session.manager.used_vram());
    if let Ok(sealed) = &sealed {
        report.timing = Some(Timing::of_seal(started.elapsed(), sealed.byte_len()));
        report.sealed(sealed, options.layout);
        worked = executes(&session, sealed, signals, report, options.json);
    }
    let (used_after, released) = session.end(sealed.as_ref().map_or(&[], |sealed| sealed.shards.as_slice()));
    let (total, used_before) = (session.manager.total_vram(), session.used_before);
    report.vram = Some(Vram { total, used_before, used_sealed, used_after });
    // Memory that stays behind is the graver news than an interruption.
    match (sealed.map(drop).and(worked), released.map_err(Failure::from)) {
        (Err(Failure::Interrupted(signal)), released) => released.and(Err(Failure::Interrupted(signal))),
        (Err(failure), Err(behind)) => {
            behind.tell(); // both are news; the report has room for one
            Err(failure)
        }
        (worked, released) => worked.and(released),
    }
}

/// What was asked for, understood.
struct Wanted<'a> {
    options: &'a RunOptions,
    params: &'a TreeParams,
    expected: Option<Digest>,
    signals: &'a Signals,
}

impl Wanted<'_> {
    /// Where the image of this file is to be cut, if it is.
    fn split(&self, path: &Path) -> Result<Option<Split>, Failure> {
        let Some(part_bytes) = self.options.part_bytes else { return Ok(None) };
        let source = digest::open(path, self.options.layout)?;
        Split::measure(source, self.params, part_bytes, self.signals).map(Some)
    }
}

impl Model {
    fn from_file(path: &Path, wanted: &Wanted<'_>) -> Result<Self, Failure> {
        let source = digest::open(path, wanted.options.layout)?;
        // Only to size the mock: the image may be larger than its file.
        let bytes = digest::open(path, wanted.options.layout)?.into_image(wanted.params)?.layout().byte_len();
        let name = shard_name(&path.file_stem().map(|name| name.to_string_lossy()).unwrap_or_default());
        let split = wanted.split(path)?;
        Self { name, source, bytes, expected: wanted.expected, split }.compared()
    }

    /// The sample is sealed under its own digest, unless another one is asked for. Its file vanishes here; the open source
    /// keeps the bytes.
    fn sample(wanted: &Wanted<'_>) -> Result<Self, Failure> {
        let file = sample::write()?;
        let split = wanted.split(file.path())?;
        let (own, bytes) = match &split {
            Some(split) => (split.digest, split.layout.byte_len()),
            None => {
                let threads = std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN);
                let source = digest::open(file.path(), wanted.options.layout)?;
                let own = digest_source(source, wanted.params, threads)?;
                (own.digest, own.byte_len)
            }
        };
        let source = digest::open(file.path(), wanted.options.layout)?;
        let expected = Some(wanted.expected.unwrap_or(own));
        Self { name: sample::NAME.to_owned(), source, bytes, expected, split }.compared()
    }

    /// Holds an image that is split against what is expected of the whole. The parts, and an image that is not split, are
    /// compared on the device.
    fn compared(self) -> Result<Self, Failure> {
        match (&self.split, self.expected) {
            (Some(split), Some(expected)) if split.digest != expected => {
                let shard = ShardId::new(self.name)?;
                Err(VramError::DigestMismatch { shard, expected, actual: split.digest }.into())
            }
            _ => Ok(self),
        }
    }

    fn seal(self, session: &Session, signals: &Signals, json: bool) -> Result<Sealed, Failure> {
        let Self { name, source, expected, split, bytes } = self;
        let manager = &session.manager;
        let _shown = sealing(&name, bytes, json);
        let shards = match &split {
            Some(split) => split.seal(manager, &name, source, expected.is_some(), signals)?,
            None => {
                let spec = ShardSpec::new(ShardId::new(name.as_str())?);
                let spec = match expected {
                    Some(digest) => spec.expect_digest(digest),
                    None => spec,
                };
                vec![manager.seal_model(spec, source)?]
            }
        };
        Ok(Sealed { name, shards, split })
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
    sealed: &Sealed,
    signals: &Signals,
    report: &mut Report,
    json: bool,
) -> Result<(), Failure> {
    let progress = progress(report.executes, json);
    let mut first: Option<Vec<Summary>> = None;
    while report.executed < report.executes {
        signals.check()?;
        let mut image = sealed.begin(&session.manager)?;
        let layout = image.layout()?;
        let regions = image::regions(&layout);
        let numbers = stats::summarize(&mut image, &regions, signals)?;
        let tensors = if first.is_none() { Tensor::all(&regions, &numbers) } else { Vec::new() };
        let check = image.finish()?;
        // From here on the execute counts.
        match (&first, tensors) {
            (Some(first), _) if *first != numbers => return Err(stats::disagreement().into()),
            (Some(_), _) => {}
            (None, tensors) => {
                report.tensors = tensors;
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

/// A line on stderr for people who watch, as long as it lives.
fn sealing(name: &str, bytes: u64, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let text = format!("sealing {name}, {}; a signal is answered when this is done", HumanBytes(bytes));
    if !output::escapes() {
        let _nobody_listens = writeln!(std::io::stderr(), "{text}");
        return ProgressBar::hidden();
    }
    let line = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear).with_message(text);
    line.tick(); // once: a line that moves takes a thread, which may not be had
    line
}

/// A bar on stderr for people who watch; for nobody else.
fn progress(executes: u64, json: bool) -> ProgressBar {
    if json || !output::styled(&std::io::stderr()) {
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

//! `vram-worker run`: seal, verify and execute some times, release.
//!
//! Owns the order of these steps and their report. Promises that whatever happens after the device was opened, a failure or a
//! signal included, everything is wiped and released before the process ends, and the report says how far it came.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use indicatif::{HumanBytes, ProgressBar, ProgressFinish, ProgressStyle};
use vram_residency::{
    AuditRequirement, Expectation, Policy, ShardId, ShardSource, ShardSpec, TreeParams, VramError, digest_source,
};

use crate::cli::RunOptions;
use crate::digest;
use crate::exit::{self, Failure};
use crate::expect::{self, Expectations};
use crate::image::{self, Sealed};
use crate::model_index::{self, Files};
use crate::output;
use crate::report::{Device, Report, Tensor, Timing, Vram};
use crate::sample;
use crate::session::{self, Session, Wishes};
use crate::signals::Signals;
use crate::split::{self, Split};
use crate::stats::{self, Summary};

/// Runs the command and reports.
pub(crate) fn run(options: &RunOptions, signals: &Signals) -> ExitCode {
    let mut report = Report::new(options.executes.get());
    let ended = attempt(options, signals, &mut report).map_err(|failure| expect::explained(failure, options));
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
    source: Source,
    bytes: u64,
    expected: Option<Expectation>,
    split: Option<Split>,
}

/// One file, or several.
enum Source {
    File(ShardSource<'static>),
    Files(Files),
}

fn attempt(options: &RunOptions, signals: &Signals, report: &mut Report) -> Result<(), Failure> {
    let params = TreeParams::new(options.block_size, &[])?;
    if let Some(part_bytes) = options.part_bytes {
        split::judge(part_bytes, &params)?;
    }
    let expectations = Expectations::given(options, signals)?;
    let wanted = Wanted { options, params: &params, expectations: &expectations, signals };
    let model = match &options.model {
        Some(path) => Model::from_file(path, &wanted),
        None => Model::sample(&wanted),
    }?;
    signals.check()?;
    let wishes = Wishes {
        place: &options.place,
        policy: cuda_policy(options, model.is_expected()),
        params: params.clone(),
        secret: options.secret_file.as_deref().map(|path| (path, options.secret_file_mode)),
        headroom: options.headroom,
        model_bytes: model.bytes,
    };
    let session = Session::open(&wishes)?;
    report.device = Some(Device::of(&session.manager));

    let started = Instant::now();
    let sealed = model.seal(&session, options, signals);
    let mut worked = Ok(());
    let used_sealed = sealed.as_ref().ok().map(|_| session.manager.used_vram());
    if let Ok(sealed) = &sealed {
        report.timing = Some(Timing::of_seal(started.elapsed(), sealed.byte_len(), options.verify));
        report.sealed(sealed, options.layout);
        worked = executes(&session, sealed, signals, report, options);
    }
    let (used_after, released) = session.end(sealed.as_ref().map_or(&[], |sealed| sealed.shards.as_slice()));
    let (total, used_before) = (session.manager.total_vram(), session.used_before);
    report.vram = Some(Vram { total, used_before, used_sealed, used_after });
    session::ended(sealed.map(drop).and(worked), released)
}

/// Production's rules, as far as the command line gives what they ask for.
fn cuda_policy(options: &RunOptions, expected: bool) -> Policy {
    Policy::production()
        .require_expected_digest(expected)
        .require_stored_secret(options.secret_file.is_some())
        // Log lines are all there is here; a journal that acknowledges is not.
        .require_audit(AuditRequirement::Accepted)
}

/// What was asked for, understood.
struct Wanted<'a> {
    options: &'a RunOptions,
    params: &'a TreeParams,
    expectations: &'a Expectations,
    signals: &'a Signals,
}

impl Wanted<'_> {
    /// Where the image of this file is to be cut, if it is.
    fn split(&self, path: &Path, name: &str, expected: Option<&Expectation>) -> Result<Option<Split>, Failure> {
        let Some(part_bytes) = self.options.part_bytes else { return Ok(None) };
        let (at, layout) = (path.to_owned(), self.options.layout);
        let source = self.signals.during(move || digest::open(&at, layout))??;
        let name = ShardId::new(name)?;
        let expected = expected.map(|expectation| (name, expectation));
        Split::measure(source, self.params, part_bytes, expected, self.signals).map(Some)
    }
}

impl Model {
    fn from_file(path: &Path, wanted: &Wanted<'_>) -> Result<Self, Failure> {
        if model_index::is_index(path) {
            return Self::from_index(path, wanted);
        }
        let (at, layout, params) = (path.to_owned(), wanted.options.layout, wanted.params.clone());
        let (source, bytes) = wanted.signals.during(move || -> Result<_, Failure> {
            let source = digest::open(&at, layout)?;
            // Only to size the mock: the image may be larger than its file.
            Ok((source, digest::open(&at, layout)?.into_image(&params)?.layout().byte_len()))
        })??;
        let name = shard_name(&path.file_stem().map(|name| name.to_string_lossy()).unwrap_or_default());
        let expected = wanted.expectations.of_file(path)?;
        let split = wanted.split(path, &name, expected.as_ref())?;
        Ok(Self { name, source: Source::File(source), bytes, expected, split })
    }

    /// The files of a model, each of which becomes a shard of one set.
    fn from_index(path: &Path, wanted: &Wanted<'_>) -> Result<Self, Failure> {
        let refuse = |field, problem: &str| Err(VramError::InvalidParams { field, problem: problem.to_owned() }.into());
        if wanted.options.part_bytes.is_some() {
            return refuse(
                "part bytes",
                "cannot be given with the index of a model: its files are the parts; name one of them to split it",
            );
        }
        let (at, layout, params) = (path.to_owned(), wanted.options.layout, wanted.params.clone());
        let of_index = wanted.expectations.of_index(path)?;
        let mut files = wanted.signals.during(move || Files::open(&at, of_index.as_ref(), layout, &params))??;
        files.expect(path, wanted.expectations)?;
        // `model` of `model.safetensors.index.json`.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split_once(".index.").map_or(&*name, |(name, _)| name.trim_end_matches(".safetensors"));
        let (name, bytes) = (shard_name(name), files.byte_len());
        Ok(Self { name, source: Source::Files(files), bytes, expected: None, split: None })
    }

    /// Whether somebody vouched for all of it.
    fn is_expected(&self) -> bool {
        match &self.source {
            Source::Files(files) => files.are_expected(),
            Source::File(_) => self.expected.is_some(),
        }
    }

    /// The sample is sealed under its own digest, unless another one is asked for. Its file vanishes here; the open source
    /// keeps the bytes.
    fn sample(wanted: &Wanted<'_>) -> Result<Self, Failure> {
        let (file, name) = (sample::write()?, sample::NAME.to_owned());
        let expected = match wanted.expectations.of_file(file.path())? {
            Some(expected) => expected,
            None => {
                let threads = std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN);
                let own = digest_source(ShardSource::file(file.path())?, &TreeParams::default(), threads)?;
                Expectation::FsVerity(own.digest)
            }
        };
        let split = wanted.split(file.path(), &name, Some(&expected))?;
        let bytes = digest::open(file.path(), wanted.options.layout)?.into_image(wanted.params)?.layout().byte_len();
        let source = digest::open(file.path(), wanted.options.layout)?;
        Ok(Self { name, source: Source::File(source), bytes, expected: Some(expected), split })
    }

    fn seal(self, session: &Session, options: &RunOptions, signals: &Signals) -> Result<Sealed, Failure> {
        let Self { name, source, expected, split, bytes } = self;
        let manager = &session.manager;
        let (layout, _shown) = (options.layout, sealing(&name, bytes, options.json));
        let mut files = Vec::new();
        let shards = match (&split, source) {
            (_, Source::Files(of)) => {
                files.extend(of.iter().map(|file| file.name.clone()));
                of.seal(manager, &name, layout, signals)?
            }
            (Some(split), Source::File(source)) => split.seal(manager, &name, source, expected.is_some(), signals)?,
            (None, Source::File(source)) => {
                let spec = ShardSpec::new(ShardId::new(name.as_str())?);
                let spec = match expected {
                    Some(expected) => spec.expect(expected),
                    None => spec,
                };
                vec![manager.seal_model(spec, source)?]
            }
        };
        Ok(Sealed { name, shards, split, files })
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

/// Executes as often as asked. With checks of all bytes in a chain: one check before, and one behind each execute that also opens the
/// next. The numbers of the first execute are the report's; the others must agree with them.
fn executes(
    session: &Session,
    sealed: &Sealed,
    signals: &Signals,
    report: &mut Report,
    options: &RunOptions,
) -> Result<(), Failure> {
    let begin = || sealed.begin(&session.manager, options.verify);
    let progress = progress(report.executes, options.json);
    let mut first: Option<Vec<Summary>> = None;
    let mut next = Some(begin()?);
    while let Some(image) = next.take() {
        if let Some(timing) = &mut report.timing {
            timing.checked(image.checked_in(), image.coverage());
        }
        signals.check()?;
        let layouts = image.layouts()?;
        let regions = image::regions(&layouts);
        let numbers = stats::summarize(&image, &regions, signals)?;
        let tensors = if first.is_none() { Tensor::all(&regions, &numbers) } else { Vec::new() };
        // Numbers of bytes that were not good on both sides are not even compared.
        let executed = report.executed.saturating_add(1);
        if executed < report.executes && options.verify.is_full() {
            next = Some(image.renew()?);
        } else {
            let coverage = image.coverage();
            let check = image.finish()?;
            if options.verify.is_full()
                && let Some(timing) = &mut report.timing
            {
                timing.checked(check, coverage);
            }
            next = if executed < report.executes { Some(begin()?) } else { None };
        }
        // From here on the execute counts.
        match (&first, tensors) {
            (Some(first), _) if *first != numbers => return Err(stats::disagreement().into()),
            (Some(_), _) => {}
            (None, tensors) => {
                report.tensors = tensors;
                first = Some(numbers);
            }
        }
        report.executed = executed;
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

//! Runs cases, each in a process of its own, and reports.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use vram_residency_rig::{Kind, Machine};

use crate::{cases, questions, residue};

/// Device memory of a mock, in bytes.
pub const CAPACITY: u64 = 64 << 20;

/// Exit status of `--probe` where there is no such device.
const NO_DEVICE: u8 = 3;

/// One attack or question.
pub struct Case {
    pub name: &'static str,
    pub group: &'static str,
    pub run: fn(&Answers) -> Result<(), Skip>,
}

/// Why a case does not apply here.
pub struct Skip(pub String);

/// What a case found out. Kept when it panics.
#[derive(Default)]
pub struct Answers(RefCell<Map<String, Value>>);

impl Answers {
    pub fn note(&self, key: &str, value: impl Into<Value>) {
        self.0.borrow_mut().insert(key.to_owned(), value.into());
    }

    /// Notes how a driver call went, and whether it went well.
    pub fn went<T, E: std::fmt::Display>(&self, key: &str, result: &Result<T, E>) -> bool {
        match result {
            Ok(_) => self.note(key, "accepted"),
            Err(error) => self.note(key, format!("refused: {error}")),
        }
        result.is_ok()
    }
}

pub struct Options {
    pub json: Option<PathBuf>,
    pub limit: Duration,
    pub group: Option<String>,
    pub names: Vec<String>,
    pub list: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { json: None, limit: Duration::from_secs(120), group: None, names: Vec::new(), list: false }
    }
}

fn every() -> impl Iterator<Item = &'static Case> {
    cases::CASES.iter().chain(questions::CASES).chain(residue::CASES)
}

/// What a child ends with: one line of JSON on its standard output. No destructor runs: the context may be dead.
pub fn child(name: &str) -> ! {
    let answers = Answers::default();
    let work = every().map(|case| (case.name, case.run)).chain(residue::HELPERS.iter().copied());
    let run = work.into_iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no case {name}")).1;
    let result = catch_unwind(AssertUnwindSafe(|| run(&answers)));
    let (outcome, why) = match &result {
        Ok(Ok(())) => ("done", String::new()),
        Ok(Err(Skip(why))) => ("skipped", why.clone()),
        Err(panic) => ("failed", words(panic.as_ref())),
    };
    let line = json!({ "outcome": outcome, "why": why, "answers": answers.0.take() });
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
    // The results may own a manager and a driver: they stay as they are.
    std::mem::forget(result);
    std::process::exit(0);
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// How a child ended.
pub struct Ended {
    pub outcome: String,
    pub why: String,
    pub answers: Value,
}

/// Runs a case in a process of its own.
pub fn in_a_process(name: &str, limit: Duration) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--child", name])
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if began.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let ended = |outcome: &str, why: String| Ended { outcome: outcome.to_owned(), why, answers: json!({}) };
    let Some(status) = status else { return ended("timeout", format!("not done after {} s", limit.as_secs())) };
    let said = std::fs::read_to_string(&out).unwrap_or_default();
    match said.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok()) {
        Some(mut line) => Ended {
            outcome: line["outcome"].as_str().unwrap_or("failed").to_owned(),
            why: line["why"].as_str().unwrap_or_default().to_owned(),
            answers: line["answers"].take(),
        },
        None => ended("failed", format!("it died ({status}): {}", last_words(&err))),
    }
}

fn last_words(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

pub fn all(options: &Options) -> ExitCode {
    let device = Kind::from_env();
    let named = |case: &Case| options.names.is_empty() || options.names.iter().any(|name| case.name.contains(name));
    let grouped = |case: &Case| options.group.as_ref().is_none_or(|group| case.group == group);
    let chosen: Vec<_> = every().filter(|case| named(case) && grouped(case)).collect();
    if options.list {
        chosen.iter().for_each(|case| println!("{}::{}: test", case.group, case.name));
        println!("\n{} tests, 0 benchmarks", chosen.len());
        return ExitCode::SUCCESS;
    }
    let mut json = options.json.as_ref().map(|path| File::create(path).unwrap());
    println!("\nrunning {} attacks and questions on {}", chosen.len(), device.as_str());
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in chosen {
        let began = Instant::now();
        let ended = in_a_process(case.name, options.limit);
        let seconds = began.elapsed().as_secs_f64();
        let question = case.group == "question";
        let outcome = match ended.outcome.as_str() {
            "done" if question => "answered",
            "done" => "held",
            other => other,
        };
        let word = match outcome {
            "held" | "answered" => "ok",
            "skipped" => "ignored",
            // The driver had the last word: no failure of ours, and no answer.
            _ if question => "ignored, unanswered",
            _ => "FAILED",
        };
        match word {
            "ignored" | "ignored, unanswered" => skipped += 1,
            "FAILED" => failed += 1,
            _ => passed += 1,
        }
        let separator = if ended.why.is_empty() { "" } else { ": " };
        println!("test {}::{} ... {word}{separator}{}", case.group, case.name, ended.why);
        if ended.answers.as_object().is_some_and(|answers| !answers.is_empty()) {
            println!("     {}", ended.answers);
        }
        if let Some(file) = &mut json {
            let line = json!({
                "name": case.name, "group": case.group, "outcome": outcome, "why": ended.why,
                "seconds": (seconds * 1000.0).round() / 1000.0, "answers": ended.answers,
            });
            writeln!(file, "{line}").unwrap();
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says what the device is, in one line of JSON.
pub fn probe() -> ExitCode {
    std::panic::set_hook(Box::new(|_| ()));
    let machine = match catch_unwind(|| Machine::from_env(CAPACITY)) {
        Ok(machine) => machine,
        Err(panic) => {
            eprintln!("{}", words(panic.as_ref()));
            return ExitCode::from(NO_DEVICE);
        }
    };
    let mut line = json!({ "device": machine.kind().as_str() });
    let raw = &machine.raw;
    let (free, total) = raw.memory_info();
    line["capability"] = raw.capability().into();
    line["driver_version"] = raw.driver_version().into();
    (line["free_bytes"], line["total_bytes"]) = (free.into(), total.into());
    for (name, number) in
        [("clock_khz", 13), ("multiprocessors", 16), ("ecc", 32), ("l2_bytes", 38), ("virtual_memory", 102)]
    {
        line[name] = raw.attribute(number).map_or(Value::Null, Value::from);
    }
    println!("{line}");
    ExitCode::SUCCESS
}

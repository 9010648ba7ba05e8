//! What was measured, as a table for people and as rows for machines.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Times of one thing.
#[derive(Clone, Copy)]
pub struct Times {
    pub median: Duration,
    pub least: Duration,
    pub most: Duration,
    pub rounds: usize,
}

impl Times {
    pub fn seconds(self) -> f64 {
        self.median.as_secs_f64()
    }
}

/// Runs something once without counting it, then in rounds: as many as fit into `budget`, from 3 to `rounds`.
pub fn times(rounds: usize, budget: Duration, mut work: impl FnMut()) -> Times {
    work();
    let began = Instant::now();
    let mut all = Vec::new();
    while all.len() < 3 || (all.len() < rounds && began.elapsed() < budget) {
        let round = Instant::now();
        work();
        all.push(round.elapsed());
    }
    all.sort();
    Times { median: all[all.len() / 2], least: all[0], most: all[all.len() - 1], rounds: all.len() }
}

/// One line.
struct Row {
    what: String,
    bytes: u64,
    times: Times,
    /// A share of something in the same run, and of what.
    share: Option<(f64, &'static str)>,
    /// The requirement, and whether it is met.
    wanted: Option<(String, bool)>,
}

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    left_out: Vec<String>,
}

impl Table {
    /// Adds a line, for `bytes` bytes a round.
    pub fn add(&mut self, what: impl Into<String>, bytes: u64, times: Times) -> &mut Self {
        self.rows.push(Row { what: what.into(), bytes, times, share: None, wanted: None });
        let row = &self.rows[self.rows.len() - 1];
        // As it goes: whoever stops the bench has these.
        println!("{row}");
        self
    }

    /// What part of something else the last line is.
    pub fn share(&mut self, share: f64, of: &'static str) -> &mut Self {
        self.rows.last_mut().unwrap().share = Some((share, of));
        self
    }

    /// What is asked of the last line.
    pub fn wanted(&mut self, requirement: impl Into<String>, met: bool) -> &mut Self {
        self.rows.last_mut().unwrap().wanted = Some((requirement.into(), met));
        self
    }

    pub fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    pub fn unmet(&self) -> Vec<String> {
        let unmet = self.rows.iter().filter_map(|row| match &row.wanted {
            Some((requirement, false)) => Some(format!("{}: {requirement}", row.what)),
            _ => None,
        });
        unmet.collect()
    }

    pub fn rows(&self) -> Value {
        self.rows
            .iter()
            .map(|row| {
                json!({
                    "what": row.what, "bytes": row.bytes, "rounds": row.times.rounds,
                    "median_ns": row.times.median.as_nanos() as u64, "least_ns": row.times.least.as_nanos() as u64,
                    "most_ns": row.times.most.as_nanos() as u64, "gb_per_s": row.speed(),
                    "share": row.share.map(|(share, _)| share), "share_of": row.share.map(|(_, of)| of),
                    "wanted": row.wanted.as_ref().map(|(requirement, _)| requirement),
                    "met": row.wanted.as_ref().map(|(_, met)| met),
                })
            })
            .collect()
    }
}

impl Row {
    /// 10^9 bytes a second, where bytes are what counts.
    fn speed(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.bytes as f64 / self.times.seconds() / 1e9)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micro = |time: Duration| time.as_secs_f64() * 1e6;
        let Times { median, least, most, rounds } = self.times;
        write!(f, "{:<52}{:>14.1}{:>14.1}{:>14.1}{rounds:>6}", self.what, micro(median), micro(least), micro(most))?;
        match self.speed() {
            Some(speed) => write!(f, "{speed:>10.2}")?,
            None => write!(f, "{:>10}", "")?,
        }
        if let Some((share, of)) = self.share {
            write!(f, "  {share:.3} {of}")?;
        }
        match &self.wanted {
            Some((requirement, met)) => write!(f, "  {} ({requirement})", if *met { "met" } else { "NOT MET" }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, least, most) = ("median µs", "least µs", "most µs");
        writeln!(f, "{:<52}{median:>14}{least:>14}{most:>14}{:>6}{:>10}", "what", "n", "GB/s")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        self.left_out.iter().try_for_each(|what| writeln!(f, "left out: {what}"))
    }
}

//! What `run` tells: tables for people, or one JSON object for programs.
//!
//! Owns [`Report`], which is filled as the command gets on, so that a failure can say how far it came. Foreign text (tensor names) is
//! escaped in tables.

use std::io::Write;
use std::time::Duration;

use serde::{Serialize, Serializer};
use vram_residency::{Check, DeviceKind, SealedShard, VramManager};

use crate::cli::Layout;
use crate::exit::{ErrorJson, Failure};
use crate::image::{Region, Sealed};
use crate::output;
use crate::stats::{Summary, Value, to_f64};

pub(crate) mod table;

/// Shapes of more dimensions than this are not shown. No tensor that anybody computes with has half as many.
const MOST_DIMENSIONS: usize = 64;

/// Durations that are kept to find the median; the first so many.
const KEPT_DURATIONS: usize = 1 << 20;

/// How far the command came, and what it found. Serialised, it is the documented JSON object.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shard: Option<Shard>,
    /// The shards that the image was split into, if that was asked for, or that the files of the model are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<Part>,
    /// How many were asked for.
    pub(crate) executes: u64,
    /// How many count.
    pub(crate) executed: u64,
    /// What the first execute found.
    pub(crate) tensors: Vec<Tensor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vram: Option<Vram>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timing: Option<Timing>,
}

impl Report {
    pub(crate) const fn new(executes: u64) -> Self {
        Self {
            error: None,
            device: None,
            shard: None,
            parts: Vec::new(),
            executes,
            executed: 0,
            tensors: Vec::new(),
            vram: None,
            timing: None,
        }
    }

    /// Takes what was sealed.
    pub(crate) fn sealed(&mut self, sealed: &Sealed, layout: Layout) {
        let Some(first) = sealed.shards.first() else { return };
        self.shard = Some(Shard {
            id: sealed.name.clone(),
            layout: layout.as_str(),
            origin: first.origin().as_str(),
            digest: match &sealed.split {
                _ if !sealed.files.is_empty() => None,
                Some(split) => Some(split.digest.to_string()),
                None => Some(first.digest().to_string()),
            },
            layout_digest: match &sealed.split {
                _ if !sealed.files.is_empty() => None,
                Some(split) => Some(hex::encode(split.layout.digest())),
                None => Some(hex::encode(first.layout_digest())),
            },
            bytes: sealed.byte_len(),
        });
        if sealed.split.is_some() || !sealed.files.is_empty() {
            let mut files = sealed.files.iter().cloned();
            self.parts = sealed.shards.iter().map(|shard| Part::of(shard, files.next())).collect();
        }
    }

    /// Tells everything: as JSON on stdout; or as tables on stdout, if there is something to show, and the failure on stderr.
    ///
    /// Fails when stdout does not take it.
    pub(crate) fn tell(&mut self, failure: Option<&Failure>, json: bool) -> Result<(), Failure> {
        if json {
            self.error = failure.map(Failure::to_json);
            // It must be said somewhere.
            return output::write_json(self).inspect_err(|_| failure.into_iter().for_each(Failure::tell));
        }
        let written = match (&self.device, &self.shard) {
            (Some(device), Some(shard)) => {
                output::write(|out| writeln!(out, "{}", table::render(self, device, shard, failure.is_none())))
            }
            _ => Ok(()),
        };
        failure.into_iter().for_each(Failure::tell);
        written
    }
}

/// The device, as seals and events name it.
#[derive(Debug, Serialize)]
pub(crate) struct Device {
    pub(crate) kind: DeviceKind,
    pub(crate) name: String,
    uuid: String,
    pub(crate) ordinal: u32,
}

impl Device {
    pub(crate) fn of(manager: &VramManager) -> Self {
        Self {
            kind: manager.device_kind(),
            name: manager.device_name().to_owned(),
            uuid: manager.device_uuid().to_string(),
            ordinal: manager.device_ordinal(),
        }
    }
}

/// The image as a whole: as its seal states it, or, where it was split, as the parts make it.
#[derive(Debug, Serialize)]
pub(crate) struct Shard {
    id: String,
    layout: &'static str,
    origin: &'static str,
    /// `None` for a model of several files, which have one each.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Of names, types, shapes and places, in hexadecimal; `None` as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    layout_digest: Option<String>,
    bytes: u64,
}

/// A part of the image, as its seal states it.
#[derive(Debug, Serialize)]
pub(crate) struct Part {
    id: String,
    /// The file that it is, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    digest: String,
    bytes: u64,
}

impl Part {
    fn of(shard: &SealedShard, file: Option<String>) -> Self {
        Self { id: shard.id().to_string(), file, digest: shard.digest().to_string(), bytes: shard.byte_len() }
    }
}

/// One tensor and its numbers; `null` where there are none. What JSON has no number for is text: `Infinity`, `-Infinity`, `NaN`.
#[derive(Debug, Serialize)]
pub(crate) struct Tensor {
    name: String,
    dtype: String,
    /// `None` where there are too many dimensions to show.
    shape: Option<Vec<u64>>,
    /// How many there are, where they are not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
    min: Option<Value>,
    max: Option<Value>,
    mean: Option<Value>,
    nan: Option<u64>,
    inf: Option<u64>,
}

impl Tensor {
    /// Regions and their summaries, both in the order of the image.
    pub(crate) fn all(regions: &[Region<'_>], numbers: &[Summary]) -> Vec<Self> {
        let tensor = |(region, numbers): (&Region<'_>, &Summary)| {
            let (name, dtype, shape) = match region.tensor {
                Some(tensor) => (tensor.name.clone(), tensor.dtype.clone(), tensor.shape.as_slice()),
                None => ("(file)".to_owned(), "U8".to_owned(), std::slice::from_ref(&region.bytes)),
            };
            let dimensions = Some(shape.len()).filter(|dimensions| *dimensions > MOST_DIMENSIONS);
            let shape = dimensions.is_none().then(|| shape.to_vec());
            let Summary { min, max, mean, nan, inf } = *numbers;
            Self { name, dtype, shape, dimensions, min, max, mean, nan, inf }
        };
        regions.iter().zip(numbers).map(tensor).collect()
    }
}

impl Serialize for Value {
    /// Integers that JSON numbers can carry as such; floats, where they are finite, else as text that most languages read as one.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Float(value) if value.is_finite() => serializer.serialize_f64(value),
            Self::Float(f64::INFINITY) => serializer.serialize_str("Infinity"),
            Self::Float(f64::NEG_INFINITY) => serializer.serialize_str("-Infinity"),
            Self::Float(_) => serializer.serialize_str("NaN"),
            Self::Int(value) => match (i64::try_from(value), u64::try_from(value)) {
                (Ok(value), _) => serializer.serialize_i64(value),
                (_, Ok(value)) => serializer.serialize_u64(value),
                _ => serializer.serialize_none(),
            },
        }
    }
}

/// Device memory in bytes, by the library's ledger.
#[derive(Debug, Serialize)]
pub(crate) struct Vram {
    pub(crate) total: u64,
    pub(crate) used_before: u64,
    /// `None` until something was sealed.
    pub(crate) used_sealed: Option<u64>,
    pub(crate) used_after: u64,
}

/// How long things took.
#[derive(Debug)]
pub(crate) struct Timing {
    seal: Duration,
    fastest: Duration,
    slowest: Duration,
    kept: Vec<Duration>,
    image_bytes: u64,
    /// How the image is checked.
    check: Check,
    /// Subtrees that a check looked at, at least, and of how many.
    coverage: Option<(u64, u64)>,
}

/// Seconds of the checks, over all executes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Took {
    min: f64,
    /// Of the first 2^20 executes.
    median: f64,
    max: f64,
}

impl Timing {
    pub(crate) const fn of_seal(seal: Duration, image_bytes: u64, check: Check) -> Self {
        let (fastest, slowest) = (Duration::MAX, Duration::ZERO);
        Self { seal, fastest, slowest, kept: Vec::new(), image_bytes, check, coverage: None }
    }

    /// Takes the time of one check, and what it looked at.
    pub(crate) fn checked(&mut self, took: Duration, coverage: (u64, u64)) {
        self.coverage = Some(self.coverage.map_or(coverage, |least| least.min(coverage)));
        self.fastest = self.fastest.min(took);
        self.slowest = self.slowest.max(took);
        if self.kept.len() < KEPT_DURATIONS {
            self.kept.push(took);
        }
    }

    /// What the checks of parts looked at, at least: how, how many subtrees, and of how many.
    fn part(&self) -> Option<(Check, u64, u64)> {
        self.coverage.filter(|_| !self.check.is_full()).map(|(looked, of)| (self.check, looked, of))
    }

    /// `None` before the first execute.
    fn check(&self) -> Option<Took> {
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2)?.as_secs_f64();
        Some(Took { min: self.fastest.as_secs_f64(), median, max: self.slowest.as_secs_f64() })
    }
}

impl Serialize for Timing {
    /// Seconds, bytes of the image for each second of a median check, and what that looked at.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Seconds {
            seal_seconds: f64,
            check_seconds: Option<Took>,
            bytes_per_second: Option<f64>,
            check: String,
            subtrees: Option<u64>,
            of: Option<u64>,
        }
        let check_seconds = self.check();
        let speed = |check: Took| (check.median > 0.0).then(|| to_f64(self.image_bytes) / check.median);
        let bytes_per_second = check_seconds.and_then(speed);
        let (subtrees, of) = self.coverage.unzip();
        let (seal_seconds, check) = (self.seal.as_secs_f64(), self.check.to_string());
        Seconds { seal_seconds, check_seconds, bytes_per_second, check, subtrees, of }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_between_the_extremes() {
        let mut timing = Timing::of_seal(Duration::from_secs(2), 1000, Check::Sample(3));
        assert_eq!(timing.check(), None);
        for seconds in [3, 1, 10] {
            timing.checked(Duration::from_secs(seconds), (3, 9));
        }
        assert_eq!(timing.check(), Some(Took { min: 1.0, median: 3.0, max: 10.0 }));
        let json = serde_json::to_value(&timing).unwrap();
        assert_eq!(json["seal_seconds"], 2.0);
        assert_eq!((&json["check"], &json["subtrees"], &json["of"]), (&"sample:3".into(), &3.into(), &9.into()));
        assert_eq!(json["bytes_per_second"], 1000.0 / 3.0);
    }

    #[test]
    fn what_json_has_no_number_for_is_text() {
        for (value, json) in [
            (Value::Float(f64::INFINITY), "\"Infinity\""),
            (Value::Float(f64::NEG_INFINITY), "\"-Infinity\""),
            (Value::Float(f64::NAN), "\"NaN\""),
            (Value::Float(0.5), "0.5"),
            (Value::Int(i64::MIN.into()), "-9223372036854775808"),
            (Value::Int(u64::MAX.into()), "18446744073709551615"),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        }
    }
}

//! Metric names, through the `metrics` facade.
//!
//! Owns the names, their descriptions and units, and [`Metrics`], which writes them under the label `gpu_device` (kind and
//! ordinal, as `cuda:0`). Metrics inform; nothing reads them back to decide. Label values are words of this crate, never
//! foreign text.

use std::time::Duration;

use metrics::{SharedString, Unit};

use crate::panics::aside;
use crate::spec::Check;
use crate::types::Identity;

pub(crate) const TOTAL_BYTES: &str = "vram_total_bytes";
pub(crate) const USED_BYTES: &str = "vram_used_bytes";
pub(crate) const AVAILABLE_BYTES: &str = "vram_available_bytes";
pub(crate) const QUARANTINED_BYTES: &str = "vram_quarantined_bytes";
pub(crate) const SHARDS: &str = "vram_shards";
pub(crate) const SEAL_OPERATIONS: &str = "vram_seal_operations_total";
pub(crate) const VERIFY_OPERATIONS: &str = "vram_verify_operations_total";
pub(crate) const VERIFY_SECONDS: &str = "vram_verify_duration_seconds";
pub(crate) const VERIFIED_BYTES: &str = "vram_verified_bytes_total";
pub(crate) const OLDEST_CHECK: &str = "vram_oldest_check_seconds";
pub(crate) const WIPED_BYTES: &str = "vram_wiped_bytes_total";
pub(crate) const ALLOCATION_FAILURES: &str = "vram_allocation_failures_total";
pub(crate) const AUDIT_FAILURES: &str = "vram_audit_failures_total";

pub(crate) const DEVICE_LABEL: &str = "gpu_device";

words! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Outcome {
        /// As asked.
        Ok = "ok",
        /// The bytes were not the sealed or expected ones.
        Mismatch = "mismatch",
        /// The seal was refused.
        Refused = "refused",
        /// Anything else.
        Error = "error",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gauges {
    pub(crate) total: u64,
    pub(crate) used: u64,
    pub(crate) available: u64,
    pub(crate) quarantined: u64,
    pub(crate) shards: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    device: SharedString,
}

impl Metrics {
    /// Describes the metrics to the recorder that is installed now, and labels them with the device.
    pub(crate) fn new(identity: &Identity) -> Self {
        aside!(describe);
        Self { device: format!("{}:{}", identity.kind, identity.ordinal).into() }
    }

    pub(crate) fn gauges(&self, now: Gauges) {
        for (name, value) in [
            (TOTAL_BYTES, now.total),
            (USED_BYTES, now.used),
            (AVAILABLE_BYTES, now.available),
            (QUARANTINED_BYTES, now.quarantined),
            (SHARDS, now.shards),
        ] {
            aside!(|| metrics::gauge!(name, DEVICE_LABEL => self.device.clone()).set(to_f64(value)));
        }
    }

    pub(crate) fn sealed(&self, outcome: Outcome) {
        aside!(|| {
            metrics::counter!(SEAL_OPERATIONS, DEVICE_LABEL => self.device.clone(), "result" => outcome.as_str())
                .increment(1);
        });
    }

    /// Counts a check: how strong it was, if it came to one, how it ended, how long it took, how many bytes it hashed.
    pub(crate) fn verified(&self, check: Option<Check>, outcome: Outcome, took: Duration, bytes: u64) {
        let device = || self.device.clone();
        let (check, outcome) = (check.map_or("none", Check::as_str), outcome.as_str());
        aside!(|| {
            metrics::counter!(VERIFY_OPERATIONS, DEVICE_LABEL => device(), "check" => check, "result" => outcome)
                .increment(1);
            metrics::histogram!(VERIFY_SECONDS, DEVICE_LABEL => device(), "check" => check).record(took);
            metrics::counter!(VERIFIED_BYTES, DEVICE_LABEL => device()).increment(bytes);
        });
    }

    /// How long ago all bytes of every shard had been looked at, at most.
    pub(crate) fn oldest_check(&self, age: Duration) {
        aside!(|| metrics::gauge!(OLDEST_CHECK, DEVICE_LABEL => self.device.clone()).set(age.as_secs_f64()));
    }

    pub(crate) fn wiped(&self, bytes: u64) {
        aside!(|| metrics::counter!(WIPED_BYTES, DEVICE_LABEL => self.device.clone()).increment(bytes));
    }

    pub(crate) fn allocation_failed(&self, reason: &'static str) {
        aside!(|| {
            metrics::counter!(ALLOCATION_FAILURES, DEVICE_LABEL => self.device.clone(), "reason" => reason).increment(1)
        });
    }

    pub(crate) fn audit_failed(&self) {
        aside!(|| metrics::counter!(AUDIT_FAILURES, DEVICE_LABEL => self.device.clone()).increment(1));
    }
}

/// The nearest `f64`: exact up to 2^53, which is eight petabytes.
fn to_f64(value: u64) -> f64 {
    let half = |word: u64| f64::from(u32::try_from(word & 0xffff_ffff).unwrap_or(u32::MAX));
    half(value >> 32) * 4_294_967_296.0 + half(value)
}

#[allow(clippy::disallowed_methods, reason = "whoever sets a recorder up calls it")]
fn describe() {
    use Unit::{Bytes, Count, Seconds};
    metrics::describe_gauge!(TOTAL_BYTES, Bytes, "All of the device's memory");
    metrics::describe_gauge!(USED_BYTES, Bytes, "Device memory taken, by the ledger");
    metrics::describe_gauge!(AVAILABLE_BYTES, Bytes, "Device memory that can still be given, by the ledger");
    metrics::describe_gauge!(QUARANTINED_BYTES, Bytes, "Device memory kept out of the pool");
    metrics::describe_gauge!(SHARDS, Count, "Resident shards");
    metrics::describe_counter!(SEAL_OPERATIONS, Count, "Attempts to seal, by result");
    metrics::describe_counter!(VERIFY_OPERATIONS, Count, "Checks of sealed bytes, by strength and result");
    metrics::describe_histogram!(VERIFY_SECONDS, Seconds, "Time of one check");
    metrics::describe_counter!(VERIFIED_BYTES, Bytes, "Bytes hashed by checks");
    metrics::describe_gauge!(OLDEST_CHECK, Seconds, "Since when every byte of every shard has been looked at");
    metrics::describe_counter!(WIPED_BYTES, Bytes, "Bytes wiped and proven zero");
    metrics::describe_counter!(ALLOCATION_FAILURES, Count, "Refused allocations, by reason");
    metrics::describe_counter!(AUDIT_FAILURES, Count, "Events that an audit sink did not take");
}

#[cfg(test)]
pub(crate) mod tests;

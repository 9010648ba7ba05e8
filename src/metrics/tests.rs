use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder};

use super::*;
use crate::id::WorkerId;
use crate::types::{DeviceKind, DeviceUuid};

/// A recorder that remembers every series, for `metrics::with_local_recorder`.
#[derive(Clone, Default)]
pub(crate) struct Remembered(Arc<Mutex<BTreeMap<String, f64>>>);

impl Remembered {
    /// The value of `name{label="value",…}`: the sum for counters, the last for gauges and histograms.
    pub(crate) fn get(&self, series: &str) -> Option<f64> {
        self.0.lock().unwrap().get(series).copied()
    }

    fn series(&self, key: &Key) -> Series {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Series { all: self.clone(), name: format!("{}{{{}}}", key.name(), labels.join(",")) }
    }
}

struct Series {
    all: Remembered,
    name: String,
}

impl Series {
    fn set(&self, change: impl FnOnce(f64) -> f64) {
        let mut all = self.all.0.lock().unwrap();
        let value = all.entry(self.name.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for Series {
    fn increment(&self, by: u64) {
        self.set(|value| value + to_f64(by));
    }
    fn absolute(&self, value: u64) {
        self.set(|_| to_f64(value));
    }
}

impl GaugeFn for Series {
    fn increment(&self, by: f64) {
        self.set(|value| value + by);
    }
    fn decrement(&self, by: f64) {
        self.set(|value| value - by);
    }
    fn set(&self, to: f64) {
        Series::set(self, |_| to);
    }
}

impl HistogramFn for Series {
    fn record(&self, sample: f64) {
        self.set(|_| sample);
    }
}

impl Recorder for Remembered {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(self.series(key)))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(self.series(key)))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(self.series(key)))
    }
}

#[test]
fn every_series_carries_the_device() {
    let identity = Identity {
        worker: WorkerId::new("w").unwrap(),
        epoch: [0; 16],
        kind: DeviceKind::Mock,
        uuid: DeviceUuid::from_bytes([0; 16]),
        ordinal: 3,
    };
    let seen = Remembered::default();
    metrics::with_local_recorder(&seen, || {
        let metrics = Metrics::new(&identity);
        metrics.gauges(Gauges { total: 5, used: 4, available: 3, quarantined: 2, shards: 1 });
        metrics.sealed(Outcome::Ok);
        metrics.verified(Some(Check::Sample(3)), Outcome::Mismatch, Duration::from_millis(250), 4096);
        metrics.oldest_check(Duration::from_millis(1500));
        metrics.wiped(7);
        metrics.allocation_failed("capacity");
        metrics.audit_failed();
        metrics.audit_failed();
    });
    for (series, value) in [
        ("vram_total_bytes{gpu_device=mock:3}", 5.0),
        ("vram_used_bytes{gpu_device=mock:3}", 4.0),
        ("vram_available_bytes{gpu_device=mock:3}", 3.0),
        ("vram_quarantined_bytes{gpu_device=mock:3}", 2.0),
        ("vram_shards{gpu_device=mock:3}", 1.0),
        ("vram_seal_operations_total{gpu_device=mock:3,result=ok}", 1.0),
        ("vram_verify_operations_total{gpu_device=mock:3,check=sample,result=mismatch}", 1.0),
        ("vram_verify_duration_seconds{gpu_device=mock:3,check=sample}", 0.25),
        ("vram_oldest_check_seconds{gpu_device=mock:3}", 1.5),
        ("vram_verified_bytes_total{gpu_device=mock:3}", 4096.0),
        ("vram_wiped_bytes_total{gpu_device=mock:3}", 7.0),
        ("vram_allocation_failures_total{gpu_device=mock:3,reason=capacity}", 1.0),
        ("vram_audit_failures_total{gpu_device=mock:3}", 2.0),
    ] {
        assert_eq!(seen.get(series), Some(value), "{series}");
    }
}

#[test]
fn large_gauges_are_exact() {
    for value in [0, 1, 1 << 32, (1 << 32) + 1, (80 << 30) + 12345, (1 << 53) - 1] {
        assert_eq!(format!("{}", to_f64(value)), value.to_string());
    }
}

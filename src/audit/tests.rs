use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::tracing::field::{Field, Visit};
use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::error::{BadRange, ErrorCode, RefusalReason, StopReason, VramError};
use crate::id::{ShardId, WorkerId};
use crate::metrics::Metrics;
use crate::metrics::tests::Remembered;
use crate::spec::Check;
use crate::types::{ChangedBit, DeviceKind, DeviceUuid, Digest, Identity, Origin};

fn shard() -> ShardId {
    ShardId::new("llama-8b").unwrap()
}

fn identity() -> Identity {
    Identity {
        worker: WorkerId::new("worker-7").unwrap(),
        epoch: [0xe0; 16],
        kind: DeviceKind::Mock,
        uuid: DeviceUuid::from_bytes([1; 16]),
        ordinal: 0,
    }
}

fn trail_at(clock: &Clock, requirement: AuditRequirement, sinks: Vec<Arc<dyn AuditSink>>) -> AuditTrail {
    AuditTrail::new(sinks, requirement, identity(), clock.clone(), Metrics::new(&identity())).unwrap()
}

fn trail(requirement: AuditRequirement, sinks: Vec<Arc<dyn AuditSink>>) -> AuditTrail {
    trail_at(&Clock::fixed(1_700_000_000_000_000_001), requirement, sinks)
}

fn started() -> EventKind {
    EventKind::ExecuteStarted { shard: shard() }
}

fn forged() -> EventKind {
    EventKind::SealRefused { shard: None, reason: RefusalReason::Forged, suppressed: 0 }
}

/// One event of each kind and severity.
fn samples() -> Vec<EventKind> {
    let (digest, bytes, duration) = (Digest::from_bytes([5; 32]), 4096, Duration::from_nanos(1_500));
    let range = BadRange { offset: 4096, bytes: 8192, tensor: Some("a.weight".to_owned()) };
    let finished = |outcome| EventKind::ExecuteFinished { shard: shard(), outcome, duration };
    vec![
        EventKind::ManagerStarted {
            device_name: "Mock".to_owned(),
            device_ordinal: 0,
            total_bytes: u64::MAX,
            policy: "development".to_owned(),
            relaxed: vec!["audit".to_owned()],
        },
        EventKind::VramAllocated { shard: shard(), bytes },
        EventKind::VramAllocationFailed {
            shard: shard(),
            bytes,
            available: 1,
            code: ErrorCode::VramOom,
            suppressed: 0,
        },
        EventKind::VramSealed {
            shard: shard(),
            digest,
            bytes,
            origin: Origin::Measured,
            write_protected: true,
            duration,
        },
        EventKind::SealVerified {
            shard: shard(),
            digest,
            bytes,
            check: Check::Sample(2),
            subtrees: 2,
            of: 9,
            cross_checked: 1,
            duration,
        },
        EventKind::SealRefused { shard: Some(shard()), reason: RefusalReason::Forged, suppressed: 3 },
        EventKind::SealVerificationFailed {
            weaker_checks: 2,
            shard: shard(),
            expected: digest,
            actual: Some(digest),
            first_bad: Some(range),
            reason: VerificationFailure::DigestMismatch,
            suppressed: 0,
        },
        EventKind::SealVerificationFailed {
            weaker_checks: 2,
            shard: shard(),
            expected: digest,
            actual: None,
            first_bad: None,
            reason: VerificationFailure::Quarantined,
            suppressed: 7,
        },
        started(),
        finished(ExecuteOutcome::Finished),
        finished(ExecuteOutcome::Discarded),
        finished(ExecuteOutcome::Abandoned),
        EventKind::ExecuteRefused { shard: shard(), code: ErrorCode::ManagerStopped, suppressed: 0 },
        EventKind::ShardQuarantined { shard: shard(), bytes, cause: QuarantineCause::Residue },
        EventKind::VramWiped { shard: shard(), bytes, proven: true, duration },
        EventKind::VramDeallocated { shard: shard(), bytes },
        EventKind::PolicyViolation { rule: "device", problem: "it is the mock".to_owned(), suppressed: 0 },
        EventKind::ManagerStopped { reason: StopReason::IntegrityFailure },
        EventKind::ManagerStopped { reason: StopReason::Shutdown },
        EventKind::ExecuteOverheld { shard: shard(), limit: duration, duration },
        EventKind::PatrolCompleted { shard: shard(), duration },
        EventKind::PatrolLate { shard: shard(), limit: duration, duration },
        EventKind::VramSealFailed { shard: shard(), code: ErrorCode::ModelLoadFailed, suppressed: 0 },
        EventKind::ManagerNotStarted { code: ErrorCode::CudaError },
        EventKind::DigestComputed { shard: shard(), digest, bytes, duration },
        EventKind::DifferenceFound {
            shard: shard(),
            digest,
            subtrees: 1,
            of: 2,
            set: 1,
            cleared: 0,
            first: Some(ChangedBit { offset: 9, bit: 7, was_set: false, tensor: None }),
            duration,
        },
        EventKind::PostureConfirmed { resident_shards: 2, write_protected_shards: 1 },
        EventKind::OperationFailed {
            operation: Operation::Release,
            shard: None,
            code: ErrorCode::ShardBusy,
            suppressed: 0,
        },
        EventKind::ManagerDraining {},
    ]
}

fn json(event: &AuditEvent) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(&event.to_json_line()).unwrap()
}

#[test]
fn the_specification_names_exactly_the_events_their_severities_and_fields() {
    // covers: AUD-1
    let spec = std::fs::read_to_string(format!("{}/.specs/40-audit-events.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let quoted = |cell: &str| -> BTreeSet<String> {
        // Outside parentheses, which hold values.
        let outside: String = cell.split('(').map(|part| part.rsplit(')').next().unwrap()).collect();
        outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = |section: &str| -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
        let section = spec.split("\n## ").find(|text| text.starts_with(section)).unwrap();
        let row = |line: &str| {
            let cells: Vec<_> = line.split('|').collect();
            let words = cells[2].split([' ', ';']).filter(|word| matches!(*word, "info" | "warning" | "critical"));
            (quoted(cells[1]).first().unwrap().clone(), (words.map(str::to_owned).collect(), quoted(cells[3])))
        };
        section.lines().filter(|line| line.starts_with("| `")).map(row).collect()
    };
    let envelope: BTreeSet<String> = rows("Every event").into_keys().collect();

    let sink = Arc::new(MemorySink::default());
    let trail = trail(AuditRequirement::BestEffort, vec![sink.clone()]);
    samples().into_iter().for_each(|kind| trail.emit(kind));
    let mut code: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for event in sink.events() {
        let json = json(&event);
        assert_eq!(json["event"], event.kind.name());
        assert_eq!(json["severity"], event.severity.as_str());
        assert_eq!(event.severity, event.kind.severity());
        let fields: BTreeSet<String> = json.keys().cloned().collect();
        assert!(envelope.is_subset(&fields), "{fields:?}");
        let entry = code.entry(event.kind.name().to_owned()).or_default();
        entry.0.insert(event.severity.as_str().to_owned());
        entry.1 = fields.difference(&envelope).cloned().collect();
    }
    let said = rows("Kinds");
    for (name, entry) in &code {
        assert_eq!(said.get(name), Some(entry), "{name}");
    }
    assert!(said.keys().eq(code.keys()));
}

#[test]
fn the_specification_names_exactly_the_words_that_fields_take() {
    // covers: AUD-1 SEAL-4
    let spec = std::fs::read_to_string(format!("{}/.specs/40-audit-events.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    // The words in backquotes, up to `end`, behind the name of a field in the row of an event; or behind a sentence.
    let words = |from: &str, field: &str, end: char| -> BTreeSet<String> {
        let row = spec.split_once(from).unwrap().1;
        let values = row.split_once(field).unwrap().1.split(end).next().unwrap();
        values.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    fn said<T: serde::Serialize>(all: &[T]) -> BTreeSet<String> {
        all.iter().map(|word| serde_json::to_value(word).unwrap().as_str().unwrap().to_owned()).collect()
    }
    let failures = {
        use VerificationFailure::{
            DeviceUntrusted, DigestMismatch, KeyedMismatch, NotExpected, NotExpectedLayout, NotExpectedSha256,
            Quarantined, RecordMismatch,
        };
        let expected = [NotExpected, NotExpectedSha256, NotExpectedLayout];
        let all =
            [&expected[..], &[DigestMismatch, KeyedMismatch, RecordMismatch, Quarantined, DeviceUntrusted]].concat();
        // A variant that is missing above is missing here, and does not compile.
        all.iter().for_each(|each| match each {
            NotExpectedSha256 | NotExpectedLayout => {}
            DigestMismatch | KeyedMismatch | NotExpected | RecordMismatch | Quarantined | DeviceUntrusted => {}
        });
        all
    };
    assert_eq!(words("| `seal_verification_failed`", "`reason` (", ')'), said(&failures));
    let operations = {
        use Operation::{AllocateScratch, ComputeDigest, Difference, EnforcePolicy, Release, Verify};
        [Verify, ComputeDigest, Difference, Release, AllocateScratch, EnforcePolicy].map(|each| match each {
            Verify | ComputeDigest | Difference | Release | AllocateScratch | EnforcePolicy => each,
        })
    };
    assert_eq!(words("| `operation_failed`", "`operation` (", ')'), said(&operations));
    let outcomes = {
        use ExecuteOutcome::{Abandoned, Discarded, Finished};
        [Finished, Discarded, Abandoned].map(|each| match each {
            Finished | Discarded | Abandoned => each,
        })
    };
    assert_eq!(words("| `execute_finished`", "`outcome` (", ')'), said(&outcomes));
    let causes = {
        use QuarantineCause::{Evidence, Residue, WipeImpossible};
        [Evidence, Residue, WipeImpossible].map(|each| match each {
            Evidence | Residue | WipeImpossible => each,
        })
    };
    assert_eq!(words("| `shard_quarantined`", "`cause` (", ')'), said(&causes));
    let refusals = {
        use RefusalReason::{
            ClaimsOtherDevice, ClaimsOtherEpoch, ClaimsOtherWorker, Expired, Forged, Malformed, Stale, UnknownSlot,
        };
        let all =
            [Malformed, Forged, ClaimsOtherDevice, ClaimsOtherWorker, ClaimsOtherEpoch, Stale, UnknownSlot, Expired];
        all.map(|each| match each {
            Malformed | Forged | ClaimsOtherDevice | ClaimsOtherWorker | ClaimsOtherEpoch | Stale | UnknownSlot
            | Expired => each.to_string(),
        })
    };
    assert_eq!(words("`reason` of `seal_refused`:", "", '.'), refusals.into_iter().collect());
    let stops = {
        use StopReason::{DeviceLost, DeviceUntrusted, IntegrityFailure, PolicyViolation, Shutdown};
        [IntegrityFailure, DeviceUntrusted, DeviceLost, PolicyViolation, Shutdown].map(|each| match each {
            IntegrityFailure | DeviceUntrusted | DeviceLost | PolicyViolation | Shutdown => each.to_string(),
        })
    };
    assert_eq!(words("| `manager_stopped`", "`reason` (", ')'), stops.into_iter().collect());
}

#[test]
fn an_event_is_one_flat_object() {
    // covers: AUD-1
    let sink = Arc::new(MemorySink::default());
    trail(AuditRequirement::BestEffort, vec![sink.clone()]).emit(samples().remove(6));
    let event = sink.events().remove(0);
    assert_eq!(event.kind.shard(), Some(&shard()));
    let digest = format!("sha256:{}", "05".repeat(32));
    let expected = serde_json::json!({
        "sequence": 1, "at_ns": 1_700_000_000_000_000_001_u64, "worker": "worker-7", "epoch": "e0".repeat(16),
        "device_kind": "mock", "device_uuid": "GPU-01010101-0101-0101-0101-010101010101", "severity": "critical",
        "event": "seal_verification_failed", "shard": "llama-8b", "expected": digest, "actual": digest,
        "first_bad": { "offset": 4096, "bytes": 8192, "tensor": "a.weight" }, "reason": "digest_mismatch", "weaker_checks": 2,
        "suppressed": 0,
    });
    assert_eq!(serde_json::Value::Object(json(&event)), expected);
}

#[test]
fn sinks_see_every_event_once_in_sequence_order() {
    // covers: AUD-1
    let sinks = [Arc::new(MemorySink::default()), Arc::new(MemorySink::default())];
    let trail = trail(AuditRequirement::BestEffort, vec![sinks[0].clone(), sinks[1].clone()]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| trail.emit(started())));
        }
    });
    for sink in sinks {
        assert!(sink.events().iter().map(|event| event.sequence).eq(1..=1000));
    }
}

struct Panics;

impl AuditSink for Panics {
    fn record(&self, _: &AuditEvent) -> Result<Ack, AuditError> {
        panic!("a sink of someone else's")
    }
}

#[test]
fn permissive_steps_need_their_event_accepted_where_the_policy_says_so() {
    // covers: AUD-5
    use AuditRequirement::{Accepted, BestEffort, Durable};
    let accepted = || -> Arc<dyn AuditSink> { Arc::new(MemorySink::default()) };
    let durable = || -> Arc<dyn AuditSink> { Arc::new(MemorySink::claiming_durable()) };
    let failing = || -> Arc<dyn AuditSink> {
        let sink = MemorySink::claiming_durable();
        sink.failing(true);
        Arc::new(sink)
    };
    let panics = || -> Arc<dyn AuditSink> { Arc::new(Panics) };
    for (sinks, for_accepted, for_durable) in [
        (vec![], false, false),
        (vec![accepted()], true, false),
        (vec![durable()], true, true),
        (vec![accepted(), durable()], true, true),
        (vec![durable(), accepted()], true, true),
        (vec![durable(), failing()], false, false),
        (vec![failing(), durable()], false, false),
        (vec![durable(), panics()], false, false),
    ] {
        let permits = |requirement| match trail(requirement, sinks.clone()).require(started()) {
            Ok(()) => true,
            Err(VramError::AuditUnavailable { event: "execute_started", .. }) => false,
            Err(other) => panic!("{other:?}"),
        };
        assert!(permits(BestEffort));
        assert_eq!((permits(Accepted), permits(Durable)), (for_accepted, for_durable));
    }
}

#[test]
fn failing_sinks_hold_up_neither_protective_steps_nor_other_sinks() {
    // covers: AUD-5
    // The sinks' thread counts: the recorder is the process's, and the series this test's own.
    let seen = Remembered::default();
    metrics::set_global_recorder(seen.clone()).map_err(|_| "another recorder").unwrap();
    let other = Identity { ordinal: 77, ..identity() };
    let (good, bad) = (Arc::new(MemorySink::default()), Arc::new(MemorySink::default()));
    let records = Captured::default();
    ::tracing::subscriber::with_default(records.clone(), || {
        let (clock, sinks): (_, Vec<Arc<dyn AuditSink>>) =
            (Clock::fixed(0), vec![bad.clone(), Arc::new(Panics), good.clone()]);
        let metrics = Metrics::new(&other);
        let trail = AuditTrail::new(sinks, AuditRequirement::Durable, other, clock, metrics).unwrap();
        bad.fail_next(2);
        (0..3).for_each(|_| trail.emit(started()));
    });
    let numbers = |sink: &MemorySink| sink.events().iter().map(|event| event.sequence).collect::<Vec<_>>();
    assert_eq!((numbers(&good), numbers(&bad)), (vec![1, 2, 3], vec![3]));
    assert_eq!(seen.get("vram_audit_failures_total{gpu_device=mock:77}"), Some(5.0));
    assert_eq!(records.lines().len(), 1, "failing is said once: {:?}", records.lines());
}

#[test]
fn refusals_are_limited_and_counted_exactly() {
    // covers: SEAL-4 AUD-1
    let (clock, sink) = (Clock::fixed(0), Arc::new(MemorySink::default()));
    let trail = trail_at(&clock, AuditRequirement::BestEffort, vec![sink.clone()]);
    let counts = || -> Vec<u64> {
        let count = |event: AuditEvent| match event.kind {
            EventKind::SealRefused { suppressed, .. } => suppressed,
            other => panic!("{other:?}"),
        };
        sink.events().into_iter().map(count).collect()
    };
    let refuse = |count| (0..count).for_each(|_| trail.refused(forged()));

    refuse(32);
    assert_eq!(counts(), [0; 32]);
    refuse(100);
    assert_eq!(counts().len(), 32);
    clock.advance(Duration::from_millis(100));
    refuse(5);
    assert_eq!(counts()[32..], [100]);
    trail.flush_refusals();
    trail.settle();
    assert_eq!(counts()[33..], [3]);
    trail.flush_refusals();
    trail.settle();
    assert_eq!(counts().len(), 34);
    clock.advance(Duration::from_secs(60));
    refuse(32);
    assert_eq!(counts()[34..], [0; 32]);
    assert_eq!(counts().iter().map(|suppressed| 1 + suppressed).sum::<u64>(), 32 + 100 + 5 + 32);
}

/// The least careful subscriber there could be: every field as `name=value`, raw, one record a line.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<String>>>);

impl Captured {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {}={value}", field.name()).unwrap();
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl ::tracing::Subscriber for Captured {
    fn enabled(&self, metadata: &::tracing::Metadata<'_>) -> bool {
        metadata.target() == TracingSink::TARGET
    }
    fn new_span(&self, _: &::tracing::span::Attributes<'_>) -> ::tracing::span::Id {
        ::tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &::tracing::span::Id, _: &::tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &::tracing::span::Id, _: &::tracing::span::Id) {}
    fn event(&self, event: &::tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &::tracing::span::Id) {}
    fn exit(&self, _: &::tracing::span::Id) {}
}

fn traced(kind: EventKind) -> String {
    let records = Captured::default();
    ::tracing::subscriber::with_default(records.clone(), || {
        trail(AuditRequirement::BestEffort, vec![Arc::new(TracingSink)]).emit(kind);
    });
    let lines = records.lines();
    assert_eq!(lines.len(), 1);
    lines[0].clone()
}

#[test]
fn tracing_records_carry_level_event_and_shard() {
    // covers: AUD-1
    for kind in samples() {
        let level = match kind.severity() {
            Severity::Info => "INFO",
            Severity::Warning => "WARN",
            Severity::Critical => "ERROR",
        };
        let shard = kind.shard().map_or("", ShardId::as_str);
        let head = format!("{level} event={} sequence=1 worker=worker-7 shard={shard} record={{", kind.name());
        let line = traced(kind);
        assert!(line.starts_with(&head), "{line}");
    }
}

/// Text that someone chose so that it looks like a record, or breaks one.
fn hostile() -> impl Strategy<Value = String> {
    let pieces =
        ["\n", "\r\n", "\u{1b}[2K", "\0", "\"", "\\", "\"}", "{", " sequence=2", " event=vram_sealed", "\u{2028}"];
    let piece =
        prop_oneof![proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned), "\\PC{0,8}", any::<String>()];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn hostile_text_neither_splits_nor_forges_a_record(text in hostile()) {
        // covers: AUD-6
        let digest = Digest::from_bytes([5; 32]);
        let place = BadRange { offset: 0, bytes: 1, tensor: Some(text.clone()) };
        let line = traced(EventKind::SealVerificationFailed { weaker_checks: 2,
            shard: shard(),
            expected: digest,
            actual: None,
            first_bad: Some(place),
            reason: VerificationFailure::DigestMismatch,
            suppressed: 0,
        });
        prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{:?}", line);
        // The five fields that the sink writes, and no sixth.
        prop_assert_eq!(line.matches('=').count(), 5, "{:?}", line);
        let record: serde_json::Value = serde_json::from_str(line.split_once(" record=").unwrap().1).unwrap();
        let bounded: String = text.chars().take(256).collect();
        let kept = record["first_bad"]["tensor"].as_str().unwrap();
        prop_assert_eq!(kept.trim_end_matches('…'), bounded.trim_end_matches('…'));
    }
}

#[test]
fn foreign_text_is_bounded_wherever_it_occurs() {
    // covers: AUD-6
    let long = || "é=\n".repeat(100_000);
    for kind in [
        EventKind::PolicyViolation { rule: "device", problem: long(), suppressed: 0 },
        EventKind::ManagerStarted {
            device_name: long(),
            device_ordinal: 0,
            total_bytes: 0,
            policy: long(),
            relaxed: vec![long(); 1000],
        },
        EventKind::DifferenceFound {
            shard: shard(),
            digest: Digest::from_bytes([5; 32]),
            subtrees: 1,
            of: 1,
            set: 0,
            cleared: 1,
            first: Some(ChangedBit { offset: 0, bit: 0, was_set: true, tensor: Some(long()) }),
            duration: Duration::ZERO,
        },
    ] {
        assert!(traced(kind).len() < 128 << 10);
    }
}

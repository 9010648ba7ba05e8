use super::*;
use crate::error::ManagerState;

const OPERATION: &str = "cuMemCreate";

fn failed(kind: DriverErrorKind) -> DriverError {
    DriverError { operation: OPERATION, code: 719, name: "launch_failed", kind }
}

/// The place of a variant in [`every`]; a new variant does not compile until it has one.
const fn place(error: &VramError) -> usize {
    match error {
        VramError::InvalidParams { .. } => 0,
        VramError::Config { .. } => 1,
        VramError::OutOfMemory { .. } => 2,
        VramError::ShardBusy { .. } => 3,
        VramError::StaleHandle { .. } => 4,
        VramError::SealRefused { .. } => 5,
        VramError::IntegrityFailure { .. } => 6,
        VramError::DigestMismatch { .. } => 7,
        VramError::ModelLoad { .. } => 8,
        VramError::PolicyViolation { .. } => 9,
        VramError::Device(_) => 10,
        VramError::DeviceUntrusted { .. } => 11,
        VramError::WipeFailed { .. } => 12,
        VramError::DeviceUnavailable { .. } => 13,
        VramError::AuditUnavailable { .. } => 14,
        VramError::ManagerStopped { .. } => 15,
        VramError::Internal { .. } => 16,
    }
}

/// An error, its code and category, after how many milliseconds it may be tried again, and words of what happened and what to do.
type Row = (VramError, ErrorCode, ErrorCategory, Option<u64>, [&'static str; 2]);

/// One of each variant.
fn every() -> Vec<Row> {
    use ErrorCategory as Who;
    use ErrorCode as Code;
    let shard = || ShardId::new("model-a").unwrap();
    let digest = Digest::from_bytes([0xab; 32]);
    let problem = || "is 9 bytes; give at least 32".to_owned();
    let first_bad = Some(BadRange { offset: 4096, bytes: 512, tensor: Some("a\nb".to_owned()) });
    let source = AuditError { problem: "the disk is full".to_owned(), source: None };
    let refused = VramError::SealRefused { reason: RefusalReason::Forged };
    let wipe = VramError::WipeFailed { shard: shard(), bytes: 64, source: Some(failed(DriverErrorKind::Other)) };
    let mismatch =
        VramError::DigestMismatch { shard: shard(), of: DigestKind::Image, expected: digest, actual: digest };
    let stopped = VramError::ManagerStopped { state: ManagerState::Stopped(StopReason::DeviceLost) };
    let violation =
        VramError::PolicyViolation { rule: "environment", problem: "LD_PRELOAD is set; unset it".to_owned() };
    vec![
        (
            VramError::InvalidParams { field: "salt", problem: problem() },
            Code::InvalidParams,
            Who::User,
            None,
            ["salt is 9 bytes", "give at least 32"],
        ),
        (
            VramError::Config { setting: "worker secret", problem: problem() },
            Code::ConfigError,
            Who::User,
            None,
            ["worker secret is 9 bytes", "give at least 32"],
        ),
        (
            VramError::OutOfMemory { needed: 70, available: 60 },
            Code::VramOom,
            Who::Capacity,
            Some(1000),
            ["70 bytes are needed and 60 are available", "release a shard"],
        ),
        (
            VramError::ShardBusy { shard: shard() },
            Code::ShardBusy,
            Who::User,
            Some(10),
            ["model-a is in use", "finish its executions"],
        ),
        (
            VramError::StaleHandle { shard: shard() },
            Code::StaleHandle,
            Who::User,
            None,
            ["released or sealed anew", "use its newest seal"],
        ),
        (refused, Code::SealVerificationFailed, Who::User, None, ["refused (forged)", "that this manager made"]),
        (
            VramError::IntegrityFailure { shard: shard(), first_bad },
            Code::SealVerificationFailed,
            Who::Integrity,
            None,
            ["model-a have changed; first change in bytes 4096 to 4608", "load the model again"],
        ),
        (mismatch, Code::DigestMismatch, Who::User, None, ["not the expected model", "check the file"]),
        (
            VramError::ModelLoad { problem: "\"m\": it is a directory; name a file in it".to_owned(), source: None },
            Code::ModelLoadFailed,
            Who::User,
            None,
            ["cannot be loaded", "name a file"],
        ),
        (violation, Code::PolicyViolation, Who::Policy, None, ["(environment)", "unset it"]),
        (
            VramError::Device(failed(DriverErrorKind::Other)),
            Code::CudaError,
            Who::Device,
            Some(100),
            ["cuMemCreate failed with driver error 719 (launch_failed)", "try again"],
        ),
        (
            VramError::DeviceUntrusted { operation: "digest" },
            Code::DeviceUntrusted,
            Who::Device,
            None,
            ["did not prove that its digest ran", "take it out of service"],
        ),
        (wipe, Code::WipeFailed, Who::Device, None, ["64 bytes of shard model-a", "the end of the manager tries"]),
        (
            VramError::DeviceUnavailable { problem: "CUDA device 7 is not there; check nvidia-smi".to_owned() },
            Code::DeviceUnavailable,
            Who::Device,
            None,
            ["CUDA device 7", "check nvidia-smi"],
        ),
        (
            VramError::AuditUnavailable { event: "vram_sealed", source },
            Code::AuditUnavailable,
            Who::Policy,
            Some(1000),
            ["event vram_sealed; nothing was done: the disk is full", "mend the sink"],
        ),
        (stopped, Code::ManagerStopped, Who::State, None, ["permits no new work", "build a new manager"]),
        (
            VramError::Internal { what: "a check gave no verdict" },
            Code::Internal,
            Who::Internal,
            None,
            ["a check gave no verdict", "report it"],
        ),
    ]
}

/// One line for people: no type names, no debug output, nothing that could be an address.
fn assert_is_a_sentence(text: &str) {
    for foreign in ["0x", "VramError", "Some(", "None", "{", "}", "\n", "  ", "DevicePtr"] {
        assert!(!text.contains(foreign), "{foreign:?} in {text}");
    }
    assert!(text.len() > 20 && !text.ends_with([';', ':', ' ', '.']), "{text}");
}

#[test]
fn every_error_says_what_happened_and_what_to_do_and_has_its_code() {
    // covers: ERR-2
    for (number, (error, code, category, wait, [what, advice])) in every().into_iter().enumerate() {
        assert_eq!(place(&error), number, "{error}");
        assert_eq!((error.code(), error.category()), (code, category), "{error}");
        assert_eq!(error.retry_after(), wait.map(Duration::from_millis), "{error}");
        assert_eq!(error.is_retriable(), wait.is_some(), "{error}");
        let text = error.to_string();
        assert_is_a_sentence(&text);
        let (happened, to_do) = (text.find(what), text.find(advice));
        assert!(happened.is_some() && happened < to_do, "{what:?} and then {advice:?} in {text}");
    }
    assert_eq!(every().len(), place(&VramError::Internal { what: "" }).saturating_add(1));
}

#[test]
fn a_change_is_told_as_far_as_its_place_is_known() {
    // covers: ERR-2
    let told =
        |first_bad| VramError::IntegrityFailure { shard: ShardId::new("model-a").unwrap(), first_bad }.to_string();
    let range = |tensor| Some(BadRange { offset: 0, bytes: 7, tensor });
    assert!(told(None).contains("have changed;"));
    assert!(told(range(None)).contains("bytes 0 to 7;"));
    let all = told(range(Some("layer.0".to_owned())));
    assert!(all.contains("layer.0") && all.contains("nothing is executed any more"), "{all}");
}

#[test]
fn what_there_is_no_room_for_does_not_contradict_itself() {
    // covers: ERR-2 RES-6
    for (needed, available, fits) in
        [(70, 69, false), (70, 70, true), (70, 71, true), (u64::MAX, 0, false), (0, 0, true)]
    {
        let text = VramError::OutOfMemory { needed, available }.to_string();
        assert_is_a_sentence(&text);
        assert_eq!(text.contains("the device has no room"), !fits, "{text}");
        assert_eq!(text.contains("use a smaller model"), !fits, "{text}");
        assert_eq!(text.contains(&format!("although it counts {available} as available")), fits, "{text}");
    }
}

#[test]
fn every_refusal_and_every_failed_call_says_what_to_do() {
    // covers: ERR-2 ERR-3
    use DriverErrorKind::{InvalidValue, NotSupported, Other, OutOfMemory, Sticky, Unavailable};
    use RefusalReason::{
        ClaimsOtherDevice, ClaimsOtherEpoch, ClaimsOtherWorker, Expired, Forged, Malformed, Stale, UnknownSlot,
    };
    for reason in
        [Malformed, Forged, ClaimsOtherDevice, ClaimsOtherWorker, ClaimsOtherEpoch, Stale, UnknownSlot, Expired]
    {
        let text = VramError::SealRefused { reason }.to_string();
        assert_is_a_sentence(&text);
        assert_eq!(text.contains("sealed anew"), reason == Expired, "{text}");
    }
    let mut advice: Vec<_> =
        [OutOfMemory, InvalidValue, Sticky, Unavailable, NotSupported, Other].map(recover).into_iter().collect();
    for kind in [OutOfMemory, InvalidValue, Sticky, Unavailable, NotSupported, Other] {
        let error = VramError::Device(failed(kind));
        assert_is_a_sentence(&error.to_string());
        assert_eq!(error.is_retriable(), matches!(kind, OutOfMemory | Other), "{error}");
        assert_eq!(error.to_string().contains("try again"), error.is_retriable(), "{error}");
    }
    advice.sort_unstable();
    advice.dedup();
    assert_eq!(advice.len(), 6, "each is another thing to do");
}

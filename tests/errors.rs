//! Every error by itself: its code, who has to act, whether to try again, and the words that people and trails read.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects)]

use std::time::Duration;

use vram_residency::{
    AuditError, BadRange, DeviceSelector, Digest, DriverError, DriverErrorKind, ErrorCategory as Category,
    ErrorCode as Code, LayoutKind, ManagerState, MockConfig, Origin, Policy, RefusalReason, ShardId, StopReason,
    VramError, VramManager, VramManagerBuilder, WorkerId, WorkerSecret,
};

fn driver(kind: DriverErrorKind) -> DriverError {
    DriverError { operation: "cuMemcpy", code: 719, name: "CUDA_ERROR_LAUNCH_FAILED", kind }
}

/// An error, its code, its category, how long to wait before another try in milliseconds, and words of its message.
type Row = (VramError, Code, Category, Option<u64>, &'static [&'static str]);

/// A row for each variant.
fn errors() -> Vec<Row> {
    let shard = || ShardId::new("model-a").unwrap();
    let problem = || "is wrong".to_owned();
    let digest = |byte| Digest::from_bytes([byte; 32]);
    let range = BadRange { offset: 4096, bytes: 100, tensor: Some("layer.0".to_owned()) };
    let plain = BadRange { offset: 0, bytes: 7, tensor: None };
    let sink = AuditError { problem: "disk full".to_owned(), source: None };
    let state = ManagerState::Stopped(StopReason::DeviceLost);
    vec![
        (
            VramError::InvalidParams { field: "offset", problem: problem() },
            Code::InvalidParams,
            Category::User,
            None,
            &["offset is wrong"],
        ),
        (
            VramError::Config { setting: "staging", problem: problem() },
            Code::ConfigError,
            Category::User,
            None,
            &["staging is wrong"],
        ),
        (
            VramError::OutOfMemory { needed: 10, available: 3 },
            Code::VramOom,
            Category::Capacity,
            Some(1000),
            &["10 bytes", "3 are", "headroom"],
        ),
        (VramError::ShardBusy { shard: shard() }, Code::ShardBusy, Category::User, Some(10), &["model-a", "try again"]),
        (VramError::StaleHandle { shard: shard() }, Code::StaleHandle, Category::User, None, &["model-a", "stale"]),
        (
            VramError::SealRefused { reason: RefusalReason::Expired },
            Code::SealVerificationFailed,
            Category::User,
            None,
            &["(expired)"],
        ),
        (
            VramError::IntegrityFailure { shard: shard(), first_bad: Some(range) },
            Code::SealVerificationFailed,
            Category::Integrity,
            None,
            &["model-a", "bytes 4096 to 4196", "layer.0", "nothing was executed"],
        ),
        (
            VramError::IntegrityFailure { shard: shard(), first_bad: Some(plain) },
            Code::SealVerificationFailed,
            Category::Integrity,
            None,
            &["bytes 0 to 7;"],
        ),
        (
            VramError::IntegrityFailure { shard: shard(), first_bad: None },
            Code::SealVerificationFailed,
            Category::Integrity,
            None,
            &["have changed;"],
        ),
        (
            VramError::DigestMismatch { shard: shard(), expected: digest(1), actual: digest(2) },
            Code::ModelLoadFailed,
            Category::User,
            None,
            &["sha256:0101", "sha256:0202", "check the file"],
        ),
        (
            VramError::ModelLoad { problem: problem(), source: None },
            Code::ModelLoadFailed,
            Category::User,
            None,
            &["cannot be loaded: is wrong"],
        ),
        (
            VramError::PolicyViolation { rule: "vram_only", problem: problem() },
            Code::PolicyViolation,
            Category::Policy,
            None,
            &["(vram_only)", "is wrong"],
        ),
        (
            VramError::Device(driver(DriverErrorKind::Other)),
            Code::CudaError,
            Category::Device,
            Some(100),
            &["cuMemcpy", "719", "CUDA_ERROR_LAUNCH_FAILED"],
        ),
        (
            VramError::Device(driver(DriverErrorKind::OutOfMemory)),
            Code::CudaError,
            Category::Device,
            Some(100),
            &["cuMemcpy"],
        ),
        (VramError::Device(driver(DriverErrorKind::Sticky)), Code::CudaError, Category::Device, None, &["cuMemcpy"]),
        (
            VramError::DeviceUntrusted { operation: "digest" },
            Code::CudaError,
            Category::Device,
            None,
            &["its digest ran"],
        ),
        (
            VramError::WipeFailed { shard: shard(), bytes: 512, source: None },
            Code::CudaError,
            Category::Device,
            None,
            &["512 bytes", "quarantined"],
        ),
        (
            VramError::DeviceUnavailable { problem: problem() },
            Code::DeviceUnavailable,
            Category::Device,
            None,
            &["no device: is wrong"],
        ),
        (
            VramError::AuditUnavailable { event: "vram_sealed", source: sink },
            Code::AuditUnavailable,
            Category::Policy,
            Some(1000),
            &["vram_sealed", "disk full"],
        ),
        (
            VramError::ManagerStopped { state },
            Code::ManagerStopped,
            Category::State,
            None,
            &["stopped after device_lost", "new manager"],
        ),
        (VramError::Internal { what: "a defect" }, Code::Internal, Category::Internal, None, &["a defect"]),
    ]
}

#[test]
fn every_error_has_code_category_and_words() {
    // covers: ERR-2 ERR-4
    for (error, code, category, wait, words) in errors() {
        let text = error.to_string();
        assert_eq!((error.code(), error.category()), (code, category), "{text}");
        assert_eq!(error.retry_after(), wait.map(Duration::from_millis), "{text}");
        assert_eq!(error.is_retriable(), wait.is_some(), "{text}");
        for word in words {
            assert!(text.contains(word), "{text:?} without {word:?}");
        }
    }
}

#[test]
fn the_words_of_events_are_these() {
    // covers: ERR-2
    let codes = [
        (Code::InvalidParams, "INVALID_PARAMS"),
        (Code::ConfigError, "CONFIG_ERROR"),
        (Code::VramOom, "VRAM_OOM"),
        (Code::ShardBusy, "SHARD_BUSY"),
        (Code::StaleHandle, "STALE_HANDLE"),
        (Code::SealVerificationFailed, "SEAL_VERIFICATION_FAILED"),
        (Code::PolicyViolation, "POLICY_VIOLATION"),
        (Code::CudaError, "CUDA_ERROR"),
        (Code::DeviceUnavailable, "DEVICE_UNAVAILABLE"),
        (Code::ModelLoadFailed, "MODEL_LOAD_FAILED"),
        (Code::AuditUnavailable, "AUDIT_UNAVAILABLE"),
        (Code::ManagerStopped, "MANAGER_STOPPED"),
        (Code::Internal, "INTERNAL"),
    ];
    for (code, word) in codes {
        assert_eq!(code.as_str(), word);
    }
    let reasons = [
        (RefusalReason::Malformed, "malformed"),
        (RefusalReason::Forged, "forged"),
        (RefusalReason::ClaimsOtherDevice, "claims_other_device"),
        (RefusalReason::ClaimsOtherWorker, "claims_other_worker"),
        (RefusalReason::ClaimsOtherEpoch, "claims_other_epoch"),
        (RefusalReason::Stale, "stale"),
        (RefusalReason::UnknownSlot, "unknown_slot"),
        (RefusalReason::Expired, "expired"),
    ];
    for (reason, word) in reasons {
        assert_eq!((reason.as_str(), reason.to_string().as_str()), (word, word));
    }
    let stops = [
        (StopReason::IntegrityFailure, "integrity_failure"),
        (StopReason::DeviceUntrusted, "device_untrusted"),
        (StopReason::DeviceLost, "device_lost"),
        (StopReason::PolicyViolation, "policy_violation"),
        (StopReason::Shutdown, "shutdown"),
    ];
    for (reason, word) in stops {
        assert_eq!((reason.as_str(), reason.to_string().as_str()), (word, word));
        assert_eq!(ManagerState::Stopped(reason).to_string(), format!("stopped after {word}"));
    }
    assert_eq!([ManagerState::Ready, ManagerState::Draining].map(|state| state.to_string()), ["ready", "draining"]);
    assert_eq!([Origin::Expected, Origin::Measured].map(|origin| origin.to_string()), ["expected", "measured"]);
    assert_eq!([LayoutKind::File, LayoutKind::Tensors].map(|kind| kind.to_string()), ["file", "tensors"]);
}

fn builder() -> VramManagerBuilder {
    VramManager::builder(WorkerId::new("worker").unwrap(), WorkerSecret::from_bytes(&[7; 32]).unwrap())
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(16 << 20)))
        .policy(Policy::development())
}

#[test]
fn settings_out_of_range_build_no_manager() {
    // covers: ERR-2
    for (built, setting) in [
        (builder().staging(4095), "staging"),
        (builder().staging((1 << 30) + 1), "staging"),
        (builder().digest_threads(0), "digest threads"),
        (builder().headroom(16 << 20), "headroom"),
    ] {
        match built.build() {
            Err(VramError::Config { setting: named, .. }) => assert_eq!(named, setting),
            other => panic!("{setting}: {other:?}"),
        }
    }
    builder().staging(4096).digest_threads(1).headroom(0).build().unwrap();
    let stored = builder().policy(Policy::development().require_stored_secret(true)).build();
    assert!(matches!(stored, Err(VramError::PolicyViolation { rule: "stored_secret", .. })));
    let shown = format!("{:?}", builder());
    assert!(shown.contains("worker") && !shown.contains("7, 7"), "{shown}");
}

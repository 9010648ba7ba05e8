//! Every error by itself: its code, who has to act, whether to try again, and the words that people and trails read.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects)]
#![allow(clippy::as_conversions)]

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use vram_residency::{
    AuditError, BadRange, DeviceSelector, Digest, DigestKind, DriverError, DriverErrorKind, ErrorCategory as Category,
    ErrorCode as Code, ExecuteOptions, LayoutKind, ManagerState, MockConfig, Origin, Policy, Purpose, RawRegion,
    RefusalReason, SealedSet, SealedShard, SetId, ShardId, ShardSource, ShardSpec, StopReason, TreeParams, VramError,
    VramManager, VramManagerBuilder, WorkerId, WorkerSecret,
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
            &[
                "model-a",
                "bytes 4096 to 4196",
                "layer.0",
                "nothing is executed any more",
                "no result since the last good check counts",
            ],
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
            VramError::DigestMismatch { shard: shard(), of: DigestKind::Image, expected: digest(1), actual: digest(2) },
            Code::DigestMismatch,
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
            Code::DeviceUntrusted,
            Category::Device,
            None,
            &["its digest ran"],
        ),
        (
            VramError::WipeFailed { shard: shard(), bytes: 512, source: None },
            Code::WipeFailed,
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
        (Code::DeviceUntrusted, "DEVICE_UNTRUSTED"),
        (Code::WipeFailed, "WIPE_FAILED"),
        (Code::DigestMismatch, "DIGEST_MISMATCH"),
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

/// What a real call answers, and the advice in it.
type Advice = (Result<(), VramError>, &'static str);

#[test]
fn what_real_calls_answer_says_what_to_do() {
    // covers: ERR-2
    let manager = builder().build().unwrap();
    let spec = |id| ShardSpec::new(ShardId::new(id).unwrap());
    let seal = |id, bytes: &[u8]| manager.seal_model(spec(id), ShardSource::bytes(bytes));
    let shard = seal("one", &[1; 100]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, bytes: usize| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![1; bytes]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        WorkerSecret::from_file(path).map(drop)
    };
    let loose = |mode| {
        let path = folder.path().join("loose");
        std::fs::write(&path, [1; 32]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        WorkerSecret::from_file(path).map(drop)
    };
    let file = |bytes: &[u8]| {
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        ShardSource::safetensors(&path).map(drop)
    };
    let tensors = |header: &str, data: usize| {
        file(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat())
    };
    let one = |from, to| format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[{from},{to}]}}}}"#);
    let adopt = |regions: &[RawRegion]| {
        // SAFETY: every one of these regions is refused before it is looked at.
        unsafe { manager.adopt(spec("engine"), (), regions) }.map(drop).map_err(|refused| refused.error)
    };
    let run = manager.begin(&shard, ExecuteOptions::default()).unwrap();
    let read = run.read_at(90, &mut [0; 20]);
    let rows: Vec<Advice> = vec![
        (read, "; read within it"),
        (manager.release(&shard).map(drop), "; finish its executions"),
        (seal("one", &[1]).map(drop), "; release that shard first or choose another id"),
        (seal("none", &[]).map(drop), "; there is nothing to seal in the byte slice, give a model that is not empty"),
        (seal("large", &vec![1; 17 << 20]).map(drop), "; release a shard, lower the headroom"),
        (
            manager.seal_model(spec("huge"), ShardSource::reader(u64::MAX, std::io::empty())).map(drop),
            "; split the model",
        ),
        (
            manager.seal_model(spec("cut"), ShardSource::reader(9, std::io::empty())).map(drop),
            "; nobody may change a model",
        ),
        (
            manager.seal_model(spec("x").part(SetId::random().unwrap(), 2, 2), ShardSource::bytes(&[1])).map(drop),
            "count from 0",
        ),
        (manager.release_by_id(&ShardId::new("two").unwrap()).map(drop), "; give the name of one that was sealed"),
        (SealedSet::check(&[]).map(drop), "; give the parts of one set"),
        (SealedSet::check(&[(&manager, &shard)]).map(drop), "; give the parts of one set"),
        (manager.allocate_scratch(Purpose::Workspace, 0).map(drop), "; give at least 1"),
        (adopt(&[]), "; give at least one"),
        (adopt(&[RawRegion::new(0, 9)]), "; give what the engine allocated"),
        (adopt(&[RawRegion::new(64, 9), RawRegion::new(70, 9)]), "; give each byte once"),
        (secret("long", 4097), "; give 32 to 4096"),
        (secret("short", 31), "32 to 4096 are allowed"),
        (WorkerSecret::from_file(folder.path()).map(drop), "; name a file that holds"),
        (WorkerSecret::from_file(folder.path().join("none")).map(drop), "; name a file that is there"),
        (WorkerSecret::from_systemd_credential(".x").map(drop), "; give 1 to 255 characters"),
        (loose(0o640), "; chmod 600 it"),
        (tensors(&one(0, 4), 3), "; check that the download is complete"),
        (tensors(&one(0, 4), 5), "; write the file again"),
        (tensors(&one(1, 5), 5), "write the file again"),
        (tensors(&one(0, 3), 3), "; write the file again"),
        (tensors(&one(4, 0), 4), "write the file again"),
        (ShardSource::file(folder.path()).map(drop), "; name the model file in it"),
        (ShardSource::file(folder.path().join("none")).map(drop), "; check the path"),
        (ShardId::new("a/b").map(drop), "; only A-Z a-z 0-9 . _ - are allowed"),
        (TreeParams::new(1000, &[]).map(drop), "; give a power of two"),
        (TreeParams::new(4096, &[0; 33]).map(drop), "32 are allowed"),
        ("sha256:xyz".parse::<Digest>().map(drop), "sha256:"),
        (builder().staging(1).build().map(drop), "; give a size that is"),
        (builder().headroom(1 << 40).build().map(drop), "; choose less"),
        (builder().policy(Policy::production()).build().map(drop), "; select a CUDA device"),
        (builder().policy(Policy::development().require_stored_secret(true)).build().map(drop), "; load it with"),
        (SealedShard::from_bytes(&[1; 9]).map(drop), "; present a seal that this manager made"),
    ];
    for (row, (result, advice)) in rows.into_iter().enumerate() {
        let said = result.expect_err(&format!("row {row}: {advice}")).to_string();
        assert!(said.contains(advice), "row {row}: {advice:?} in {said:?}");
    }
    run.finish().unwrap();
    manager.release(&shard).unwrap();
    let said = manager.release(&shard).unwrap_err().to_string();
    assert!(said.contains("; present") || said.contains("; use its newest seal"), "{said}");
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

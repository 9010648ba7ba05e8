//! What people and trails read of errors: the codes, and what calls that were refused say to do. What each error is by itself is
//! decided in the library's own tests.

use std::os::unix::fs::PermissionsExt as _;

use super::{ErrorCode as Code, *};

fn builder() -> VramManagerBuilder {
    VramManager::builder(WorkerId::new("worker").unwrap(), WorkerSecret::from_bytes(&[7; 32]).unwrap())
        .device(DeviceSelector::Mock(small()))
        .policy(Policy::development())
}

#[test]
fn the_codes_are_these_words() {
    // covers: ERR-2
    for (code, word) in [
        (Code::InvalidParams, "INVALID_PARAMS"),
        (Code::ConfigError, "CONFIG_ERROR"),
        (Code::VramOom, "VRAM_OOM"),
        (Code::ShardBusy, "SHARD_BUSY"),
        (Code::StaleHandle, "STALE_HANDLE"),
        (Code::SealVerificationFailed, "SEAL_VERIFICATION_FAILED"),
        (Code::PolicyViolation, "POLICY_VIOLATION"),
        (Code::CudaError, "CUDA_ERROR"),
        (Code::DeviceUnavailable, "DEVICE_UNAVAILABLE"),
        (Code::DeviceUntrusted, "DEVICE_UNTRUSTED"),
        (Code::WipeFailed, "WIPE_FAILED"),
        (Code::DigestMismatch, "DIGEST_MISMATCH"),
        (Code::ModelLoadFailed, "MODEL_LOAD_FAILED"),
        (Code::AuditUnavailable, "AUDIT_UNAVAILABLE"),
        (Code::ManagerStopped, "MANAGER_STOPPED"),
        (Code::Internal, "INTERNAL"),
    ] {
        assert_eq!(code.as_str(), word);
    }
    let state = ManagerState::Stopped(StopReason::DeviceLost);
    assert_eq!(
        [state, ManagerState::Draining].map(|state| state.to_string()),
        ["stopped after device_lost", "draining"]
    );
    assert_eq!([Origin::Expected, Origin::Measured].map(|origin| origin.to_string()), ["expected", "measured"]);
}

/// What a real call answers, and the advice in it.
type Advice = (Result<(), VramError>, &'static str);

#[test]
fn what_real_calls_answer_says_what_to_do() {
    // covers: ERR-2
    let manager = builder().build().unwrap();
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
        (manager.seal_model(spec("huge"), ShardSource::reader(u64::MAX, never())).map(drop), "; split the model"),
        (
            manager.seal_model(spec("cut"), ShardSource::reader(9, std::io::empty())).map(drop),
            "; nobody may change a model",
        ),
        (
            manager.seal_model(spec("x").part(SetId::random().unwrap(), 2, 2), ShardSource::bytes(&[1])).map(drop),
            "count from 0",
        ),
        (manager.release_by_id(&name("two")).map(drop), "; give the name of one that was sealed"),
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

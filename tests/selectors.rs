//! Which device a manager opens: the one that was asked for, or none, with one clear sentence. What there is not never becomes
//! something else.
// covers: ERR-2 RES-8

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use vram_residency::{
    DeviceSelector, DeviceUuid, ErrorCategory, ErrorCode, MockConfig, Policy, VramError, VramManager, WorkerId,
    WorkerSecret,
};

fn open(selector: DeviceSelector) -> Result<VramManager, VramError> {
    VramManager::builder(WorkerId::new("suite").unwrap(), WorkerSecret::random().unwrap())
        .device(selector)
        .policy(Policy::development())
        .staging(64 << 10)
        .build()
}

/// The sentence of a device that is not there, which has all these words.
#[track_caller]
fn no_device(selector: DeviceSelector, words: &[&str]) {
    let error = open(selector).unwrap_err();
    assert!(matches!(&error, VramError::DeviceUnavailable { .. }), "{error:?}");
    assert_eq!((error.code(), error.category()), (ErrorCode::DeviceUnavailable, ErrorCategory::Device));
    let sentence = error.to_string();
    for word in words {
        assert!(sentence.contains(word), "{word:?} in {sentence:?}");
    }
    assert!(!sentence.contains(['\n', '{', '}']), "{sentence:?}");
}

#[test]
fn what_no_machine_has_is_refused_by_name_and_never_becomes_the_mock() {
    // covers: ERR-2
    // A machine with a GPU has no 4001 of them, and none of this identity.
    let uuid = DeviceUuid::from_bytes([9; 16]);
    no_device(DeviceSelector::Cuda(4000), &["CUDA device 4000 cannot be opened: "]);
    no_device(DeviceSelector::CudaUuid(uuid), &[&format!("the CUDA device {uuid} cannot be opened: ")]);
    let mock = MockConfig::new().capacity_bytes(1 << 20).devices(2);
    assert_eq!(open(DeviceSelector::Mock(mock.clone().ordinal(1))).unwrap().device_ordinal(), 1);
    no_device(DeviceSelector::Mock(mock.ordinal(2)), &["2 devices, numbered from 0", "there is no device 2"]);
}

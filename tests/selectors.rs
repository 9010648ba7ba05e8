//! Which device a manager opens: the one that was asked for, or none, with one clear sentence. What there is not never becomes
//! something else.
// covers: ERR-2 RES-8

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use vram_residency::{
    DeviceKind, DeviceSelector, DeviceUuid, ErrorCategory, ErrorCode, MockConfig, Policy, VramError, VramManager,
    WorkerId, WorkerSecret,
};
use vram_residency_rig::{Kind, Machine};

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
fn an_ordinal_that_the_driver_does_not_have_says_how_many_it_has() {
    // covers: ERR-2 RES-8
    let machine = Machine::new(Kind::StandIn, 64 << 20);
    for ordinal in [2, 7, u32::MAX] {
        let words = [&format!("CUDA device {ordinal} cannot be opened"), "no such ordinal", "2 device(s)"];
        no_device(machine.selector_of(ordinal), &words);
    }
    // The twin: those that it has.
    for ordinal in [0, 1] {
        let manager = open(machine.selector_of(ordinal)).unwrap();
        assert_eq!((manager.device_kind(), manager.device_ordinal()), (DeviceKind::Cuda, ordinal));
    }
}

#[test]
fn a_driver_without_devices_and_a_library_that_is_none_say_so() {
    // covers: ERR-2
    let machine = Machine::new(Kind::StandIn, 64 << 20);
    machine.gpu().unwrap().stand_in.as_ref().unwrap().set("devices", 0);
    no_device(machine.selector_of(0), &["CUDA device 0 cannot be opened", "sees no device", "nvidia-smi"]);
    let nowhere = DeviceSelector::StandIn { library: "/nowhere/libcuda.so.1".into(), ordinal: 3 };
    no_device(nowhere, &["CUDA device 3 cannot be opened", "no NVIDIA driver library", "install the NVIDIA driver"]);
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

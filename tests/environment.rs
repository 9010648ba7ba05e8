//! What production's rule for the environment finds, whenever a manager looks. One test in a program of its own: what it loads
//! stays in the process.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::panic)]

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;

use vram_residency::{
    DeviceSelector, EventKind, ManagerState, MemorySink, MockConfig, Policy, StopReason, VramError, VramManager,
    WorkerId, WorkerSecret,
};

fn build(policy: &Policy, sink: &Arc<MemorySink>) -> Result<VramManager, VramError> {
    VramManager::builder(WorkerId::new("suite").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(16 << 20)))
        .policy(policy.clone())
        .audit(sink.clone())
        .build()
}

#[test]
fn a_library_that_others_may_change_is_refused_before_and_after_a_manager_is_built() {
    // covers: ERR-2
    let strict = Policy::development().require_clean_environment(true);
    let sink = Arc::new(MemorySink::default());
    strict.check_environment().unwrap();
    let manager = build(&strict, &sink).unwrap();
    manager.enforce_vram_only_policy().unwrap();

    // An engine loads a plugin.
    let folder = tempfile::tempdir().unwrap();
    set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let plugin = folder.path().join("plugin.so");
    let made = Command::new("cc").args(["-shared", "-o"]).arg(&plugin).args(["-x", "c", "/dev/null"]).status();
    assert!(made.unwrap().success());
    // SAFETY: a library without a line of code.
    let library = unsafe { libloading::Library::new(&plugin) }.unwrap();
    let refusals = [
        strict.check_environment().unwrap_err(),
        manager.enforce_vram_only_policy().unwrap_err(),
        build(&strict, &sink).unwrap_err(),
    ];
    for refused in refusals {
        let VramError::PolicyViolation { rule, problem } = &refused else { panic!("{refused:?}") };
        assert_eq!(*rule, "clean_environment");
        let place = plugin.to_str().unwrap();
        assert!(problem.contains(&format!("\"{place}\" is mapped into this process")), "{problem}");
    }
    assert_eq!(manager.state(), ManagerState::Stopped(StopReason::PolicyViolation));
    let told = sink.events().iter().filter(|event| matches!(event.kind, EventKind::PolicyViolation { .. })).count();
    assert_eq!(told, 2, "by the manager, and by the one that was not built");

    // The twin: development allows it.
    Policy::development().check_environment().unwrap();
    build(&Policy::development(), &sink).unwrap().enforce_vram_only_policy().unwrap();
    drop(library);
}

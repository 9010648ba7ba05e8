//! Foreign code in the worker's process, and secrets as containers mount them.
// covers: KEY-1 ERR-2

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use crate::common::{Ended, Files, end};

/// Says that it runs and, asked to, hides what loaded it.
const PLANTED: &str = r#"
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void run(void) {
    (void)!write(2, "PLANTED\n", 8);
    if (getenv("HIDE")) unsetenv("LD_PRELOAD");
}
"#;

/// A folder that anybody may write, with a small model, a secret and a planted driver.
fn planted() -> (Files, String) {
    let files = Files::tiny();
    fs::set_permissions(files.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let (library, source) = (files.path("libcuda.so.1"), files.with("planted.c", PLANTED.as_bytes()));
    assert!(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap().success());
    files.with_mode("secret", &[7; 32], 0o600);
    (files, library.to_str().unwrap().to_owned())
}

/// The worker on this device with this secret and these variables. Whoever reads a secret that is not there ends with code 2.
fn run(files: &Files, device: &str, secret: &str, environment: &[(&str, &str)]) -> Ended {
    let mut worker = files.command(["run", "tiny.safetensors", "--device", device, "--secret-file", secret]);
    end(worker.envs(environment.iter().copied()).spawn().unwrap())
}

#[test]
fn foreign_code_is_refused_before_the_secret_is_read() {
    let (files, library) = planted();
    run(&files, "cuda:0", "none", &[]).assert_refused(2, &["worker secret"]);
    let preload = ("LD_PRELOAD", library.as_str());
    let refused = run(&files, "cuda:0", "none", &[preload]);
    refused.assert_refused(4, &["(clean_environment)", "LD_PRELOAD is set"]);
    assert!(refused.stderr.contains("PLANTED"));
    let hidden = run(&files, "cuda:0", "none", &[preload, ("HIDE", "1")]);
    hidden.assert_refused(4, &["(clean_environment)", "is mapped into this process", &library]);
    // A library of the system that others may change.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let own = paths.find(|path| path.contains("libgcc_s")).expect("the compiler's library, as the worker has it");
    fs::copy(own, files.path("libgcc_s.so.1")).unwrap();
    let changed = run(&files, "cuda:0", "none", &[("LD_LIBRARY_PATH", files.path("").to_str().unwrap())]);
    changed.assert_refused(4, &["libgcc_s.so.1\" is mapped into this process"]);
    // An injected library, before any driver is loaded: else the other answer would be that there is none.
    let injected = run(&files, "cuda:0", "none", &[("CUDA_INJECTION64_PATH", "/nowhere/inject.so")]);
    injected.assert_refused(4, &["(clean_environment): CUDA_INJECTION64_PATH is set"]);
    run(&files, "cuda:0", "none", &[("CUDA_INJECTION64_PATH", "")]).assert_refused(2, &["worker secret"]);
    // Development says what production refuses.
    for (environment, warned) in [(&[preload][..], true), (&[], false)] {
        let ended = run(&files, "mock", "secret", environment).assert_ok();
        assert_eq!(ended.stderr.contains("LD_PRELOAD is set"), warned, "{}", ended.stderr);
    }
}

#[test]
fn a_planted_driver_is_not_loaded() {
    let (files, library) = planted();
    let run = |driver: &[&str], environment: &[(&str, &str)]| {
        let line = ["run", "tiny.safetensors", "--device", "cuda:0", "--secret-file", "secret"];
        let mut worker = files.command(line.iter().chain(driver));
        let ended = end(worker.envs(environment.iter().copied()).spawn().unwrap());
        assert!(!ended.stderr.contains("PLANTED"), "{}", ended.stderr);
        ended
    };
    // A container sets it: it is no reason to refuse, and does not choose.
    let ended = run(&[], &[("LD_LIBRARY_PATH", files.path("").to_str().unwrap())]);
    assert!(!ended.stderr.contains("clean_environment"), "{}", ended.stderr);
    let refused = run(&["--driver-library", &library], &[]);
    refused.assert_refused(4, &["(clean_environment): the driver's library"]);
    run(&["--driver-library", "libcuda.so.1"], &[]).assert_refused(2, &["not an absolute path"]);
}

#[test]
fn a_secret_that_kubernetes_mounts_is_taken_where_that_is_asked_for() {
    let files = Files::tiny();
    fs::create_dir(files.path("..2026")).unwrap();
    files.with_mode("..2026/secret", &[7; 32], 0o444);
    symlink("..2026", files.path("..data")).unwrap();
    symlink("..data/secret", files.path("secret")).unwrap();
    let line = "run tiny.safetensors --device mock --secret-file secret";
    let mounted = format!("{line} --secret-file-mode mounted");
    files.call(&mounted).assert_ok();
    for strict in [line.to_owned(), format!("{line} --secret-file-mode strict")] {
        files.call(&strict).assert_refused(2, &["have it judged as a mounted secret"]);
    }
    fs::set_permissions(files.path("secret"), fs::Permissions::from_mode(0o464)).unwrap();
    files.call(&mounted).assert_refused(2, &["worker secret can be written by group or others"]);
}

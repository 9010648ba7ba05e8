//! Foreign code in the worker's process, and secrets as containers mount them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]
// covers: KEY-1 ERR-2

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use common::{Ended, Files, command, end, model};

/// Says that it runs and, asked to, hides what loaded it.
const PLANTED: &str = r#"
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void run(void) {
    (void)!write(2, "PLANTED\n", 8);
    if (getenv("HIDE")) unsetenv("LD_PRELOAD");
}
"#;

/// A folder that anybody may write, with a small model and a planted driver.
fn planted() -> (Files, PathBuf) {
    let files = Files::new();
    fs::set_permissions(files.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let library = files.path("libcuda.so.1");
    let source = files.with("planted.c", PLANTED.as_bytes());
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(compiled.success());
    files.with("model.safetensors", &model());
    (files, library)
}

/// The worker on this device, with a secret file that is not there: whoever reads it ends with code 2.
fn run(files: &Files, device: &str, change: impl FnOnce(&mut Command)) -> Ended {
    let mut worker = command(["run", "--device", device, "--secret-file"]);
    worker.arg(files.path("no-secret")).arg(files.path("model.safetensors"));
    change(&mut worker);
    end(worker.spawn().unwrap())
}

#[test]
fn a_preloaded_library_is_refused_before_the_secret_is_read() {
    let (files, library) = planted();
    let clean = run(&files, "cuda:0", |_| ());
    assert_eq!(clean.code, Some(2), "{}", clean.stderr);
    assert!(clean.sentence().contains("worker secret"), "{}", clean.stderr);
    for (hide, reason) in [(false, "LD_PRELOAD is set"), (true, "is mapped into this process")] {
        let refused = run(&files, "cuda:0", |worker| {
            worker.env("LD_PRELOAD", &library);
            if hide {
                worker.env("HIDE", "1");
            }
        });
        assert_eq!(refused.code, Some(4), "{}", refused.stderr);
        assert!(refused.stderr.contains("PLANTED"));
        let sentence = refused.sentence();
        assert!(sentence.contains("(clean_environment)") && sentence.contains(reason), "{sentence}");
        assert!(!hide || sentence.contains(library.to_str().unwrap()), "{sentence}");
    }
}

#[test]
fn a_library_of_the_system_that_others_may_change_is_refused_before_the_secret_is_read() {
    let (files, _) = planted();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let own =
        maps.lines().find_map(|line| line.find('/').map(|at| &line[at..]).filter(|path| path.contains("libgcc_s")));
    let own = own.expect("this program uses the compiler's library, as the worker does");
    fs::copy(own, files.path("libgcc_s.so.1")).unwrap();
    let refused = run(&files, "cuda:0", |worker| {
        worker.env("LD_LIBRARY_PATH", files.0.path());
    });
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.sentence().contains("libgcc_s.so.1\" is mapped into this process"), "{}", refused.stderr);
}

#[test]
fn a_planted_driver_is_not_loaded() {
    let (files, library) = planted();
    let secret = files.with("secret", &[7; 32]);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let run = |change: &dyn Fn(&mut Command)| {
        let mut worker = command(["run", "--device", "cuda:0", "--secret-file"]);
        worker.arg(&secret).arg(files.path("model.safetensors"));
        change(&mut worker);
        let ended = end(worker.spawn().unwrap());
        assert!(!ended.stderr.contains("PLANTED"), "{}", ended.stderr);
        ended
    };
    // A container sets it: it is no reason to refuse, and does not choose.
    let ended = run(&|worker| {
        worker.env("LD_LIBRARY_PATH", files.0.path());
    });
    assert!(!ended.stderr.contains("clean_environment"), "{}", ended.stderr);
    let refused = run(&|worker| {
        worker.arg("--driver-library").arg(&library);
    });
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    let sentence = refused.sentence();
    assert!(sentence.contains("(clean_environment): the driver's library"), "{sentence}");
    let relative = run(&|worker| {
        worker.args(["--driver-library", "libcuda.so.1"]);
    });
    assert_eq!(relative.code, Some(2), "{}", relative.stderr);
    assert!(relative.sentence().contains("not an absolute path"), "{}", relative.stderr);
}

#[test]
#[cfg(feature = "mock")]
fn development_says_what_production_refuses() {
    let (files, library) = planted();
    let secret = files.with("no-secret", &[7; 32]);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    for (planted, warned) in [(true, true), (false, false)] {
        let ended = run(&files, "mock", |worker| {
            if planted {
                worker.env("LD_PRELOAD", &library);
            }
        });
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.stderr.contains("LD_PRELOAD is set"), warned, "{}", ended.stderr);
    }
}

#[test]
#[cfg(feature = "mock")]
fn a_secret_that_kubernetes_mounts_is_taken_where_that_is_asked_for() {
    let files = Files::new();
    let path = files.with("model.safetensors", &model());
    fs::create_dir(files.path("..2026")).unwrap();
    fs::set_permissions(files.with("..2026/secret", &[7; 32]), fs::Permissions::from_mode(0o444)).unwrap();
    symlink("..2026", files.path("..data")).unwrap();
    symlink("..data/secret", files.path("secret")).unwrap();
    let run = |mode: &[&str]| {
        let mut worker = command(["run", "--device", "mock", "--secret-file"]);
        worker.arg(files.path("secret")).args(mode).arg(&path);
        end(worker.spawn().unwrap())
    };
    let taken = run(&["--secret-file-mode", "mounted"]);
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    for strict in [&[][..], &["--secret-file-mode", "strict"]] {
        let refused = run(strict);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.sentence().contains("have it judged as a mounted secret"), "{}", refused.stderr);
    }
    fs::set_permissions(files.path("secret"), fs::Permissions::from_mode(0o464)).unwrap();
    assert_eq!(run(&["--secret-file-mode", "mounted"]).code, Some(2), "others may write it");
    let alone = common::worker(["run", "--secret-file-mode", "mounted"]);
    assert_eq!(alone.code, Some(2));
    assert!(alone.stderr.contains("--secret-file <FILE>"), "{}", alone.stderr);
}

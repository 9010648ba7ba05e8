//! Every way in which a device cannot be opened has a sentence of its own, and nothing panics or leaks.
// covers: ERR-3 DEV-6

use super::*;
use crate::error::ErrorCode;
use crate::ffi::{Api, LoadError, OPTIONAL, REQUIRED};

fn sentence(fake: &Fake, wanted: Wanted) -> String {
    let error = super::super::open::unavailable(wanted, &open_on(fake, wanted).unwrap_err());
    assert_eq!(error.code(), ErrorCode::DeviceUnavailable);
    clean(fake);
    error.to_string()
}

/// Leaves it to the loader to find what the library needs.
#[cfg(feature = "cuda")]
fn load_from(path: &std::path::Path) -> Result<Api, LoadError> {
    Api::load(&[crate::ffi::Candidate { path: path.to_owned(), needs: Vec::new() }])
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text}: {part}");
    }
}

#[test]
fn a_device_is_opened_by_ordinal_or_uuid_and_says_what_it_is() {
    // covers: RES-8
    let fake = Fake::new();
    let first = open_on(&fake, Wanted::First).unwrap();
    assert_eq!((first.info().ordinal, first.info().kind, first.info().granularity), (0, DeviceKind::Mock, GRANULE));
    assert_eq!((first.info().name.as_str(), first.info().total_bytes), ("mock device", 1 << 32));
    let mut other = *first.info().uuid.as_bytes();
    other[0] ^= 1;
    let other = DeviceUuid::from_bytes(other);
    let second = open_on(&fake, Wanted::Uuid(other)).unwrap();
    assert_eq!((second.info().ordinal, second.info().uuid), (1, other));
    assert_eq!(fake.get("retained"), 2);
    let again = open_on(&fake, Wanted::Ordinal(1)).unwrap();
    assert_eq!(again.info().uuid, second.info().uuid);
    drop((first, second, again));
    clean(&fake);
}

#[test]
#[cfg(feature = "cuda")]
fn a_missing_library_says_so() {
    let error = open_with(|| load_from("/no-such-library.so".as_ref()), &Images::of_mock(), Wanted::First).unwrap_err();
    assert!(matches!(error, OpenError::Library(LoadError::NoLibrary(_))), "{error}");
    has(&error.to_string(), &["no NVIDIA driver library", "install the NVIDIA driver"]);
}

#[test]
#[cfg(feature = "cuda")]
fn a_library_fills_the_table_by_name() {
    // Each of its functions answers with a number of its own, all but one of them are there, or all.
    let folder = tempfile::tempdir().unwrap();
    let made = |without: Option<&str>| {
        let (source, path) = (folder.path().join("source.c"), folder.path().join(without.unwrap_or("all")));
        let functions = REQUIRED.iter().zip(1000..).filter(|(name, _)| Some(**name) != without);
        let code: String =
            functions.map(|(name, number)| format!("int {name}(void) {{ return {number}; }}\n")).collect();
        std::fs::write(&source, code).unwrap();
        let made = std::process::Command::new("cc").args(["-shared", "-o"]).arg(&path).arg(&source).status();
        assert!(made.unwrap().success());
        load_from(&path)
    };
    let api = made(None).unwrap();
    let number = |name: &str| 1000 + u32::try_from(REQUIRED.iter().position(|one| *one == name).unwrap()).unwrap();
    assert_eq!((api.kind(), code(api.start())), (DeviceKind::Cuda, number("cuInit")));
    assert_eq!(code(api.version()), number("cuDriverGetVersion"));
    assert_eq!(code(api.devices()), number("cuDeviceGetCount"));
    assert_eq!(code(api.uuid(0)), number("cuDeviceGetUuid_v2"));
    assert_eq!(code(api.total_bytes(0)), number("cuDeviceTotalMem_v2"));
    let missing = made(Some("cuLaunchKernel")).map(drop).unwrap_err();
    assert!(matches!(missing, LoadError::NoSymbol("cuLaunchKernel")), "{missing}");
}

#[test]
fn each_missing_function_is_named() {
    for symbol in REQUIRED {
        let fake = Fake::without(symbol);
        let error = open_on(&fake, Wanted::First).unwrap_err();
        assert!(matches!(error, OpenError::Library(LoadError::NoSymbol(missing)) if missing == *symbol), "{error}");
        has(&error.to_string(), &[symbol, "too old"]);
    }
    for symbol in OPTIONAL {
        drop(open_on(&Fake::without(symbol), Wanted::First).unwrap());
    }
    assert_eq!(REQUIRED.len() + OPTIONAL.len(), 45);
}

#[test]
fn drivers_that_are_too_old_and_devices_that_are_not_there_are_told_apart() {
    let fake = Fake::new();
    let seen = open_on(&fake, Wanted::First).unwrap().info().uuid.to_string();
    fake.set(Setting::Version, 12_040);
    has(&sentence(&fake, Wanted::First), &["the first CUDA device", "too old", "CUDA 12.4", "CUDA 13.0", "580"]);
    fake.set(Setting::Version, 13_010);
    has(&sentence(&fake, Wanted::Ordinal(2)), &["CUDA device 2", "no such ordinal", "2 device(s)"]);
    has(&sentence(&fake, Wanted::Ordinal(u32::MAX)), &["no such ordinal"]);
    let uuid = DeviceUuid::from_bytes([9; 16]);
    let text = sentence(&fake, Wanted::Uuid(uuid));
    has(&text, &[&uuid.to_string(), "UUID", &seen]);
    fake.set(Setting::VirtualMemory, 0);
    has(&sentence(&fake, Wanted::First), &["virtual memory management"]);
    fake.set(Setting::VirtualMemory, 1);
    for (major, minor) in [(7, 5), (10, 0)] {
        fake.set(Setting::Major, major);
        fake.set(Setting::Minor, minor);
        has(&sentence(&fake, Wanted::First), &[&format!("sm_{major}{minor}"), "sm_80, sm_90", "no native image"]);
    }
    fake.set(Setting::Major, 8);
    fake.set(Setting::Minor, 7);
    drop(open_on(&fake, Wanted::First).unwrap());
    fake.set(Setting::Granularity, 3 << 20);
    has(&sentence(&fake, Wanted::First), &["power of two"]);
    fake.set(Setting::Devices, 0);
    has(&sentence(&fake, Wanted::First), &["sees no device"]);
    fake.set(Setting::Devices, 1);
    fake.order("cuInit", 100, 1, 1);
    has(&sentence(&fake, Wanted::First), &["sees no device"]);
}

#[test]
fn every_call_of_opening_may_fail_with_any_number() {
    let calls = [
        ("cuInit", "does not start"),
        ("cuDriverGetVersion", "does not answer"),
        ("cuDeviceGetCount", "does not answer"),
        ("cuDeviceGet", "does not answer"),
        ("cuDeviceGetAttribute", "does not answer"),
        ("cuDeviceGetUuid_v2", "does not answer"),
        ("cuDeviceGetName", "does not answer"),
        ("cuDeviceTotalMem_v2", "does not answer"),
        ("cuDevicePrimaryCtxRetain", "primary context"),
        ("cuCtxPushCurrent_v2", "kernels for it"),
        ("cuModuleLoadData", "kernels for it"),
        ("cuModuleGetFunction", "kernels for it"),
        ("cuMemGetAllocationGranularity", "does not answer"),
    ];
    let fake = Fake::new();
    for (call, what) in calls {
        for number in [1, 226, 913, 916, 1000, 12_345, u32::MAX] {
            fake.order(call, number, 1, 1);
            has(&sentence(&fake, Wanted::First), &[what, call, &format!("error {number} ")]);
        }
    }
}

#[test]
fn only_native_code_is_given_to_the_driver() {
    let fake = Fake::new();
    let ptx = Images {
        images: vec![super::super::images::Image { arch: 90, code: b".version 8.0\n.target sm_90\n" }],
        ..Images::of_mock()
    };
    let error = open_with(|| Api::of_mock(&fake.machine, None), &ptx, Wanted::First).unwrap_err();
    assert!(matches!(error, OpenError::Kernels(DriverError { code: 200, .. })), "{error}");
    assert_eq!(fake.calls("cuModuleLoadData"), 0);
    clean(&fake);
}

/// Loads the driver as shipped code does, the one that is told if one is; the next test starts it.
#[test]
#[cfg(feature = "cuda")]
#[ignore = "the next test starts it, with a folder of planted libraries"]
fn load_the_driver() {
    let told = std::env::var_os("VRAM_RESIDENCY_TOLD").map(std::path::PathBuf::from);
    let found = DriverLibrary { told: told.clone(), only_roots: false }.candidates();
    let loaded = match (std::env::var_os("VRAM_RESIDENCY_PLAINLY"), told) {
        (Some(_), Some(told)) => load_from(&told),
        _ => Api::load(&found.unwrap()),
    };
    println!("{loaded:?}");
}

#[test]
#[cfg(feature = "cuda")]
fn ld_library_path_chooses_neither_the_driver_nor_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let [good, planted] = ["good", "planted"].map(|name| folder.path().join(name));
    let source = folder.path().join("source.c");
    let code = r#"#include <unistd.h>
        __attribute__((constructor)) static void run(void) { (void)!write(2, SAYS, sizeof SAYS); }
        int NAME(void) { return 1; }"#;
    std::fs::write(&source, code).unwrap();
    let compile = |place: &std::path::Path, name: &str, says: &str, function: &str, needs: &[&str]| {
        std::fs::create_dir_all(place).unwrap();
        let mut compiler = std::process::Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wl,--no-as-needed", &format!("-Wl,-soname,{name}")]);
        compiler.arg(format!("-DSAYS=\"{says}\"")).arg(format!("-DNAME={function}")).arg(&source);
        compiler.args(needs.iter().map(|needed| place.join(needed))).arg("-o").arg(place.join(name));
        assert!(compiler.status().unwrap().success());
    };
    for (place, says) in [(&good, "GOOD"), (&planted, "PLANTED")] {
        compile(place, "libdeep.so.1", says, "deep", &[]);
        compile(place, "libneeded.so.1", says, "needed", &["libdeep.so.1"]);
        compile(place, "libcuda.so.1", says, "cuda", &["libneeded.so.1"]);
        std::fs::copy(place.join("libcuda.so.1"), place.join("libcuda.so")).unwrap();
    }
    let run = |told: Option<&std::path::Path>, plainly: bool| {
        let mut child = std::process::Command::new("/proc/self/exe");
        child.args(["--exact", "driver::tests::opening::load_the_driver", "--include-ignored"]);
        child.envs(told.map(|told| ("VRAM_RESIDENCY_TOLD", told)));
        child.envs(plainly.then_some(("VRAM_RESIDENCY_PLAINLY", "1"))).env("LD_LIBRARY_PATH", &planted);
        let ended = child.output().unwrap();
        assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"), "{ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        ["GOOD", "PLANTED"].map(|who| said.matches(who).count())
    };
    assert_eq!(run(None, false)[1], 0);
    assert_eq!(run(Some(&good.join("libcuda.so.1")), false), [3, 0]);
    // The twins: whoever gives the loader a bare name, or leaves it to find what a library needs, gets the planted ones.
    assert_eq!(run(Some("libcuda.so.1".as_ref()), true), [0, 3]);
    assert_eq!(run(Some(&good.join("libcuda.so.1")), true), [1, 2]);
}

#[test]
#[cfg(feature = "cuda")]
fn without_kernels_or_without_a_driver_there_is_one_clear_sentence() {
    if let Err(error) = open(Wanted::Ordinal(4096), &DriverLibrary { told: None, only_roots: false }) {
        assert_eq!(error.code(), ErrorCode::DeviceUnavailable);
        has(&error.to_string(), &["CUDA device 4096 cannot be opened: "]);
    } else {
        panic!("there is no such device");
    }
    has(&OpenError::NoKernels.to_string(), &["no CUDA kernels", "nvcc", env!("VRAM_RESIDENCY_BUILD")]);
}

#[test]
#[cfg(vram_cuda_kernels)]
fn the_embedded_images_are_native_and_for_every_architecture_that_is_promised() {
    // covers: DEV-6
    let embedded = Images::embedded().unwrap();
    assert!((12_000..20_000).contains(&embedded.toolkit), "{}", embedded.toolkit);
    let fake = Fake::new();
    for (major, minor) in [(8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (12, 0), (12, 1)] {
        fake.set(Setting::Major, major);
        fake.set(Setting::Minor, minor);
        drop(open_with(|| Api::of_mock(&fake.machine, None), &embedded, Wanted::First).unwrap());
    }
    clean(&fake);
}

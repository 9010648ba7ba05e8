//! Builds the devices that can be built here, and says which.
//!
//! Owns the choice of devices: [`Environment::read`] is the only place that looks at the environment, [`plan`] decides,
//! and the tables below say what is compiled from what. Promises one line in `VRAM_RESIDENCY_BUILD` (shown when no device
//! can be opened). Never swaps one device for another: what is asked for and cannot be built is an error.
#![allow(missing_docs)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the mock is compiled from: the translation unit, and what it includes.
#[cfg(feature = "mock")]
const MOCK_SOURCES: &[&str] = &["cuda/mock/vram_mock.c"];
#[cfg(feature = "mock")]
const MOCK_INCLUDED: &[&str] = &[
    "cuda/include/vram_mock.h",
    "cuda/kernels/sha256.cuh",
    "cuda/mock/internal.h",
    "cuda/mock/machine.c",
    "cuda/mock/faults.c",
    "cuda/mock/memory.c",
    "cuda/mock/host.c",
    "cuda/mock/kernels.c",
    "cuda/mock/operations.c",
    "cuda/mock/stream.c",
];
#[cfg(feature = "mock")]
const MOCK_FLAGS: &[&str] =
    &["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-pthread", "-fvisibility=hidden"];

/// Which devices are wanted.
#[derive(Clone, Copy)]
enum Backend {
    /// Whatever can be built.
    Auto,
    Cuda,
    Mock,
}

/// All that this script takes from outside.
struct Environment {
    backend: Backend,
    with_mock: bool,
    with_cuda: bool,
    nvcc: Option<PathBuf>,
    gpu: bool,
}

impl Environment {
    fn read() -> Result<Self, String> {
        let read = |name: &str| {
            println!("cargo::rerun-if-env-changed={name}");
            env::var_os(name).filter(|value| !value.is_empty())
        };
        let mut backend = match read("VRAM_RESIDENCY_BACKEND").as_deref().map(|value| value.to_str().unwrap_or("?")) {
            None | Some("auto") => Backend::Auto,
            Some("cuda") => Backend::Cuda,
            Some("mock") => Backend::Mock,
            Some(other) => {
                return Err(format!("VRAM_RESIDENCY_BACKEND is `{other}`; allowed are auto, cuda and mock"));
            }
        };
        match read("VRAM_RESIDENCY_FORCE_MOCK").as_deref().map(|value| value.to_str().unwrap_or("?")) {
            None | Some("0") => {}
            Some("1") if matches!(backend, Backend::Cuda) => {
                return Err("VRAM_RESIDENCY_FORCE_MOCK=1 contradicts VRAM_RESIDENCY_BACKEND=cuda; unset one".to_owned());
            }
            Some("1") => backend = Backend::Mock,
            Some(other) => return Err(format!("VRAM_RESIDENCY_FORCE_MOCK is `{other}`; allowed are 0 and 1")),
        }
        let named = read("NVCC").map(PathBuf::from);
        let homes =
            [read("CUDA_HOME"), read("CUDA_PATH")].into_iter().flatten().map(|home| Path::new(&home).join("bin"));
        let path = read("PATH").unwrap_or_default();
        let nvcc = named.into_iter().chain(homes.chain(env::split_paths(&path)).map(|folder| folder.join("nvcc")));
        Ok(Self {
            backend,
            with_mock: env::var_os("CARGO_FEATURE_MOCK").is_some(),
            with_cuda: env::var_os("CARGO_FEATURE_CUDA").is_some(),
            nvcc: nvcc.into_iter().find(|file| file.is_file()),
            gpu: Path::new("/dev/nvidia0").exists(),
        })
    }

    fn found(&self) -> String {
        let nvcc =
            self.nvcc.as_ref().map_or_else(|| "no nvcc".to_owned(), |file| format!("nvcc at {}", file.display()));
        format!("{nvcc}, {}", if self.gpu { "an NVIDIA GPU" } else { "no NVIDIA GPU" })
    }
}

/// Whether to build the mock, or why nothing can be built.
fn plan(given: &Environment) -> Result<bool, String> {
    match given.backend {
        Backend::Cuda => {
            Err("VRAM_RESIDENCY_BACKEND=cuda: this version has no CUDA kernels yet; use mock or auto".to_owned())
        }
        Backend::Mock if !given.with_mock => {
            Err("the mock device was asked for, but the feature `mock` is off; build with `--features mock`".to_owned())
        }
        Backend::Mock | Backend::Auto => Ok(given.with_mock),
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    let given = Environment::read()?;
    let mock = plan(&given)?;
    if matches!(given.backend, Backend::Auto) && given.with_cuda && (given.gpu || given.nvcc.is_some()) {
        let built = if mock { "only the mock device is built" } else { "no device is built" };
        println!("cargo::warning=found {}; this version has no CUDA driver yet, {built}", given.found());
    }
    #[cfg(feature = "mock")]
    build_mock()?;
    let built = if mock { "the mock device" } else { "no device" };
    println!("cargo::rustc-env=VRAM_RESIDENCY_BUILD=built with {built}; found {}", given.found());
    Ok(())
}

#[cfg(feature = "mock")]
fn build_mock() -> Result<(), String> {
    for file in MOCK_SOURCES.iter().chain(MOCK_INCLUDED) {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut build = cc::Build::new();
    // Optimised in every profile: an unoptimised SHA-256 makes every test wait.
    build.files(MOCK_SOURCES).opt_level(3).debug(true).warnings(false);
    for flag in MOCK_FLAGS {
        build.flag(flag);
    }
    build.try_compile("vram_mock").map_err(|error| format!("the mock device does not compile: {error}"))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("cargo::error={problem}");
            ExitCode::FAILURE
        }
    }
}

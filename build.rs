//! Builds the devices that can be built here, and says which.
//!
//! Owns the choice of devices: [`Environment::read`] is the only place that looks at the environment, [`plan`] decides,
//! and the tables below say what is compiled from what. Promises one line in `VRAM_RESIDENCY_BUILD` (shown when no device
//! can be opened). Never swaps one device for another: what is asked for and cannot be built is an error.
//!
//! Kernels become one native image for each architecture, and PTX for development, in `$OUT_DIR/kernels.rs`; the cfg
//! `vram_cuda_kernels` says that they are there. Their bytes depend on the sources and on nvcc's version, nothing else.
#![allow(missing_docs)]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// What the mock is compiled from: the translation units, and the folder whose every file the first includes.
#[cfg(feature = "mock")]
const MOCK_SOURCES: &[&str] = &["cuda/mock/machine.c", "cuda/kernels/tests/host_kernels.c"];
#[cfg(feature = "mock")]
const MOCK_INCLUDED: &[&str] = &["cuda/mock", "cuda/include"];
#[cfg(feature = "mock")]
const MOCK_FLAGS: &[&str] =
    &["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-pthread", "-fvisibility=hidden"];

/// What the kernels are compiled from: the translation unit, and what it includes.
const KERNEL_SOURCE: &str = "cuda/kernels/vram_kernels.cu";
const KERNELS_INCLUDED: &[&str] = &[
    "cuda/include/vram_kernels.h",
    "cuda/kernels/all_zero.cu",
    "cuda/kernels/common.cuh",
    "cuda/kernels/keyed.cu",
    "cuda/kernels/sha256.cuh",
    "cuda/kernels/verity_tree.cu",
];
const KERNEL_FLAGS: &[&str] = &["-std=c++17", "-O3"];
/// The architectures that get a native image; an image of 8.0 does not run on 9.0, one of 8.0 does on 8.7.
const ARCHITECTURES: &[u32] = &[80, 86, 89, 90, 100, 120];
/// PTX runs on this architecture and all later ones. Compiled by the driver when loaded, so never in production.
const PTX_ARCHITECTURE: u32 = 80;

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
    out: PathBuf,
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
        let homes =
            [read("CUDA_HOME"), read("CUDA_PATH")].into_iter().flatten().map(|home| Path::new(&home).join("bin"));
        let path = read("PATH").unwrap_or_default();
        let folders = homes.chain(env::split_paths(&path));
        let nvcc = match read("NVCC").map(PathBuf::from) {
            None => folders.map(|folder| folder.join("nvcc")).find(|file| file.is_file()),
            Some(file) if file.is_file() => Some(file),
            Some(name) => match folders.map(|folder| folder.join(&name)).find(|file| file.is_file()) {
                None => return Err(format!("NVCC is `{}`, which is no file; correct or unset it", name.display())),
                found => found,
            },
        };
        // nvcc reads this one itself: the host compiler that it preprocesses with.
        let _ = read("NVCC_CCBIN");
        Ok(Self {
            backend,
            with_mock: env::var_os("CARGO_FEATURE_MOCK").is_some(),
            with_cuda: env::var_os("CARGO_FEATURE_CUDA").is_some(),
            nvcc,
            gpu: Path::new("/dev/nvidia0").exists(),
            out: env::var_os("OUT_DIR").map(PathBuf::from).ok_or("OUT_DIR is not set; build with cargo")?,
        })
    }

    fn found(&self) -> String {
        let nvcc = if self.nvcc.is_some() { "nvcc" } else { "no nvcc" };
        format!("{nvcc}, {}", if self.gpu { "an NVIDIA GPU" } else { "no NVIDIA GPU" })
    }
}

/// What to build.
struct Plan<'a> {
    mock: bool,
    /// The compiler of the kernels, if they are to be built.
    kernels: Option<&'a Path>,
}

/// Decides what to build, or says why what was asked for cannot be.
fn plan(given: &Environment) -> Result<Plan<'_>, String> {
    let nvcc = given.nvcc.as_deref();
    match given.backend {
        Backend::Cuda if !given.with_cuda => {
            Err("VRAM_RESIDENCY_BACKEND is `cuda`, but the feature `cuda` is off; build with `--features cuda`"
                .to_owned())
        }
        Backend::Cuda if nvcc.is_none() => {
            Err("VRAM_RESIDENCY_BACKEND is `cuda`, but no nvcc was found in NVCC, CUDA_HOME/bin, \
             CUDA_PATH/bin or PATH; install the CUDA Toolkit 13.0 and g++, or run ci/nvcc.sh and set NVCC to the path \
             that it prints (no GPU is needed to build)"
                .to_owned())
        }
        Backend::Mock if !given.with_mock => {
            Err("the mock device was asked for, but the feature `mock` is off; build with `--features mock`".to_owned())
        }
        Backend::Mock => Ok(Plan { mock: true, kernels: None }),
        Backend::Auto | Backend::Cuda => Ok(Plan { mock: given.with_mock, kernels: nvcc.filter(|_| given.with_cuda) }),
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(vram_cuda_kernels)");
    // Set by the check that explores the orders in which threads may run.
    println!("cargo::rustc-check-cfg=cfg(vram_model)");
    let given = Environment::read()?;
    let plan = plan(&given)?;
    let kernels = match plan.kernels {
        Some(nvcc) => Some(build_kernels(nvcc, &given.out)?),
        None => None,
    };
    if matches!(given.backend, Backend::Auto) && given.with_cuda && given.gpu && given.nvcc.is_none() {
        println!(
            "cargo::warning=found an NVIDIA GPU but no nvcc: CUDA devices will not open; install the CUDA Toolkit"
        );
    }
    #[cfg(feature = "mock")]
    build_mock()?;
    let built = match (plan.mock, kernels) {
        (true, Some(kernels)) => format!("the mock device and {kernels}"),
        (false, Some(kernels)) => kernels,
        (true, None) => "the mock device".to_owned(),
        (false, None) => "no device".to_owned(),
    };
    println!("cargo::rustc-env=VRAM_RESIDENCY_BUILD=built with {built}; found {}", given.found());
    Ok(())
}

/// Runs nvcc for what it says about itself.
fn ask(nvcc: &Path, question: &str) -> Result<String, String> {
    let answer = Command::new(nvcc)
        .arg(question)
        .output()
        .map_err(|error| format!("{} does not start: {error}", nvcc.display()))?;
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// One file that nvcc makes.
struct Image {
    name: String,
    /// What nvcc is to make it for.
    target: String,
    arch: u32,
    native: bool,
}

/// Compiles and embeds the kernels; says in words what was built.
fn build_kernels(nvcc: &Path, out: &Path) -> Result<String, String> {
    for file in KERNELS_INCLUDED.iter().chain([&KERNEL_SOURCE]) {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-changed={}", nvcc.display());
    let version = ask(nvcc, "--version")?;
    let release = version
        .split_once("release ")
        .and_then(|(_, rest)| rest.split(',').next())
        .ok_or_else(|| format!("{} does not say its version; is it nvcc?", nvcc.display()))?;
    let known = ask(nvcc, "--list-gpu-code")?;
    let known: Vec<&str> = known.split_whitespace().collect();
    let (native, unknown): (Vec<u32>, Vec<u32>) =
        ARCHITECTURES.iter().partition(|arch| known.contains(&format!("sm_{arch}").as_str()));
    if !unknown.is_empty() {
        println!("cargo::warning=nvcc {release} does not know {}: no kernels for such GPUs", names(&unknown));
    }
    if native.is_empty() {
        return Err(format!("nvcc {release} knows none of {}; use the CUDA Toolkit 13.0", names(ARCHITECTURES)));
    }
    let mut images: Vec<Image> = native
        .iter()
        .map(|&arch| Image {
            name: format!("vram_kernels_{arch}.cubin"),
            target: format!("arch=compute_{arch},code=sm_{arch}"),
            arch,
            native: true,
        })
        .collect();
    images.extend(native.contains(&PTX_ARCHITECTURE).then(|| Image {
        name: format!("vram_kernels_{PTX_ARCHITECTURE}.ptx"),
        target: format!("arch=compute_{PTX_ARCHITECTURE},code=compute_{PTX_ARCHITECTURE}"),
        arch: PTX_ARCHITECTURE,
        native: false,
    }));
    compile(nvcc, out, &images)?;
    embed(out, &images, toolkit(release)?)?;
    println!("cargo::rustc-cfg=vram_cuda_kernels");
    Ok(format!("CUDA kernels for {} (nvcc {release})", names(&native)))
}

fn names(architectures: &[u32]) -> String {
    architectures.iter().map(|arch| format!("sm_{arch}")).collect::<Vec<_>>().join(", ")
}

/// Compiles all images at a time. Sources are named relative to the package, so no path gets into an image.
fn compile(nvcc: &Path, out: &Path, images: &[Image]) -> Result<(), String> {
    let failed = |what: &dyn std::fmt::Display| format!("nvcc at {}: {what}", nvcc.display());
    let mut running = Vec::new();
    for image in images {
        let child = Command::new(nvcc)
            .args(KERNEL_FLAGS)
            .arg(if image.native { "-cubin" } else { "-ptx" })
            .args(["-gencode", &image.target, KERNEL_SOURCE, "-o"])
            .arg(out.join(&image.name))
            // What these add would change the images behind this script's back.
            .env_remove("NVCC_PREPEND_FLAGS")
            .env_remove("NVCC_APPEND_FLAGS")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        running.push((image, child));
    }
    for (image, child) in running {
        let done = child.wait_with_output().map_err(|error| failed(&error))?;
        if !done.status.success() {
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().replace('\n', " | ");
            return Err(failed(&format!(
                "{} does not compile (a host compiler such as g++ is needed): {said}",
                image.name
            )));
        }
    }
    Ok(())
}

/// `13.0` as the driver counts: 13000.
fn toolkit(release: &str) -> Result<u32, String> {
    let parts = release.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor): (u32, u32) =
        parts.ok_or_else(|| format!("nvcc says that it is of release `{release}`, which is no version"))?;
    Ok(major.saturating_mul(1000).saturating_add(minor.saturating_mul(10)))
}

/// Writes `kernels.rs`, which holds the images and the CUDA version of their toolkit.
fn embed(out: &Path, images: &[Image], toolkit: u32) -> Result<(), String> {
    let mut text = String::from(
        "/// The kernels for one architecture.\n\
         #[derive(Clone, Copy)]\n\
         pub(crate) struct Image {\n    \
             /// Compute capability, major times ten plus minor.\n    \
             pub(crate) arch: u32,\n    \
             /// A cubin, or PTX text that ends in a zero byte.\n    \
             pub(crate) code: &'static [u8],\n\
         }\n\
         /// The driver reads images as structures: they lie as structures must.\n\
         #[repr(C, align(64))]\n\
         struct Aligned<const N: usize>([u8; N]);\n",
    );
    let mut list = |kind: &str, name: &str, doc: &str| {
        let mut rows = String::new();
        for image in images.iter().filter(|image| image.native == (kind == "NATIVE")) {
            let constant = format!("{kind}_{}", image.arch);
            let (file, arch) = (&image.name, image.arch);
            let source = if image.native {
                format!("include_bytes!({file:?})")
            } else {
                format!("concat!(include_str!({file:?}), \"\\0\").as_bytes()")
            };
            if image.native {
                let _ = writeln!(text, "static {constant}: Aligned<{{ {source}.len() }}> = Aligned(*{source});");
                let _ = writeln!(rows, "    Image {{ arch: {arch}, code: &{constant}.0 }},");
            } else {
                let _ = writeln!(rows, "    Image {{ arch: {arch}, code: {source} }},");
            }
        }
        let _ = writeln!(text, "/// {doc}\npub(crate) static {name}: &[Image] = &[\n{rows}];");
    };
    list("NATIVE", "IMAGES", "Native images, the oldest architecture first.");
    list("PTX", "PTX", "What the driver can compile for GPUs that no native image is for. Never in production.");
    let _ = writeln!(text, "/// Version of the toolkit that made them: 1000 times major plus 10 times minor.");
    let _ = writeln!(text, "pub(crate) const TOOLKIT: i32 = {toolkit};");
    fs::write(out.join("kernels.rs"), text).map_err(|error| format!("{}: {error}", out.display()))
}

#[cfg(feature = "mock")]
fn build_mock() -> Result<(), String> {
    for file in MOCK_SOURCES.iter().chain(MOCK_INCLUDED).chain(KERNELS_INCLUDED).chain([&KERNEL_SOURCE]) {
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

//! Compiles the engine's kernels: for the host, and for GPUs where there is nvcc.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a build that cannot go on ends"
)]

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The engine's kernels, for the host and for a GPU.
const HOST_ENGINE: &str = "cuda/engine/host_engine.c";
const ENGINE: &str = "cuda/engine/engine.cu";
/// Folders whose every file may be included by those above.
const FOLDERS: &[&str] = &["cuda/include", "cuda/kernels", "cuda/engine"];
/// The architectures that the library has native images for.
const ARCHITECTURES: &[u32] = &[80, 86, 89, 90, 100, 120];

fn run(command: &mut Command) {
    let output = command.output();
    let name = command.get_program().to_string_lossy().into_owned();
    let output = output.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// nvcc, found where the library's own build script finds it.
fn nvcc() -> Option<PathBuf> {
    let read = |name: &str| {
        println!("cargo::rerun-if-env-changed={name}");
        env::var_os(name).filter(|value| !value.is_empty())
    };
    let named = read("NVCC").map(PathBuf::from);
    let homes: Vec<_> = [read("CUDA_HOME"), read("CUDA_PATH")].into_iter().flatten().collect();
    let path = read("PATH").unwrap_or_default();
    let homes = homes.iter().map(|home| Path::new(home).join("bin"));
    let folders = homes.chain(env::split_paths(&path));
    let mut on_path = folders.map(|folder| folder.join("nvcc"));
    named.filter(|file| file.is_file()).or_else(|| on_path.find(|file| file.is_file()))
}

/// Writes `engine.rs`: a list of architectures and images, empty where there is no nvcc.
fn engine(root: &Path, out: &Path) {
    let mut rows = String::new();
    if let Some(nvcc) = nvcc() {
        let known = Command::new(&nvcc).arg("--list-gpu-code").output().expect("nvcc");
        let known = String::from_utf8_lossy(&known.stdout).into_owned();
        for arch in
            ARCHITECTURES.iter().filter(|arch| known.split_whitespace().any(|code| code == format!("sm_{arch}")))
        {
            let image = out.join(format!("engine_{arch}.cubin"));
            let target = format!("arch=compute_{arch},code=sm_{arch}");
            let flags = ["-std=c++17", "-O3", "-cubin", "-gencode", target.as_str()];
            run(Command::new(&nvcc).args(flags).arg(root.join(ENGINE)).arg("-o").arg(&image));
            let _ = writeln!(rows, "    ({arch}, include_bytes!({:?})),", image);
        }
    }
    let text = format!("pub(crate) static IMAGES: &[(u32, &[u8])] = &[\n{rows}];\n");
    std::fs::write(out.join("engine.rs"), text).expect("the output folder");
}

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo")).join("../..");
    let root = root.canonicalize().expect("the repository");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo"));
    println!("cargo::rerun-if-changed=build.rs");
    for folder in FOLDERS {
        for file in std::fs::read_dir(root.join(folder)).expect("a folder of sources") {
            let file = file.expect("a file").path();
            if file.is_file() {
                println!("cargo::rerun-if-changed={}", file.display());
            }
        }
    }
    cc::Build::new().file(root.join(HOST_ENGINE)).std("c11").opt_level(2).compile("vram_harness_engine");
    println!("cargo::rustc-link-lib=m");
    engine(&root, &out);
}

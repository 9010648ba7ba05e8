//! Compiles the stand-in for the CUDA driver, and the engine's kernels where there is nvcc.
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

const STAND_IN: &[&str] = &[
    "cuda/fake/context.cpp",
    "cuda/fake/memory.cpp",
    "cuda/fake/engine.cpp",
    "cuda/fake/stream.cpp",
    "cuda/fake/kernels.cpp",
    "cuda/fake/second.cpp",
];
const HOST_KERNELS: &[&str] = &["cuda/kernels/tests/host_kernels.c", "cuda/engine/host_engine.c"];
const ENGINE: &str = "cuda/engine/engine.cu";
/// Folders whose every file may be included by those above.
const FOLDERS: &[&str] = &["cuda/fake", "cuda/include", "cuda/kernels", "cuda/kernels/tests", "cuda/engine"];
const HOST_FLAGS: &[&str] =
    &["-std=c11", "-O2", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-c"];
/// Nothing of one copy may be found by another: no unique symbols, own functions first.
const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-g",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,-Bsymbolic",
    "-pthread",
];
/// The architectures that the library has native images for.
const ARCHITECTURES: &[u32] = &[80, 86, 89, 90, 100, 120];

fn run(command: &mut Command) {
    let output = command.output();
    let name = command.get_program().to_string_lossy().into_owned();
    let output = output.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A compiler without the flags that cargo's profile would add: the library is for tests, and the same in every profile.
fn compiler(cpp: bool) -> Command {
    cc::Build::new().cpp(cpp).no_default_flags(true).warnings(false).get_compiler().to_command()
}

fn stand_in(root: &Path, out: &Path) {
    let library = out.join("libcuda-stand-in.so");
    let mut objects = Vec::new();
    for source in HOST_KERNELS {
        let object = out.join(Path::new(source).with_extension("o").file_name().unwrap());
        run(compiler(false).args(HOST_FLAGS).arg(root.join(source)).arg("-o").arg(&object));
        objects.push(object);
    }
    let sources = STAND_IN.iter().map(|file| root.join(file));
    run(compiler(true).args(FLAGS).args(sources).args(objects).arg("-lm").arg("-o").arg(&library));
    println!("cargo::rustc-env=VRAM_RESIDENCY_STAND_IN={}", library.display());
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
    stand_in(&root, &out);
    engine(&root, &out);
}

//! The command line.
//!
//! Owns the options and what the help says of each. Promises that everything listed here is built. Values that the library judges
//! (digests, block sizes, salts) are taken as they come and judged there, so that its words are the only ones.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vram_residency::{Check, DeviceUuid, LayoutKind, SecretFileMode, VramError};

const ABOUT: &str = "Seals model weights in GPU memory and verifies them before every execute.";

/// What `--device` takes: the mock only where it is built in.
const DEVICES: &str = if cfg!(feature = "mock") { "auto|mock|cuda[:N]|UUID" } else { "auto|cuda[:N]|UUID" };
const DEVICE_HELP: &str = if cfg!(feature = "mock") {
    "The device: auto (the first CUDA device), cuda or cuda:N, the UUID of a GPU or MIG instance as `nvidia-smi -L` prints it \
     (GPU-… or MIG-…), or mock (host memory, protects nothing); CUDA if there is one, else the mock, when not given"
} else {
    "The device: auto (the first CUDA device), cuda or cuda:N, or the UUID of a GPU or MIG instance as `nvidia-smi -L` prints it \
     (GPU-… or MIG-…); the first CUDA device when not given"
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "vram-worker", version, about = ABOUT)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Seal a model, then verify and execute it some times, then wipe and release it
    ///
    /// An execute reads every tensor out of verified VRAM and computes its minimum, maximum, mean and number of NaNs. It counts
    /// only after the library has confirmed it. Log lines and audit events go to stderr; RUST_LOG selects them
    /// (RUST_LOG=vram_residency::audit=info shows every audit event).
    Run(RunOptions),
    /// Print the digest of files, as `fsverity digest` does
    ///
    /// With `--layout tensors` it is the digest of the image under which `run` seals a safetensors file, and behind it that of its
    /// layout (names, types, shapes, places); of a model's index, those of the files that it names. --expect wants the digest of the
    /// file all the same.
    Digest(DigestOptions),
}

#[derive(Args, Debug)]
pub(crate) struct RunOptions {
    /// The model, a safetensors file (any file with `--layout file`), or the index of several (`*.safetensors.index.json`); a small
    /// generated sample when not given
    pub(crate) model: Option<PathBuf>,
    /// How the file becomes an image in VRAM
    #[arg(long, value_enum, default_value_t = Layout::Tensors)]
    pub(crate) layout: Layout,
    /// Split the image into parts of at most so many bytes, each sealed as a shard of its own (NAME.part-0 and so on) in one
    /// set; a multiple of the block size. All parts are verified, in one batch, before each execute
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    pub(crate) part_bytes: Option<u64>,
    #[arg(long, value_name = DEVICES, help = DEVICE_HELP)]
    pub(crate) device: Option<Device>,
    /// How many times to verify and execute
    #[arg(long, value_name = "N", default_value = "3", value_parser = executes, allow_negative_numbers = true)]
    pub(crate) executes: NonZeroU64,
    /// How each check looks at the image: `digest` at all bytes, before and after each execute; `keyed` likewise, after a first digest,
    /// with a faster hash under a secret key; `rotating:N` at a different part each time, all of them within N; `sample:K` at K random
    /// subtrees. The last two find random faults only, and there is no check after the execute
    #[arg(long, value_name = "CHECK", default_value = "digest")]
    pub(crate) verify: Check,
    /// Bytes per block of the digest: a power of two from 1024 to 65536
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = block, allow_negative_numbers = true)]
    pub(crate) block_size: u32,
    /// The fs-verity digest that the model's file must have, whatever the layout, as `fsverity digest` and `vram-worker digest`
    /// print it
    #[arg(long, value_name = "sha256:HEX", group = "vouched")]
    pub(crate) expect: Option<String>,
    /// The plain SHA-256 that the model's file must have, whatever the layout, as `sha256sum` and hub pages print it
    #[arg(long, value_name = "HEX", group = "vouched")]
    pub(crate) expect_sha256: Option<String>,
    /// A list of what the model's files must have: the lines that `sha256sum` or `fsverity digest` print. Its paths are taken from
    /// its own folder; where none leads to the file, its name decides
    #[arg(long, value_name = "FILE", group = "vouched")]
    pub(crate) expect_file: Option<PathBuf>,
    /// Bytes per block of the fs-verity digests that are expected; 4096 when not given, whatever --block-size is
    #[arg(long, value_name = "BYTES", value_parser = block, allow_negative_numbers = true, requires = "vouched",
          conflicts_with = "expect_sha256")]
    pub(crate) expect_block_size: Option<u32>,
    /// The file of the worker's secret, 32 to 4096 bytes; a random one when not given
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// How the secret's file is judged
    #[arg(long, value_enum, value_name = "MODE", default_value_t = SecretMode::Strict, requires = "secret_file")]
    pub(crate) secret_file_mode: SecretMode,
    /// The NVIDIA driver's library (libcuda.so.1), an absolute path; the one of the loader's cache or of a usual folder when not
    /// given. LD_LIBRARY_PATH never chooses it
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "FILE")]
    pub(crate) driver_library: Option<PathBuf>,
    /// Device memory that must stay free; the smaller of 10 % and 4 GiB when not given
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    pub(crate) headroom: Option<u64>,
    /// Print one JSON object on stdout instead of tables; failures too
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DigestOptions {
    /// The files; one line is printed for each
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Bytes per block: a power of two from 1024 to 65536
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = block, allow_negative_numbers = true)]
    pub(crate) block_size: u32,
    /// Up to 32 bytes that are hashed before every block
    #[arg(long, value_name = "HEX")]
    pub(crate) salt: Option<String>,
    /// The bytes of the file as they are, or the tensors of a safetensors file
    #[arg(long, value_enum, default_value_t = Layout::File)]
    pub(crate) layout: Layout,
}

/// How a file becomes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// The bytes of the file as they are
    File,
    /// The tensors of a safetensors file, each at a block-aligned offset
    Tensors,
}

impl Layout {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::File => LayoutKind::File.as_str(),
            Self::Tensors => LayoutKind::Tensors.as_str(),
        }
    }
}

/// How the secret's file is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SecretMode {
    /// A regular file, no link, that nobody but its owner can use
    Strict,
    /// As Kubernetes, containers and credential folders provide secrets: links are followed, others may read, not write
    Mounted,
}

impl From<SecretMode> for SecretFileMode {
    fn from(mode: SecretMode) -> Self {
        match mode {
            SecretMode::Strict => Self::Strict,
            SecretMode::Mounted => Self::Mounted,
        }
    }
}

/// Where to run, when the user says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// The first CUDA device.
    Auto,
    /// The CUDA device of this ordinal.
    Cuda(u32),
    /// The CUDA device, or MIG instance, of this identity.
    CudaUuid(DeviceUuid),
    /// Host memory.
    #[cfg(feature = "mock")]
    Mock,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(0)),
            #[cfg(feature = "mock")]
            "mock" => Ok(Self::Mock),
            #[cfg(not(feature = "mock"))]
            "mock" => Err(format!("this build has no mock device; give {DEVICES}")),
            _ if ["GPU-", "MIG-"].iter().any(|kind| text.starts_with(kind)) => {
                text.parse().map(Self::CudaUuid).map_err(|error: VramError| error.to_string())
            }
            _ => text
                .strip_prefix("cuda:")
                // Else a plus sign would pass.
                .filter(|ordinal| ordinal.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|ordinal| ordinal.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| {
                    format!("give {DEVICES}, where N is the ordinal of a device, and UUID as nvidia-smi -L prints it")
                }),
        }
    }
}

/// How often to execute. The standard library's words for what is no such number tell nobody what to give.
fn executes(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| format!("give a whole number from 1 to {}", u64::MAX))
}

/// A number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("give a whole number of bytes, digits only, up to {}", u64::MAX))
}

/// A number that may be a block size; whether it is one the library judges.
fn block(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "give a power of two from 1024 to 65536".to_owned())
}

/// The bytes of a salt given in hexadecimal.
pub(crate) fn salt(text: &str) -> Result<Vec<u8>, VramError> {
    hex::decode(text).map_err(|error| VramError::InvalidParams {
        field: "salt",
        problem: format!("is not hexadecimal ({error}); give up to 64 hexadecimal digits, two for each byte"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn devices_are_parsed_strictly() {
        assert_eq!("cuda:3".parse(), Ok(Device::Cuda(3)));
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        assert_eq!("auto".parse(), Ok(Device::Auto));
        let uuid = Device::CudaUuid(DeviceUuid::from_bytes([0xab; 16]));
        assert_eq!("GPU-abababab-abab-abab-abab-abababababab".parse(), Ok(uuid));
        assert_eq!("MIG-abababab-abab-abab-abab-abababababab".parse(), Ok(uuid));
        for bad in [
            "",
            "GPU-",
            "GPU-abababab",
            "MIG-GPU-abababab-abab-abab-abab-abababababab/1/0",
            "CUDA",
            "cuda:",
            "cuda:-1",
            "cuda:x",
            "cuda:+1",
            "gpu",
            "cuda:4294967296",
        ] {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_that_is_not_built_is_in_the_help() {
        let commands: Vec<_> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        assert_eq!(commands, ["run", "digest"]);
    }
}

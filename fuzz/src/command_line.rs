use std::fmt::Display;
use std::path::Path;

use clap::{Parser, ValueEnum as _};
use vram_residency::{DeviceUuid, Digest, ErrorCode, TreeParams};

use crate::cli::{self, Cli, Command, Device, Place};
use crate::{assert_presentable, reference};

/// A command line (a word on each line of the input) is refused with a usage error, or means options which, spelt out, mean the
/// same again. Values that the library judges are judged by it without a panic; devices and salts have few spellings.
pub fn command_line(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let words: Vec<&str> = text.split('\n').take(24).collect();
    for word in &words {
        device(word);
        salt(word);
    }
    let line = || std::iter::once("vram-worker").chain(words.iter().copied());
    match Cli::try_parse_from(line()) {
        Ok(parsed) => {
            let spelt = spell(&parsed.command);
            let again = Cli::try_parse_from(&spelt).unwrap_or_else(|error| panic!("{spelt:?}: {error}"));
            assert_eq!(format!("{parsed:?}"), format!("{again:?}"));
            judged(&parsed.command);
        }
        Err(error) => {
            assert!(!error.render().to_string().is_empty());
            assert!([0, 2].contains(&error.exit_code()), "{error}");
        }
    }
}

/// The options as words, each spelt out.
fn spell(command: &Command) -> Vec<String> {
    let mut words = vec!["vram-worker".to_owned()];
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut operands = Vec::new();
    {
        let mut option = |name: &str, value: &dyn Display| words.push(format!("--{name}={value}"));
        match command {
            Command::Run(run) => {
                option("layout", &run.layout.as_str());
                option("executes", &run.executes);
                option("block-size", &run.block_size);
                run.part_bytes.inspect(|bytes| option("part-bytes", bytes));
                run.headroom.inspect(|bytes| option("headroom", bytes));
                run.expect.as_ref().inspect(|digest| option("expect", digest));
                run.expect_sha256.as_ref().inspect(|digest| option("expect-sha256", digest));
                run.expect_file.as_ref().inspect(|file| option("expect-file", &path(file)));
                run.expect_block_size.inspect(|bytes| option("expect-block-size", bytes));
                if let Some(file) = &run.secret_file {
                    option("secret-file", &path(file));
                    option("secret-file-mode", &run.secret_file_mode.to_possible_value().unwrap().get_name());
                }
                option("verify", &run.verify);
                spell_place(&run.place, &mut option);
                operands.extend(run.model.as_deref().map(path));
                if run.json {
                    words.push("--json".to_owned());
                }
                words.insert(1, "run".to_owned());
            }
            Command::Digest(digest) => {
                option("layout", &digest.layout.as_str());
                option("block-size", &digest.block_size);
                digest.salt.as_ref().inspect(|salt| option("salt", salt));
                operands.extend(digest.files.iter().map(|file| path(file)));
                words.insert(1, "digest".to_owned());
            }
            Command::Bench(bench) => {
                option("sizes", &bench.sizes.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
                option("runs", &bench.runs);
                bench.svg.as_ref().inspect(|file| option("svg", &path(file)));
                spell_place(&bench.place, &mut option);
                if bench.json {
                    words.push("--json".to_owned());
                }
                words.insert(1, "bench".to_owned());
            }
        }
    }
    words.push("--".to_owned());
    words.extend(operands);
    words
}

fn spell_place(place: &Place, option: &mut dyn FnMut(&str, &dyn Display)) {
    place.driver_library.as_ref().inspect(|file| option("driver-library", &file.to_str().unwrap()));
    place.device.inspect(|device| option("device", &spell_device(*device)));
}

fn spell_device(device: Device) -> String {
    match device {
        Device::Auto => "auto".to_owned(),
        Device::Cuda(ordinal) => format!("cuda:{ordinal}"),
        Device::CudaUuid(uuid) => uuid.to_string(),
        Device::Mock => "mock".to_owned(),
    }
}

/// What the library says to the values.
fn judged(command: &Command) {
    let (block_size, salt) = match command {
        Command::Run(run) => {
            if let Some(text) = &run.expect {
                assert_eq!(text.parse::<Digest>().is_ok(), reference::first_bad_of_digest(text).is_none());
            }
            (run.block_size, None)
        }
        Command::Digest(digest) => (digest.block_size, digest.salt.as_deref()),
        Command::Bench(bench) => {
            assert!(bench.sizes.iter().all(|size| (1 << 20..=1 << 30).contains(size)) && !bench.sizes.is_empty());
            return;
        }
    };
    let Ok(salt) = cli::salt(salt.unwrap_or("")) else { return };
    let allowed = block_size.is_power_of_two() && (1024..=65536).contains(&block_size) && salt.len() <= 32;
    match TreeParams::new(block_size, &salt) {
        Ok(params) => assert!(allowed && params.block_size() == block_size && params.salt() == salt),
        Err(error) => {
            assert!(!allowed && error.code() == ErrorCode::InvalidParams, "{error}");
            assert_presentable(&error.to_string());
        }
    }
}

/// `auto`, `mock`, `cuda`, `cuda:` and the decimal digits of a number below 2^32, or the UUID of a device.
fn device(word: &str) {
    let ordinal = word.strip_prefix("cuda:").filter(|digits| !digits.is_empty());
    let ordinal = ordinal.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let wanted = match (word, ordinal.and_then(|digits| digits.parse().ok())) {
        ("auto", _) => Some(Device::Auto),
        ("mock", _) => Some(Device::Mock),
        ("cuda", _) => Some(Device::Cuda(0)),
        (_, ordinal) => ordinal.map(Device::Cuda).or_else(|| uuid(word).map(Device::CudaUuid)),
    };
    match word.parse::<Device>() {
        Ok(device) => assert_eq!(Some(device), wanted, "accepted: {word:?}"),
        Err(message) => {
            assert_eq!(wanted, None, "refused ({message}): {word:?}");
            assert_presentable(&message);
        }
    }
}

/// `GPU-` or `MIG-`, and 32 hexadecimal digits in five groups.
fn uuid(word: &str) -> Option<DeviceUuid> {
    let groups: Vec<&str> = word.strip_prefix("GPU-").or(word.strip_prefix("MIG-"))?.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let bytes = hex::decode(groups.concat()).ok()?;
    (lengths == [8, 4, 4, 4, 12]).then(|| DeviceUuid::from_bytes(bytes.try_into().unwrap()))
}

/// Pairs of hexadecimal digits, and nothing else.
fn salt(word: &str) {
    let wanted = word.len().is_multiple_of(2) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    match cli::salt(word) {
        Ok(bytes) => assert!(wanted && hex::encode(bytes) == word.to_ascii_lowercase(), "accepted: {word:?}"),
        Err(error) => {
            assert!(!wanted && error.code() == ErrorCode::InvalidParams, "refused ({error}): {word:?}");
            assert_presentable(&error.to_string());
        }
    }
}

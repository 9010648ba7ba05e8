//! Where the driver's library is.
//!
//! Owns [`DriverLibrary`]. Promises paths with all links resolved, of the driver and of the libraries that it needs, so that
//! `LD_LIBRARY_PATH`, which containers set and users may set, never chooses: the loader's own cache, which only root writes, then
//! the usual folders, or the one path that the program was told. Where the policy demands it, each path is judged before anything
//! is loaded.

use std::fs::File;
use std::path::{Path, PathBuf};

use elf::ElfStream;
use elf::abi::DT_NEEDED;
use elf::endian::AnyEndian;

use crate::environment::{named, only_roots};
use crate::ffi::{Candidate, Needed};

/// Names of the driver's library, the usual one first.
const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// The loader's cache.
const CACHE: &str = "/etc/ld.so.cache";

/// Where drivers lie that the loader's cache does not know: distributions, WSL, device plugins of Kubernetes, NixOS, Jetson.
const FOLDERS: [&str; 9] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/run/opengl-driver/lib",
    "/usr/lib/aarch64-linux-gnu/nvidia",
    "/usr/lib/aarch64-linux-gnu/tegra",
];

/// Begins the cache, or its newer half.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Bytes of the cache's header, and of an entry.
const HEADER: usize = 48;
const ENTRY: usize = 24;

/// What an entry for this machine's programs is flagged with: an ELF library for the C library of Linux, and the architecture.
const NATIVE: u32 = if cfg!(target_arch = "aarch64") { 0x0a03 } else { 0x0303 };

/// Which library is the driver's.
#[derive(Clone, Debug)]
pub(crate) struct DriverLibrary {
    /// The one that the program was told of.
    pub(crate) told: Option<PathBuf>,
    /// Whether only root may be able to change it.
    pub(crate) only_roots: bool,
}

/// Why there is nothing to try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The one that was told of is not there.
    Missing(String),
    /// Others than root may change one, where that matters.
    Changeable(String),
}

impl DriverLibrary {
    /// The libraries to try in turn, by their real paths.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>, Refused> {
        let cache = std::fs::read(CACHE).unwrap_or_default();
        let paths = match &self.told {
            Some(path) => vec![
                path.canonicalize()
                    .map_err(|error| Refused::Missing(format!("{} cannot be opened: {}", named(path), error.kind())))?,
            ],
            None => search(&cache, FOLDERS.map(Path::new)),
        };
        paths
            .into_iter()
            .map(|path| {
                let needs = needs(&path, &cache);
                if self.only_roots {
                    judge(path, needs)
                } else {
                    Ok(Candidate { path, needs: needs.unwrap_or_default() })
                }
            })
            .collect()
    }
}

/// Passes a library that only root can change, as it can all that it needs.
fn judge(path: PathBuf, needs: Option<Vec<Needed>>) -> Result<Candidate, Refused> {
    let refuse =
        |problem: &str| Refused::Changeable(format!("the driver's library {} is not loaded: {problem}", named(&path)));
    let root = |path: &Path| {
        only_roots(path).map_err(|problem| refuse(&format!("{problem}; install it where only root may write")))
    };
    root(&path)?;
    let needs =
        needs.ok_or_else(|| refuse("it is no library whose needs can be read; install the NVIDIA driver anew"))?;
    for needed in &needs {
        match &needed.path {
            Some(path) => root(path)?,
            None => {
                let name = named(Path::new(&needed.name));
                return Err(refuse(&format!("it needs {name}, which is not there; install it, and run ldconfig")));
            }
        };
    }
    Ok(Candidate { path, needs })
}

/// What a library needs, directly or not, each before what needs it; `None` when it cannot be read.
fn needs(path: &Path, cache: &[u8]) -> Option<Vec<Needed>> {
    fn add(path: &Path, cache: &[u8], seen: &mut Vec<String>, all: &mut Vec<Needed>) -> Option<()> {
        for name in needed_by(path)? {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name.clone());
            let folders = FOLDERS.map(Path::new).into_iter().chain(path.parent());
            let places = cached(cache, &name).into_iter().chain(folders.map(|folder| folder.join(&name)));
            let found = places.into_iter().find_map(|path| path.canonicalize().ok());
            if let Some(found) = &found {
                add(found, cache, seen, all)?;
            }
            all.push(Needed { name, path: found });
        }
        Some(())
    }
    let mut all = Vec::new();
    add(path, cache, &mut Vec::new(), &mut all)?;
    Some(all)
}

/// The names that a library's dynamic section needs.
fn needed_by(path: &Path) -> Option<Vec<String>> {
    let mut file = ElfStream::<AnyEndian, _>::open_stream(File::open(path).ok()?).ok()?;
    let entries = file.dynamic().ok()??.iter().filter(|entry| entry.d_tag == DT_NEEDED);
    let offsets: Vec<_> = entries.map(|entry| usize::try_from(entry.d_val()).ok()).collect::<Option<_>>()?;
    let (_, strings) = file.dynamic_symbol_table().ok()??;
    offsets.into_iter().map(|offset| strings.get(offset).ok().map(str::to_owned)).collect()
}

/// The driver's libraries that are there, the loader's first choice first.
fn search<'a>(cache: &[u8], folders: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
    let folders: Vec<_> = folders.into_iter().collect();
    let mut found = Vec::new();
    for name in NAMES {
        let usual = folders.iter().map(|folder| folder.join(name));
        for path in cached(cache, name).into_iter().chain(usual).filter_map(|path| path.canonicalize().ok()) {
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// What the loader's cache says of a library, as `struct cache_file_new` of the GNU C library (sysdeps/generic/dl-cache.h) has it:
/// entries of flags, then the offsets of name and path from the beginning. Whatever is not as expected is not there.
fn cached(cache: &[u8], name: &str) -> Vec<PathBuf> {
    let start = cache.windows(MAGIC.len()).position(|window| window == MAGIC);
    let cache = start.and_then(|start| cache.get(start..)).unwrap_or_default();
    let word = |bytes: &[u8], at: usize| -> Option<u32> { Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)) };
    let text = |offset: u32| -> Option<&str> {
        let bytes = cache.get(usize::try_from(offset).ok()?..)?;
        std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
    };
    let count = word(cache, MAGIC.len()).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let entries = cache.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY).take(count);
    entries
        .filter_map(|entry| {
            let (flags, key, path) = (word(entry, 0)?, text(word(entry, 4)?)?, text(word(entry, 8)?)?);
            (flags == NATIVE && key == name && path.starts_with('/')).then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
mod tests {
    use super::*;

    /// A cache as ldconfig writes it.
    fn cache(entries: &[(u32, &str, &str)]) -> Vec<u8> {
        let mut strings: Vec<u8> = Vec::new();
        let mut file = MAGIC.to_vec();
        file.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
        file.resize(HEADER, 0);
        let after = HEADER + entries.len() * ENTRY;
        for (flags, name, path) in entries {
            file.extend(flags.to_le_bytes());
            for text in [name, path] {
                file.extend(u32::try_from(after + strings.len()).unwrap().to_le_bytes());
                strings.extend(text.as_bytes().iter().chain(&[0]));
            }
            file.extend([0; 12]);
        }
        file.extend(strings);
        file
    }

    #[test]
    fn the_loaders_cache_is_read_as_the_loader_reads_it() {
        let entries = [
            (NATIVE, "libcuda.so.1", "/a/libcuda.so.1"),
            (3, "libcuda.so.1", "/32-bit/libcuda.so.1"),
            (NATIVE, "libcuda.so.1", "relative/libcuda.so.1"),
            (NATIVE, "libcuda.so", "/b/libcuda.so"),
            (NATIVE, "libcuda.so.1", "/c/libcuda.so.1"),
        ];
        let whole = cache(&entries);
        let wanted = ["/a/libcuda.so.1", "/c/libcuda.so.1"].map(PathBuf::from);
        assert_eq!(cached(&whole, "libcuda.so.1"), wanted);
        // Behind an older half.
        assert_eq!(cached(&[b"ld.so-1.7.0\0\0\0\0\0", &whole[..]].concat(), "libcuda.so.1"), wanted);
        // Whatever is cut or counted wrong is less, never a panic.
        for length in 0..whole.len() {
            assert!(cached(&whole[..length], "libcuda.so.1").len() <= 2);
        }
        let mut many = whole.clone();
        many[MAGIC.len()..][..4].fill(0xff);
        assert!(cached(&many, "libcuda.so.1").len() >= 2);
        // The machine's own names its C library, if it has a cache.
        let own = std::fs::read(CACHE).unwrap_or_default();
        assert!(own.is_empty() || cached(&own, "libc.so.6").iter().any(|path| path.is_file()));
    }

    #[test]
    fn the_cache_goes_before_the_usual_folders_and_links_are_resolved() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let place = |name: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"").unwrap();
            path
        };
        let (real, usual, second) =
            (place("real/libcuda.so.9"), place("usual/libcuda.so"), place("usual/libcuda.so.1"));
        let link = root.join("libcuda.so.1");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let gone = root.join("gone");
        let cache = cache(&[
            (NATIVE, "libcuda.so.1", gone.to_str().unwrap()),
            (NATIVE, "libcuda.so.1", link.to_str().unwrap()),
            (NATIVE, "libcuda.so", link.to_str().unwrap()),
        ]);
        let folders = [root.join("none"), root.join("usual")];
        assert_eq!(search(&cache, folders.iter().map(PathBuf::as_path)), [real, second, usual]);
        assert_eq!(search(&[], []), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn a_library_is_judged_where_that_is_demanded() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = folder.path().join("libcuda.so.1");
        std::fs::write(&path, b"").unwrap();
        let of = |path: &Path, only_roots| DriverLibrary { told: Some(path.to_owned()), only_roots }.candidates();
        let refused = |path: &Path, why: &str| match of(path, true).unwrap_err() {
            Refused::Changeable(said) => assert!(said.contains(why) && said.contains("is not loaded"), "{said}"),
            Refused::Missing(said) => panic!("{said}"),
        };
        assert_eq!(of(&path, false).unwrap()[0].path, path.canonicalize().unwrap());
        refused(&path, "libcuda.so.1");
        refused(Path::new("/etc/passwd"), "no library whose needs can be read");
        let missing = of(&folder.path().join("none"), true).unwrap_err();
        assert!(matches!(&missing, Refused::Missing(why) if why.contains("cannot be opened")), "{missing:?}");
        // The system's own passes, and what it needs comes before it.
        let cache = std::fs::read(CACHE).unwrap();
        let libm = cached(&cache, "libm.so.6").remove(0);
        let passed = of(&libm, true).unwrap().remove(0);
        assert!(passed.needs.iter().any(|needed| needed.name == "libc.so.6"), "{passed:?}");
        // So does nothing that needs what others may change, or what is not there.
        let place = |path: PathBuf| Some(vec![Needed { name: "x".to_owned(), path: Some(path) }]);
        assert!(judge(libm.clone(), place(libm.clone())).is_ok());
        assert!(judge(libm.clone(), place(path)).is_err());
        assert!(judge(libm, Some(vec![Needed { name: "x".to_owned(), path: None }])).is_err());
    }
}

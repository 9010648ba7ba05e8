//! Where the driver's library is.
//!
//! Owns [`DriverLibrary`]. Promises paths with all links resolved, so that `LD_LIBRARY_PATH`, which containers set and users may
//! set, never chooses: the loader's own cache, which only root writes, then the usual folders, or the one path that the program
//! was told. Where the policy demands it, each path is judged before anything is loaded.

use std::path::{Path, PathBuf};

use crate::environment::only_roots;
use crate::error::VramError;

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

impl DriverLibrary {
    /// The real paths to try in turn.
    ///
    /// # Errors
    /// `POLICY_VIOLATION` for one that others than root may change, where that is demanded.
    pub(super) fn paths(&self) -> Result<Vec<PathBuf>, VramError> {
        let found = match &self.told {
            // Left as it is if it is not there: the loader says why.
            Some(path) => vec![path.canonicalize().unwrap_or_else(|_| path.clone())],
            None => search(&std::fs::read(CACHE).unwrap_or_default(), FOLDERS.map(Path::new)),
        };
        for path in found.iter().filter(|_| self.only_roots) {
            only_roots(path).map_err(|problem| VramError::PolicyViolation {
                rule: "clean_environment",
                problem: format!("the driver's library is not loaded: {problem}; install it where only root may write"),
            })?;
        }
        Ok(found)
    }
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
        let of = |only_roots| DriverLibrary { told: Some(path.clone()), only_roots }.paths();
        assert_eq!(of(false).unwrap(), [path.canonicalize().unwrap()]);
        let refused = of(true).unwrap_err().to_string();
        assert!(refused.contains("clean_environment") && refused.contains("is not loaded"), "{refused}");
    }
}

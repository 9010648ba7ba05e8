//! What puts foreign code into this process.
//!
//! Owns the looking: variables and files that make the loader or the GPU's driver load more than a program asks for, and the
//! libraries that are mapped. Promises that a place is called root's only if root owns the file and every folder of its real
//! path, and nobody else may write any of them. Refuses to decide: the policy says what follows from it.
//!
//! It finds what is there when it looks. Code that already runs in this process can hide from it, and root can change what it has
//! judged. The program itself is not judged: whoever may write it has the process whatever it finds.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::text::shown;

/// Variables that put foreign code into this process or under its driver calls; of the GPU's tools by their beginnings.
const LOADER_VARIABLES: [&str; 2] = ["LD_PRELOAD", "LD_AUDIT"];
const TOOL_VARIABLES: [&str; 2] = ["CUDA_INJECTION", "NVTX_INJECTION"];

const PRELOADS: &str = "/etc/ld.so.preload";

/// Said where it holds.
const OTHER_ROOT: &str =
    "user ids are mapped in this user namespace: what is root's here can be another user's outside";

/// The first thing that is there and puts foreign code into this process, or could have; and what to do.
pub(crate) fn problem() -> Option<String> {
    let names =
        std::env::vars_os().filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.into_string().ok());
    injection(names).or_else(|| preloads(Path::new(PRELOADS))).or_else(foreign_library)
}

/// What `problem` cannot see past.
pub(crate) fn remark() -> Option<&'static str> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    (!is_whole_machine(&map)).then_some(OTHER_ROOT)
}

/// Whether a map of user ids is that of no namespace of its own: every id is itself.
fn is_whole_machine(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn injection(names: impl Iterator<Item = String>) -> Option<String> {
    let injects = |name: &String| {
        LOADER_VARIABLES.contains(&name.as_str())
            || TOOL_VARIABLES.iter().any(|tool| name.starts_with(tool))
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let name: String = names.filter(injects).max()?.chars().take(64).collect();
    Some(format!("{name} is set and can put foreign code into this process; unset it"))
}

/// What is wrong with the loader's own list, if it has any line that is not a comment.
fn preloads(list: &Path) -> Option<String> {
    let shown = list.display();
    match fs::read(list) {
        Ok(bytes) => {
            let mut lines = bytes.split(|byte| *byte == b'\n');
            let named =
                |line: &[u8]| line.iter().take_while(|byte| **byte != b'#').any(|byte| !byte.is_ascii_whitespace());
            lines.any(named).then(|| format!("{shown} names libraries that are put into every process; empty it"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(format!("{shown} cannot be read ({}); remove it", error.kind())),
    }
}

/// What is wrong with the first mapped library that others than root may change.
fn foreign_library() -> Option<String> {
    let Ok(maps) = fs::read("/proc/self/maps") else {
        return Some("the libraries of this process cannot be listed: /proc is not mounted; mount it".to_owned());
    };
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.to_string_lossy();
    libraries(&String::from_utf8_lossy(&maps)).into_iter().filter(|library| *library != program).find_map(|library| {
        // The loader's file may have been replaced since, as an update does; its place is what only root may write.
        let path = library.strip_suffix(" (deleted)").unwrap_or(library);
        let problem = match only_roots(Path::new(path)) {
            // The kernel told a real path: who made links of it since did so to look like another place.
            Ok(real) if real != Path::new(path) => format!("its place is now a link to {}", named(&real)),
            judged => judged.err()?,
        };
        Some(format!(
            "the library {} is mapped into this process, but {problem}; install it where only root may write, or stop loading it \
             (LD_LIBRARY_PATH may have named it)",
            named(Path::new(path))
        ))
    })
}

fn libraries(maps: &str) -> BTreeSet<&str> {
    maps.lines()
        .filter_map(|line| {
            // addresses, permissions, offset, device, inode, path
            let mut fields = line.splitn(6, ' ');
            let executable = fields.nth(1)?.contains('x');
            let path = fields.nth(3)?.trim_start();
            (executable && path.starts_with('/')).then_some(path)
        })
        .collect()
}

/// The real path of a file that only root can change or replace; else what is wrong, for people.
pub(crate) fn only_roots(path: &Path) -> Result<PathBuf, String> {
    let unknown =
        |place: &Path, error: &std::io::Error| format!("{} cannot be judged ({})", named(place), error.kind());
    let real = path.canonicalize().map_err(|error| unknown(path, &error))?;
    for place in real.ancestors() {
        let found = place.symlink_metadata().map_err(|error| unknown(place, &error))?;
        if found.uid() != 0 {
            return Err(format!("{} belongs to user {}, not to root", named(place), found.uid()));
        }
        // In a folder that is sticky as well others may still add files.
        if found.mode() & 0o022 != 0 {
            return Err(format!("{} may be written by its group or others", named(place)));
        }
    }
    Ok(real)
}

/// A path for a message, which foreign text must not break.
pub(crate) fn named(path: &Path) -> String {
    format!("\"{}\"", shown(&path.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn variables_that_inject_are_named_and_others_are_not() {
        // covers: ERR-2
        let found = |names: &[&str]| injection(names.iter().map(|name| (*name).to_owned()));
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "CUDA_INJECTION64_PATH",
            "CUDA_INJECTION32_PATH",
            "NVTX_INJECTION64_PATH",
            "NVTX_INJECTION32_PATH",
        ] {
            let problem = found(&["PATH", name]).unwrap();
            assert!(problem.starts_with(&format!("{name} is set")) && problem.contains("; unset it"), "{problem}");
        }
        assert_eq!(
            found(&[
                "PATH",
                "LD_LIBRARY_PATH",
                "ld_preload",
                "MY_LD_PRELOAD",
                "CUDA_VISIBLE_DEVICES",
                "CUDA_INJECTION\n"
            ]),
            None
        );
    }

    #[test]
    fn a_list_of_preloads_may_hold_comments_only() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("ld.so.preload");
        assert_eq!(preloads(&list), None);
        for (text, refused) in
            [("", false), (" \n\t\n", false), ("# /x.so\n", false), ("#\n/x.so", true), ("/x.so # why", true)]
        {
            fs::write(&list, text).unwrap();
            assert_eq!(preloads(&list).is_some(), refused, "{text:?}");
        }
        assert!(preloads(folder.path()).unwrap().contains("cannot be read"));
    }

    #[test]
    fn what_is_mapped_to_be_executed_is_a_library() {
        let maps = "7f00-7f01 r-xp 00000000 fe:00 12   /usr/lib/a b.so\n7f01-7f02 r--p 00000000 fe:00 12   /tmp/data\n\
                    7f02-7f03 r-xp 00000000 00:00 0 \n7f03-7f04 r-xp 00000000 00:00 0   [vdso]\nshort\n\
                    7f04-7f05 rwxp 00000000 00:01 99   /memfd:x (deleted)\n7f05-7f06 r-xp 00001000 fe:00 12   /usr/lib/a b.so\n";
        assert_eq!(libraries(maps).into_iter().collect::<Vec<_>>(), ["/memfd:x (deleted)", "/usr/lib/a b.so"]);
        assert!(only_roots(Path::new("/memfd:x")).unwrap_err().contains("cannot be judged"));
    }

    #[test]
    fn a_place_is_roots_only_if_nobody_else_may_write_the_file_or_a_folder_of_its_real_path() {
        let libc = libraries(&fs::read_to_string("/proc/self/maps").unwrap())
            .into_iter()
            .find(|path| path.contains("/libc.so"))
            .map(PathBuf::from);
        let libc = libc.expect("this program uses the C library of its system");
        assert_eq!(only_roots(&libc), Ok(libc.canonicalize().unwrap()));
        // A link in a place of others to a file of root's is root's file.
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink(&libc, &link).unwrap();
        assert_eq!(only_roots(&link), only_roots(&libc));
        // A copy there is not, whoever owns it.
        let copy = folder.path().join("libc\n.so");
        fs::copy(&libc, &copy).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let problem = only_roots(&copy).unwrap_err();
        let by_root = copy.metadata().unwrap().uid() == 0;
        assert!(
            problem.contains(if by_root { "may be written by its group or others" } else { "belongs to user" }),
            "{problem}"
        );
        assert!(!problem.contains('\n') && problem.contains(folder.path().to_str().unwrap()), "{problem}");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(only_roots(&copy).unwrap_err().contains("libc\\n.so"));
    }

    #[test]
    fn a_namespace_in_which_root_is_somebody_else_is_told_from_the_whole_machine() {
        assert!(is_whole_machine("         0          0 4294967295\n"));
        for map in ["", "0 1000 1\n", "0 0 1\n", "0 100000 65536\n", "0 0 4294967295\n1 1 1\n"] {
            assert!(!is_whole_machine(map), "{map:?}");
        }
    }
}

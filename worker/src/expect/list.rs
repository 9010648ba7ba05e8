//! Lists of digests, as `sha256sum` and `fsverity digest` print them.
//!
//! Owns [`List`]. An entry speaks of the file at its path from the list's own folder; where no entry is of that place, of a file of its
//! name. Names are not followed where they are links: a link to another listed file has its own name, and is judged by that. Refuses a line that is of neither tool, and two digests of one file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use vram_residency::{Expectation, TreeParams, VramError};

use crate::exit::Failure;

/// No list is longer.
const MOST_BYTES: u64 = 16 << 20;

/// What a list says.
#[derive(Debug)]
pub(crate) struct List {
    path: PathBuf,
    entries: BTreeMap<PathBuf, Expectation>,
}

impl List {
    /// Reads a list; digests of fs-verity in it are of trees with these parameters.
    pub(super) fn read(path: &Path, params: &TreeParams) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MOST_BYTES.saturating_add(1)).read_to_end(&mut bytes))
            .map_err(|error| refuse(path, &format!("cannot be read ({error}); check the path")))?;
        if u64::try_from(bytes.len()).map_or(true, |length| length > MOST_BYTES) {
            return Err(refuse(path, &format!("has more than {MOST_BYTES} bytes; give a list of digests")));
        }
        Self::parse(path, &bytes, params)
    }

    fn parse(path: &Path, bytes: &[u8], params: &TreeParams) -> Result<Self, Failure> {
        let mut entries = BTreeMap::new();
        for (number, line) in (1u64..).zip(bytes.split(|byte| *byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                continue;
            }
            let Some((name, expectation)) = entry(line, params) else {
                return Err(refuse(
                    path,
                    &format!("is no list of digests at line {number}; give what sha256sum or fsverity digest prints"),
                ));
            };
            if entries.get(&name).is_some_and(|other| *other != expectation) {
                return Err(refuse(
                    path,
                    &format!(
                        "has two digests of {name:?}, the second at line {number}; keep the right one, of one kind"
                    ),
                ));
            }
            entries.insert(name, expectation);
        }
        if entries.is_empty() {
            return Err(refuse(path, "is empty; give what sha256sum or fsverity digest prints"));
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    /// The entries that speak of a file.
    fn matching(&self, file: &Path) -> Vec<(&PathBuf, &Expectation)> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        // The folder as it is, however it is reached, and the name in it.
        let real = |path: &Path| {
            let folder = Some(path.parent()?).filter(|folder| !folder.as_os_str().is_empty());
            Some(folder.unwrap_or(Path::new(".")).canonicalize().ok()?.join(path.file_name()?))
        };
        let at = real(file);
        let leads_there = |name: &Path| at.is_some() && real(&folder.join(name)) == at;
        let there: Vec<_> = self.entries.iter().filter(|(name, _)| leads_there(name)).collect();
        if !there.is_empty() {
            return there;
        }
        self.entries.iter().filter(|(name, _)| name.file_name() == file.file_name()).collect()
    }

    /// What it says of a file.
    pub(super) fn of_file(&self, file: &Path) -> Result<Expectation, Failure> {
        let matching = self.matching(file);
        let Some((_, expectation)) = matching.first() else {
            return Err(refuse(
                &self.path,
                &format!(
                    "does not name {file:?}; give the list of this model's files, its index among them if it has one"
                ),
            ));
        };
        if matching.iter().any(|(_, other)| other != expectation) {
            let problem =
                format!("has several digests that may be of {file:?}; put it where its paths lead to the model");
            return Err(refuse(&self.path, &problem));
        }
        Ok((*expectation).clone())
    }

    /// Whether it names these files and no others.
    pub(super) fn name_exactly(&self, files: &[&Path]) -> Result<(), Failure> {
        let mut named = BTreeSet::new();
        for file in files {
            self.of_file(file)?;
            named.extend(self.matching(file).into_iter().map(|(name, _)| name));
        }
        match self.entries.keys().find(|name| !named.contains(name)) {
            Some(surplus) => {
                let problem = format!(
                    "names {surplus:?}, which is no file of the model; list the index and the files that it names, and no others"
                );
                Err(refuse(&self.path, &problem))
            }
            None => Ok(()),
        }
    }
}

/// One line; `None` when it is of neither tool.
fn entry(line: &[u8], params: &TreeParams) -> Option<(PathBuf, Expectation)> {
    if line.starts_with(b"sha256:") {
        let at = line.iter().position(|byte| *byte == b' ')?;
        let (digest, name) = line.split_at_checked(at)?;
        let digest = std::str::from_utf8(digest).ok()?.parse().ok()?;
        let expectation = Expectation::FsVerityWith { digest, params: params.clone() };
        return Some((plain(name.strip_prefix(b" ")?.to_vec())?, expectation));
    }
    // `sha256sum --tag`
    if let Some(tagged) = line.strip_prefix(b"SHA256 (") {
        let at = tagged.windows(4).rposition(|window| window == b") = ")?;
        let (name, digits) = (tagged.get(..at)?, tagged.get(at.saturating_add(4)..)?);
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest).ok()?;
        return Some((plain(name.to_vec())?, Expectation::Sha256(digest)));
    }
    let (line, escaped) = line.strip_prefix(b"\\").map_or((line, false), |line| (line, true));
    let (digits, name) = line.split_at_checked(64)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest).ok()?;
    let name = name.strip_prefix(b"  ").or_else(|| name.strip_prefix(b" *"))?;
    let name = if escaped { unescaped(name)? } else { name.to_vec() };
    Some((plain(name)?, Expectation::Sha256(digest)))
}

/// A name that `sha256sum` escaped.
fn unescaped(name: &[u8]) -> Option<Vec<u8>> {
    let (mut plain, mut bytes) = (Vec::with_capacity(name.len()), name.iter());
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(plain)
}

/// A path without the steps that lead nowhere.
fn plain(name: Vec<u8>) -> Option<PathBuf> {
    let name = PathBuf::from(std::ffi::OsString::from_vec(name));
    let path: PathBuf = name.components().filter(|step| *step != Component::CurDir).collect();
    (!path.as_os_str().is_empty()).then_some(path)
}

fn refuse(path: &Path, problem: &str) -> Failure {
    VramError::InvalidParams { field: "list of digests", problem: format!("{path:?} {problem}") }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_a_model_of_several_files_names_exactly_these() {
        // covers: DIG-6
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> =
            ["index.json", "1.safetensors", "2.safetensors"].map(|name| folder.path().join(name)).into();
        let line = |name: &str| format!("{}  {name}\n", "00".repeat(32));
        let list = |names: &[&str]| {
            let path = folder.path().join("SHA256SUMS");
            std::fs::write(&path, names.iter().map(|name| line(name)).collect::<String>()).unwrap();
            List::read(&path, &TreeParams::default()).unwrap()
        };
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let all = ["./2.safetensors", "index.json", "1.safetensors"];
        assert!(list(&all).name_exactly(&files).is_ok());
        let short = list(&all[..2]).name_exactly(&files).unwrap_err().message();
        assert!(short.contains("does not name") && short.contains("1.safetensors"), "{short}");
        let long = list(&[&all[..], &["3.safetensors"]].concat()).name_exactly(&files).unwrap_err().message();
        assert!(long.contains("names \"3.safetensors\""), "{long}");
    }
}

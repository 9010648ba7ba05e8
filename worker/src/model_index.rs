//! A model of several files, and the index that names them (`model.safetensors.index.json`).
//!
//! Owns [`Files`]. Promises that index and files agree before anything is sealed: every file that the index names is there,
//! holds the tensors that the index puts there, and no other. Refuses file names that lead out of the index's folder, and keys
//! that occur twice. What the index says of sizes (`metadata.total_size`) is not used: writers count differently, and each
//! file's own header is exact.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use vram_residency::{Expectation, Layout, SealedShard, ShardId, ShardSource, TreeParams, VramError, VramManager};

use crate::cli;
use crate::digest;
use crate::exit::Failure;
use crate::expect::Expectations;
use crate::set;
use crate::signals::Signals;

/// The longest index, in bytes; that of a header.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// How much of foreign text a message shows, in characters, and how many missing files it names.
const SHOWN_CHARS: usize = 160;
const SHOWN_FILES: usize = 5;

/// How many files that are left out are looked for, and how long the numbers in their names may be.
const MOST_LEFT_OUT: usize = 1000;
const MOST_DIGITS: usize = 20;

/// What an index may take in memory for each of its bytes once it is understood, at most.
const MEMORY_PER_BYTE: usize = 32;

/// Whether a path is that of an index, by its name: `*.index.json`, `*.index.VARIANT.json`, or `index.json`.
pub(crate) fn is_index(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".json") && (name.contains(".index.") || name == "index.json")
}

/// The files of a model, in the order of their names.
#[derive(Debug)]
pub(crate) struct Files {
    files: Vec<ModelFile>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct ModelFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Of the image that it is to become.
    layout: Layout,
    /// What somebody vouched for.
    expected: Option<Expectation>,
}

impl Files {
    /// Reads the index, which must be the expected one where one is expected, and the header of every file. O(headers).
    pub(crate) fn open(
        index: &Path,
        expected: Option<&Expectation>,
        layout: cli::Layout,
        params: &TreeParams,
    ) -> Result<Self, Failure> {
        let weight_map = read(index, expected, params)?;
        let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &weight_map {
            names.entry(file).or_default().push(tensor);
        }
        names.keys().try_for_each(|name| plain(index, name))?;
        let folder = index.parent().unwrap_or(Path::new(""));
        let absent: Vec<_> = names.keys().filter(|name| !folder.join(name).exists()).map(|name| quoted(name)).collect();
        let left_out: Vec<_> = left_out(names.keys().copied()).iter().map(|name| quoted(name)).collect();
        if !absent.is_empty() || !left_out.is_empty() {
            let absent = list(&absent, "no file here by the name of");
            let left_out = list(&left_out, "no tensor in the index that lies in");
            let both = [absent, left_out].into_iter().flatten().collect::<Vec<_>>().join(", and ");
            return Err(bad(index, &format!("files of the model are missing: there is {both}; fetch the whole model")));
        }
        let mut files = Vec::with_capacity(names.len());
        for (name, tensors) in names {
            let path = folder.join(name);
            let in_file = ShardSource::safetensors(&path)?.into_image(params)?.layout().clone();
            agree(index, name, &tensors, &in_file, &weight_map)?;
            let layout = match layout {
                cli::Layout::Tensors => in_file,
                cli::Layout::File => digest::open(&path, layout)?.into_image(params)?.layout().clone(),
            };
            files.push(ModelFile { name: name.to_owned(), path, layout, expected: None });
        }
        Ok(Self { files })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ModelFile> {
        self.files.iter()
    }

    /// Takes what is expected of each file, and of no other.
    pub(crate) fn expect(&mut self, index: &Path, expectations: &Expectations) -> Result<(), Failure> {
        let named: Vec<&Path> =
            std::iter::once(index).chain(self.files.iter().map(|file| file.path.as_path())).collect();
        expectations.name_exactly(&named)?;
        self.files.iter_mut().try_for_each(|file| {
            file.expected = expectations.of_file(&file.path)?;
            Ok(())
        })
    }

    /// Whether somebody vouched for every file.
    pub(crate) fn are_expected(&self) -> bool {
        self.files.iter().all(|file| file.expected.is_some())
    }

    /// Bytes of all images.
    pub(crate) fn byte_len(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.layout.byte_len()))
    }

    /// Seals every file as a part of one set.
    pub(crate) fn seal(
        &self,
        manager: &VramManager,
        name: &str,
        layout: cli::Layout,
        signals: &Signals,
    ) -> Result<Vec<SealedShard>, Failure> {
        set::seal(manager, name, self.files.len(), signals, |at, spec| {
            let file = self.files.get(at).ok_or(VramError::Internal { what: "a set has more parts than files" })?;
            let spec = match &file.expected {
                Some(expected) => spec.expect(expected.clone()),
                None => spec,
            };
            let sealed = manager.seal_model(spec, digest::open(&file.path, layout)?);
            let shard = sealed.map_err(|error| unexpected(error, &format!("it is the file {}", quoted(&file.name))))?;
            if shard.layout_digest() == file.layout.digest() { Ok(shard) } else { Err(set::changed(&shard)) }
        })
    }
}

/// The index as it is in its file: the file of each tensor.
fn read(
    index: &Path,
    expected: Option<&Expectation>,
    params: &TreeParams,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut file = ShardSource::file(index)?.into_image(params)?;
    if let Some(expected) = expected {
        file = file.expect(ShardId::new("index")?, expected)?;
    }
    let bytes = file.layout().byte_len();
    if bytes > MAX_INDEX_BYTES {
        return Err(bad(index, &format!("it is {bytes} bytes long, too long for an index of model files")));
    }
    let mut json = Vec::new();
    // What it is understood into is reserved, too, and given back: the maps themselves could only end the process.
    let mut understood = Vec::<u8>::new();
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| json.try_reserve_exact(*bytes).is_ok())
        .and_then(|bytes| bytes.checked_mul(MEMORY_PER_BYTE))
        .and_then(|bytes| understood.try_reserve_exact(bytes).ok())
        .ok_or_else(|| {
            bad(index, &format!("its {bytes} bytes take more memory than there is; give this process more memory"))
        })?;
    drop(understood);
    file.read_to_end(&mut json).map_err(own_words)?;
    file.finish().map_err(|error| unexpected(error, "it is the index itself"))?;
    let WeightMap { files, twice } =
        serde_json::from_slice::<Index>(&json).map(|index| index.weight_map).map_err(|error| {
            let error = shown(&error.to_string());
            bad(index, &format!("it is not the index of a model's files: {error}; fetch it again"))
        })?;
    if let Some(tensor) = twice {
        return Err(bad(index, &format!("it names tensor {} twice; fetch it again", quoted(&tensor))));
    }
    if files.is_empty() {
        return Err(bad(index, "its weight_map names no tensor; fetch it again"));
    }
    Ok(files)
}

#[derive(Deserialize)]
#[serde(expecting = "an object with weight_map")]
struct Index {
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    weight_map: WeightMap,
}

/// The file of each tensor.
struct WeightMap {
    files: BTreeMap<String, String>,
    /// A tensor that is there twice.
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the file of each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut found = WeightMap { files: BTreeMap::new(), twice: None };
                while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                    match found.files.entry(tensor) {
                        Entry::Vacant(place) => {
                            place.insert(file);
                        }
                        Entry::Occupied(there) => found.twice = Some(there.key().clone()),
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

/// A file's name, and no path.
fn plain(index: &Path, name: &str) -> Result<(), Failure> {
    let unusable = name.contains(['/', '\\', '\0']) || matches!(name, "" | "." | "..");
    if !unusable {
        return Ok(());
    }
    let name = quoted(name);
    Err(bad(index, &format!("it names a file {name}, which is no plain name; files lie in the folder of the index")))
}

/// Which files the names themselves count and the index does not name: `model-00001-of-00003.safetensors` means that there are
/// three.
fn left_out<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counted: BTreeMap<(&str, &str, &str), BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        let Some((front, (count, behind))) =
            name.rsplit_once("-of-").and_then(|(front, rest)| Some((front, rest.split_once('.')?)))
        else {
            continue;
        };
        let Some((prefix, number)) = front.rsplit_once('-') else { continue };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits(number) && digits(count) {
            counted.entry((prefix, count, behind)).or_default().insert(number);
        }
    }
    let mut missing = Vec::new();
    for ((prefix, count, behind), numbers) in counted {
        let Ok(files) = count.parse::<u32>() else { continue };
        let width = numbers.first().map_or(0, |number| number.len());
        if width > MOST_DIGITS || missing.len() >= MOST_LEFT_OUT {
            continue;
        }
        // Some count from 0.
        let first = u32::from(!numbers.iter().any(|number| number.parse() == Ok(0)));
        let all = (first..files.saturating_add(first)).map(|number| format!("{number:0width$}"));
        // An index that is far from complete is told by its first gaps.
        let more = MOST_LEFT_OUT.saturating_sub(missing.len());
        let gaps = all.filter(|number| !numbers.contains(number.as_str())).take(more);
        missing.extend(gaps.map(|number| format!("{prefix}-{number}-of-{count}.{behind}")));
    }
    missing
}

/// Whether a file holds the tensors that the index puts there, and no other.
fn agree(
    index: &Path,
    name: &str,
    wanted: &[&str],
    found: &Layout,
    weight_map: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let file = quoted(name);
    for tensor in found.tensors() {
        let problem = match weight_map.get(&tensor.name) {
            Some(named) if named == name => continue,
            Some(named) => format!("which the index puts in {}", quoted(named)),
            None => "which the index does not name".to_owned(),
        };
        let tensor = quoted(&tensor.name);
        return Err(bad(index, &format!("{file} holds tensor {tensor}, {problem}; fetch the files of one model")));
    }
    let found: BTreeSet<_> = found.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    match wanted.iter().find(|tensor| !found.contains(*tensor)) {
        None => Ok(()),
        Some(tensor) => {
            let tensor = quoted(tensor);
            Err(bad(
                index,
                &format!(
                    "it puts tensor {tensor} in {file}, which has none of that name; fetch the files of one model"
                ),
            ))
        }
    }
}

/// What is missing, in words; `None` where nothing is.
fn list(names: &[String], what: &str) -> Option<String> {
    let more = names.len().saturating_sub(SHOWN_FILES);
    let shown = names.iter().take(SHOWN_FILES).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("{what} {shown}{more}"))
}

fn bad(index: &Path, problem: &str) -> Failure {
    let problem = format!("{}: {problem}", quoted(&index.to_string_lossy()));
    VramError::ModelLoad { problem, source: None }.into()
}

/// The library's error, out of the reader's.
fn own_words(error: io::Error) -> Failure {
    match error.downcast::<VramError>() {
        Ok(error) => error.into(),
        Err(source) => Failure::Io { what: "reading the index of the model", source },
    }
}

/// Says of a digest that is not the expected one whose it is.
fn unexpected(error: VramError, whose: &str) -> Failure {
    match error {
        VramError::DigestMismatch { .. } => Failure::Unexpected { error, hint: whose.to_owned() },
        error => error.into(),
    }
}

/// Foreign text: escaped; of a long one the end, which says more of a path.
fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

fn shown(text: &str) -> String {
    let surplus = text.chars().count().saturating_sub(SHOWN_CHARS);
    let end: String = text.chars().skip(surplus).flat_map(char::escape_debug).collect();
    if surplus > 0 { format!("…{end}") } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_count_tell_what_is_left_out() {
        // covers: SEAL-8
        let missing = |names: &[&str]| left_out(names.iter().copied());
        assert_eq!(
            missing(&["m-00001-of-00003.safetensors", "m-00003-of-00003.safetensors"]),
            ["m-00002-of-00003.safetensors"]
        );
        assert_eq!(missing(&["m-0-of-2.a.b"]), ["m-1-of-2.a.b"]);
        assert_eq!(missing(&["a-1-of-1.s", "b-2-of-2.s"]), ["b-1-of-2.s"]);
        for complete in [
            &["m-00001-of-000002.s", "m-00002-of-000002.s"][..],
            &["m-0-of-2.s", "m-1-of-2.s"],
            &["model.safetensors"],
            &["best-of-3.safetensors", "-of-.", "a-x-of-2.s", "a-1-of-2"],
            &["m-1-of-99999999999.s"],
        ] {
            assert!(missing(complete).is_empty(), "{complete:?}");
        }
        assert_eq!(missing(&["m-1-of-4294967295.s"]).len(), 1000);
        assert_eq!(missing(&["a-1-of-4294967295.s", "b-1-of-4294967295.s"]).len(), 1000, "in all");
        assert!(missing(&[&format!("m-{}1-of-3.s", "0".repeat(70_000))]).is_empty());
    }

    #[test]
    fn an_index_is_known_by_its_name() {
        for (path, index) in [
            ("/a/model.safetensors.index.json", true),
            ("diffusion_pytorch_model.safetensors.index.fp16.json", true),
            ("index.json", true),
            ("a.index.d/config.json", false),
            ("model.index.safetensors", false),
            ("/", false),
        ] {
            assert_eq!(is_index(Path::new(path)), index, "{path}");
        }
    }
}

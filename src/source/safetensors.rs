//! The plan of a safetensors file: which tensors lie where.
//!
//! Owns [`plan`], which reads the header, never the data. Promises that a plan covers the file exactly: tensors in file
//! order, without gaps and overlaps, each as long as its type and shape say, the last ending with the file. Refuses all
//! else with one sentence that names the tensor; nothing is allocated for a length that the file itself belies, and nothing
//! decoded that memory may not suffice for. What the `safetensors` crate refuses is refused here; it judges the result a second
//! time.
//!
//! Source: <https://github.com/huggingface/safetensors>, section "Format".

use std::fmt;
use std::io::Read;

use safetensors::tensor::{Metadata, TensorInfo as Entry};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::digest::layout::TensorInfo;
use crate::error::VramError;
use crate::text::{quote, shown};

mod entry;

/// The longest header, in bytes; the limit of the `safetensors` crate.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What decoding a header may take, in bytes for each of its bytes. A long shape takes 17, with the copies that are made of it.
const DECODED_BYTES: u64 = 32;

const PREFIX_BYTES: u64 = 8;

const METADATA: &str = "__metadata__";

#[derive(Debug)]
pub(crate) struct Plan {
    /// The tensors in file order. Their offsets are not assigned yet.
    pub(crate) tensors: Vec<TensorInfo>,
    /// Bytes of tensor data, which follow the header without a gap and end with the file.
    pub(crate) data_bytes: u64,
}

/// Reads the header of a safetensors file of `file_bytes` bytes and leaves the reader at the first byte of the data.
///
/// # Errors
/// `MODEL_LOAD_FAILED` when the header cannot be read, or does not describe the file.
pub(crate) fn plan(reader: &mut impl Read, file_bytes: u64) -> Result<Plan, VramError> {
    let header_room = file_bytes.checked_sub(PREFIX_BYTES).ok_or_else(|| {
        bad(format!(
            "it is {file_bytes} bytes long, too short for a safetensors file; check that the download is complete"
        ))
    })?;
    let mut prefix = [0; 8];
    reader.read_exact(&mut prefix).map_err(unreadable)?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > header_room {
        return Err(bad(format!(
            "it claims a header of {header_bytes} bytes and has {header_room} left; it is no safetensors file or not complete"
        )));
    }
    if header_bytes > MAX_HEADER_BYTES {
        return Err(bad(format!(
            "it claims a header of {header_bytes} bytes; at most {MAX_HEADER_BYTES} are allowed: split the model"
        )));
    }
    let mut header = room_for(header_bytes)?;
    reader.take(header_bytes).read_to_end(&mut header).map_err(unreadable)?;
    if u64::try_from(header.len()) != Ok(header_bytes) {
        return Err(bad(
            "it shrank while its header was read; nobody may write to a model while it is loaded".to_owned()
        ));
    }
    let text = std::str::from_utf8(&header).map_err(|error| {
        bad(format!("its header is not UTF-8 at byte {}; it is no safetensors file", error.valid_up_to()))
    })?;
    // Given back at once: what decoding allocates bit by bit is there, and its failure would end the process.
    drop(std::hint::black_box(room_for(header_bytes.saturating_mul(DECODED_BYTES))?));
    let entries = file_order(decode(text)?);
    // The header's bound keeps this far from overflow.
    let data_bytes = header_room.saturating_sub(header_bytes);
    let tensors = check(&entries, data_bytes)?;
    Metadata::new(None, entries)
        .map_err(|error| bad(format!("its header is inconsistent: {}", shown(&error.to_string()))))?;
    Ok(Plan { tensors, data_bytes })
}

/// An empty buffer for so many bytes, which memory suffices for.
fn room_for(bytes: u64) -> Result<Vec<u8>, VramError> {
    let mut room = Vec::new();
    usize::try_from(bytes).ok().and_then(|bytes| room.try_reserve_exact(bytes).ok()).ok_or_else(|| {
        bad(format!("its header may take {bytes} bytes of memory, more than there are; give this process more memory"))
    })?;
    Ok(room)
}

/// Decodes the header's entries, in the order of the JSON text.
fn decode(text: &str) -> Result<Vec<(String, Entry)>, VramError> {
    let mut header = Header::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let decoded = header.deserialize(&mut json).and_then(|()| json.end());
    if header.twice_metadata {
        return Err(bad(format!("its header has the key {METADATA:?} twice; write the file again")));
    }
    if let Err(error) = decoded {
        let error = shown(&error.to_string());
        let problem = match header.current {
            Some(name) => format!("its header describes tensor {} wrongly: {error}", quote(&name)),
            None => format!("its header is not the JSON of a safetensors file: {error}"),
        };
        return Err(bad(format!("{problem}; it is damaged, or no safetensors file")));
    }
    header.entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut pairs = header.entries.iter().zip(header.entries.iter().skip(1));
    if let Some(((name, _), _)) = pairs.find(|((left, _), (right, _))| left == right) {
        return Err(bad(format!("its header names tensor {} twice; write the file again", quote(name))));
    }
    Ok(header.entries)
}

/// Sorts by place in the file; empty tensors at one place by name.
fn file_order(mut entries: Vec<(String, Entry)>) -> Vec<(String, Entry)> {
    entries.sort_by(|(left_name, left), (right_name, right)| {
        left.data_offsets.cmp(&right.data_offsets).then_with(|| left_name.cmp(right_name))
    });
    entries
}

/// Checks that entries in file order cover `data_bytes` bytes exactly.
fn check(entries: &[(String, Entry)], data_bytes: u64) -> Result<Vec<TensorInfo>, VramError> {
    let mut tensors = Vec::with_capacity(entries.len());
    let mut end_before = 0u64;
    for (name, entry) in entries {
        let (start, end) = (wide(entry.data_offsets.0), wide(entry.data_offsets.1));
        let refuse = |problem: String| bad(format!("tensor {} {problem}", quote(name)));
        if start < end_before {
            return Err(refuse(format!(
                "starts at byte {start}, inside the tensor before it, which ends at {end_before}; write the file again"
            )));
        }
        if start > end_before {
            return Err(refuse(format!(
                "starts at byte {start}, but the tensor before it ends at {end_before}; gaps are not allowed: write the file again"
            )));
        }
        let Some(bytes) = end.checked_sub(start) else {
            return Err(refuse(format!("ends at byte {end}, before it starts at {start}; write the file again")));
        };
        if end > data_bytes {
            return Err(refuse(format!(
                "ends at byte {end}, but the file has {data_bytes} bytes of data; check that the download is complete"
            )));
        }
        let shape: Vec<u64> = entry.shape.iter().map(|&dimension| wide(dimension)).collect();
        let needed = shape
            .iter()
            .try_fold(1u64, |product, &dimension| product.checked_mul(dimension))
            .and_then(|elements| elements.checked_mul(wide(entry.dtype.bitsize())))
            .ok_or_else(|| {
                refuse(format!("is larger than 2^64 bits by its type {} and shape; write the file again", entry.dtype))
            })?;
        if bytes.checked_mul(8) != Some(needed) {
            return Err(refuse(format!(
                "takes {needed} bits by its type {} and shape but has {bytes} bytes; write the file again",
                entry.dtype
            )));
        }
        tensors.push(TensorInfo { name: name.clone(), dtype: entry.dtype.to_string(), shape, offset: 0, bytes });
        end_before = end;
    }
    if end_before != data_bytes {
        let surplus = data_bytes.saturating_sub(end_before);
        return Err(bad(format!("{surplus} bytes follow its last tensor; write the file again without them")));
    }
    Ok(tensors)
}

/// What has been decoded of a header so far.
#[derive(Default)]
struct Header {
    entries: Vec<(String, Entry)>,
    /// The tensor whose entry is being decoded.
    current: Option<String>,
    metadata: bool,
    twice_metadata: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Header {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Header {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                self.twice_metadata |= self.metadata;
                self.metadata = true;
                // Free text about the model, which nothing here uses; its form is checked all the same.
                let _judged: Option<entry::Texts> = map.next_value()?;
                continue;
            }
            self.current = Some(name);
            let entry::Entry(entry) = map.next_value()?;
            if let Some(name) = self.current.take() {
                self.entries.push((name, entry));
            }
        }
        Ok(())
    }
}

fn wide(size: usize) -> u64 {
    // No supported target has more than 64 bits of address.
    u64::try_from(size).unwrap_or(u64::MAX)
}

fn bad(problem: String) -> VramError {
    VramError::ModelLoad { problem, source: None }
}

fn unreadable(source: std::io::Error) -> VramError {
    VramError::ModelLoad {
        problem: format!("its header cannot be read: {source}; check the disk and the file system"),
        source: Some(source),
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests;

use std::collections::HashSet;

use safetensors::SafeTensors;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use vram_residency::{ShardSource, TreeParams};

use crate::assert_presentable;
use crate::safetensors::in_file;

/// Both readers, ours and the `safetensors` crate's, accept a file or refuse it, and see the same tensors in it: names, types,
/// shapes, places. The input is the header's text behind two bytes that say how many bytes of data follow, so that every
/// input has a header of the right length.
///
/// Where they differ, it is we who refuse:
///
/// 1. A name that occurs twice. The crate takes the last of the entries, other readers the first.
/// 2. A list where an entry's object belongs, an object where the name of a type does. The crate's derived decoder takes them; the
///    format does not know them, nor do readers in other languages.
pub fn safetensors_differential(data: &[u8]) {
    let Some((&[low, high], header)) = data.split_first_chunk::<2>() else { return };
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    let weights = vec![7; u16::from_le_bytes([low, high]).into()];
    let file = [&length[..], header, &weights].concat();
    match (in_file(&file, |path| ShardSource::safetensors(path)), SafeTensors::read_metadata(&file)) {
        (Ok(source), Ok((_, theirs))) => {
            let image = source.into_image(&TreeParams::default()).unwrap();
            let mut start = 0;
            let mut names = theirs.offset_keys();
            for ours in image.layout().tensors() {
                let info = theirs.info(&ours.name).unwrap_or_else(|| panic!("{:?} is ours alone", ours.name));
                assert_eq!(ours.dtype, info.dtype.to_string());
                assert!(ours.shape.iter().copied().eq(info.shape.iter().map(|&dimension| dimension as u64)));
                assert_eq!(ours.bytes, (info.data_offsets.1 - info.data_offsets.0) as u64);
                // Both name tensors in the order of the file. Those that are empty lie at one place.
                assert_eq!(start, info.data_offsets.0 as u64);
                start += ours.bytes;
                names.retain(|name| *name != ours.name);
            }
            assert!(names.is_empty(), "theirs alone: {names:?}");
        }
        (Ok(_), Err(error)) => panic!("accepted, but the other reader says: {error}"),
        (Err(_), Err(_)) => {}
        (Err(error), Ok(_)) => {
            let message = error.to_string();
            assert_presentable(&message);
            let entries = entries(header);
            let listed = if message.contains(" twice") { names_repeat(&entries) } else { is_odd(&entries) };
            assert!(listed, "refused by us alone: {message}");
        }
    }
}

/// The entries of a header that the other reader takes, all of them.
fn entries(header: &[u8]) -> Vec<(String, Value)> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    serde_json::Deserializer::from_slice(header).deserialize_map(Entries).unwrap()
}

fn names_repeat(entries: &[(String, Value)]) -> bool {
    let names: HashSet<_> = entries.iter().map(|(name, _)| name).collect();
    names.len() < entries.len()
}

/// Whether an entry is no object, or its type no text.
fn is_odd(entries: &[(String, Value)]) -> bool {
    let odd = |entry: &Value| !entry.is_object() || !entry["dtype"].is_string();
    entries.iter().any(|(name, entry)| name != "__metadata__" && odd(entry))
}

//! Files as models are published in.

use std::io::Write;

/// A safetensors file that holds these tensors, in this order.
pub(crate) fn safetensors(tensors: &[Vec<u8>]) -> tempfile::NamedTempFile {
    let mut at = 0;
    let entries: Vec<String> = tensors
        .iter()
        .enumerate()
        .map(|(index, bytes)| {
            let (from, to) = (at, at + bytes.len());
            at = to;
            format!(r#""t{index:05}":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#, bytes.len())
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    tensors.iter().for_each(|tensor| file.write_all(tensor).unwrap());
    file.flush().unwrap();
    file
}

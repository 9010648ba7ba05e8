//! Files as models are published in.

use std::io::Write as _;

use tempfile::NamedTempFile;

/// A safetensors file with this header and these data.
pub fn model(header: &str, data: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
    file.flush().unwrap();
    file
}

/// A safetensors file that holds these tensors, in this order.
pub fn safetensors(tensors: &[Vec<u8>]) -> NamedTempFile {
    let mut at = 0;
    let entries: Vec<String> = (0..)
        .zip(tensors)
        .map(|(index, bytes)| {
            let (from, to) = (at, at + bytes.len());
            at = to;
            format!(r#""t{index:05}":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#, bytes.len())
        })
        .collect();
    model(&format!("{{{}}}", entries.join(",")), &tensors.concat())
}

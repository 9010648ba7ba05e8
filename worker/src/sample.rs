//! A model to try things with.
//!
//! Owns the generated sample: a safetensors file of about 8 MiB in the shape of a small transformer, the same bytes in every run,
//! written to a temporary file through one small buffer that is wiped. The numbers are pseudo-random, so that no two stretches of it are alike; nobody
//! trained it.

use std::io::{self, Write};

use half::{bf16, f16};
use serde_json::{Map, json};
use tempfile::NamedTempFile;
use zeroize::Zeroize;

use crate::exit::Failure;

/// The name of its shard.
pub(crate) const NAME: &str = "sample";

const HIDDEN: usize = 128;
const INNER: usize = 512;
const VOCABULARY: usize = 12_544;
const POSITIONS: usize = 512;
const LAYERS: usize = 2;

/// Elements that are generated at a time.
const BATCH: usize = 1024;

#[derive(Clone, Copy)]
enum Dtype {
    F32,
    F16,
    Bf16,
    I64,
}

impl Dtype {
    const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I64 => "I64",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I64 => 8,
        }
    }
}

/// One tensor: values lie within `scale` of `centre`.
struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    centre: f32,
    scale: f32,
}

impl Tensor {
    fn new(name: impl Into<String>, dtype: Dtype, shape: &[usize], centre: f32, scale: f32) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), centre, scale }
    }

    fn elements(&self) -> usize {
        self.shape.iter().fold(1, |product, dimension| product.saturating_mul(*dimension))
    }
}

fn tensors() -> Vec<Tensor> {
    use Dtype::{Bf16, F16, F32, I64};
    let mut tensors = vec![
        Tensor::new("embeddings.word_embeddings.weight", F32, &[VOCABULARY, HIDDEN], 0.0, 0.06),
        Tensor::new("embeddings.position_embeddings.weight", F32, &[POSITIONS, HIDDEN], 0.0, 0.02),
        Tensor::new("embeddings.position_ids", I64, &[1, POSITIONS], 0.0, 0.0),
    ];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize], centre| {
            tensors.push(Tensor::new(format!("encoder.layer.{layer}.{name}"), F32, shape, centre, 0.04));
        };
        for part in ["query", "key", "value", "output"] {
            add(&format!("attention.{part}.weight"), &[HIDDEN, HIDDEN], 0.0);
            add(&format!("attention.{part}.bias"), &[HIDDEN], 0.0);
        }
        add("intermediate.weight", &[INNER, HIDDEN], 0.0);
        add("intermediate.bias", &[INNER], 0.0);
        add("output.weight", &[HIDDEN, INNER], 0.0);
        add("output.bias", &[HIDDEN], 0.0);
        add("norm.weight", &[HIDDEN], 1.0);
        add("norm.bias", &[HIDDEN], 0.0);
    }
    tensors.push(Tensor::new("pooler.weight", F16, &[HIDDEN, HIDDEN], 0.0, 0.08));
    tensors.push(Tensor::new("pooler.bias", Bf16, &[HIDDEN], 0.0, 0.08));
    tensors
}

/// xorshift64*, seeded alike in every run.
struct Noise(u64);

impl Noise {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Evenly between -1 and 1.
    fn unit(&mut self) -> f32 {
        let [high, low, rest, ..] = self.next().to_be_bytes();
        // 24 bits, which an f32 holds exactly.
        let of_65536 = f32::from(u16::from_be_bytes([high, low])) + f32::from(rest) / 256.0;
        of_65536 / 32_768.0 - 1.0
    }
}

/// So many bytes of noise, the same ones in every run.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = Noise(0x5eed_5eed_5eed_5eed);
    let mut image = vec![0; bytes];
    image.as_chunks_mut().0.iter_mut().for_each(|word| *word = noise.next().to_le_bytes());
    image
}

/// Writes the sample to a temporary file, which vanishes when the returned value is dropped.
pub(crate) fn write() -> Result<NamedTempFile, Failure> {
    let written = NamedTempFile::with_suffix(".safetensors").and_then(|mut file| {
        write_to(file.as_file_mut())?;
        Ok(file)
    });
    written.map_err(|source| Failure::Io { what: "writing the sample model to the temporary folder", source })
}

fn write_to(mut out: impl Write) -> io::Result<()> {
    let tensors = tensors();
    let header = header(&tensors);
    out.write_all(&u64::try_from(header.len()).unwrap_or(u64::MAX).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut noise = Noise(0x5eed_5eed_5eed_5eed);
    let mut batch = Vec::with_capacity(BATCH.saturating_mul(8));
    for tensor in &tensors {
        let mut left = tensor.elements();
        while left > 0 {
            let elements = left.min(BATCH);
            for _ in 0..elements {
                push(&mut batch, tensor, &mut noise);
            }
            let written = out.write_all(&batch);
            batch.zeroize();
            written?;
            left = left.saturating_sub(elements);
        }
    }
    out.flush()
}

fn push(batch: &mut Vec<u8>, tensor: &Tensor, noise: &mut Noise) {
    let value = noise.unit() * tensor.scale + tensor.centre;
    match tensor.dtype {
        Dtype::F32 => batch.extend_from_slice(&value.to_le_bytes()),
        Dtype::F16 => batch.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
        Dtype::Bf16 => batch.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
        // Token-like numbers below 2^16.
        Dtype::I64 => batch.extend_from_slice(&(noise.next() >> 48).to_le_bytes()),
    }
}

/// The JSON header, padded with spaces to a multiple of 8 bytes as the format asks.
fn header(tensors: &[Tensor]) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt", "note": "generated by vram-worker" }));
    let mut start: usize = 0;
    for tensor in tensors {
        let end = start.saturating_add(tensor.elements().saturating_mul(tensor.dtype.bytes()));
        let entry = json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [start, end] });
        entries.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut header = serde_json::Value::Object(entries).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn it_is_the_same_every_time_and_nowhere_like_itself() {
        let bytes = sample();
        assert_eq!(bytes, sample());
        assert!((7 << 20..9 << 20).contains(&bytes.len()), "{}", bytes.len());
        let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let pieces: Vec<_> = bytes[8 + header..].as_chunks::<64>().0.iter().collect();
        let distinct: HashSet<_> = pieces.iter().collect();
        assert_eq!(distinct.len(), pieces.len());
    }

    #[test]
    fn noise_fills_its_range() {
        let mut noise = Noise(1);
        let values: Vec<f32> = (0..10_000).map(|_| noise.unit()).collect();
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        assert!(values.iter().any(|value| *value < -0.9) && values.iter().any(|value| *value > 0.9));
    }
}

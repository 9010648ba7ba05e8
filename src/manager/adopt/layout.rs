//! The layout of adopted regions, from what their engine says of them. Promises that regions that carry names, types and shapes have the layout of
//! the file that they came from, and that others have a layout of their own, which is never taken for one of these.

use std::collections::HashSet;

use safetensors::tensor::Dtype;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use crate::digest::TreeParams;
use crate::digest::layout::{Layout, TensorInfo};
use crate::error::VramError;
use crate::text::quote;
use crate::types::RawRegion;

/// The layout of regions in this order: all of them described, or none.
pub(super) fn of(params: &TreeParams, regions: &[RawRegion]) -> Result<Layout, VramError> {
    let refuse = |problem: String| VramError::InvalidParams { field: "regions", problem };
    if regions.iter().all(|region| region.tensor.is_none()) {
        return Layout::of_regions(params, &regions.iter().map(RawRegion::byte_len).collect::<Vec<_>>());
    }
    let (mut tensors, mut names) = (Vec::with_capacity(regions.len()), HashSet::new());
    for (at, region) in regions.iter().enumerate() {
        let tensor = region.tensor.as_ref().ok_or_else(|| {
            refuse(format!(
                "are not all described: number {at} has no name, type and shape; give them for all, or for none"
            ))
        })?;
        let (name, bytes) = (quote(&tensor.name), region.byte_len());
        if !names.insert(tensor.name.as_str()) {
            return Err(refuse(format!("name tensor {name} twice; give each its own name")));
        }
        let dtype = dtype(&tensor.dtype).ok_or_else(|| {
            let found = quote(&tensor.dtype);
            refuse(format!(
                "are unusable: tensor {name} has the type {found}; give one of safetensors, such as F32 or BF16"
            ))
        })?;
        if bits(dtype, &tensor.shape) != bytes.checked_mul(8) {
            return Err(refuse(format!(
                "are unusable: tensor {name} is not {bytes} bytes long by its type {dtype} and shape {:?}; give the file's",
                tensor.shape
            )));
        }
        tensors.push(TensorInfo {
            name: tensor.name.clone(),
            dtype: dtype.to_string(),
            shape: tensor.shape.clone(),
            offset: 0,
            bytes,
        });
    }
    Layout::of_tensors(params, tensors)
}

fn dtype(text: &str) -> Option<Dtype> {
    let text: StrDeserializer<'_, Error> = text.into_deserializer();
    Dtype::deserialize(text).ok()
}

/// Bits of a tensor; `None` beyond 2^64 - 1.
fn bits(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    let element = u64::try_from(dtype.bitsize()).ok()?;
    shape.iter().try_fold(element, |product, dimension| product.checked_mul(*dimension))
}

//! all-MiniLM-L6-v2, run by candle on the CPU, with its weights under seal where candle keeps them.
//!
//! Owns [`Encoder`] and [`Sealed`]. candle loads every tensor into memory of its own; the regions that are sealed are taken from
//! these tensors, and the model is then built of the same tensors, which share their memory. Promises that
//! [`Sealed::embed`] computes only on verified weights.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use tokenizers::Tokenizer;
use vram_residency::{
    Adopted, ExecuteOptions, Expectation, Layout, RawRegion, SealedShard, ShardId, ShardSource, ShardSpec, VramManager,
    digest_source,
};

/// Whatever went wrong, in candle or in the library.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The model as candle has it. Plain candle: nothing in here knows of seals.
pub struct Encoder {
    model: BertModel,
    tokenizer: Tokenizer,
    /// All tensors of the file in the order of their data, also those that the model does not use. They keep the memory.
    tensors: Vec<Tensor>,
}

impl Encoder {
    /// Loads the model from a folder. `layout` names the tensors in the order of the file.
    ///
    /// # Errors
    /// What candle or the tokenizer finds wrong with the files.
    pub fn load(folder: &Path, layout: &Layout) -> Result<Self, Failure> {
        let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
        let mut tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"))?;
        // Sentences come one by one: padding would be read as words.
        tokenizer.with_padding(None);
        let named = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu)?;
        if named.len() != layout.tensors().len() {
            return Err("candle and the library disagree about the tensors of the file".into());
        }
        let tensors = layout
            .tensors()
            .iter()
            .map(|tensor| named.get(&tensor.name).cloned().ok_or_else(|| format!("candle has no {:?}", tensor.name)))
            .collect::<Result<_, _>>()?;
        // Of tensors that are F32 on the CPU already this makes no copies: the model's weights are the memory of `tensors`.
        let weights = VarBuilder::from_tensors(named, DType::F32, &Device::Cpu);
        Ok(Self { model: BertModel::load(weights, &config)?, tokenizer, tensors })
    }

    /// Where the tensors lie and what they are, in the order of the file; empty ones lie nowhere. `layout` is the file's.
    ///
    /// # Errors
    /// When a tensor is not one stretch of host memory.
    pub fn regions(&self, layout: &Layout) -> Result<Vec<RawRegion>, Failure> {
        let tensors = self.tensors.iter().zip(layout.tensors()).filter(|(tensor, _)| tensor.elem_count() > 0);
        tensors.map(|(tensor, file)| Ok(region(tensor)?.tensor(&file.name, &file.dtype, &file.shape))).collect()
    }

    /// The sentence as a vector of length 1: the mean of its tokens' vectors.
    ///
    /// # Errors
    /// Those of candle and of the tokenizer.
    pub fn embed(&self, sentence: &str) -> Result<Vec<f32>, Failure> {
        let tokens = self.tokenizer.encode(sentence, true)?;
        let ids = Tensor::new(tokens.get_ids(), &Device::Cpu)?.unsqueeze(0)?;
        let types = ids.zeros_like()?;
        let mean = self.model.forward(&ids, &types, None)?.mean(1)?.squeeze(0)?;
        let length = mean.sqr()?.sum_all()?.sqrt()?;
        Ok(mean.broadcast_div(&length)?.to_vec1()?)
    }
}

/// The memory of one tensor.
fn region(tensor: &Tensor) -> Result<RawRegion, Failure> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { return Err("a tensor is not in host memory".into()) };
    let (address, elements) = match storage {
        CpuStorage::F32(values) => (values.as_ptr().addr(), values.len()),
        CpuStorage::I64(values) => (values.as_ptr().addr(), values.len()),
        _ => return Err(format!("tensors of type {:?} are not for this example", tensor.dtype()).into()),
    };
    if !layout.is_contiguous() || layout.start_offset() != 0 || layout.shape().elem_count() != elements {
        return Err("a tensor is a part of another one".into());
    }
    let element = tensor.dtype().size_in_bytes();
    let bytes = elements.checked_mul(element).ok_or("a tensor is larger than the address space")?;
    // Writable for the flips of the demonstration; an engine that wants none leaves that out.
    let region = RawRegion::new(u64::try_from(address)?, u64::try_from(bytes)?).writable();
    Ok(region.element_bytes(u64::try_from(element)?))
}

/// An encoder whose weights are sealed.
pub struct Sealed<'a> {
    manager: &'a VramManager,
    engine: Adopted<Encoder>,
    layout: Layout,
}

impl<'a> Sealed<'a> {
    /// Digests the file, lets candle load it, and seals what candle has if it has that digest.
    ///
    /// # Errors
    /// Those of [`Encoder::load`] and of the library; `DIGEST_MISMATCH` when candle's memory is not, byte for byte, the file.
    pub fn load(manager: &'a VramManager, folder: &Path) -> Result<Self, Failure> {
        let file = ShardSource::safetensors(folder.join("model.safetensors"))?;
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let vouched_for = digest_source(file, manager.tree_params(), threads)?;
        let encoder = Encoder::load(folder, &vouched_for.layout)?;
        let vouched = Expectation::Image { digest: vouched_for.digest, layout: vouched_for.layout.digest() };
        let spec = ShardSpec::new(ShardId::new("all-MiniLM-L6-v2")?).expect(vouched);
        let regions = encoder.regions(&vouched_for.layout)?;
        // SAFETY: the regions are the storage of the tensors in `encoder`: heap memory that stays where it is when the encoder
        // moves and lives as long as it. Nobody writes to it but the mock's controls: no tensor is a variable, `embed` changes
        // none in place, and without `wipe_adopted` the release does not write either. The controls are called between two
        // calls of `embed`, on the same thread, when no slice of a tensor is borrowed.
        #[allow(unsafe_code, reason = "what candle's addresses are worth only candle's caller knows")]
        let engine = unsafe { manager.adopt(spec, encoder, &regions) }.map_err(|refused| refused.error)?;
        Ok(Self { manager, engine, layout: vouched_for.layout })
    }

    /// Verifies every weight, then computes the sentence's vector; it counts only if the execution ended well.
    ///
    /// # Errors
    /// `SEAL_VERIFICATION_FAILED` when a weight is not what was sealed: nothing was computed then.
    pub fn embed(&self, sentence: &str) -> Result<Vec<f32>, Failure> {
        let execution = self.manager.begin(self.shard(), ExecuteOptions::default())?;
        let vector = self.engine.owner().embed(sentence)?;
        execution.finish()?;
        Ok(vector)
    }

    /// The seal.
    #[must_use]
    pub const fn shard(&self) -> &SealedShard {
        self.engine.shard()
    }

    /// What lies where in the sealed image.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The model without any check: for tests that show what a check is for.
    #[must_use]
    pub fn unchecked(&self) -> &Encoder {
        self.engine.owner()
    }

    /// Releases the seal and gives the model back.
    ///
    /// # Errors
    /// Those of the release.
    pub fn release(self) -> Result<Encoder, Failure> {
        self.manager.release(self.engine.shard())?;
        self.engine.into_owner().map_err(|_| "something still holds the released weights".into())
    }
}

/// How alike two vectors of length 1 are: 1 for the same direction.
#[must_use]
pub fn cosine(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// A manager on a mock device that is large enough: the CPU's memory takes the place of a GPU's, and nothing is protected.
///
/// # Errors
/// Those of the library.
pub fn manager() -> Result<VramManager, vram_residency::VramError> {
    use vram_residency::{DeviceSelector, MockConfig, Policy, WorkerId, WorkerSecret};
    VramManager::builder(WorkerId::new("candle-minilm")?, WorkerSecret::random()?)
        .device(DeviceSelector::Mock(MockConfig::new().capacity_bytes(1 << 30)))
        .policy(Policy::development())
        .build()
}

/// The byte of the sealed image with the sign of a weight that every token passes through, and that bit.
///
/// # Errors
/// When the model has no such weight.
pub fn a_weight_that_matters(layout: &Layout) -> Result<(u64, u8), Failure> {
    let tensor = layout.tensors().iter().find(|tensor| tensor.name == "embeddings.LayerNorm.weight");
    // The sign of a little-endian F32 is the highest bit of its last byte.
    let byte = tensor.and_then(|tensor| tensor.offset.checked_add(3)).ok_or("the model has no first layer norm")?;
    Ok((byte, 7))
}

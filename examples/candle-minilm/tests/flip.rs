//! The engine computes on the very bytes that are sealed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::num::NonZeroUsize;
use std::path::PathBuf;

use candle_minilm::{Sealed, a_weight_that_matters, cosine, manager};
use vram_residency::{ManagerState, Origin, ShardSource, VramError, digest_source};

/// Fetched by `ci/fetch-minilm.sh`.
fn folder() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.models/minilm"));
    assert!(folder.join("model.safetensors").exists(), "run ci/fetch-minilm.sh first");
    folder
}

const GUITAR: &str = "A man is playing a guitar.";

#[test]
fn embeddings_mean_what_they_should() {
    let manager = manager().unwrap();
    let sealed = Sealed::load(&manager, &folder()).unwrap();
    let [guitar, again, alike, other] =
        [GUITAR, GUITAR, "Someone plays the guitar.", "The stock market fell sharply today."]
            .map(|sentence| sealed.embed(sentence).unwrap());
    assert_eq!(guitar.len(), 384);
    assert_eq!(guitar, again, "the same sentence gives the same vector, bit for bit");
    assert!((cosine(&guitar, &again) - 1.0).abs() < 1e-5);
    let (alike, other) = (cosine(&guitar, &alike), cosine(&guitar, &other));
    assert!(alike > 0.7 && other < 0.2, "{alike} {other}");
    assert_eq!(guitar, sealed.unchecked().embed(GUITAR).unwrap());
    assert_eq!(guitar, sealed.release().unwrap().embed(GUITAR).unwrap(), "released weights are not wiped");
}

#[test]
fn what_is_sealed_is_the_file() {
    let manager = manager().unwrap();
    let sealed = Sealed::load(&manager, &folder()).unwrap();
    let file = ShardSource::safetensors(folder().join("model.safetensors")).unwrap();
    let file = digest_source(file, manager.tree_params(), NonZeroUsize::MIN).unwrap();
    assert_eq!(sealed.shard().digest(), file.digest);
    assert_eq!(sealed.shard().byte_len(), file.byte_len);
    assert_eq!(sealed.shard().origin(), Origin::Expected);
    assert!(file.layout.tensors().iter().any(|tensor| tensor.dtype == "I64"), "also what the model does not use");
    let held: u64 = sealed.unchecked().regions(sealed.layout()).unwrap().iter().map(|region| region.byte_len()).sum();
    assert_eq!(manager.adopted_vram(), held);
    assert_eq!(held, file.layout.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
}

#[test]
fn a_flipped_bit_changes_what_the_engine_says_and_no_execution_says_it() {
    let manager = manager().unwrap();
    let sealed = Sealed::load(&manager, &folder()).unwrap();
    let before = sealed.embed(GUITAR).unwrap();
    let (byte, bit) = a_weight_that_matters(sealed.layout()).unwrap();
    let controls = manager.mock_controls().unwrap();
    controls.flip_bit(sealed.shard(), byte, bit).unwrap();

    // Past the check: the engine computes on the changed weight, so it is the sealed memory that it reads.
    let changed = sealed.unchecked().embed(GUITAR).unwrap();
    assert!(cosine(&before, &changed) < 0.9995, "{}", cosine(&before, &changed));

    let refused = sealed.embed(GUITAR).unwrap_err();
    let Some(VramError::IntegrityFailure { first_bad: Some(bad), .. }) = refused.downcast_ref() else {
        panic!("{refused}")
    };
    assert!((bad.offset..bad.offset + bad.bytes).contains(&byte), "{bad}");
    assert!(matches!(manager.state(), ManagerState::Stopped(_)));

    // Put right again it gives the old vector, but the seal stays broken.
    controls.flip_bit(sealed.shard(), byte, bit).unwrap();
    assert_eq!(sealed.unchecked().embed(GUITAR).unwrap(), before);
    sealed.embed(GUITAR).unwrap_err();
    sealed.release().unwrap();
    assert_eq!(manager.adopted_vram(), 0);
}

#[test]
fn every_tensor_of_the_model_is_where_it_was_sealed() {
    // Each tensor that the model uses, one by one: a change of it, through the sealed memory, reaches the result.
    let manager = manager().unwrap();
    let sealed = Sealed::load(&manager, &folder()).unwrap();
    let before = sealed.embed(GUITAR).unwrap();
    let controls = manager.mock_controls().unwrap();
    // Neither the positions' numbers, which candle counts itself, nor the pooler, whose output nobody wants here. The keys'
    // biases add the same to all scores of a token, which the softmax takes away again. Of the words, those not said.
    let unread = |name: &str| {
        name == "embeddings.position_ids" || name.starts_with("pooler.") || name.ends_with("attention.self.key.bias")
    };
    let mut reached = 0;
    for tensor in sealed.layout().tensors().iter().filter(|tensor| !unread(&tensor.name)) {
        let row = if tensor.name == "embeddings.word_embeddings.weight" { 101 * 384 * 4 } else { 0 }; // the row of [CLS]
        let byte = tensor.offset + row + 3;
        controls.flip_bit(sealed.shard(), byte, 5).unwrap();
        let changed = sealed.unchecked().embed(GUITAR).unwrap();
        controls.flip_bit(sealed.shard(), byte, 5).unwrap();
        assert_ne!(before, changed, "{}", tensor.name);
        reached += 1;
    }
    assert_eq!(reached, 104 - 1 - 2 - 6);
    assert_eq!(sealed.embed(GUITAR).unwrap(), before, "all is as it was");
}

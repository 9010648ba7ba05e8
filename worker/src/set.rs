//! The shards of one model as a set.
//!
//! Owns [`seal`]: how parts are named, numbered and bound together, whether they were cut from one file or are files.

use vram_residency::{SealedSet, SealedShard, SetId, ShardId, ShardSpec, VramError, VramManager};

use crate::exit::Failure;
use crate::signals::Signals;

/// Seals `count` parts, each as `seal_part` does with its index and what is to be known of it, and checks that they are one
/// complete set. They are named after the whole: `NAME.part-0` and so on.
pub(crate) fn seal(
    manager: &VramManager,
    name: &str,
    count: usize,
    signals: &Signals,
    mut seal_part: impl FnMut(usize, ShardSpec) -> Result<SealedShard, Failure>,
) -> Result<Vec<SealedShard>, Failure> {
    let (set, prefix) = (SetId::random()?, name.trim_end_matches('.'));
    let of = u32::try_from(count).map_err(|_| VramError::Internal { what: "a set has more than 2^32 - 1 parts" })?;
    let mut shards = Vec::with_capacity(count);
    for (at, index) in (0..count).zip(0..of) {
        signals.check()?;
        let spec = ShardSpec::new(ShardId::new(format!("{prefix}.part-{index}"))?).part(set, index, of);
        shards.push(seal_part(at, spec)?);
    }
    SealedSet::check(&shards.iter().map(|shard| (manager, shard)).collect::<Vec<_>>())?;
    Ok(shards)
}

/// Two reads of a file that differ.
pub(crate) fn changed(shard: &SealedShard) -> Failure {
    let problem = format!("{} changed between two reads; nobody may change a model while it is loaded", shard.id());
    VramError::ModelLoad { problem, source: None }.into()
}

//! The other way to look at an image: through the copy engine, hashed on the CPU.

use zeroize::Zeroizing;

use super::image::ImageMap;
use super::{Device, DeviceFailure};
use crate::digest::blocks::BlockHasher;
use crate::digest::{HASH_BYTES, Hash};

/// What is copied at a time, where a block is not more.
const CHUNK_BYTES: usize = 1 << 20;

impl Device {
    /// The entry of the level-1 table over one subtree, whose bytes `look` sees in order, in the very buffer that is hashed. Blocks;
    /// O(bytes of the subtree), of which a MiB at a time is in host memory, and wiped.
    ///
    /// # Errors
    /// The driver's, and those of `look`.
    pub(crate) fn entry_by_copy<E: From<DeviceFailure>>(
        &self,
        image: &ImageMap,
        subtree: u64,
        mut look: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Hash, E> {
        const OUTSIDE: DeviceFailure = DeviceFailure::Unproven("cross-check");
        let blocks = BlockHasher::new(&self.params);
        let mut at = subtree.checked_mul(self.params.subtree_bytes()).ok_or(OUTSIDE)?;
        let end = at.saturating_add(self.params.subtree_bytes()).min(image.bytes());
        let mut bytes = Zeroizing::new(vec![0; CHUNK_BYTES.max(self.params.block_len())]);
        let mut leaves = Vec::with_capacity(self.params.arity_len());
        while let Some(left) = end.checked_sub(at).filter(|left| *left > 0) {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let bytes = bytes.get_mut(..now).ok_or(OUTSIDE)?;
            self.read(image, at, bytes)?;
            look(bytes)?;
            let known = leaves.len();
            leaves.resize(known.saturating_add(now.div_ceil(self.params.block_len())), [0; HASH_BYTES]);
            blocks.hash_all(self.staging_threads(), bytes, leaves.get_mut(known..).ok_or(OUTSIDE)?);
            at = at.checked_add(u64::try_from(now).map_err(|_| OUTSIDE)?).ok_or(OUTSIDE)?;
        }
        match leaves.as_slice() {
            [] => Err(OUTSIDE.into()),
            // The table over a single block is that block's hash.
            [only] if image.bytes() <= u64::from(self.params.block_size()) => Ok(*only),
            leaves => Ok(blocks.hash(leaves.as_flattened())),
        }
    }
}

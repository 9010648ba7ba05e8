//! Known answers: questions whose answers are known, asked of every device before it is trusted with anything.
//!
//! An image digested right; the same image with one bit changed, digested right and differently; its bytes that are not zero,
//! counted right; both hashed right under a key; and, wiped, none left. A device that answers any of them wrongly is refused.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::{CheckSizes, Device, DeviceFailure, Owners, ShardMemory};
use crate::digest::keyed::{KeyedStream, LevelKeys, Output};
use crate::digest::{TreeHasher, TreeParams};
use crate::error::VramError;
use crate::types::LaunchResult;

/// Blocks that the image has beyond one full subtree, so that there are two levels above the leaves …
const BLOCKS_BEYOND: u64 = 2;
/// … unless the image would be longer than this.
const MOST_BYTES: u64 = 600 << 10;

/// A question: bytes that no block of which repeats, the last block partial, some bytes zero.
fn question(params: &TreeParams) -> Vec<u8> {
    let block = u64::from(params.block_size());
    let blocks = params.arity().saturating_add(BLOCKS_BEYOND).min(MOST_BYTES.checked_div(block).unwrap_or(1));
    let bytes = blocks.saturating_mul(block).saturating_sub(1);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    (0..bytes)
        .map(|_| {
            state ^= state.wrapping_shl(13);
            state ^= state.wrapping_shr(7);
            state ^= state.wrapping_shl(17);
            state.to_le_bytes().first().copied().unwrap_or(0)
        })
        .collect()
}

impl Device {
    /// Asks the known questions. Leaves nothing allocated.
    pub(super) fn answer_known_questions(self: &Arc<Self>) -> Result<(), VramError> {
        const TOO_LARGE: VramError = VramError::Internal { what: "the known-answer image does not fit a device" };
        let mut image = question(&self.params);
        let bytes = u64::try_from(image.len()).map_err(|_| TOO_LARGE)?;
        let granularity = self.info().granularity;
        let check = CheckSizes::new(&self.params, bytes, 1).and_then(CheckSizes::bytes).ok_or(TOO_LARGE)?;
        let room = |bytes: u64| bytes.checked_next_multiple_of(granularity).ok_or(TOO_LARGE);
        let mut memory =
            ShardMemory::allocate(self, bytes, room(bytes)?, room(check)?).map_err(|unallocated| unallocated.error)?;
        let answered = self.answer(&mut memory, &mut image);
        let wiped = memory.wipe_and_free(&mut Owners::default()).map_err(|unretired| unretired.failure);
        answered?;
        wiped?;
        Ok(())
    }

    fn answer(&self, memory: &mut ShardMemory, image: &mut [u8]) -> Result<(), VramError> {
        const WRONG: DeviceFailure = DeviceFailure::Unproven("known-answer digest");
        let host = |image: &[u8]| {
            let mut hasher = TreeHasher::new(&self.params, NonZeroUsize::MIN);
            hasher.update(image);
            hasher.finish()
        };
        self.write(memory, image)?;
        let sealed = host(image);
        if memory.digest()?.digest != sealed.digest {
            return Err(WRONG.into());
        }
        self.count(memory, image)?;
        let top = self.keyed(memory, image)?;
        let middle = image.len().checked_div(2).unwrap_or(0);
        if let Some(byte) = image.get_mut(middle) {
            *byte ^= 1;
        }
        self.write(memory, image)?;
        let changed = memory.digest()?.digest;
        if changed == sealed.digest || changed != host(image).digest || self.keyed(memory, image)? == top {
            return Err(WRONG.into());
        }
        Ok(())
    }

    /// The keyed hash must be the host's. Under a key that guards nothing.
    fn keyed(&self, memory: &mut ShardMemory, image: &[u8]) -> Result<Output, VramError> {
        let key = LevelKeys::new(Box::default());
        memory.launch_keyed(&key, None)?;
        let top = memory.collect_keyed()?;
        let mut host = KeyedStream::new(&key, NonZeroUsize::MIN);
        host.update(image);
        if *host.finish() == *top { Ok(*top) } else { Err(DeviceFailure::Unproven("known-answer keyed hash").into()) }
    }

    fn write(&self, memory: &ShardMemory, image: &[u8]) -> Result<(), DeviceFailure> {
        let mut buffer = self.driver.host_buffer(image.len())?;
        buffer.bytes_mut()?.copy_from_slice(image);
        let stream = memory.stream();
        self.driver.copy_to_device(stream.id, memory.owned_image()?.ptr, &mut buffer, 0, image.len())?;
        Ok(()) // what is enqueued next on the stream follows the copy, and the buffer waits for it before it goes
    }

    /// The zero proof must count exactly the bytes of the image that are not zero.
    fn count(&self, memory: &ShardMemory, image: &[u8]) -> Result<(), DeviceFailure> {
        const WRONG: DeviceFailure = DeviceFailure::Unproven("known-answer zero proof");
        let (stream, nonce, result) = (memory.stream(), self.nonce(), memory.result());
        let mut buffer = self.driver.host_buffer(LaunchResult::BYTES)?;
        let image_span = memory.owned_image()?;
        self.driver.count_nonzero(stream.id, image_span, result, nonce)?;
        self.driver.copy_to_host(stream.id, &mut buffer, 0, result, LaunchResult::BYTES)?;
        let found = u64::try_from(image.iter().filter(|byte| **byte != 0).count()).map_err(|_| WRONG)?;
        let expected = LaunchResult { nonce, covered: image_span.bytes, found, reserved: 0 };
        let answer = buffer.bytes_mut()?.first_chunk().map(LaunchResult::from_bytes);
        if answer == Some(expected) { Ok(()) } else { Err(WRONG) }
    }
}

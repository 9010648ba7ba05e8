//! Digests of whole streams.
//!
//! Owns the loop that reads and hashes at the same time, and the two public conveniences on top of it. Promises: two
//! bounded buffers, wiped afterwards; the source is read once, in order.

use std::io::{self, Read};
use std::num::NonZeroUsize;

use super::TreeParams;
use super::pool::{PARALLEL_BYTES, beside, default_threads};
use super::tree::{TreeDigest, TreeHasher};
use crate::erase::{ErasedBuffer, NoHostMemory};
use crate::types::Digest;

/// Bytes of each of the two buffers: few enough that what was read is still in the cache when it is hashed.
const BUFFER_BYTES: usize = 2 << 20;

/// The digest of bytes in memory: what `fsverity digest` prints for a file of these bytes. O(bytes), on all cores where
/// the bytes are many.
///
/// ```
/// use vram_residency::{TreeParams, digest_bytes};
/// let digest = digest_bytes(&TreeParams::default(), b"");
/// assert_eq!(digest.to_string(), "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95");
/// ```
#[must_use]
pub fn digest_bytes(params: &TreeParams, bytes: &[u8]) -> Digest {
    let mut hasher = TreeHasher::new(params, default_threads());
    hasher.update(bytes);
    hasher.finish().digest
}

/// The digest of everything that a reader yields, and how many bytes these were. O(bytes), hashed on up to `threads` threads
/// while the next bytes are read; two buffers of 2 MiB are held and wiped afterwards.
///
/// # Errors
/// The first error of the reader, other than `Interrupted`; `OutOfMemory` when the host has no memory for the buffers.
///
/// ```
/// use std::num::NonZeroUsize;
/// use vram_residency::{TreeParams, digest_bytes, digest_reader};
/// let params = TreeParams::default();
/// let (digest, bytes) = digest_reader(&params, NonZeroUsize::MIN, &b"weights"[..])?;
/// assert_eq!((digest, bytes), (digest_bytes(&params, b"weights"), 7));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn digest_reader(params: &TreeParams, threads: NonZeroUsize, mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let tree = hash_stream(params, threads, u64::MAX, |buffer| read_full(&mut reader, buffer))?;
    Ok((tree.digest, tree.image_bytes))
}

/// Reads until the buffer is full or the reader ends.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0usize;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match reader.read(room) {
            Ok(0) => break,
            Ok(more) => filled = filled.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Hashes what `fill` puts into the buffers that it is given, until it puts nothing. `fill` runs on the calling thread while
/// the bytes before are hashed. `expected` bytes (a guess) keep the buffers of small images small.
///
/// # Errors
/// Those of `fill`, and that the host has no memory for the buffers.
pub(crate) fn hash_stream<E: From<NoHostMemory>>(
    params: &TreeParams,
    threads: NonZeroUsize,
    expected: u64,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<TreeDigest, E> {
    let bytes = usize::try_from(expected).unwrap_or(BUFFER_BYTES).clamp(params.block_len(), BUFFER_BYTES);
    let mut hasher = TreeHasher::new(params, threads);
    let mut front = ErasedBuffer::new(bytes)?;
    let mut back = ErasedBuffer::new(0)?;
    let mut filled = fill(&mut front)?;
    while filled > 0 {
        let full = front.get(..filled).unwrap_or(&front);
        if threads.get() == 1 || filled < PARALLEL_BYTES {
            hasher.update(full);
            filled = fill(&mut front)?;
            continue;
        }
        if back.is_empty() {
            back = ErasedBuffer::new(bytes)?;
        }
        filled = beside(threads, || hasher.update(full), || fill(&mut back))?;
        std::mem::swap(&mut front, &mut back);
    }
    Ok(hasher.finish())
}

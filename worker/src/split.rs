//! One file as several shards.
//!
//! Owns [`Split`]: where an image is cut, and the digests of the whole and of every part. Promises that these digests are of the
//! same single read that is held against what is expected of the file, so that whoever vouches for it vouches for the parts; and that what is sealed later is held
//! against them. Weights pass through in pieces that are wiped; none of them stays.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use vram_residency::{
    Digest, Expectation, ImageReader, Layout, SealedShard, ShardId, ShardSource, TreeParams, VramError, VramManager,
    digest_reader, digest_source,
};
use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::set;
use crate::signals::Signals;

/// Pieces that wait for the second digest, at most.
const PIECES: usize = 2;

/// Judges `--part-bytes`.
pub(crate) fn judge(part_bytes: u64, params: &TreeParams) -> Result<(), VramError> {
    let block = u64::from(params.block_size());
    if part_bytes > 0 && part_bytes.is_multiple_of(block) {
        return Ok(());
    }
    let problem =
        format!("of {part_bytes} cannot be: parts end where blocks end; give a multiple of the block size, {block}");
    Err(VramError::InvalidParams { field: "part bytes", problem })
}

/// An image and where it is cut.
#[derive(Debug)]
pub(crate) struct Split {
    /// The digest of the whole image.
    pub(crate) digest: Digest,
    /// What lies where in the whole image.
    pub(crate) layout: Layout,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    bytes: u64,
    digest: Digest,
}

impl Split {
    /// Reads the source once, digests the whole and its parts, each of `part_bytes` bytes but the last, and holds the source
    /// against what is expected of it, in the name of a shard. What is empty has one empty part.
    pub(crate) fn measure(
        source: ShardSource<'_>,
        params: &TreeParams,
        part_bytes: u64,
        expected: Option<(ShardId, &Expectation)>,
        signals: &Signals,
    ) -> Result<Self, Failure> {
        judge(part_bytes, params)?;
        let image = source.into_image(params)?;
        let image = match expected {
            Some((name, expectation)) => image.expect(name, expectation)?,
            None => image,
        };
        let layout = image.layout().clone();
        // Before anything is read: so many are no shards of one set.
        if layout.byte_len().div_ceil(part_bytes) > u64::from(u32::MAX) {
            return Err(too_many(part_bytes).into());
        }
        let (sender, receiver) = sync_channel(PIECES);
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        thread::scope(|scope| {
            let whole = thread::Builder::new()
                .spawn_scoped(scope, || digest_reader(params, threads, Pieces::of(receiver)))
                .map_err(|source| Failure::Io { what: "starting a thread", source })?;
            let mut image = Tee { image, sender };
            let parts = lengths(layout.byte_len(), part_bytes)
                .map(|bytes| {
                    signals.check()?;
                    let part = ShardSource::reader(bytes, image.by_ref().take(bytes));
                    let digest = digest_source(part, params, threads).map_err(own_words)?.digest;
                    Ok(Part { bytes, digest })
                })
                .collect::<Result<Vec<_>, Failure>>();
            // Without the sender the other digest ends, whatever happened here.
            let Tee { image, sender } = image;
            drop(sender);
            let whole = whole.join().map_err(|_| VramError::Internal { what: "a digest of the image panicked" })?;
            // Where this digest fails the parts do, too, because of it.
            let (digest, bytes) = whole.map_err(|source| Failure::Io { what: "digesting the image", source })?;
            let parts = parts?;
            image.finish()?;
            if bytes != layout.byte_len() {
                return Err(VramError::Internal { what: "the parts are not the whole image" }.into());
            }
            Ok(Self { digest, layout, parts })
        })
    }

    /// Seals every part as a shard of its own, named after the whole, and checks that they are one complete set.
    pub(crate) fn seal(
        &self,
        manager: &VramManager,
        name: &str,
        source: ShardSource<'_>,
        vouched_for: bool,
        signals: &Signals,
    ) -> Result<Vec<SealedShard>, Failure> {
        let mut image = source.into_image(manager.tree_params())?;
        let shards = set::seal(manager, name, self.parts.len(), signals, |at, spec| {
            let part = self.parts.get(at).ok_or(VramError::Internal { what: "a set has more parts than the image" })?;
            let params = manager.tree_params().clone();
            let expected = Expectation::FsVerityWith { digest: part.digest, params };
            let spec = if vouched_for { spec.expect(expected) } else { spec };
            let bytes = ShardSource::reader(part.bytes, image.by_ref().take(part.bytes));
            let shard = manager.seal_model(spec, bytes).map_err(own_words)?;
            if shard.digest() == part.digest { Ok(shard) } else { Err(set::changed(&shard)) }
        })?;
        image.finish()?;
        Ok(shards)
    }
}

fn too_many(part_bytes: u64) -> VramError {
    let problem = format!("of {part_bytes} make more than 2^32 - 1 parts; give more");
    VramError::InvalidParams { field: "part bytes", problem }
}

/// The lengths of the parts.
fn lengths(image_bytes: u64, part_bytes: u64) -> impl Iterator<Item = u64> {
    let mut left = Some(image_bytes);
    std::iter::from_fn(move || {
        let bytes = left?.min(part_bytes);
        left = left.map(|left| left.saturating_sub(bytes)).filter(|left| *left > 0);
        Some(bytes)
    })
}

/// What went wrong with the file, told by the library about the reader over it: the former says it all.
fn own_words(error: VramError) -> VramError {
    match error {
        VramError::ModelLoad { problem, source: Some(source) } => match source.downcast() {
            Ok(inner) => inner,
            Err(source) => VramError::ModelLoad { problem, source: Some(source) },
        },
        error => error,
    }
}

/// Reads an image and passes a copy of every piece on.
struct Tee<'a> {
    image: ImageReader<'a>,
    sender: SyncSender<Zeroizing<Vec<u8>>>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.image.read(buffer)?;
        if let Some(piece) = buffer.get(..bytes).filter(|piece| !piece.is_empty()) {
            let gone = |_| io::Error::other("the digest of the whole image ended early");
            let mut copy = Zeroizing::new(Vec::new());
            copy.try_reserve_exact(piece.len())?;
            copy.extend_from_slice(piece);
            self.sender.send(copy).map_err(gone)?;
        }
        Ok(bytes)
    }
}

/// The other end of a [`Tee`].
struct Pieces {
    receiver: Receiver<Zeroizing<Vec<u8>>>,
    piece: Zeroizing<Vec<u8>>,
    read: usize,
}

impl Pieces {
    fn of(receiver: Receiver<Zeroizing<Vec<u8>>>) -> Self {
        Self { receiver, piece: Zeroizing::default(), read: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.piece.len() {
            // Wipes the piece before. Nothing comes any more when the sender is gone.
            self.piece = self.receiver.recv().unwrap_or_default();
            self.read = 0;
        }
        let bytes = self.piece.get(self.read..).unwrap_or_default().read(buffer)?;
        self.read = self.read.saturating_add(bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_long_as_asked_for_but_the_last() {
        let cut = |image, part| lengths(image, part).collect::<Vec<_>>();
        assert_eq!(cut(10, 4), [4, 4, 2]);
        assert_eq!(cut(8, 4), [4, 4]);
        assert_eq!(cut(3, 4), [3]);
        assert_eq!(cut(0, 4), [0]);
        assert_eq!(cut(u64::MAX, u64::MAX), [u64::MAX]);
    }

    #[test]
    fn the_whole_and_the_parts_have_the_digests_of_their_bytes() {
        // covers: SEAL-8
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        let params = TreeParams::default();
        for part in [4096, 1 << 20, 1 << 23, 1 << 40] {
            let split = Split::measure(ShardSource::bytes(&bytes), &params, part, None, &Signals::default()).unwrap();
            assert_eq!(split.digest, vram_residency::digest_bytes(&params, &bytes));
            let chunks = bytes.chunks(usize::try_from(part).unwrap());
            assert_eq!(split.parts.len(), chunks.len());
            for (found, chunk) in split.parts.iter().zip(chunks) {
                assert_eq!(found.digest, vram_residency::digest_bytes(&params, chunk));
            }
        }
    }

    #[test]
    fn a_source_that_fails_says_so_in_its_own_words() {
        let short = ShardSource::reader(10_000, &[1; 5000][..]);
        let failure = Split::measure(short, &TreeParams::default(), 4096, None, &Signals::default()).unwrap_err();
        let message = failure.message();
        assert!(message.contains("10000 bytes long and ended 5000 bytes early"), "{message}");
        assert_eq!(message.matches("cannot be loaded").count(), 1, "{message}");
    }
}

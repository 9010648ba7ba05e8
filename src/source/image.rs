//! The image of a source: as a stream, and its digest.
//!
//! Owns [`ImageReader`] and [`digest_source`], for callers without a device.

use std::fmt;
use std::io::{self, Read};
use std::num::NonZeroUsize;

use super::{Measure, Opened, ShardSource};
use crate::digest::layout::Layout;
use crate::digest::pool::default_threads;
use crate::digest::{TreeParams, hash_stream};
use crate::error::VramError;
use crate::id::ShardId;
use crate::spec::Expectation;
use crate::types::Digest;

/// The image of a source, from its first byte to its last, padding between tensors included. The bytes are read from the source
/// as they are asked for; nothing is kept.
///
/// ```
/// use std::io::Read;
/// use vram_residency::{ShardSource, TreeParams};
/// let mut image = ShardSource::bytes(b"weights").into_image(&TreeParams::default())?;
/// let (mut first, mut rest) = (String::new(), String::new());
/// image.by_ref().take(4).read_to_string(&mut first)?; // into a shard, by `ShardSource::reader`
/// image.read_to_string(&mut rest)?;
/// image.finish()?;
/// assert_eq!((first.as_str(), rest.as_str()), ("weig", "hts"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "only `finish` tells whether the source was what it said"]
pub struct ImageReader<'a> {
    opened: Opened<'a>,
    params: TreeParams,
    /// What it is held against while it is read, and what that is to be called.
    expected: Option<(ShardId, Measure)>,
}

impl<'a> ImageReader<'a> {
    pub(super) fn new(opened: Opened<'a>, params: &TreeParams) -> Self {
        Self { opened, params: params.clone(), expected: None }
    }

    /// Holds the source against what someone vouched for, in the pass that reads it; [`Self::finish`] tells, of a shard called
    /// `id`. The whole source counts, its header included.
    ///
    /// # Errors
    /// `DIGEST_MISMATCH` when what lies where is not what was vouched for; `INTERNAL` when bytes
    /// were read already.
    pub fn expect(mut self, id: ShardId, expectation: &Expectation) -> Result<Self, VramError> {
        if self.opened.position() > 0 {
            return Err(VramError::Internal { what: "an image was read before it was said what is expected of it" });
        }
        match Measure::new(&mut self.opened, &self.params, default_threads(), Some(expectation), true) {
            Ok(measure) => Ok(Self { expected: Some((id, measure)), ..self }),
            Err(mismatch) => Err(mismatch.of_shard(id)),
        }
    }

    /// What lies where in the image.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        self.opened.layout()
    }

    /// Confirms that the image was the whole source, and that the source did not change meanwhile.
    ///
    /// # Errors
    /// `MODEL_LOAD_FAILED` when the source has more bytes than it had at the start, or was written to; `DIGEST_MISMATCH` when it is not
    /// what was expected; `INTERNAL` when the image was not read to its end.
    pub fn finish(self) -> Result<(), VramError> {
        self.opened.finish()?;
        let Some((id, measure)) = self.expected else { return Ok(()) };
        measure.finish().map(drop).map_err(|mismatch| mismatch.of_shard(id))
    }
}

impl Read for ImageReader<'_> {
    /// Fills the whole buffer, but at the end of the image. An error of the source has the [`VramError`] inside; the buffer may
    /// hold bytes of the source then.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.opened.read(buffer).map_err(io::Error::other)?;
        if let Some((_, measure)) = &mut self.expected {
            measure.update(buffer.get(..bytes).unwrap_or_default(), self.opened.places());
        }
        Ok(bytes)
    }
}

impl fmt::Debug for ImageReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageReader").field("input", &self.opened.input.name()).finish_non_exhaustive()
    }
}

/// What [`digest_source`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceDigest {
    /// The digest of the image; with that of [`Self::layout`], what [`Expectation::Image`](crate::Expectation::Image) wants.
    pub digest: Digest,
    /// The length of the image in bytes; for the `tensors` layout, padding included.
    pub byte_len: u64,
    /// What lies where in the image.
    pub layout: Layout,
}

/// Reads a source once and digests its image on up to `threads` threads: the digest that a shard sealed from the same bytes
/// will have. Empty sources are allowed, as they are by `fsverity digest`. O(bytes); two buffers of at most 2 MiB are held,
/// and wiped afterwards.
///
/// # Errors
/// `MODEL_LOAD_FAILED` when the source fails, or is shorter, longer or changed at the end; `INVALID_PARAMS` naming `shard
/// length` when the image would be longer than 2^64 - 1 bytes.
///
/// ```no_run
/// use std::num::NonZeroUsize;
/// use vram_residency::{ShardSource, TreeParams, digest_source};
/// let model = ShardSource::safetensors("model.safetensors")?;
/// let found = digest_source(model, &TreeParams::default(), NonZeroUsize::MIN)?;
/// println!("{} ({} bytes, {})", found.digest, found.byte_len, found.layout.kind());
/// # Ok::<(), vram_residency::VramError>(())
/// ```
pub fn digest_source(
    source: ShardSource<'_>,
    params: &TreeParams,
    threads: NonZeroUsize,
) -> Result<SourceDigest, VramError> {
    let mut opened = source.open(params)?;
    let byte_len = opened.image_bytes();
    let tree = hash_stream(params, threads, byte_len, |buffer| opened.read(buffer))?;
    let layout = opened.layout().clone();
    opened.finish()?;
    if tree.image_bytes != byte_len {
        return Err(VramError::Internal { what: "an image has not the length of its layout" });
    }
    Ok(SourceDigest { digest: tree.digest, byte_len, layout })
}

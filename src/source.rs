//! Where weights come from.
//!
//! Owns [`ShardSource`] and the single pass that turns it into an image. Promises: every byte is read once, in order, with
//! plain reads (no memory map, so that a file that shrinks is an error and no signal); a source that is shorter, longer or
//! changed by the end of the pass is an error. Refuses what is no regular file, without opening it.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use crate::digest::TreeParams;
use crate::digest::layout::Layout;
use crate::error::VramError;
use crate::panics::{caught, dispose};
use crate::text::shown;

mod file;
mod foreign;
mod image;
mod measure;
pub(crate) mod safetensors;

use file::{Recorded, open_regular};
pub use image::{ImageReader, SourceDigest, digest_source};
pub(crate) use measure::Measure;
use safetensors::Plan;

/// Weights that are yet to be read: memory, a file or a reader.
///
/// ```
/// use std::num::NonZeroUsize;
/// use vram_residency::{ShardSource, TreeParams, digest_bytes, digest_source};
/// let params = TreeParams::default();
/// let source = ShardSource::reader(7, &b"weights"[..]);
/// assert_eq!(digest_source(source, &params, NonZeroUsize::MIN)?.digest, digest_bytes(&params, b"weights"));
/// # Ok::<(), vram_residency::VramError>(())
/// ```
pub struct ShardSource<'a> {
    input: Input<'a>,
    bytes: u64,
    /// Of a safetensors file that is to have the `tensors` layout; its input stands at the first byte of the data.
    plan: Option<Plan>,
    /// What was read of that file already: all that stands before the data.
    head: Vec<u8>,
}

enum Input<'a> {
    Bytes(&'a [u8]),
    Reader(Foreign<'a>),
    File { file: File, name: String, modified: Option<SystemTime> },
}

/// A caller's reader. Where its read panicked, a second panic while it is dropped would end the process, with nothing wiped.
struct Foreign<'a>(Option<Box<dyn Read + Send + 'a>>);

impl Read for Foreign<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(0), |reader| reader.read(buffer))
    }
}

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _panicked = dispose(self.0.take());
        }
    }
}

impl<'a> ShardSource<'a> {
    /// Bytes in memory, in the `file` layout.
    #[must_use]
    pub fn bytes(bytes: &'a [u8]) -> Self {
        // No supported target has more than 64 bits of address.
        Self {
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            input: Input::Bytes(bytes),
            plan: None,
            head: Vec::new(),
        }
    }

    /// What a reader yields, in the `file` layout. It must yield exactly `bytes` bytes and then end: it is asked once more
    /// to see that it does, so that a socket whose other end stays open blocks there; wrap it in [`Read::take`].
    ///
    /// While it is read for a manager, that manager's other uploads wait, so it must not seal there itself.
    #[must_use]
    pub fn reader(bytes: u64, reader: impl Read + Send + 'a) -> Self {
        Self { bytes, input: Input::Reader(Foreign(Some(Box::new(reader)))), plan: None, head: Vec::new() }
    }

    /// A file as it is, in the `file` layout: its digest is what `fsverity digest` prints. Opened here, read later.
    ///
    /// # Errors
    /// `MODEL_LOAD_FAILED` naming the path, when it is missing, unreadable or no regular file (pipes and devices are for
    /// [`Self::reader`]).
    pub fn file(path: impl AsRef<Path>) -> Result<Self, VramError> {
        let (file, name, metadata) = open_regular(path.as_ref())?;
        let input = Input::File { file, name, modified: metadata.modified().ok() };
        Ok(Self { bytes: metadata.len(), input, plan: None, head: Vec::new() })
    }

    /// The tensors of a safetensors file, in the `tensors` layout (see [`Layout`]). Opened and its header checked here; the
    /// data are read later. O(header), which has at most 100 MB.
    ///
    /// # Errors
    /// `MODEL_LOAD_FAILED` naming the path, as [`Self::file`], and naming the tensor when the header does not describe the
    /// file exactly: overlaps, gaps, lengths that disagree with type and shape, names that occur twice, surplus or
    /// missing bytes; when the header takes more memory than there is; and saying what the file is, when it is one of the
    /// things that are taken for a model (a git-lfs pointer, a web page, a PyTorch archive …).
    pub fn safetensors(path: impl AsRef<Path>) -> Result<Self, VramError> {
        let (file, name, metadata) = open_regular(path.as_ref())?;
        let mut file = Recorded { file, read: Vec::new() };
        let plan = safetensors::plan(&mut file, metadata.len());
        let Recorded { mut file, read: head } = file;
        let plan = plan.map_err(|error| foreign::explained(&mut file, &name, error))?;
        if u64::try_from(head.len()).ok().and_then(|head| head.checked_add(plan.data_bytes)) != Some(metadata.len()) {
            return Err(VramError::Internal { what: "a header was not read to its end, or beyond it" });
        }
        let input = Input::File { file, name, modified: metadata.modified().ok() };
        Ok(Self { bytes: metadata.len(), input, plan: Some(plan), head })
    }

    /// The image as a stream, for callers who split it into several shards. O(1).
    ///
    /// # Errors
    /// `INVALID_PARAMS` naming `shard length` when the image would be longer than 2^64 - 1 bytes; `MODEL_LOAD_FAILED` when the
    /// file is a git-lfs pointer and not the model that it stands for.
    pub fn into_image(mut self, params: &TreeParams) -> Result<ImageReader<'a>, VramError> {
        self.refuse_pointer()?;
        self.open(params).map(|opened| ImageReader::new(opened, params))
    }

    /// Prepares the one pass over the image.
    ///
    /// # Errors
    /// `INVALID_PARAMS` naming `shard length` when the image would be longer than 2^64 - 1 bytes.
    pub(crate) fn open(self, params: &TreeParams) -> Result<Opened<'a>, VramError> {
        let (layout, expected) = match self.plan {
            None => (Layout::of_file(params, self.bytes), self.bytes),
            Some(plan) => (Layout::of_tensors(params, plan.tensors)?, plan.data_bytes),
        };
        Ok(Opened {
            input: self.input,
            layout,
            source_bytes: self.bytes,
            unread: expected,
            tensor: 0,
            position: 0,
            head: self.head,
            places: Vec::new(),
        })
    }

    /// [`Self::open`] for an image that is to become a shard.
    ///
    /// # Errors
    /// As [`Self::into_image`], and `INVALID_PARAMS` naming `shard length` when there is nothing to seal.
    pub(crate) fn open_for_sealing(mut self, params: &TreeParams) -> Result<Opened<'a>, VramError> {
        self.refuse_pointer()?;
        let opened = self.open(params)?;
        if opened.image_bytes() == 0 {
            let problem = format!(
                "is 0 bytes; there is nothing to seal in {}, give a model that is not empty",
                opened.input.name()
            );
            return Err(VramError::InvalidParams { field: "shard length", problem });
        }
        Ok(opened)
    }
}

shown!(ShardSource<'_>, this: input = this.input.name(), bytes = this.bytes);

/// What a reader says of its failure. The words are foreign code too.
fn message(error: &io::Error) -> String {
    caught(|| error.to_string()).map_or_else(|_| "its error panics when it is shown".to_owned(), |text| shown(&text))
}

impl Input<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Bytes(_) => "the byte slice",
            Self::Reader(_) => "the reader",
            Self::File { name, .. } => name,
        }
    }

    /// One read; 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Bytes(bytes) => bytes.read(buffer),
                Self::Reader(reader) => reader.read(buffer),
                Self::File { file, .. } => file.read(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(bytes) if bytes > buffer.len() => {
                    return Err(io::Error::other("the reader claims more bytes than it was given room for"));
                }
                read => return read,
            }
        }
    }
}

#[must_use]
pub(crate) struct Opened<'a> {
    input: Input<'a>,
    layout: Layout,
    /// The length of the file, slice or reader.
    source_bytes: u64,
    /// Bytes of the source that are still to be read.
    unread: u64,
    /// The next tensor that is not wholly read.
    tensor: usize,
    position: u64,
    /// What stands before the data and was read already.
    head: Vec<u8>,
    /// Where the last read put bytes of the source.
    places: Vec<Range<usize>>,
}

impl Opened<'_> {
    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) const fn image_bytes(&self) -> u64 {
        self.layout.byte_len()
    }

    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Refuses a source whose image has another length, before anything of it is read.
    ///
    /// # Errors
    /// `MODEL_LOAD_FAILED`.
    pub(crate) fn expect_length(&self, bytes: u64) -> Result<(), VramError> {
        if self.image_bytes() == bytes {
            return Ok(());
        }
        let problem =
            format!("its image is {} bytes long, and the shard's {bytes}; give what was sealed", self.image_bytes());
        Err(load_error(self.input.name(), &problem, None))
    }

    /// Fills the buffer with the next bytes of the image, padding included, and says how many these are: fewer than the
    /// buffer takes only at the end of the image. After an error the buffer may hold bytes of the source.
    ///
    /// # Errors
    /// `MODEL_LOAD_FAILED` when the source fails or ends early.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, VramError> {
        let mut rest = buffer;
        let mut filled = 0usize;
        self.places.clear();
        while !rest.is_empty() {
            let (stretch, from_source) = self.stretch();
            if stretch == 0 {
                break;
            }
            let bytes = usize::try_from(stretch).unwrap_or(usize::MAX).min(rest.len());
            let Some((room, behind)) = std::mem::take(&mut rest).split_at_mut_checked(bytes) else { break };
            if from_source {
                self.read_source(room)?;
                self.places.push(filled..filled.saturating_add(bytes));
            } else {
                room.fill(0);
            }
            self.position = self.position.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            filled = filled.saturating_add(bytes);
            rest = behind;
        }
        Ok(filled)
    }

    /// Where in the buffer of the last read bytes of the source lie, in their order; the rest is padding.
    pub(crate) fn places(&self) -> &[Range<usize>] {
        &self.places
    }

    /// What stands before the data in the source, once.
    fn take_head(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.head)
    }

    /// How many bytes of one sort come next, and whether the source has them (or they are padding).
    fn stretch(&mut self) -> (u64, bool) {
        if self.layout.tensors().is_empty() {
            return (self.unread, true);
        }
        while let Some(tensor) = self.layout.tensors().get(self.tensor) {
            if tensor.bytes > 0 && self.position < tensor.offset {
                return (tensor.offset.saturating_sub(self.position), false);
            }
            let end = tensor.offset.saturating_add(tensor.bytes);
            if self.position < end {
                return (end.saturating_sub(self.position), true);
            }
            self.tensor = self.tensor.saturating_add(1);
        }
        (0, true)
    }

    fn read_source(&mut self, buffer: &mut [u8]) -> Result<(), VramError> {
        let mut filled = 0usize;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            let bytes = match self.input.read(room) {
                Ok(0) => return Err(self.changed(&format!("ended {} bytes early", self.unread))),
                Ok(bytes) => bytes,
                Err(error) => {
                    return Err(unreadable(self.input.name(), error));
                }
            };
            filled = filled.saturating_add(bytes);
            self.unread = self.unread.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Confirms that the image was the whole source and that the source did not change meanwhile.
    ///
    /// A diagnosis, not a defence: a writer who is quick, or who sets the time back, is not seen here. The digest speaks of
    /// the bytes that were read, whatever the file holds now.
    ///
    /// # Errors
    /// `MODEL_LOAD_FAILED` when the source has more bytes than it had at the start, or was written to; `INTERNAL` when the
    /// caller left bytes unread.
    pub(crate) fn finish(mut self) -> Result<(), VramError> {
        if self.unread > 0 || self.position != self.image_bytes() {
            return Err(VramError::Internal { what: "a source was finished before all of it was read" });
        }
        let mut surplus = [0; 1];
        match self.input.read(&mut surplus) {
            Ok(0) => {}
            Ok(_) => return Err(self.changed("has more bytes than that")),
            Err(error) => {
                return Err(unreadable(self.input.name(), error));
            }
        }
        if let Input::File { file, name, modified } = &self.input {
            let now = file.metadata().map_err(|error| {
                load_error(name, &format!("it cannot be examined any more: {error}; leave it where it is"), Some(error))
            })?;
            if now.len() != self.source_bytes {
                return Err(self.changed(&format!("has {} bytes now", now.len())));
            }
            if now.modified().ok() != *modified {
                return Err(self.changed("was written to meanwhile"));
            }
        }
        Ok(())
    }

    fn changed(&self, how: &str) -> VramError {
        let problem = format!(
            "it was {} bytes long and {how}; nobody may change a model while it is loaded, and a stated length must be exact",
            self.source_bytes
        );
        load_error(self.input.name(), &problem, None)
    }
}

fn unreadable(name: &str, error: io::Error) -> VramError {
    let remedy = match error.kind() {
        io::ErrorKind::OutOfMemory => "raise the memory limit of this process",
        _ => "check the disk and the file system",
    };
    load_error(name, &format!("it cannot be read: {}; {remedy}", message(&error)), Some(error))
}

fn load_error(name: &str, problem: &str, source: Option<io::Error>) -> VramError {
    VramError::ModelLoad { problem: format!("{name}: {problem}"), source }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests;

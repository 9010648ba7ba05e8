//! What is hashed while a source is read.
//!
//! Owns [`Measure`]. Promises that what it says of the file and what it says of the image are of the same bytes, read once: every
//! byte of the source in its order, header included, and every byte of the image, padding included.

use std::num::NonZeroUsize;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::Opened;
use crate::digest::layout::LayoutKind;
use crate::digest::pool::{PARALLEL_BYTES, beside};
use crate::digest::{TreeHasher, TreeParams};
use crate::spec::{Expectation, Mismatch, Wanted, judge_layout};
use crate::types::{Digest, DigestKind};

/// The hashes of one pass, and what they are to be.
pub(crate) struct Measure {
    /// Of the whole source, where the image's digest does not speak of it.
    file: Option<(FileHasher, Wanted)>,
    /// Of the image, where nobody vouched for its digest, or nobody else computes it.
    image: Option<TreeHasher>,
    /// What was vouched for of the image.
    vouched: Option<Wanted>,
    threads: NonZeroUsize,
}

/// Hashes a source.
enum FileHasher {
    Plain(Sha256),
    Tree(Box<TreeHasher>),
}

impl FileHasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(hasher) => hasher.update(bytes),
            Self::Tree(hasher) => hasher.update(bytes),
        }
    }

    /// The bytes of the source among those of the image.
    fn update_all(&mut self, image: &[u8], places: &[Range<usize>]) {
        for place in places {
            self.update(image.get(place.clone()).unwrap_or_default());
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Plain(hasher) => Digest::from_bytes(hasher.finalize().into()),
            Self::Tree(hasher) => hasher.finish().digest,
        }
    }
}

impl Measure {
    /// For a pass over `opened`, of which nothing has been read, on up to `threads` threads for each hash. An image whose digest is
    /// vouched for is hashed only `on_host`: for others the device's word is held against it.
    ///
    /// Fails when what lies where is not what was vouched for: that is known before anything is read.
    pub(crate) fn new(
        opened: &mut Opened<'_>,
        params: &TreeParams,
        threads: NonZeroUsize,
        expectation: Option<&Expectation>,
        on_host: bool,
    ) -> Result<Self, Mismatch> {
        let head = opened.take_head();
        let (mut file, mut vouched) = (None, None);
        let mut expect_tree = |digest: Digest, of_file: &TreeParams| {
            let wanted = Wanted { of: DigestKind::FsVerity, digest };
            if opened.layout().kind() == LayoutKind::File && of_file == params {
                vouched = Some(wanted); // the image is the file
            } else {
                file = Some((FileHasher::Tree(Box::new(TreeHasher::new(of_file, threads))), wanted));
            }
        };
        match expectation {
            None => {}
            Some(Expectation::FsVerity(digest)) => expect_tree(*digest, &TreeParams::default()),
            Some(Expectation::FsVerityWith { digest, params }) => expect_tree(*digest, params),
            Some(Expectation::Sha256(digest)) => {
                let wanted = Wanted { of: DigestKind::Sha256, digest: Digest::from_bytes(*digest) };
                file = Some((FileHasher::Plain(Sha256::new()), wanted));
            }
            Some(Expectation::Image { digest, layout }) => {
                judge_layout(*layout, opened.layout().digest())?;
                vouched = Some(Wanted { of: DigestKind::Image, digest: *digest });
            }
        }
        if let Some((hasher, _)) = &mut file {
            hasher.update(&head);
        }
        let image = (on_host || vouched.is_none()).then(|| TreeHasher::new(params, threads));
        Ok(Self { file, image, vouched, threads })
    }

    /// Takes the next bytes of the image; those at `places` are the next of the source.
    pub(crate) fn update(&mut self, bytes: &[u8], places: &[Range<usize>]) {
        let Self { file, image, threads, .. } = self;
        let threads = if bytes.len() < PARALLEL_BYTES { NonZeroUsize::MIN } else { *threads };
        match (file, image) {
            (Some((file, _)), Some(image)) => {
                beside(threads, || file.update_all(bytes, places), || image.update(bytes))
            }
            (Some((file, _)), None) => file.update_all(bytes, places),
            (None, Some(image)) => image.update(bytes),
            (None, None) => {}
        }
    }

    /// Ends the pass: what the image must have as its digest wherever it is.
    ///
    /// Fails when the source is not what was vouched for.
    pub(crate) fn finish(self) -> Result<Option<Wanted>, Mismatch> {
        if let Some((hasher, wanted)) = self.file {
            wanted.judge(hasher.finish())?;
        }
        let read = self.image.map(|image| image.finish().digest);
        if let (Some(vouched), Some(read)) = (self.vouched, read) {
            vouched.judge(read)?;
        }
        Ok(self.vouched.or(read.map(|digest| Wanted { of: DigestKind::Image, digest })))
    }
}

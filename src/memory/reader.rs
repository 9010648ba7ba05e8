//! Reading verified bytes back, bounded.
//!
//! Owns the pool of readers: a stream and a buffer each, taken for one read and kept for the next. The host buffer is wiped after every read, so that no
//! copy of the weights outlives the call that asked for them.

use std::sync::PoisonError;

use super::image::{ImageMap, Piece};
use super::{Device, DeviceFailure, Stream};
use crate::driver::HostBuffer;
use crate::sync::Mutex;
use crate::types::{DriverError, Span};

/// The most that one copy brings back.
const CHUNK_BYTES: usize = 1 << 20;
/// Readers kept for later.
const KEPT: usize = 8;

/// A stream and a buffer to read with.
#[derive(Debug)]
struct Reader {
    stream: Stream,
    buffer: HostBuffer,
}

/// Readers that nobody uses just now.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Reader>>,
}

impl Device {
    /// Takes a reader from the pool, or makes one.
    fn reader(&self) -> Result<Reader, DriverError> {
        let idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(reader) => Ok(reader),
            None => Ok(Reader { stream: Stream::new(&self.driver)?, buffer: self.driver.host_buffer(CHUNK_BYTES)? }),
        }
    }

    /// Gives a reader back.
    fn keep_reader(&self, reader: Reader) {
        let mut idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(reader);
        }
    }

    /// Copies `out.len()` bytes from `offset` of an image; virtual padding reads as zero. Blocks. The caller checked the bounds.
    pub(crate) fn read(&self, image: &ImageMap, offset: u64, out: &mut [u8]) -> Result<(), DeviceFailure> {
        // A reader serves one read: however many executions are open, few buffers are.
        let mut reader = self.reader()?;
        let read = self.read_with(&mut reader, image, offset, out);
        self.keep_reader(reader);
        read
    }

    fn read_with(
        &self,
        reader: &mut Reader,
        image: &ImageMap,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), DeviceFailure> {
        const OUTSIDE: DeviceFailure = DeviceFailure::Unproven("read");
        let (mut at, mut out) = (offset, out);
        while !out.is_empty() {
            let piece = image.piece(at).ok_or(OUTSIDE)?;
            let (Piece::Resident(Span { bytes, .. }) | Piece::Padding(bytes)) = piece;
            let now = usize::try_from(bytes).unwrap_or(usize::MAX).min(CHUNK_BYTES).min(out.len());
            let (head, tail) = out.split_at_mut_checked(now).ok_or(OUTSIDE)?;
            match piece {
                Piece::Padding(_) => head.fill(0),
                Piece::Resident(span) => {
                    let copied = self.copy_out(reader, span.ptr, head);
                    reader.buffer.wipe_first(head.len())?;
                    copied?;
                }
            }
            at = u64::try_from(now).ok().and_then(|now| at.checked_add(now)).ok_or(OUTSIDE)?;
            out = tail;
        }
        Ok(())
    }

    fn copy_out(
        &self,
        reader: &mut Reader,
        from: crate::types::DevicePtr,
        piece: &mut [u8],
    ) -> Result<(), DeviceFailure> {
        self.driver.copy_to_host(reader.stream.id, &mut reader.buffer, 0, from, piece.len())?;
        reader.stream.synchronize()?;
        let bytes = reader.buffer.bytes_mut()?;
        piece.copy_from_slice(bytes.get(..piece.len()).ok_or(DeviceFailure::Unproven("read"))?);
        Ok(())
    }
}

//! Reading verified bytes back, bounded.
//!
//! Owns the pool of readers: a stream and a buffer each, taken for one read and kept for the next. The host buffer is wiped after every read, so that no
//! copy of the weights outlives the call that asked for them.

use super::image::{ImageMap, Piece};
use super::{Device, DeviceFailure, Stream};
use crate::driver::HostBuffer;
use crate::sync::{Mutex, lock};
use crate::types::{DriverError, Span};

const CHUNK_BYTES: usize = 1 << 20;
const KEPT: usize = 8;

#[derive(Debug)]
struct Reader {
    stream: Stream,
    buffer: HostBuffer,
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Reader>>,
}

impl Device {
    fn reader(&self) -> Result<Reader, DriverError> {
        let idle = lock(&self.readers.idle).pop();
        match idle {
            Some(reader) => Ok(reader),
            None => Ok(Reader { stream: Stream::new(&self.driver)?, buffer: self.driver.host_buffer(CHUNK_BYTES)? }),
        }
    }

    fn keep_reader(&self, reader: Reader) {
        let mut idle = lock(&self.readers.idle);
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

//! Images: where the bytes of a shard lie, piece by piece.
//!
//! Owns [`ImageMap`]. An image is its regions in order, each but the last zero-padded to a block; the padding of adopted memory
//! is virtual, so an offset of the image is either a byte of a region or a zero that lies nowhere.

use crate::digest::TreeParams;
use crate::types::{DevicePtr, Span};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageMap {
    pieces: Vec<(u64, Span)>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of device memory.
    Resident(Span),
    /// So many zeros of virtual padding.
    Padding(u64),
}

impl ImageMap {
    /// An image of these regions; `None` when its length is not a u64, or there is nothing in it.
    pub(crate) fn new(params: &TreeParams, regions: &[Span]) -> Option<Self> {
        let mut pieces = Vec::with_capacity(regions.len());
        let (mut offset, mut bytes) = (0_u64, 0_u64);
        for region in regions.iter().filter(|region| region.bytes > 0) {
            pieces.push((offset, *region));
            bytes = offset.checked_add(region.bytes)?;
            offset = params.padded(bytes)?;
        }
        (bytes > 0).then_some(Self { pieces, bytes })
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.pieces.iter().map(|(_, span)| *span)
    }

    /// The address of one byte; `None` in padding and outside.
    pub(crate) fn address(&self, offset: u64) -> Option<DevicePtr> {
        match self.piece(offset)? {
            Piece::Resident(span) => Some(span.ptr),
            Piece::Padding(_) => None,
        }
    }

    pub(crate) fn end(&self) -> Option<DevicePtr> {
        let (_, last) = self.pieces.last()?;
        last.ptr.checked_add(last.bytes)
    }

    /// What lies from `offset` on, as far as it is of one kind; `None` outside the image. O(log regions).
    pub(crate) fn piece(&self, offset: u64) -> Option<Piece> {
        if offset >= self.bytes {
            return None;
        }
        let after = self.pieces.partition_point(|(start, _)| *start <= offset);
        let (start, span) = self.pieces.get(after.checked_sub(1)?)?;
        let inside = offset.checked_sub(*start)?;
        match span.bytes.checked_sub(inside) {
            Some(bytes) if bytes > 0 => Some(Piece::Resident(Span { ptr: span.ptr.checked_add(inside)?, bytes })),
            _ => {
                let next = self.pieces.get(after).map_or(self.bytes, |(next, _)| *next);
                next.checked_sub(offset).map(Piece::Padding)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_find_their_bytes_and_padding_lies_nowhere() {
        // covers: DIG-3
        let params = TreeParams::new(1024, &[]).unwrap();
        let span = |ptr, bytes| Span { ptr: DevicePtr(ptr), bytes };
        let map = ImageMap::new(&params, &[span(100, 1), span(7, 0), span(5000, 1024), span(9000, 3)]).unwrap();
        assert_eq!(map.bytes(), 2048 + 3);
        assert_eq!(map.piece(0), Some(Piece::Resident(span(100, 1))));
        assert_eq!(map.piece(1), Some(Piece::Padding(1023)));
        assert_eq!(map.piece(1023), Some(Piece::Padding(1)));
        assert_eq!(map.piece(1024), Some(Piece::Resident(span(5000, 1024))));
        assert_eq!(map.piece(2047), Some(Piece::Resident(span(6023, 1))));
        assert_eq!(map.piece(2050), Some(Piece::Resident(span(9002, 1))));
        assert_eq!(map.piece(2051), None);
        assert_eq!((map.address(2048), map.address(5)), (Some(DevicePtr(9000)), None));
        assert_eq!((map.spans().count(), map.end()), (3, Some(DevicePtr(9003))));
        assert!(ImageMap::new(&params, &[]).is_none());
        assert!(ImageMap::new(&params, &[span(0, u64::MAX), span(0, 1)]).is_none());
    }
}

//! Erasing host memory that weights passed through.

use std::io;
use std::ops::{Deref, DerefMut};

/// Overwrites with zeros. The barrier keeps the fill from being optimised away; it stays one fast fill.
pub(crate) fn erase(bytes: &mut [u8]) {
    bytes.fill(0);
    zeroize::optimization_barrier(bytes);
}

/// The host has no memory for a buffer of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoHostMemory(usize);

impl From<NoHostMemory> for io::Error {
    fn from(NoHostMemory(bytes): NoHostMemory) -> Self {
        Self::new(io::ErrorKind::OutOfMemory, format!("the host has no memory for a buffer of {bytes} bytes"))
    }
}

/// A buffer of fixed length that is erased when dropped.
#[derive(Debug)]
pub(crate) struct ErasedBuffer(Vec<u8>);

impl ErasedBuffer {
    /// `bytes` zeros, if the host has so many.
    pub(crate) fn new(bytes: usize) -> Result<Self, NoHostMemory> {
        let mut zeros = Vec::new();
        zeros.try_reserve_exact(bytes).map_err(|_| NoHostMemory(bytes))?;
        zeros.resize(bytes, 0);
        Ok(Self(zeros))
    }
}

impl Deref for ErasedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for ErasedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for ErasedBuffer {
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_erased_is_zero() {
        // covers: RES-1
        let mut bytes = [7; 100];
        erase(bytes.get_mut(10..90).unwrap());
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == if (10..90).contains(&at) { 0 } else { 7 }));
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        // covers: ERR-1 ERR-2
        let error = io::Error::from(ErasedBuffer::new(usize::MAX).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("no memory for a buffer of 18446744073709551615 bytes"), "{error}");
        assert_eq!(&*ErasedBuffer::new(9).unwrap(), [0; 9]);
    }
}

//! Erasing host memory that weights passed through.

use std::ops::{Deref, DerefMut};

/// Overwrites with zeros. The barrier keeps the fill from being optimised away; it stays one fast fill.
pub(crate) fn erase(bytes: &mut [u8]) {
    bytes.fill(0);
    zeroize::optimization_barrier(bytes);
}

/// A buffer of fixed length that is erased when dropped.
#[derive(Debug)]
pub(crate) struct ErasedBuffer(Vec<u8>);

impl ErasedBuffer {
    /// `bytes` zeros.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(vec![0; bytes])
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
}

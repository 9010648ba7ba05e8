//! A bit that is not as it was.

use serde::Serialize;

/// A bit of an image that is not the one that was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedBit {
    /// The byte that it is in, counted from the start of the image.
    pub offset: u64,
    /// Which bit of that byte; 0 is the least significant.
    pub bit: u8,
    /// Whether it was 1, and is 0 now; else it was 0, and is 1.
    pub was_set: bool,
    /// The tensor that it lies in, where the layout is known and it is not padding.
    pub tensor: Option<String>,
}

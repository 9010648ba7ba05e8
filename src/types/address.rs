//! What a driver's calls speak of: addresses, spans, streams.

/// An address on a device. Never dereferenced by the host, never printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DevicePtr(pub(crate) u64);

impl DevicePtr {
    /// The address `bytes` further on; `None` on overflow.
    pub(crate) fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }
}

shown!(DevicePtr);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) ptr: DevicePtr,
    pub(crate) bytes: u64,
}

impl Span {
    /// Whether the two have a byte in common. Spans that wrap around overlap everything.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let ends = self.ptr.checked_add(self.bytes).zip(other.ptr.checked_add(other.bytes));
        ends.is_none_or(|(end, other_end)| self.ptr < other_end && other.ptr < end)
    }
}

/// A stream of the driver: operations on one stream run in order, those on different streams in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(pub(crate) u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_out_of_debug_output() {
        let span = Span { ptr: DevicePtr(0xdead_beef), bytes: 4096 };
        let text = format!("{span:?}");
        assert!(text.contains("4096") && !text.contains("dead") && !text.contains("3735928559"), "{text}");
    }
}

//! Which memory is taken, by address.

use std::collections::BTreeMap;

use crate::types::{DevicePtr, Span};

/// Where the images of all slots lie: first byte and slot, to length. They overlap each other as little as memory does.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<(DevicePtr, u32), u64>);

impl Spans {
    /// Whether a byte of the span is taken. Only the last that begins before the span's end can reach into it. O(log taken).
    pub(super) fn reach_into(&self, span: Span) -> bool {
        let Some(end) = span.ptr.checked_add(span.bytes) else { return true };
        let last = self.0.range(..(end, 0)).next_back();
        last.is_some_and(|((ptr, _), bytes)| span.overlaps(Span { ptr: *ptr, bytes: *bytes }))
    }

    pub(super) fn take(&mut self, slot: u32, spans: &[Span]) {
        self.0.extend(spans.iter().map(|span| ((span.ptr, slot), span.bytes)));
    }

    pub(super) fn give_back(&mut self, slot: u32, spans: &[Span]) {
        for span in spans {
            self.0.remove(&(span.ptr, slot));
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

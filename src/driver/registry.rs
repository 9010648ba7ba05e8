//! What lives on the device: memory, streams, events, and which stream may still use which memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::ffi::{Event, Mapping, Stream};
use crate::types::{DevicePtr, EventId, Span, StreamId};

/// The memory that the drivers of one context hold, own and registered, by first byte: none of them takes another's in.
type Held = Mutex<BTreeMap<DevicePtr, u64>>;

/// By context: several managers of a process may share a device.
static HELD: Mutex<BTreeMap<u64, Weak<Held>>> = Mutex::new(BTreeMap::new());

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The registry of one driver.
#[derive(Debug)]
pub(super) struct Registry {
    entries: Mutex<Entries>,
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Entries {
    mappings: BTreeMap<DevicePtr, Mapping>,
    /// Registered memory of engines: first byte to length. It overlaps nothing else here.
    engines: BTreeMap<DevicePtr, u64>,
    streams: HashMap<StreamId, Arc<Stream>>,
    events: HashMap<EventId, Arc<Event>>,
    /// By stream that may hold work: the memory that it was given work on, by first byte, and when last.
    uses: HashMap<StreamId, HashMap<DevicePtr, u64>>,
    now: u64,
}

impl Entries {
    /// The allocation or registered span that all of `span` lies in, by its first byte.
    fn holder(&self, span: Span) -> Option<DevicePtr> {
        let end = span.ptr.checked_add(span.bytes)?;
        let inside = |base: DevicePtr, bytes: u64| base.checked_add(bytes).is_some_and(|most| end <= most);
        let own = self.mappings.range(..=span.ptr).next_back();
        let own = own.filter(|(base, mapping)| inside(**base, mapping.span().bytes)).map(|(base, _)| *base);
        own.or_else(|| {
            let (base, bytes) = self.engines.range(..=span.ptr).next_back()?;
            inside(*base, *bytes).then_some(*base)
        })
    }
}

impl Registry {
    /// One for a driver in this context.
    pub(super) fn new(context: u64) -> Self {
        let mut all = lock(&HELD);
        all.retain(|_, held| held.strong_count() > 0);
        let held = all.get(&context).and_then(Weak::upgrade).unwrap_or_default();
        all.insert(context, Arc::downgrade(&held));
        Self { entries: Mutex::default(), held }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        lock(&self.entries)
    }

    pub(super) fn add_mapping(&self, mapping: Mapping) -> DevicePtr {
        let Span { ptr, bytes } = mapping.span();
        lock(&self.held).insert(ptr, bytes);
        self.lock().mappings.insert(ptr, mapping);
        ptr
    }

    pub(super) fn take_mapping(&self, ptr: DevicePtr) -> Option<Mapping> {
        let taken = self.lock().mappings.remove(&ptr)?;
        lock(&self.held).remove(&ptr);
        Some(taken)
    }

    /// Runs `act` on the mapping that is exactly `span`.
    pub(super) fn with_mapping<T>(&self, span: Span, act: impl FnOnce(&Mapping) -> T) -> Option<T> {
        self.lock().mappings.get(&span.ptr).filter(|mapping| mapping.span() == span).map(act)
    }

    /// Whether the byte is in memory of our own.
    pub(super) fn is_own(&self, ptr: DevicePtr) -> bool {
        let byte = Span { ptr, bytes: 1 };
        let entries = self.lock();
        entries.holder(byte).is_some_and(|base| entries.mappings.contains_key(&base))
    }

    pub(super) fn mapped_bytes(&self) -> u64 {
        self.lock().mappings.values().fold(0, |sum, mapping| sum.saturating_add(mapping.span().bytes))
    }

    /// Takes an engine's memory in; `false` when it is empty, wraps around, or overlaps what a driver of this context holds.
    pub(super) fn add_engine(&self, span: Span) -> bool {
        let mut held = lock(&self.held);
        // Entries do not overlap each other, so only the last that begins before the end can reach in.
        let is_free = |end| {
            held.range(..end).next_back().is_none_or(|(ptr, bytes)| !Span { ptr: *ptr, bytes: *bytes }.overlaps(span))
        };
        let fits = span.bytes > 0 && span.ptr.checked_add(span.bytes).is_some_and(is_free);
        if fits {
            held.insert(span.ptr, span.bytes);
            self.lock().engines.insert(span.ptr, span.bytes);
        }
        fits
    }

    pub(super) fn take_engine(&self, span: Span) -> bool {
        let mut entries = self.lock();
        let known = entries.engines.get(&span.ptr) == Some(&span.bytes);
        if known {
            entries.engines.remove(&span.ptr);
            drop(entries);
            lock(&self.held).remove(&span.ptr);
        }
        known
    }

    pub(super) fn is_engine(&self, span: Span) -> bool {
        let entries = self.lock();
        entries.holder(span).is_some_and(|base| entries.engines.contains_key(&base))
    }

    pub(super) fn add_stream(&self, stream: Stream) -> StreamId {
        let id = stream.id();
        self.lock().streams.insert(id, Arc::new(stream));
        id
    }

    pub(super) fn stream(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.lock().streams.get(&id).map(Arc::clone)
    }

    pub(super) fn stream_ids(&self) -> Vec<StreamId> {
        self.lock().streams.keys().copied().collect()
    }

    pub(super) fn take_stream(&self, id: StreamId) {
        let mut entries = self.lock();
        entries.uses.remove(&id);
        let stream = entries.streams.remove(&id);
        drop(entries); // the driver destroys it outside of the lock
        drop(stream);
    }

    pub(super) fn add_event(&self, event: Event) -> EventId {
        let id = EventId(event.number());
        self.lock().events.insert(id, Arc::new(event));
        id
    }

    pub(super) fn event(&self, id: EventId) -> Option<Arc<Event>> {
        self.lock().events.get(&id).map(Arc::clone)
    }

    pub(super) fn take_event(&self, id: EventId) -> Option<Arc<Event>> {
        self.lock().events.remove(&id)
    }

    /// Notes that the stream is about to use all of `spans`; `false`, and nothing noted, when one is not live memory.
    pub(super) fn note_uses(&self, stream: StreamId, spans: &[Span]) -> bool {
        let mut entries = self.lock();
        let Some(holders) = spans.iter().map(|span| entries.holder(*span)).collect::<Option<Vec<_>>>() else {
            return false;
        };
        entries.now = entries.now.saturating_add(1);
        let now = entries.now;
        entries.uses.entry(stream).or_default().extend(holders.into_iter().map(|base| (base, now)));
        true
    }

    /// The time of the latest use.
    pub(super) fn now(&self) -> u64 {
        self.lock().now
    }

    /// Everything that the stream was given up to `until` has run.
    pub(super) fn settle(&self, stream: StreamId, until: u64) {
        let mut entries = self.lock();
        if let Some(uses) = entries.uses.get_mut(&stream) {
            uses.retain(|_, last| *last > until);
            // Whoever looks for the users of some memory looks at the streams that hold work, however many there are.
            if uses.is_empty() {
                entries.uses.remove(&stream);
            }
        }
    }

    /// The streams that may still use the memory at `base`.
    pub(super) fn users(&self, base: DevicePtr) -> Vec<StreamId> {
        let entries = self.lock();
        let using = entries.uses.iter().filter(|(_, uses)| uses.contains_key(&base));
        using.map(|(stream, _)| *stream).collect()
    }

    /// The memory at `base` is gone.
    pub(super) fn forget_uses(&self, base: DevicePtr) {
        for uses in self.lock().uses.values_mut() {
            uses.remove(&base);
        }
    }
}

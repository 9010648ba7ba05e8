//! Pinned staging memory, and the copies that use it.
//!
//! Owns [`Pinned`], which knows every staging buffer of one driver. Each copy leaves an event behind that its buffer waits for,
//! so that bytes are lent only when no copy uses them. A buffer of which that cannot be known is never given back.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::context::Context;
use super::host::HostBuffer;
use super::status::{INVALID_VALUE, UNKNOWN, failure};
use super::step::Operation;
use super::stream::{AnyStream, Event, Stream};
use super::types::HOST_ALLOC_PORTABLE;
use super::{native, wide};
use crate::panics::aside;
use crate::types::{DevicePtr, DriverError, DriverErrorKind};

/// How often a wait is tried before the buffer is given up.
const ATTEMPTS: usize = 3;

type Blocks = Mutex<BTreeMap<u64, Weak<Block>>>;

/// The staging buffers of one driver.
#[derive(Debug)]
pub(crate) struct Pinned {
    context: Arc<Context>,
    blocks: Arc<Blocks>,
}

/// One staging buffer.
#[derive(Debug)]
pub(super) struct Block {
    context: Arc<Context>,
    base: u64,
    bytes: usize,
    uses: Mutex<Vec<Use>>,
    blocks: Arc<Blocks>,
}

/// The last copy of one stream from or to a buffer.
#[derive(Debug)]
struct Use {
    stream: u64,
    pending: bool,
    event: Event,
    /// Set when the event could not be recorded: the stream itself is waited for.
    unmarked: Option<AnyStream>,
}

impl Use {
    fn settle(&self, context: &Context) -> Result<(), DriverError> {
        let wait = || match &self.unmarked {
            None => self.event.synchronize(),
            Some(stream) => stream.synchronize(context),
        };
        let mut last = wait();
        for _ in 1..ATTEMPTS {
            match &last {
                Err(error) if error.kind != DriverErrorKind::Sticky => last = wait(),
                _ => break,
            }
        }
        last
    }
}

impl Pinned {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), blocks: Arc::default() }
    }

    /// Allocates a staging buffer, zeroed. It is never registered memory of someone else: confidential computing forbids that.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<HostBuffer, DriverError> {
        const OPERATION: &str = "cuMemHostAlloc";
        if bytes == 0 {
            return Err(failure(OPERATION, INVALID_VALUE));
        }
        let current = self.context.enter()?;
        let mut out = std::ptr::null_mut();
        // SAFETY: the driver writes one address to the local; the context is current, by the guard above.
        unsafe { (self.context.table().host_alloc)(&raw mut out, bytes, HOST_ALLOC_PORTABLE) }.check(OPERATION)?;
        drop(current);
        let base = NonNull::new(out.cast::<u8>()).ok_or_else(|| failure(OPERATION, UNKNOWN))?;
        // SAFETY: cuMemHostAlloc returned `bytes` bytes at `base`, which nobody else knows yet.
        unsafe { base.write_bytes(0, bytes) };
        let block = Arc::new(Block {
            context: Arc::clone(&self.context),
            base: wide(base.as_ptr().expose_provenance()),
            bytes,
            uses: Mutex::default(),
            blocks: Arc::clone(&self.blocks),
        });
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).insert(block.base, Arc::downgrade(&block));
        // SAFETY: `bytes` bytes at `base`, zeroed above, that live until Block::free gives them back. The driver's copies are
        // the only others that touch them, and Block::wait waits for every one that Pinned enqueued.
        Ok(unsafe { HostBuffer::from_raw(base, bytes, block) })
    }

    /// Enqueues a copy to device memory, which the caller has found to be live.
    pub(crate) fn copy_to_device(
        &self,
        stream: &Arc<Stream>,
        to: DevicePtr,
        source: &mut HostBuffer,
        from: usize,
        bytes: usize,
    ) -> Result<(), DriverError> {
        const OPERATION: &str = "cuMemcpyHtoDAsync_v2";
        let host = source.address(from, bytes).ok_or_else(|| failure(OPERATION, INVALID_VALUE))?;
        self.block(OPERATION, host, bytes)?.enqueue(stream, |context| {
            let copy = context.table().copy_to_device;
            // SAFETY: `bytes` bytes at `host` are in the live buffer `source` (checked by its address()), whose block notes
            // this copy before anyone is lent those bytes; the stream is held by the caller.
            unsafe { copy(to.0, native(host), bytes, stream.raw()) }.check(OPERATION)
        })
    }

    /// Enqueues a copy of device memory, which the caller has found to be live.
    pub(crate) fn copy_to_host(
        &self,
        stream: &Arc<Stream>,
        target: &mut HostBuffer,
        to: usize,
        from: DevicePtr,
        bytes: usize,
    ) -> Result<(), DriverError> {
        const OPERATION: &str = "cuMemcpyDtoHAsync_v2";
        let host = target.address(to, bytes).ok_or_else(|| failure(OPERATION, INVALID_VALUE))?;
        self.block(OPERATION, host, bytes)?.enqueue(stream, |context| {
            let copy = context.table().copy_to_host;
            // SAFETY: `bytes` bytes at `host` are in the live buffer `target` (checked by its address()), which is borrowed
            // mutably and whose block notes this copy before anyone is lent those bytes; the stream is held by the caller.
            unsafe { copy(native(host), from.0, bytes, stream.raw()) }.check(OPERATION)
        })
    }

    /// The block of this driver that the bytes lie in; a buffer of another driver has none.
    fn block(&self, operation: &'static str, host: u64, bytes: usize) -> Result<Arc<Block>, DriverError> {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let found = blocks.range(..=host).next_back().and_then(|(_, block)| block.upgrade());
        let end = host.checked_add(wide(bytes));
        found
            .filter(|block| end.zip(block.base.checked_add(wide(block.bytes))).is_some_and(|(end, most)| end <= most))
            .ok_or_else(|| failure(operation, INVALID_VALUE))
    }
}

impl Block {
    /// Runs `copy`, which enqueues on `stream`, and leaves a mark behind it.
    fn enqueue(
        &self,
        stream: &Arc<Stream>,
        copy: impl FnOnce(&Context) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let _current = self.context.enter()?;
        let number = stream.id().0;
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        // A mark of the same stream moves on; one that has passed serves again. Made before the copy, so that none is unmarked.
        let free = |used: &Use| used.stream == number || !used.pending;
        if !uses.iter().any(free) {
            let _part = self.context.begin(Operation::Part)?;
            let event = Event::create(stream.context())?;
            uses.push(Use { stream: number, pending: false, event, unmarked: None });
        }
        let used = uses.iter_mut().find(|used| free(used)).ok_or_else(|| failure("cuEventCreate", UNKNOWN))?;
        copy(&self.context)?;
        let stream = AnyStream::Own(Arc::clone(stream));
        let part = self.context.begin(Operation::Part);
        let marked = used.event.record(&stream);
        drop(part);
        used.stream = number;
        used.pending = true;
        used.unmarked = marked.is_err().then_some(stream);
        marked
    }

    /// Blocks until no copy uses the buffer. **When it returns, none does, unless [`is_used`](Self::is_used) says so.** An error is
    /// that of a copy which ran, or of the device.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Ok(());
        let _part = self.context.begin(Operation::Part);
        for used in uses.iter_mut().filter(|used| used.pending) {
            let settled = used.settle(&self.context);
            // On a dead context nothing runs any more.
            if settled.as_ref().err().is_none_or(|error| error.kind == DriverErrorKind::Sticky) {
                used.pending = false;
                used.unmarked = None;
            }
            outcome = outcome.and(settled);
        }
        outcome
    }

    /// Whether a copy may still use the buffer although it was waited for: the driver would not tell.
    pub(super) fn is_used(&self) -> bool {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|used| used.pending)
    }

    /// Gives the buffer back.
    ///
    /// # Safety
    /// `base` is that of this buffer, which nobody uses afterwards.
    pub(super) unsafe fn free(&self, base: NonNull<u8>) {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.base);
        if self.is_used() {
            aside!(|| {
                tracing::error!(
                    "a staging buffer is kept for good, and may hold weights: the driver does not say whether a copy still uses it"
                )
            });
            return;
        }
        let Ok(_current) = self.context.enter() else { return };
        // SAFETY: `base` came from cuMemHostAlloc in Pinned::allocate; the caller (HostBuffer's drop) vouches that nobody uses
        // it any more, and no copy does: each has settled, as looked at above.
        let status = unsafe { (self.context.table().host_free)(base.as_ptr().cast()) };
        if let Err(error) = status.check("cuMemFreeHost") {
            aside!(|| tracing::error!(%error, "a wiped staging buffer could not be given back"));
        }
    }
}

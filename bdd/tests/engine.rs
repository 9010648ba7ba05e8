//! A make-believe engine: memory that it allocated itself, and streams that it works on.
//!
//! The memory is plain host bytes, which the mock takes for a device's. Every scenario keeps its engines until its managers are
//! gone, so the memory outlives whatever was adopted.

#![allow(unsafe_code, reason = "an engine vouches for its own addresses")]

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use vram_residency::{
    AdoptError, Adopted, ExecuteOptions, MockStream, RawRegion, RawStream, Scratch, ShardSpec, VramManager,
};

/// Bytes between the regions, which no shard covers. Odd, so that regions lie at any alignment.
const GAP: usize = 13;

/// An engine's memory. Cells, because the device may write them.
#[derive(Debug)]
pub(crate) struct Arena {
    cells: Box<[AtomicU8]>,
    /// First byte and length of each region.
    pub(crate) places: Vec<(usize, usize)>,
}

impl Arena {
    /// Cuts bytes into regions of these lengths, with gaps between them.
    pub(crate) fn new(bytes: &[u8], lengths: &[usize]) -> Self {
        assert_eq!(lengths.iter().sum::<usize>(), bytes.len(), "the regions hold all of the weights");
        let (mut cells, mut places, mut rest) = (vec![0xEE; GAP], Vec::new(), bytes);
        for length in lengths {
            let (region, others) = rest.split_at(*length);
            places.push((cells.len(), *length));
            cells.extend_from_slice(region);
            cells.extend_from_slice(&[0xEE; GAP]);
            rest = others;
        }
        Self { cells: cells.into_iter().map(AtomicU8::new).collect(), places }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.cells.iter().map(|cell| cell.load(Ordering::SeqCst)).collect()
    }

    pub(crate) fn flip(&self, at: usize) {
        self.cells[at].fetch_xor(4, Ordering::SeqCst);
    }

    /// Where the byte of the regions lies that has this number when only they are counted.
    pub(crate) fn place(&self, byte: usize) -> usize {
        let mut left = byte;
        for (at, length) in &self.places {
            if left < *length {
                return at + left;
            }
            left -= length;
        }
        panic!("the regions have no byte {byte}")
    }

    pub(crate) fn address(&self, at: usize) -> u64 {
        self.cells.as_ptr().expose_provenance() as u64 + at as u64
    }

    pub(crate) fn region(&self, at: usize, length: usize) -> RawRegion {
        assert!(at + length <= self.cells.len());
        RawRegion::new(self.address(at), length as u64)
    }

    pub(crate) fn regions(&self) -> Vec<RawRegion> {
        self.places.iter().map(|(at, length)| self.region(*at, *length)).collect()
    }

    /// Bytes of all regions.
    pub(crate) fn region_bytes(&self) -> u64 {
        self.places.iter().map(|(_, length)| *length as u64).sum()
    }

    /// The image that the regions stand for: each but the last padded with zeros to a block.
    pub(crate) fn image(&self, block: u32) -> Vec<u8> {
        let (bytes, mut image) = (self.bytes(), Vec::<u8>::new());
        for (at, length) in &self.places {
            image.resize(image.len().next_multiple_of(block as usize), 0);
            image.extend_from_slice(&bytes[*at..at + length]);
        }
        image
    }

    /// The arena with its regions zeroed and everything else as in `before`.
    pub(crate) fn wiped(&self, before: &[u8]) -> Vec<u8> {
        let mut wiped = before.to_vec();
        self.places.iter().for_each(|(at, length)| wiped[*at..at + length].fill(0));
        wiped
    }
}

/// What an engine hands over: the value that keeps its memory allocated.
#[derive(Debug)]
pub(crate) struct Owner(Arc<Arena>);

/// An engine, seen from its own side.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) arena: Arc<Arena>,
    /// Its bytes before the last adoption.
    pub(crate) before: Vec<u8>,
    pub(crate) adopted: Option<Adopted<Owner>>,
    pub(crate) returned: Option<Owner>,
}

impl Engine {
    pub(crate) fn new(arena: Arena) -> Self {
        Self { before: arena.bytes(), arena: Arc::new(arena), adopted: None, returned: None }
    }

    /// Whether somebody holds what it handed over.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.arena) > 1
    }

    /// Whether it has its value back, and that is the one which it gave.
    pub(crate) fn is_returned(&self) -> bool {
        self.returned.as_ref().is_some_and(|owner| Arc::ptr_eq(&owner.0, &self.arena))
    }

    /// Hands its value over with these regions.
    pub(crate) fn hand_over(
        &mut self,
        manager: &VramManager,
        spec: ShardSpec,
        regions: &[RawRegion],
    ) -> Result<Adopted<Owner>, AdoptError<Owner>> {
        self.before = self.arena.bytes();
        let owner = Owner(Arc::clone(&self.arena));
        // SAFETY: every region is either refused before it is touched, or lies in the arena, which its owner keeps alive and
        // which does not move; steps change its cells only between calls, when no check runs.
        unsafe { manager.adopt(spec, owner, regions) }
    }
}

type Order = Box<dyn FnOnce(&MockStream<'_>) + Send>;

/// An engine's stream on a thread of its own, which keeps the manager alive that the stream borrows.
#[derive(Debug)]
pub(crate) struct Stream {
    raw: RawStream,
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    pub(crate) fn open(manager: &Arc<VramManager>) -> Self {
        let manager = Arc::clone(manager);
        let ((opened, is_open), (orders, taken)) = (mpsc::channel(), mpsc::channel::<Order>());
        let thread = std::thread::spawn(move || {
            let controls = manager.mock_controls().expect("this runs on the mock");
            let stream = controls.engine_stream().expect("an engine's stream");
            opened.send(stream.raw()).expect("somebody asked");
            taken.iter().for_each(|order| order(&stream));
        });
        Self { raw: is_open.recv().expect("the stream"), orders: Some(orders), thread: Some(thread) }
    }

    /// Does something with the stream, and gives what came of it.
    pub(crate) fn ask<T: Send + 'static>(&self, order: impl FnOnce(&MockStream<'_>) -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let order: Order = Box::new(move |stream| answer.send(order(stream)).expect("somebody asked"));
        self.orders.as_ref().expect("it is open").send(order).expect("the engine's thread");
        answered.recv().expect("the engine's answer")
    }

    /// Work that follows this stream.
    pub(crate) fn options(&self) -> ExecuteOptions {
        // SAFETY: the stream is of the manager's own mock device; the world keeps it until every guard has ended.
        unsafe { ExecuteOptions::default().on_stream(self.raw) }
    }

    /// Names this stream as one that uses the memory.
    pub(crate) fn uses(&self, scratch: &mut Scratch) {
        // SAFETY: the stream is of the memory's own mock device; the world lets go of it after all working memory.
        unsafe { scratch.used_on(self.raw) };
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the engine's thread");
        }
    }
}

/// The engine's view of its working memory.
pub(crate) fn peek(scratch: &Scratch) -> Vec<u8> {
    // SAFETY: the value lives, and the mock's device memory is host memory; the address is followed below only.
    let address = unsafe { scratch.device_ptr() }.as_u64();
    let at: *const u8 = std::ptr::with_exposed_provenance(address as usize);
    // SAFETY: as many initialised bytes as the memory has, none of which is written while they are copied here.
    unsafe { std::slice::from_raw_parts(at, scratch.byte_len() as usize) }.to_vec()
}

//! A make-believe engine, with memory that it allocated itself.

#![allow(unsafe_code, reason = "addresses of VRAM are asked for, to use them behind the library's back")]

use std::sync::Arc;

use vram_residency::{Adopted, Scratch, VerifiedRegion};
use vram_residency_harness::{Machine, Memory};

/// Bytes between the regions, which no shard covers. Odd, so that regions lie at any alignment.
const GAP: usize = 13;

/// An engine, seen from its own side.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) memory: Arc<Memory>,
    /// First byte and length of each region.
    pub(crate) places: Vec<(usize, usize)>,
    /// Its bytes before the last adoption.
    pub(crate) before: Vec<u8>,
    pub(crate) adopted: Option<Adopted<Arc<Memory>>>,
    pub(crate) returned: Option<Arc<Memory>>,
}

impl Engine {
    /// Cuts bytes into regions of these lengths, with gaps between them.
    pub(crate) fn new(machine: &Machine, bytes: &[u8], lengths: &[usize]) -> Self {
        assert_eq!(lengths.iter().sum::<usize>(), bytes.len(), "the regions hold all of the weights");
        let (mut before, mut places, mut rest) = (vec![0xEE; GAP], Vec::new(), bytes);
        for length in lengths {
            let (region, others) = rest.split_at(*length);
            places.push((before.len(), *length));
            before.extend_from_slice(region);
            before.extend_from_slice(&[0xEE; GAP]);
            rest = others;
        }
        let memory = Arc::new(machine.alloc(before.len()));
        memory.write(0, &before);
        Self { memory, places, before, adopted: None, returned: None }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.memory.read(0, self.memory.len())
    }

    /// Where the byte of the regions lies that has this number when only they are counted.
    pub(crate) fn place(&self, byte: usize) -> usize {
        let mut each = self.places.iter().flat_map(|(at, length)| *at..at + length);
        each.nth(byte).expect("the regions have that byte")
    }

    /// Its bytes, with its regions zeroed and everything else as it was before.
    pub(crate) fn wiped(&self) -> Vec<u8> {
        let mut wiped = self.before.clone();
        self.places.iter().for_each(|(at, length)| wiped[*at..at + length].fill(0));
        wiped
    }

    /// Whether somebody holds what it handed over.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.memory) > 1
    }

    /// Whether it has its value back, and that is the one which it gave.
    pub(crate) fn is_returned(&self) -> bool {
        self.returned.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &self.memory))
    }
}

/// Where a shard's region lies.
pub(crate) fn address(region: &VerifiedRegion<'_>) -> u64 {
    // SAFETY: the address is used behind the library's back on purpose, and only while the shard is resident.
    unsafe { region.device_ptr() }.as_u64()
}

/// Where working memory lies.
pub(crate) fn address_of(scratch: &Scratch) -> u64 {
    // SAFETY: the world keeps the memory while steps use the address, and lets its wipe wait for the stream or closes that first.
    unsafe { scratch.device_ptr() }.as_u64()
}

//! A make-believe engine, with memory that it allocated itself.
//!
//! Every scenario keeps its engines until its managers are gone, so the memory outlives whatever was adopted.

#![allow(unsafe_code, reason = "an engine vouches for its own addresses")]

use std::sync::Arc;

use vram_residency::{AdoptError, Adopted, RawRegion, Scratch, ShardSpec, VerifiedRegion, VramManager};
use vram_residency_harness::{Machine, Memory};

/// Bytes between the regions, which no shard covers. Odd, so that regions lie at any alignment.
const GAP: usize = 13;

/// An engine's memory.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: Memory,
    /// First byte and length of each region.
    pub(crate) places: Vec<(usize, usize)>,
}

impl Arena {
    /// Cuts bytes into regions of these lengths, with gaps between them.
    pub(crate) fn new(machine: &Machine, bytes: &[u8], lengths: &[usize]) -> Self {
        assert_eq!(lengths.iter().sum::<usize>(), bytes.len(), "the regions hold all of the weights");
        let (mut all, mut places, mut rest) = (vec![0xEE; GAP], Vec::new(), bytes);
        for length in lengths {
            let (region, others) = rest.split_at(*length);
            places.push((all.len(), *length));
            all.extend_from_slice(region);
            all.extend_from_slice(&[0xEE; GAP]);
            rest = others;
        }
        let memory = machine.alloc(all.len());
        memory.write(0, &all);
        Self { memory, places }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.memory.read(0, self.memory.len())
    }

    pub(crate) fn flip(&self, at: usize) {
        self.memory.flip(at, 2);
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

    pub(crate) fn region(&self, at: usize, length: usize) -> RawRegion {
        self.memory.region(at, length)
    }

    pub(crate) fn regions(&self) -> Vec<RawRegion> {
        self.places.iter().map(|(at, length)| self.region(*at, *length)).collect()
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
        // which does not move; steps change its bytes only between calls, when no check runs.
        unsafe { manager.adopt(spec, owner, regions) }
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

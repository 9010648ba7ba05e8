//! An engine's memory that can be watched from outside, and what adopts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use vram_residency::{AdoptError, Adopted, ExecuteOptions, MockStream, RawRegion, ShardSpec, VramError, VramManager};

use crate::{Dice, noise};

/// An engine's memory: plain host bytes, which the mock takes for a device's. Cells, because the device may write them.
pub struct Arena(Box<[AtomicU8]>);

impl Arena {
    pub fn new(bytes: usize, seed: u64) -> Self {
        Self(noise(bytes, seed).into_iter().map(AtomicU8::new).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn address(&self, at: usize) -> u64 {
        self.0.as_ptr().expose_provenance() as u64 + at as u64
    }

    pub fn region(&self, at: usize, bytes: usize) -> RawRegion {
        assert!(at + bytes <= self.len());
        RawRegion::new(self.address(at), bytes as u64).writable()
    }

    pub fn get(&self, at: usize) -> u8 {
        self.0[at].load(Ordering::SeqCst)
    }

    pub fn flip(&self, at: usize) {
        self.0[at].fetch_xor(4, Ordering::SeqCst);
    }

    pub fn bytes(&self) -> Vec<u8> {
        (0..self.len()).map(|at| self.get(at)).collect()
    }
}

/// What an engine hands over: its memory, and a count of how often that was given up.
pub struct Engine {
    pub arena: Arc<Arena>,
    drops: Arc<AtomicU64>,
}

/// How often an [`Engine`] was dropped.
#[derive(Clone, Default)]
pub struct Drops(Arc<AtomicU64>);

impl Drops {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Engine {
    pub fn new(arena: &Arc<Arena>) -> (Self, Drops) {
        let drops = Drops::default();
        (Self { arena: Arc::clone(arena), drops: Arc::clone(&drops.0) }, drops)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Adopts regions of an arena whose bytes no test changes while a check may run.
pub fn adopt(
    manager: &VramManager,
    spec: ShardSpec,
    arena: &Arc<Arena>,
    regions: &[RawRegion],
) -> (Result<Adopted<Engine>, AdoptError<Engine>>, Drops) {
    let (engine, drops) = Engine::new(arena);
    // SAFETY: every region is either refused before it is touched, or lies in `arena`, which the engine keeps alive and which
    // does not move; tests change its cells, and have the mock change them, only between calls, when no check runs.
    (unsafe { manager.adopt(spec, engine, regions) }, drops)
}

/// Adopts all bytes of a vector, whose owner is made of it.
pub fn adopt_bytes<M: Send + Sync + 'static>(
    manager: &VramManager,
    id: &str,
    bytes: Vec<u8>,
    own: impl FnOnce(Vec<u8>) -> M,
) -> Result<Adopted<M>, AdoptError<M>> {
    let region = RawRegion::new(bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64);
    // SAFETY: the bytes are the vector's, which the owner has; they do not move with it, and nobody writes them.
    unsafe { manager.adopt(crate::spec(id), own(bytes), &[region]) }
}

/// Options for work on an engine's stream.
pub fn on(stream: &MockStream<'_>) -> ExecuteOptions {
    // SAFETY: the stream is of the manager's own mock device, and every test keeps it until its manager is dropped, or for ever.
    unsafe { ExecuteOptions::default().on_stream(stream.raw()) }
}

/// Places in an arena: apart from each other, with gaps, in any order, of any length and alignment.
pub fn scatter(dice: &mut Dice, lengths: &[usize]) -> (Arc<Arena>, Vec<(usize, usize)>) {
    let mut at = 7;
    let mut places = Vec::new();
    let mut order: Vec<usize> = lengths.to_vec();
    dice.shuffle(&mut order);
    for bytes in order {
        at += 1 + dice.below(40) as usize;
        places.push((at, bytes));
        at += bytes;
    }
    dice.shuffle(&mut places);
    (Arc::new(Arena::new(at + 9, dice.next())), places)
}

pub fn regions(arena: &Arena, places: &[(usize, usize)]) -> Vec<RawRegion> {
    places.iter().map(|(at, bytes)| arena.region(*at, *bytes)).collect()
}

/// The image that these places of `bytes` stand for: each but the last padded with zeros to a block.
pub fn image(bytes: &[u8], places: &[(usize, usize)], block: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, length) in places {
        out.resize(out.len().next_multiple_of(block), 0);
        out.extend_from_slice(&bytes[*at..at + length]);
    }
    out
}

/// Where in the image the byte at `at` of an arena lies.
pub fn offset(places: &[(usize, usize)], block: usize, at: usize) -> Option<u64> {
    let mut start = 0_usize;
    for (place, bytes) in places {
        start = start.next_multiple_of(block);
        if (*place..place + bytes).contains(&at) {
            return Some((start + at - place) as u64);
        }
        start += bytes;
    }
    None
}

/// The error of an adoption that was refused, and the owner that came back with it.
pub fn refused<M>(result: Result<Adopted<M>, AdoptError<M>>) -> (VramError, M) {
    match result {
        Ok(_) => panic!("the adoption was not refused"),
        Err(AdoptError { error, owner }) => (error, owner),
    }
}

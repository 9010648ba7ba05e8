//! A second implementation of the tree, for images that are zero but for a few bytes: every node over zeros alone is hashed once.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use vram_residency::Digest;

/// Zeros, with a few bytes set.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) bytes: u64,
    pub(crate) marks: BTreeMap<u64, u8>,
}

impl Image {
    pub(crate) fn new(bytes: u64, marks: &[(u64, u8)]) -> Self {
        assert!(marks.iter().all(|(at, _)| *at < bytes));
        Self { bytes, marks: marks.iter().copied().collect() }
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { image: self, at: 0 }
    }

    /// What `fsverity digest` prints for such a file, without a salt.
    pub(crate) fn digest(&self, block_size: u64) -> Digest {
        let hash = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let block_len = block_size as usize;
        let mut special: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
        for number in self.marks.keys().map(|at| at / block_size) {
            special.entry(number).or_insert_with(|| {
                let mut block = vec![0; block_len];
                for (at, value) in self.marks.range(number * block_size..(number + 1) * block_size) {
                    block[(at - number * block_size) as usize] = *value;
                }
                hash(&block)
            });
        }
        let (mut common, mut count) = (hash(&vec![0; block_len]), self.bytes.div_ceil(block_size));
        let arity = block_size / 32;
        while count > 1 {
            let nodes = count.div_ceil(arity);
            let node = |number: u64| {
                let mut block = Vec::with_capacity(block_len);
                for child in number * arity..((number + 1) * arity).min(count) {
                    block.extend_from_slice(special.get(&child).unwrap_or(&common));
                }
                block.resize(block_len, 0);
                hash(&block)
            };
            // The last node may have fewer children, so it is never taken for a common one.
            let mut above: BTreeMap<u64, [u8; 32]> =
                special.keys().map(|child| child / arity).map(|number| (number, node(number))).collect();
            above.insert(nodes - 1, node(nodes - 1));
            common = hash(&common.repeat(arity as usize));
            (special, count) = (above, nodes);
        }
        let mut descriptor = [0_u8; 256];
        (descriptor[0], descriptor[1], descriptor[2]) = (1, 1, block_size.ilog2() as u8);
        descriptor[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        descriptor[16..48].copy_from_slice(special.get(&0).unwrap_or(&common));
        format!("sha256:{}", hash(&descriptor).map(|byte| format!("{byte:02x}")).concat()).parse().unwrap()
    }
}

/// An image as a stream.
pub(crate) struct Reader<'a> {
    image: &'a Image,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let now = (self.image.bytes - self.at).min(out.len() as u64);
        let room = &mut out[..now as usize];
        room.fill(0);
        for (at, value) in self.image.marks.range(self.at..self.at + now) {
            room[(at - self.at) as usize] = *value;
        }
        self.at += now;
        Ok(now as usize)
    }
}

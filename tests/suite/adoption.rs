//! An engine's memory under seal: digested where it lies, given back on every failure, wiped only where its owner allows that.
// covers: RES-9 DIG-3

mod digests;
mod owners;
mod refusals;
mod writes;

use crate::*;

/// Lengths around the edges of blocks and bytes, and many between.
fn lengths(dice: &mut Dice, count: usize, block: usize) -> Vec<usize> {
    let edges = [1, 2, 7, block - 1, block, block + 1, 2 * block, 3 * block + 1];
    (0..count)
        .map(|_| if dice.below(2) == 0 { edges[dice.below(8) as usize] } else { 1 + dice.below(3000) as usize })
        .collect()
}

//! NH of blocks under one key, in vector registers.
//!
//! Owns the arithmetic of the keyed hash. Promises the same sums whichever instructions the processor has: AVX-512 takes sixteen words
//! at a time, AVX2 eight, other processors four. Refuses instructions that were not detected: a [`Lanes`] that has them is made from
//! [`Lanes::all`] alone. No branch and no address depends on data or key.
//!
//! Source: Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC: Fast and Secure Message Authentication", 1999.

#![allow(
    unsafe_code,
    reason = "instructions that not every processor has are unsafe to call, and vectors to load and to store"
)]

use super::Output;
use crate::digest::lanes::has_halved_vectors;

/// Four little-endian words: two pairs, the first with the third and the second with the fourth. The two passes are as far apart.
pub(super) type Quad = [[u8; 4]; 4];

pub(super) type Block = [Quad; 256];

/// The key of a level: for a block, and one quad more for the second pass. Its bytes are what a device is given.
pub(crate) type LevelKey = [Quad; 257];

/// Cuts bytes into blocks; what is left at the end is left out.
pub(super) const fn blocks(bytes: &[u8]) -> &[Block] {
    bytes.as_chunks().0.as_chunks().0.as_chunks().0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lanes {
    avx512: bool,
    avx2: bool,
}

impl Lanes {
    #[cfg(target_arch = "x86_64")]
    fn all() -> Self {
        use std::arch::is_x86_feature_detected as has;
        Self { avx512: has!("avx512f"), avx2: has!("avx2") }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn all() -> Self {
        Self::default()
    }

    /// What is fastest on this processor. In a build without optimisation that is what takes the fewest steps.
    pub(super) fn detected() -> Self {
        let all = Self::all();
        Self { avx512: all.avx512 && (cfg!(debug_assertions) || !has_halved_vectors()), ..all }
    }

    /// Hashes as many blocks as there are outputs, or fewer if there are fewer.
    pub(super) fn hash(self, key: &LevelKey, data: &[Block], out: &mut [Output]) {
        #[cfg(target_arch = "x86_64")]
        {
            if self.avx512 {
                // SAFETY: `self.avx512` is true only where `Self::all` found AVX-512 F, all that this function enables.
                return unsafe { x86::avx512::hash(key, data, out) };
            }
            if self.avx2 {
                // SAFETY: `self.avx2` is true only where `Self::all` found AVX2, all that this function enables.
                return unsafe { x86::avx2::hash(key, data, out) };
            }
        }
        let ([first @ .., _], [_, second @ ..]) = (key, key);
        for (block, out) in data.iter().zip(out) {
            *out = output(pass(block, first), pass(block, second));
        }
    }
}

fn output(first: u64, second: u64) -> Output {
    (u128::from(first) | u128::from(second).wrapping_shl(64)).to_le_bytes()
}

fn pass(block: &Block, key: &Block) -> u64 {
    let add = |m: [u8; 4], k: [u8; 4]| u64::from(u32::from_le_bytes(m).wrapping_add(u32::from_le_bytes(k)));
    block.iter().zip(key).fold(0, |sum, (&[m0, m1, m2, m3], &[k0, k1, k2, k3])| {
        let (first, second) = (add(m0, k0).wrapping_mul(add(m2, k2)), add(m1, k1).wrapping_mul(add(m3, k3)));
        sum.wrapping_add(first).wrapping_add(second)
    })
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, LevelKey, Output, Quad, output};

    /// Functions that are compiled for some instructions.
    macro_rules! compiled_for {
        ($features:literal: $($(#[$attribute:meta])* $visible:vis fn $name:ident ($($arguments:tt)*) $(-> $result:ty)? $body:block)*) => { $(
            #[inline]
            #[target_feature(enable = $features)]
            $(#[$attribute])*
            $visible fn $name ($($arguments)*) $(-> $result)? $body
        )* };
    }

    /// NH in terms of the operations of one kind of vectors, each of so many quads.
    macro_rules! nh_in_lanes {
        ($features:literal, $quads:literal) => {
            compiled_for! { $features:
                /// Multiplies the pairs of sums of words, and adds the products to those before.
                fn step(sum: Vector, words: Vector, key: &[Quad; $quads]) -> Vector {
                    let words = add32(words, load(key));
                    add64(sum, multiply(low(words), high(words)))
                }

                pub(in super::super) fn hash(key: &LevelKey, data: &[Block], out: &mut [Output]) {
                    let ([first @ .., _], [_, second @ ..]) = (key, key);
                    let (first, second) = (first.as_chunks().0, second.as_chunks().0);
                    for (block, out) in data.iter().zip(out) {
                        let (mut one, mut two) = (zero(), zero());
                        for ((quads, first), second) in block.as_chunks().0.iter().zip(first).zip(second) {
                            let words = load(quads);
                            one = step(one, words, first);
                            two = step(two, words, second);
                        }
                        *out = output(total(one), total(two));
                    }
                }
            }
        };
    }

    pub(super) mod avx512 {
        use super::*;

        type Vector = __m512i;

        compiled_for! { "avx512f":
            fn load(quads: &[Quad; 4]) -> Vector {
                // SAFETY: the array is 64 readable bytes, and this load asks for no alignment.
                unsafe { _mm512_loadu_si512(quads.as_ptr().cast()) }
            }
            fn zero() -> Vector { _mm512_setzero_si512() }
            fn add32(a: Vector, b: Vector) -> Vector { _mm512_add_epi32(a, b) }
            fn add64(a: Vector, b: Vector) -> Vector { _mm512_add_epi64(a, b) }
            fn low(a: Vector) -> Vector { _mm512_shuffle_epi32::<0b0001_0000>(a) }
            fn high(a: Vector) -> Vector { _mm512_shuffle_epi32::<0b0011_0010>(a) }
            fn multiply(a: Vector, b: Vector) -> Vector { _mm512_mul_epu32(a, b) }
            fn total(a: Vector) -> u64 { _mm512_reduce_add_epi64(a).cast_unsigned() }
        }

        nh_in_lanes!("avx512f", 4);
    }

    pub(super) mod avx2 {
        use super::*;

        type Vector = __m256i;

        compiled_for! { "avx2":
            fn load(quads: &[Quad; 2]) -> Vector {
                // SAFETY: the array is 32 readable bytes, and this load asks for no alignment.
                unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) }
            }
            fn zero() -> Vector { _mm256_setzero_si256() }
            fn add32(a: Vector, b: Vector) -> Vector { _mm256_add_epi32(a, b) }
            fn add64(a: Vector, b: Vector) -> Vector { _mm256_add_epi64(a, b) }
            fn low(a: Vector) -> Vector { _mm256_shuffle_epi32::<0b0001_0000>(a) }
            fn high(a: Vector) -> Vector { _mm256_shuffle_epi32::<0b0011_0010>(a) }
            fn multiply(a: Vector, b: Vector) -> Vector { _mm256_mul_epu32(a, b) }
            fn total(a: Vector) -> u64 {
                let halves = _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
                let (even, odd) = (_mm_extract_epi64::<0>(halves), _mm_extract_epi64::<1>(halves));
                even.wrapping_add(odd).cast_unsigned()
            }
        }

        nh_in_lanes!("avx2", 2);
    }
}

#[cfg(test)]
mod tests {
    use super::Lanes;

    impl Lanes {
        /// Each kind of instructions by itself, as far as this processor has it.
        pub(in crate::digest) fn each() -> [Option<Self>; 3] {
            let (none, Self { avx512, avx2 }) = (Self::default(), Self::all());
            [Some(none), avx2.then_some(Self { avx2, ..none }), avx512.then_some(Self { avx512, ..none })]
        }
    }
}

//! SHA-256 of many blocks at once, in the lanes of vector registers.
//!
//! Owns all hashing of blocks. Promises the hashes that `sha2` computes, whichever instructions the processor has: AVX-512 hashes
//! sixteen blocks at a time, AVX2 eight, the SHA extensions four or two, each with its chain of rounds interleaved with the others';
//! what is left over, and every block on other processors, is hashed by `sha2`. Refuses instructions that were not detected: a
//! [`Lanes`] that has them is made from [`Lanes::all`] alone.
//!
//! Sources: FIPS 180-4; Intel's "Processing Multiple Buffers in Parallel" and "Intel SHA Extensions".

#![allow(
    unsafe_code,
    reason = "instructions that not every processor has are unsafe to call, and vectors to load and to store"
)]

#[cfg(target_arch = "x86_64")]
use std::{array, slice::ChunksExact};

use sha2::block_api::compress256;

use super::Hash;

/// The 64 bytes that SHA-256 takes at a time, as the vectors that they are loaded into.
pub(super) type Chunk = [[u8; 16]; 4];

pub(super) type State = [u32; 8];

/// Cuts bytes into chunks; fewer than 64 at the end are left out.
pub(super) const fn chunks(bytes: &[u8]) -> &[Chunk] {
    bytes.as_chunks().0.as_chunks().0
}

/// What all blocks of a tree have in common.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The state after what stands before each block, which is whole chunks.
    pub(super) start: State,
    pub(super) chunks: usize,
    /// What stands behind each block: SHA-256's padding.
    pub(super) end: Chunk,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lanes {
    avx512: bool,
    sha: bool,
    avx2: bool,
}

impl Lanes {
    #[cfg(target_arch = "x86_64")]
    pub(super) fn all() -> Self {
        use std::arch::is_x86_feature_detected as has;
        Self { avx512: has!("avx512f") && has!("avx512bw"), sha: has!("sha") && has!("avx"), avx2: has!("avx2") }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn all() -> Self {
        Self::default()
    }

    /// What is fastest on this processor. In a build without optimisation that is `sha2`, which is compiled apart: these functions are
    /// a hundred times slower there.
    pub(super) fn detected() -> Self {
        if cfg!(debug_assertions) {
            return Self::default();
        }
        let all = Self::all();
        Self { avx512: all.avx512 && !(all.sha && has_halved_vectors()), ..all }
    }

    pub(super) fn hash(self, shape: &Shape, data: &[Chunk], out: &mut [Hash]) {
        let mut blocks = data.chunks_exact(shape.chunks);
        let count = blocks.len().min(out.len());
        let mut out = out.get_mut(..count).unwrap_or_default();
        #[cfg(target_arch = "x86_64")]
        {
            if self.avx512 {
                out = groups(&mut blocks, out, |group, out| {
                    // SAFETY: `self.avx512` is true only where `Self::all` found AVX-512 F and BW, all that this function enables.
                    unsafe { x86::avx512::hash(shape, group, out) }
                });
            }
            if self.sha {
                out = groups(&mut blocks, out, |group, out| {
                    // SAFETY: `self.sha` is true only where `Self::all` found SHA and AVX, all that this function enables.
                    unsafe { x86::sha::hash::<4>(shape, group, out) }
                });
                out = groups(&mut blocks, out, |group, out| {
                    // SAFETY: as above, inside the same look at `self.sha`.
                    unsafe { x86::sha::hash::<2>(shape, group, out) }
                });
            } else if self.avx2 {
                out = groups(&mut blocks, out, |group, out| {
                    // SAFETY: `self.avx2` is true only where `Self::all` found AVX2, all that this function enables.
                    unsafe { x86::avx2::hash(shape, group, out) }
                });
            }
        }
        for (block, hash) in blocks.zip(out) {
            let mut state = shape.start;
            compress(&mut state, block);
            compress(&mut state, &[shape.end]);
            *hash = to_bytes(state);
        }
    }
}

/// Whether 512-bit instructions run in two halves, so that the SHA extensions, or vectors half as long, are faster: Zen 4, which is told
/// from its successor and from Intel's processors by what it has and what it lacks.
pub(super) fn has_halved_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16") && !std::arch::is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Hashes blocks `N` at a time, as long as there are so many, and gives back where the hashes of the others belong.
#[cfg(target_arch = "x86_64")]
fn groups<'a, 'b, const N: usize>(
    blocks: &mut ChunksExact<'a, Chunk>,
    out: &'b mut [Hash],
    hash: impl Fn([&'a [Chunk]; N], &mut [Hash; N]),
) -> &'b mut [Hash] {
    let (groups, rest) = out.as_chunks_mut();
    for out in groups {
        hash(array::from_fn(|_| blocks.next().unwrap_or_default()), out);
    }
    rest
}

pub(super) fn compress(state: &mut State, chunks: &[Chunk]) {
    compress256(state, chunks.as_flattened().as_flattened().as_chunks().0);
}

pub(super) fn to_bytes(state: State) -> Hash {
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    hash
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Chunk, Hash, Shape};

    /// The constants of the rounds: the fractional parts of the cube roots of the first 64 primes.
    #[rustfmt::skip]
    static K: [[[u32; 4]; 4]; 4] = [
        [[0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
         [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174]],
        [[0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
         [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967]],
        [[0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
         [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070]],
        [[0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
         [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2]],
    ];

    const SWAP: [u32; 4] = [0x0001_0203, 0x0405_0607, 0x0809_0a0b, 0x0c0d_0e0f];

    /// Functions that are compiled for some instructions.
    macro_rules! compiled_for {
        ($features:literal: $($(#[$attribute:meta])* fn $name:ident $(<$(const $c:ident: $t:ty),*>)? ($($arguments:tt)*) $(-> $result:ty)? $body:block)*) => { $(
            #[inline]
            #[target_feature(enable = $features)]
            $(#[$attribute])*
            fn $name $(<$(const $c: $t),*>)? ($($arguments)*) $(-> $result)? $body
        )* };
    }

    compiled_for! { "sse2":
        fn load(bytes: &[u8; 16]) -> __m128i {
            // SAFETY: the array is 16 readable bytes, and this load asks for no alignment.
            unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
        }

        fn load_words([a, b, c, d]: [u32; 4]) -> __m128i {
            _mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed())
        }

        fn store(vector: __m128i, bytes: &mut [u8; 16]) {
            // SAFETY: the array is 16 writable bytes, and this store asks for no alignment.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), vector) }
        }
    }

    macro_rules! rounds {
        ($w:ident $k:ident: $($i:literal $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident),*) => { $(
            let word = add(splat($k[$i / 4][$i % 4]), $w[$i / 4][$i % 4]);
            let sum = add(xor(ror::<6, 26>($e), ror::<11, 21>($e), ror::<25, 7>($e)), choose($e, $f, $g));
            let sum = add(add($h, word), sum);
            $d = add($d, sum);
            let other = add(xor(ror::<2, 30>($a), ror::<13, 19>($a), ror::<22, 10>($a)), majority($a, $b, $c));
            $h = add(sum, other);
        )* };
    }

    macro_rules! schedule {
        ($w:ident: $($i:literal $next:literal $ninth:literal $fourteenth:literal),*) => { $(
            let (next, fourteenth) = ($w[$next / 4][$next % 4], $w[$fourteenth / 4][$fourteenth % 4]);
            let first = xor(ror::<7, 25>(next), ror::<18, 14>(next), shr::<3>(next));
            let second = xor(ror::<17, 15>(fourteenth), ror::<19, 13>(fourteenth), shr::<10>(fourteenth));
            $w[$i / 4][$i % 4] = add(add($w[$i / 4][$i % 4], $w[$ninth / 4][$ninth % 4]), add(first, second));
        )* };
    }

    /// SHA-256 in lanes of 32 bits, in terms of the operations of one kind of vectors. `rows` says which lanes' words are side by side.
    macro_rules! sha256_in_lanes {
        ($features:literal, $lanes:literal, $([$($lane:literal)*])*) => {
            compiled_for! { $features:
                /// In each quarter of the vectors: rows of four words to columns.
                fn transpose([a, b, c, d]: [Vector; 4]) -> [Vector; 4] {
                    let (ab, cd) = (low32(a, b), low32(c, d));
                    let (more_ab, more_cd) = (high32(a, b), high32(c, d));
                    [low64(ab, cd), high64(ab, cd), low64(more_ab, more_cd), high64(more_ab, more_cd)]
                }

                /// Four words of a chunk of each lane, each word in a vector.
                #[expect(clippy::indexing_slicing, reason = "both places are constants")]
                fn words<const QUARTER: usize>(chunks: &[&Chunk; $lanes]) -> [Vector; 4] {
                    let [a, b, c, d] = transpose([$(gather([$(load(&chunks[$lane][QUARTER])),*])),*]);
                    [swap(a), swap(b), swap(c), swap(d)]
                }

                fn compress(state: &mut [Vector; 8], chunks: &[&Chunk; $lanes]) {
                    let mut w = [words::<0>(chunks), words::<1>(chunks), words::<2>(chunks), words::<3>(chunks)];
                    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
                    for (sixteenth, k) in K.iter().enumerate() {
                        if sixteenth > 0 {
                            schedule!(w: 0 1 9 14, 1 2 10 15, 2 3 11 0, 3 4 12 1, 4 5 13 2, 5 6 14 3, 6 7 15 4, 7 8 0 5);
                            schedule!(w: 8 9 1 6, 9 10 2 7, 10 11 3 8, 11 12 4 9, 12 13 5 10, 13 14 6 11, 14 15 7 12, 15 0 8 13);
                        }
                        rounds!(w k: 0 a b c d e f g h, 1 h a b c d e f g);
                        rounds!(w k: 2 g h a b c d e f, 3 f g h a b c d e);
                        rounds!(w k: 4 e f g h a b c d, 5 d e f g h a b c);
                        rounds!(w k: 6 c d e f g h a b, 7 b c d e f g h a);
                        rounds!(w k: 8 a b c d e f g h, 9 h a b c d e f g);
                        rounds!(w k: 10 g h a b c d e f, 11 f g h a b c d e);
                        rounds!(w k: 12 e f g h a b c d, 13 d e f g h a b c);
                        rounds!(w k: 14 c d e f g h a b, 15 b c d e f g h a);
                    }
                    let [a0, b0, c0, d0, e0, f0, g0, h0] = *state;
                    *state = [add(a0, a), add(b0, b), add(c0, c), add(d0, d), add(e0, e), add(f0, f), add(g0, g), add(h0, h)];
                }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn hash(shape: &Shape, blocks: [&[Chunk]; $lanes], out: &mut [Hash; $lanes]) {
                let [a, b, c, d, e, f, g, h] = shape.start;
                let mut state = [splat(a), splat(b), splat(c), splat(d), splat(e), splat(f), splat(g), splat(h)];
                let mut blocks = blocks.map(<[Chunk]>::iter);
                for _ in 0..=shape.chunks {
                    let mut chunks = [&shape.end; $lanes];
                    for (chunk, block) in chunks.iter_mut().zip(&mut blocks) {
                        *chunk = block.next().unwrap_or(&shape.end);
                    }
                    compress(&mut state, &chunks);
                }
                let [a, b, c, d, e, f, g, h] = state;
                let firsts = transpose([swap(a), swap(b), swap(c), swap(d)]);
                let seconds = transpose([swap(e), swap(f), swap(g), swap(h)]);
                for (row, (first, second)) in firsts.into_iter().zip(seconds).enumerate() {
                    let lanes = out.iter_mut().skip(row).step_by(4);
                    for (out, (first, second)) in lanes.zip(quarters(first).into_iter().zip(quarters(second))) {
                        if let [low, high] = out.as_chunks_mut().0 {
                            store(first, low);
                            store(second, high);
                        }
                    }
                }
            }
        };
    }

    pub(super) mod avx512 {
        use super::*;

        type Vector = __m512i;

        compiled_for! { "avx512f,avx512bw":
            fn splat(word: u32) -> Vector { _mm512_set1_epi32(word.cast_signed()) }
            fn add(a: Vector, b: Vector) -> Vector { _mm512_add_epi32(a, b) }
            fn xor(a: Vector, b: Vector, c: Vector) -> Vector { _mm512_ternarylogic_epi32::<0x96>(a, b, c) }
            fn choose(a: Vector, b: Vector, c: Vector) -> Vector { _mm512_ternarylogic_epi32::<0xca>(a, b, c) }
            fn majority(a: Vector, b: Vector, c: Vector) -> Vector { _mm512_ternarylogic_epi32::<0xe8>(a, b, c) }
            fn ror<const RIGHT: i32, const LEFT: i32>(a: Vector) -> Vector { _mm512_ror_epi32::<RIGHT>(a) }
            fn shr<const BITS: u32>(a: Vector) -> Vector { _mm512_srli_epi32::<BITS>(a) }
            fn swap(a: Vector) -> Vector { _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(load_words(SWAP))) }
            fn low32(a: Vector, b: Vector) -> Vector { _mm512_unpacklo_epi32(a, b) }
            fn high32(a: Vector, b: Vector) -> Vector { _mm512_unpackhi_epi32(a, b) }
            fn low64(a: Vector, b: Vector) -> Vector { _mm512_unpacklo_epi64(a, b) }
            fn high64(a: Vector, b: Vector) -> Vector { _mm512_unpackhi_epi64(a, b) }
            fn gather([a, b, c, d]: [__m128i; 4]) -> Vector {
                let ab = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
                _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(ab, c), d)
            }
            fn quarters(a: Vector) -> [__m128i; 4] {
                let (second, third) = (_mm512_extracti32x4_epi32::<1>(a), _mm512_extracti32x4_epi32::<2>(a));
                [_mm512_castsi512_si128(a), second, third, _mm512_extracti32x4_epi32::<3>(a)]
            }
        }

        sha256_in_lanes!("avx512f,avx512bw", 16, [0 4 8 12] [1 5 9 13] [2 6 10 14] [3 7 11 15]);
    }

    pub(super) mod avx2 {
        use super::*;

        type Vector = __m256i;

        compiled_for! { "avx2":
            fn splat(word: u32) -> Vector { _mm256_set1_epi32(word.cast_signed()) }
            fn add(a: Vector, b: Vector) -> Vector { _mm256_add_epi32(a, b) }
            fn xor2(a: Vector, b: Vector) -> Vector { _mm256_xor_si256(a, b) }
            fn xor(a: Vector, b: Vector, c: Vector) -> Vector { xor2(xor2(a, b), c) }
            fn choose(a: Vector, b: Vector, c: Vector) -> Vector { xor2(c, _mm256_and_si256(a, xor2(b, c))) }
            fn majority(a: Vector, b: Vector, c: Vector) -> Vector { xor2(b, _mm256_and_si256(xor2(a, b), xor2(b, c))) }
            fn ror<const RIGHT: i32, const LEFT: i32>(a: Vector) -> Vector {
                _mm256_or_si256(_mm256_srli_epi32::<RIGHT>(a), _mm256_slli_epi32::<LEFT>(a))
            }
            fn shr<const BITS: i32>(a: Vector) -> Vector { _mm256_srli_epi32::<BITS>(a) }
            fn swap(a: Vector) -> Vector { _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(load_words(SWAP))) }
            fn low32(a: Vector, b: Vector) -> Vector { _mm256_unpacklo_epi32(a, b) }
            fn high32(a: Vector, b: Vector) -> Vector { _mm256_unpackhi_epi32(a, b) }
            fn low64(a: Vector, b: Vector) -> Vector { _mm256_unpacklo_epi64(a, b) }
            fn high64(a: Vector, b: Vector) -> Vector { _mm256_unpackhi_epi64(a, b) }
            fn gather([a, b]: [__m128i; 2]) -> Vector { _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b) }
            fn quarters(a: Vector) -> [__m128i; 2] { [_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a)] }
        }

        sha256_in_lanes!("avx2", 8, [0 4] [1 5] [2 6] [3 7]);
    }

    /// Several streams of the SHA extensions at once: a round waits for the one before it, so that one stream leaves them idle.
    pub(super) mod sha {
        use super::*;

        macro_rules! four_rounds {
            ($state:ident $w:ident: $($i:literal $now:literal $next:literal $last:literal),*) => { $(
                for ([abef, cdgh], w) in $state.iter_mut().zip(&mut $w) {
                    let words = _mm_add_epi32(w[$now], load_words(K[$i / 4][$i % 4]));
                    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, words);
                    if $i >= 3 && $i < 15 {
                        let ninth = _mm_alignr_epi8::<4>(w[$now], w[$last]);
                        w[$next] = _mm_sha256msg2_epu32(_mm_add_epi32(w[$next], ninth), w[$now]);
                    }
                    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(words));
                    if $i >= 1 && $i < 13 {
                        w[$last] = _mm_sha256msg1_epu32(w[$last], w[$now]);
                    }
                }
            )* };
        }

        compiled_for! { "sha,avx":
            fn swap(a: __m128i) -> __m128i { _mm_shuffle_epi8(a, load_words(SWAP)) }

            fn compress<const N: usize>(state: &mut [[__m128i; 2]; N], chunks: [&Chunk; N]) {
                let before = *state;
                let mut w = [[_mm_setzero_si128(); 4]; N];
                for (w, [a, b, c, d]) in w.iter_mut().zip(chunks) {
                    *w = [swap(load(a)), swap(load(b)), swap(load(c)), swap(load(d))];
                }
                four_rounds!(state w: 0 0 1 3, 1 1 2 0, 2 2 3 1, 3 3 0 2, 4 0 1 3, 5 1 2 0, 6 2 3 1, 7 3 0 2);
                four_rounds!(state w: 8 0 1 3, 9 1 2 0, 10 2 3 1, 11 3 0 2, 12 0 1 3, 13 1 2 0, 14 2 3 1, 15 3 0 2);
                for (state, before) in state.as_flattened_mut().iter_mut().zip(before.as_flattened()) {
                    *state = _mm_add_epi32(*state, *before);
                }
            }
        }

        #[target_feature(enable = "sha,avx")]
        pub(in super::super) fn hash<const N: usize>(shape: &Shape, blocks: [&[Chunk]; N], out: &mut [Hash; N]) {
            let [a, b, c, d, e, f, g, h] = shape.start;
            let mut state = [[load_words([f, e, b, a]), load_words([h, g, d, c])]; N];
            let mut blocks = blocks.map(<[Chunk]>::iter);
            for _ in 0..=shape.chunks {
                let mut chunks = [&shape.end; N];
                for (chunk, block) in chunks.iter_mut().zip(&mut blocks) {
                    *chunk = block.next().unwrap_or(&shape.end);
                }
                compress(&mut state, chunks);
            }
            for (out, [abef, cdgh]) in out.iter_mut().zip(state) {
                let (fe_ba, hg_dc) = (_mm_shuffle_epi32::<0x1b>(abef), _mm_shuffle_epi32::<0x1b>(cdgh));
                if let [low, high] = out.as_chunks_mut().0 {
                    store(swap(_mm_unpacklo_epi64(fe_ba, hg_dc)), low);
                    store(swap(_mm_unpackhi_epi64(fe_ba, hg_dc)), high);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

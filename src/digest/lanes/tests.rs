//! What the tests of blocks ask of the lanes.

use super::Lanes;

impl Lanes {
    /// Each kind of instructions by itself, as far as this processor has it.
    pub(in crate::digest) fn each() -> [(&'static str, Option<Self>); 4] {
        let (none, Self { avx512, sha, avx2 }) = (Self::default(), Self::all());
        [
            ("sha2 alone", Some(none)),
            ("AVX2", avx2.then_some(Self { avx2, ..none })),
            ("SHA extensions", sha.then_some(Self { sha, ..none })),
            ("AVX-512", avx512.then_some(Self { avx512, ..none })),
        ]
    }
}

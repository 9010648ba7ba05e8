//! A `Verified` cannot be written down either.
use vram_residency::Verified;

fn forge<'a>() -> Verified<'a> {
    Verified {}
}

fn main() {}

//! See `vram_residency_fuzz::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vram_residency_fuzz::names(data));

//! See `vram_residency_fuzz::seal_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vram_residency_fuzz::seal_text(data));

//! See `vram_residency_fuzz::safetensors_differential`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vram_residency_fuzz::safetensors_differential(data));

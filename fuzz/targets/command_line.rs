//! See `vram_residency_fuzz::command_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vram_residency_fuzz::command_line(data));

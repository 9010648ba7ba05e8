//! A defect behind a value that chance does not hit in a lifetime and that a fuzzer finds within seconds, if it sees the
//! comparisons of the program. `ci/fuzz.sh` looks for it first: a run that cannot find it shows nothing elsewhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(bytes) = <[u8; 8]>::try_from(data) {
        assert!(u64::from_le_bytes(bytes) != 0x7365_616c_6564_2121, "the planted defect");
    }
});

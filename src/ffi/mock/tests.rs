//! Both sides of the C boundary agree: sizes, alignments, offsets, numbers, names.
// covers: DEV-2
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use std::collections::BTreeSet;
use std::mem::{align_of, offset_of, size_of};

use super::abi::{self, RawConfig, RawDigestJob, RawFault, RawResidency, RawSpan, RawStats};

const HEADER: &str = include_str!("../../../cuda/include/vram_mock.h");
const MIRROR: &str = include_str!("abi.rs");
/// What the library may export, one symbol a line, sorted.
const EXPORTS: &str = include_str!("../../../cuda/mock/exports.txt");
const SAFE: &str = include_str!("../mock.rs");

macro_rules! layout {
    ($($type:ty: $($field:ident)*;)*) => {
        vec![$((concat!("size of ", stringify!($type)), size_of::<$type>()),
               (concat!("alignment of ", stringify!($type)), align_of::<$type>()),
               $((concat!(stringify!($type), ".", stringify!($field)), offset_of!($type, $field)),)*)*]
    };
}

/// In the order of `vram_mock_layout` in `cuda/mock/machine.c`.
fn mirrored() -> Vec<(&'static str, usize)> {
    layout! {
        RawConfig: abi_version devices capacity_bytes granularity late_streams poison read_only sparse seed;
        RawSpan: ptr bytes;
        RawResidency: kind host_mapped exportable has_ordinal ordinal range;
        RawDigestJob: regions region_count block_size salt_bytes salt scratch table result nonce;
        RawFault: kind call code value nth times;
        RawStats: live_allocations live_bytes live_foreign live_streams live_events live_host_buffers live_host_bytes
            pending_operations unmet_faults unwiped_device_bytes unwiped_host_bytes runs;
    }
}

#[test]
fn the_structures_have_the_same_layout_on_both_sides() {
    let ours = mirrored();
    let mut theirs = [0_u64; 128];
    // SAFETY: `theirs` has room for the 128 numbers that the call is told it may write.
    let count = unsafe { abi::vram_mock_layout(theirs.as_mut_ptr(), 128) };
    assert_eq!(usize::try_from(count).unwrap(), ours.len());
    for ((what, ours), theirs) in ours.iter().zip(theirs) {
        assert_eq!(u64::try_from(*ours).unwrap(), theirs, "{what}");
    }
}

/// `#define VRAM_MOCK_<name> <number>u` of the header.
fn number(name: &str) -> u32 {
    let start = format!("#define VRAM_MOCK_{name} ");
    let line = HEADER.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {name}"));
    line.split('u').next().unwrap().parse().unwrap()
}

#[test]
fn the_numbers_are_the_same_on_both_sides() {
    assert_eq!(abi::vram_mock_abi_version(), abi::ABI_VERSION);
    assert_eq!(number("ABI_VERSION"), abi::ABI_VERSION);
    assert_eq!(usize::try_from(number("CALLS")).unwrap(), abi::CALLS);
    assert_eq!(number("NOT_READY"), abi::NOT_READY);
    for (name, ours) in [
        ("FAIL", abi::fault::FAIL),
        ("CORRUPT", abi::fault::CORRUPT),
        ("SKIP", abi::fault::SKIP),
        ("HALF", abi::fault::HALF),
        ("DIGEST_SHORT", abi::fault::DIGEST_SHORT),
        ("DIGEST_SHORT_LIES", abi::fault::DIGEST_SHORT_LIES),
        ("DIGEST_STALE", abi::fault::DIGEST_STALE),
        ("DIGEST_REPLAYED", abi::fault::DIGEST_REPLAYED),
        ("COUNT_ZERO", abi::fault::COUNT_ZERO),
        ("FREE_BYTES", abi::fault::FREE_BYTES),
        ("RESIDENCY", abi::fault::RESIDENCY),
        ("UNCONFIRMED", abi::fault::UNCONFIRMED),
        ("STICKY", abi::fault::STICKY),
    ] {
        assert_eq!(number(&format!("FAULT_{name}")), ours, "{name}");
    }
    for name in ["INVALID_VALUE", "OUT_OF_MEMORY", "INVALID_DEVICE", "INVALID_HANDLE", "LAUNCH_FAILED", "READ_ONLY"] {
        let code = number(name);
        let known = super::STATUSES.iter().find(|(known, ..)| *known == code);
        assert_eq!(known.map(|(_, word, _)| word.to_uppercase()).as_deref(), Some(name));
    }
}

/// Every `vram_mock_…(` in a text.
fn functions(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("vram_mock_") {
        let name: String = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if text[at + name.len()..].starts_with('(') {
            found.insert(name);
        }
    }
    found
}

#[test]
fn both_sides_name_the_same_functions_and_all_are_used() {
    let declared = functions(HEADER);
    assert!(declared.len() > 30, "{declared:?}");
    assert_eq!(declared, functions(MIRROR));
    assert_eq!(declared.iter().map(String::as_str).collect::<Vec<_>>(), EXPORTS.lines().collect::<Vec<_>>());
    for name in declared {
        assert!(SAFE.contains(&name) || name == "vram_mock_layout", "{name} is never called");
    }
}

#[test]
fn unknown_numbers_are_kept() {
    let error = super::Status(12345).check("vram_mock_alloc").unwrap_err();
    assert_eq!((error.code, error.name, error.operation), (12345, "unknown", "vram_mock_alloc"));
    assert!(super::Status(0).check("vram_mock_alloc").is_ok());
}

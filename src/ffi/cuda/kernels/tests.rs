//! What the driver is given is what `cuda/include/vram_kernels.h` says: names, numbers, sizes and offsets.
// covers: DEV-2

use std::collections::BTreeMap;
use std::mem::offset_of;

use super::*;

const HEADER: &str = include_str!("../../../../cuda/include/vram_kernels.h");
const OURS: &str = include_str!("../kernels.rs");

/// `#define VRAM_<name> <number>u` of the header.
fn number(name: &str) -> u64 {
    let start = format!("#define VRAM_{name} ");
    let line = HEADER.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {name}"));
    line.trim_end_matches('u').parse().unwrap()
}

/// `"type.field"` to offset and `"type"` to size, as the header asserts them.
fn asserted() -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for line in HEADER.lines() {
        if let Some(line) = line.strip_prefix("VRAM_KERNELS_FIELD(") {
            let parts: Vec<&str> = line.trim_end_matches(");").split(", ").collect();
            let [type_, field, offset] = parts[..] else { panic!("{line}") };
            found.insert(format!("{type_}.{field}"), offset.parse().unwrap());
        } else if let Some((type_, rest)) =
            line.strip_prefix("VRAM_KERNELS_ASSERT(sizeof(").and_then(|line| line.split_once(") == "))
        {
            let (size, _) = rest.split_once(',').unwrap();
            let size = size.parse().unwrap_or_else(|_| usize::try_from(number(&size["VRAM_".len()..])).unwrap());
            found.insert(type_.to_owned(), size);
        }
    }
    found
}

macro_rules! mirrored {
    ($($name:literal = $type:ty: $($field:ident)*;)*) => {
        BTreeMap::from([$(($name.to_owned(), size_of::<$type>()),
            $((concat!($name, ".", stringify!($field)).to_owned(), offset_of!($type, $field)),)*)*])
    };
}

#[test]
fn every_structure_lies_as_the_header_asserts() {
    let ours = mirrored! {
        "vram_region" = Region: ptr bytes first_block;
        "vram_leaves_args" = LeavesArgs: regions region_count first_block block_count hashes counters start block_size
            message_bits one reserved;
        "vram_nodes_args" = NodesArgs: hashes leaf_count table counters start block_size message_bits one single;
        "vram_finish_args" = FinishArgs: result counters nonce;
        "vram_count_args" = CountArgs: ptr bytes counters;
    };
    let theirs = asserted();
    for (name, theirs) in &theirs {
        // The device writes these two and the host reads their words: `driver::LaunchResult`.
        if !name.starts_with("vram_counters") && !name.starts_with("vram_result") {
            assert_eq!(ours.get(name), Some(theirs), "{name}");
        }
    }
    // First fields need no assertion, and a reserved word has no place of its own.
    let others: Vec<&str> = ours.keys().filter(|name| !theirs.contains_key(*name)).map(String::as_str).collect();
    assert_eq!(
        others,
        [
            "vram_count_args.ptr",
            "vram_finish_args.result",
            "vram_leaves_args.regions",
            "vram_leaves_args.reserved",
            "vram_nodes_args.hashes"
        ]
    );
}

#[test]
fn the_numbers_are_the_same_on_both_sides() {
    assert_eq!(number("ONE"), u64::from(ONE));
    assert_eq!(number("LEAVES_THREADS"), u64::from(LEAVES_THREADS));
    assert_eq!(number("NODES_THREADS"), u64::from(NODES_THREADS));
    assert_eq!(number("FINISH_THREADS"), 1);
    assert_eq!(number("COUNT_THREADS"), u64::from(COUNT_THREADS));
    assert_eq!(number("COUNT_SHARE"), COUNT_SHARE);
    assert_eq!(number("COUNT_MOST_BLOCKS"), COUNT_MOST_BLOCKS);
}

#[test]
fn the_entry_points_are_those_of_the_header() {
    let quoted = |text: &str, begins: &str| -> Vec<String> {
        let mut found: Vec<String> = text
            .match_indices(begins)
            .filter_map(|(at, _)| text[at + begins.len()..].split_once('"'))
            .map(|(name, _)| name.to_owned())
            .collect();
        found.sort();
        found
    };
    let theirs: Vec<String> = HEADER
        .lines()
        .filter(|line| line.starts_with("#define VRAM_") && line.ends_with('"'))
        .flat_map(|line| quoted(line, " \""))
        .collect();
    assert_eq!(theirs.len(), 4);
    let mut sorted = theirs;
    sorted.sort();
    assert_eq!(quoted(OURS, "function(c\""), sorted);
}

#[test]
fn grids_are_whole_or_refused() {
    // covers: RES-7
    for (blocks, wanted) in [
        (0, None),
        (1, Some(1)),
        ((1 << 31) - 1, Some(0x7fff_ffff)),
        (1 << 31, None),
        ((1 << 32) - 1, None),
        (1 << 32, None),
        ((1 << 32) + 1, None),
        (1 << 63, None),
        (u64::MAX, None),
    ] {
        assert_eq!(grid(blocks), wanted, "{blocks}");
    }
}

//! Every size and offset that is computed, at the edges of its type, against the same rule in 128 bits.
// covers: RES-7 VAL-2

use std::num::NonZeroUsize;

use crate::capacity::Ledger;
use crate::digest::layout::{Layout, TensorInfo};
use crate::digest::{TreeParams, digest_from_table, first_difference};
use crate::error::VramError;
use crate::memory::{CheckSizes, ImageMap};
use crate::source::{ShardSource, digest_source, safetensors};
use crate::types::{DevicePtr, Span};

/// What sizes and offsets are tried.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    255,
    256,
    1024,
    65_537,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    130 << 30,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 65_536,
    u64::MAX - 1024,
    u64::MAX - 1023,
    u64::MAX - 1,
    u64::MAX,
];

fn pairs() -> impl Iterator<Item = (u64, u64)> {
    EDGES.into_iter().flat_map(|one| EDGES.into_iter().map(move |two| (one, two)))
}

fn all_params() -> impl Iterator<Item = TreeParams> {
    (10..=16).map(|log| TreeParams::new(1 << log, &[]).unwrap())
}

fn wide(value: u64) -> u128 {
    u128::from(value)
}

/// `value` as a u64, if it is one.
fn narrow(value: u128) -> Option<u64> {
    u64::try_from(value).ok()
}

/// What a keyed hash takes: head, a key a level, list, outputs of a chunk of the image and of the levels between.
fn keyed(bytes: u128, regions: u128) -> u128 {
    let mut levels = vec![bytes.max(1).div_ceil(4096)];
    while levels[levels.len() - 1] > 1 {
        levels.push(levels[levels.len() - 1].div_ceil(256));
    }
    let chunk = if levels.len() > 1 { levels[0].min(1 << 18) } else { 0 };
    let between: u128 = levels.iter().skip(1).filter(|blocks| **blocks > 1).sum();
    64 + 4112 * wide(u64::try_from(levels.len()).unwrap())
        + (24 * regions).next_multiple_of(32)
        + 16 * (chunk + between)
}

#[test]
fn trees_and_their_check_space() {
    for params in all_params() {
        let block = wide(u64::from(params.block_size()));
        let arity = block / 32;
        for bytes in EDGES {
            let blocks = wide(bytes).div_ceil(block);
            let entries = blocks.div_ceil(arity);
            assert_eq!(wide(params.blocks(bytes)), blocks);
            assert_eq!(wide(params.table_entries(params.blocks(bytes))), entries);
            assert_eq!(params.padded(bytes), narrow(blocks * block));
            for regions in [0_usize, 1, 2, 3, 4, 100_000] {
                let list = (wide(u64::try_from(regions + 1).unwrap()) * 24).next_multiple_of(32);
                let digest = (entries + 1) * 32 + blocks.min((1 << 30) / block) * 32 + list;
                let room = digest.max(keyed(wide(bytes), wide(u64::try_from(regions).unwrap())));
                let found = CheckSizes::new(&params, bytes, regions).and_then(CheckSizes::bytes);
                assert_eq!(found, narrow(room), "{bytes}, {regions} regions");
            }
            assert!(CheckSizes::new(&params, bytes, usize::MAX).is_none());
        }
        assert_eq!(wide(params.subtree_bytes()), block * arity);
    }
}

#[test]
fn tables_of_another_length_than_the_image_has() {
    for params in all_params() {
        for bytes in EDGES {
            let wanted = params.table_entries(params.blocks(bytes));
            for entries in [0, 1, 2] {
                let table = vec![[7; 32]; entries];
                let outcome = digest_from_table(&params, bytes, &table);
                let fits = u64::try_from(entries) == Ok(wanted);
                assert_eq!(outcome.is_ok(), fits, "{entries} entries for {bytes} bytes");
                if let Err(error) = outcome {
                    assert!(matches!(error, VramError::Internal { .. }));
                }
                let (offset, length) = first_difference(&params, bytes, &table, &[[8; 32]; 3]).unwrap();
                assert!(offset <= bytes && wide(offset) + wide(length) <= wide(bytes));
            }
        }
    }
}

fn tensor(bytes: u64) -> TensorInfo {
    TensorInfo { name: "t".to_owned(), dtype: "U8".to_owned(), shape: vec![bytes], offset: 0, bytes }
}

#[test]
fn layouts_of_two_tensors() {
    for params in all_params() {
        let block = wide(u64::from(params.block_size()));
        for (first, second) in pairs() {
            let padded = wide(first).div_ceil(block) * block;
            let start = if second == 0 { wide(first) } else { padded };
            let end = start + wide(second);
            let made = Layout::of_tensors(&params, vec![tensor(first), tensor(second)]);
            match (narrow(start), narrow(end), made) {
                (Some(start), Some(end), Ok(layout)) => {
                    assert_eq!((layout.byte_len(), layout.tensors()[1].offset), (end, start));
                    places(&layout);
                }
                (_, None, Err(error)) | (None, _, Err(error)) => {
                    assert!(matches!(error, VramError::InvalidParams { field: "shard length", .. }), "{error}");
                }
                (_, _, made) => panic!("{first} and {second}: {made:?}"),
            }
        }
    }
}

/// Every question about places in a layout, at the edges.
fn places(layout: &Layout) {
    for (offset, bytes) in pairs() {
        let mut tensors = layout.tensors().iter().filter(|tensor| tensor.bytes > 0);
        let (from, to) = (wide(offset), (wide(offset) + wide(bytes)).min(wide(u64::MAX)));
        let wanted = tensors.find(|tensor| {
            let (start, end) = (wide(tensor.offset), wide(tensor.offset) + wide(tensor.bytes));
            start < to && from < end
        });
        assert_eq!(layout.tensor_in(offset, bytes), wanted.filter(|_| bytes > 0), "{bytes} bytes from {offset}");
    }
}

#[test]
fn images_of_two_regions() {
    for params in all_params() {
        let block = wide(u64::from(params.block_size()));
        for (first, second) in pairs() {
            let spans = [Span { ptr: DevicePtr(7), bytes: first }, Span { ptr: DevicePtr(1 << 40), bytes: second }];
            let padded = |bytes: u128| bytes.div_ceil(block) * block;
            let start = padded(wide(first));
            let end = if second == 0 { wide(first) } else { start + wide(second) };
            // The padding behind the last region counts too, so that a region more could follow.
            let fits = end > 0 && narrow(padded(end)).is_some();
            let map = ImageMap::new(&params, &spans);
            assert_eq!(map.as_ref().map(ImageMap::bytes), narrow(end).filter(|_| fits), "{first} and {second}");
            for offset in EDGES.into_iter().filter(|_| map.is_some()) {
                let inside_first = offset < first;
                let inside_second = wide(offset) >= start && wide(offset) < end && second > 0;
                let address = map.as_ref().and_then(|map| map.address(offset));
                let wanted = if inside_first {
                    narrow(7 + wide(offset))
                } else if inside_second {
                    narrow((1 << 40) + wide(offset) - start)
                } else {
                    None
                };
                assert_eq!(address, wanted.map(DevicePtr), "{first} and {second} at {offset}");
            }
        }
    }
}

#[test]
fn spans_that_meet_and_spans_that_wrap() {
    for (ptr, bytes) in pairs() {
        for (other_ptr, other_bytes) in pairs() {
            let one = Span { ptr: DevicePtr(ptr), bytes };
            let two = Span { ptr: DevicePtr(other_ptr), bytes: other_bytes };
            let (end, other_end) = (wide(ptr) + wide(bytes), wide(other_ptr) + wide(other_bytes));
            let wraps = narrow(end).is_none() || narrow(other_end).is_none();
            let meet = wraps || (wide(ptr) < other_end && wide(other_ptr) < end);
            assert_eq!((one.overlaps(two), two.overlaps(one)), (meet, meet));
        }
    }
}

#[test]
fn ledgers_of_every_size() {
    for (total, headroom) in pairs() {
        let Ok(ledger) = Ledger::new(total, headroom, 256) else {
            assert!(headroom >= total);
            continue;
        };
        assert_eq!(ledger.available(), total - headroom);
        for (first, second) in pairs() {
            let one = ledger.reserve(first);
            assert_eq!(one.is_ok(), first <= total - headroom);
            let taken = one.as_ref().map_or(0, |_| first);
            let two = ledger.reserve(second);
            let room = total - headroom - taken;
            match &two {
                Ok(_) => assert!(second <= room),
                Err(VramError::OutOfMemory { needed, available }) => assert_eq!((*needed, *available), (second, room)),
                Err(error) => panic!("{error:?}"),
            }
            drop((one, two));
            assert_eq!(ledger.used(), 0);
        }
    }
    for log in [8, 21, 30, 63] {
        let ledger = Ledger::new(u64::MAX, 0, 1 << log).unwrap();
        for bytes in EDGES {
            assert_eq!(ledger.rounded(bytes), narrow(wide(bytes).div_ceil(1 << log) << log), "{bytes} in 2^{log}");
        }
    }
}

#[test]
fn headers_that_claim_any_length() {
    for (claimed, file) in pairs() {
        let error = safetensors::plan(&mut &claimed.to_le_bytes()[..], file).unwrap_err();
        assert!(matches!(error, VramError::ModelLoad { .. }), "{error}");
    }
    for (start, end) in pairs() {
        for file_bytes in EDGES {
            let header = format!(r#"{{"t":{{"dtype":"U8","shape":[{end}],"data_offsets":[{start},{end}]}}}}"#);
            let mut bytes = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend_from_slice(header.as_bytes());
            let data = file_bytes.checked_sub(u64::try_from(bytes.len()).unwrap());
            // Bits are counted in 64 bits, so that a tensor has fewer than 2^61 bytes.
            let whole = start == 0 && data == Some(end) && end < 1 << 61;
            match safetensors::plan(&mut &bytes[..], file_bytes) {
                Ok(plan) => assert!(whole && plan.data_bytes == end),
                Err(error) => assert!(!whole && matches!(error, VramError::ModelLoad { .. }), "{error}"),
            }
        }
    }
    for (one, two) in pairs() {
        let header = format!(r#"{{"t":{{"dtype":"F64","shape":[{one},{two},2],"data_offsets":[0,16]}}}}"#);
        let mut bytes = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        let file_bytes = u64::try_from(bytes.len()).unwrap() + 16;
        let outcome = safetensors::plan(&mut &bytes[..], file_bytes);
        assert_eq!(outcome.is_ok(), (one, two) == (1, 1), "{one} x {two}");
    }
}

#[test]
fn sources_that_claim_any_length() {
    for bytes in EDGES.into_iter().filter(|bytes| *bytes > 3) {
        let source = ShardSource::reader(bytes, &b"abc"[..]);
        let error = digest_source(source, &TreeParams::default(), NonZeroUsize::MIN).unwrap_err();
        assert!(matches!(error, VramError::ModelLoad { .. }), "{bytes}: {error}");
    }
    let whole = digest_source(ShardSource::reader(3, &b"abc"[..]), &TreeParams::default(), NonZeroUsize::MIN).unwrap();
    assert_eq!(whole.layout.byte_len(), 3);
}

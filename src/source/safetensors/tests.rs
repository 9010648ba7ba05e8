//! Headers that lie, and headers that do not.

use proptest::prelude::*;

use super::*;

/// A safetensors file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

fn plan_of(bytes: &[u8]) -> Result<Plan, VramError> {
    let mut rest = bytes;
    let plan = plan(&mut rest, bytes.len() as u64)?;
    assert_eq!(rest.len() as u64, plan.data_bytes, "the reader stands at the data");
    Ok(plan)
}

const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

#[test]
fn a_good_header_is_planned_in_file_order() {
    // covers: VAL-3
    let plan = plan_of(&file(TWO, 28)).unwrap();
    let seen: Vec<_> =
        plan.tensors.iter().map(|t| (t.name.as_str(), t.dtype.as_str(), t.shape.clone(), t.bytes)).collect();
    assert_eq!(seen, [("a", "BF16", vec![2], 4), ("b", "F32", vec![2, 3], 24)]);
    assert_eq!(plan.data_bytes, 28);
    assert!(plan_of(&file("{}", 0)).unwrap().tensors.is_empty());
    let scalar = r#"{"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}   "#;
    assert_eq!(plan_of(&file(scalar, 8)).unwrap().tensors[0].bytes, 8);
    let empty = r#"{"z":{"dtype":"U8","shape":[0,5],"data_offsets":[4,4]},"y":{"dtype":"U8","shape":[0],"data_offsets":[4,4]},"t":{"dtype":"U8","shape":[8],"data_offsets":[4,12]},"s":{"dtype":"F4","shape":[2,4],"data_offsets":[0,4]}}"#;
    let plan = plan_of(&file(empty, 12)).unwrap();
    assert_eq!(plan.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["s", "y", "z", "t"]);
}

#[test]
fn what_does_not_parse_is_refused_by_name() {
    // covers: VAL-3
    let t = |dtype: &str, shape: &str, start: &str, end: &str| {
        format!(r#"{{"t\n":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}}}"#)
    };
    let cases = [
        (t("F32", "2", "0", "8"), 7, r#"tensor "t\n" ends at byte 8, but the file has 7"#),
        (t("F32", "2", "0", "8"), 9, "1 bytes follow its last tensor"),
        (t("F32", "3", "0", "8"), 8, r#"tensor "t\n" takes 96 bits by its type F32 and shape but has 8 bytes"#),
        (t("F4", "3", "0", "1"), 1, "takes 12 bits"),
        (t("F32", "2", "4", "12"), 12, "gaps are not allowed"),
        (t("F32", "2", "8", "0"), 8, "gaps are not allowed"),
        (t("F32", "18446744073709551615,2", "0", "8"), 8, "larger than 2^64 bits"),
        (t("F32", "2305843009213693952", "0", "8"), 8, "larger than 2^64 bits"),
        (t("F32", "2", "0", "18446744073709551615"), 8, "ends at byte 18446744073709551615"),
        (t("F32", "2", "0", "18446744073709551616"), 8, r#"describes tensor "t\n" wrongly"#),
        (t("F32", "-2", "0", "8"), 8, r#"describes tensor "t\n" wrongly"#),
        (t("F31", "2", "0", "8"), 8, r#"describes tensor "t\n" wrongly: unknown variant"#),
        (TWO.replace("[4,28]", "[3,27]"), 27, r#"tensor "b" starts at byte 3, inside the tensor before it"#),
        (TWO.replace("[4,28]", "[5,29]"), 29, r#"tensor "b" starts at byte 5, but the tensor before it ends at 4"#),
        (TWO.replace("\"b\"", "\"a\""), 28, r#"names tensor "a" twice"#),
        (TWO.replace("\"b\"", r#""\u0061""#), 28, r#"names tensor "a" twice"#),
        (TWO.replace("\"b\"", "\"__metadata__\""), 28, "\"__metadata__\" twice"),
        (TWO.replace(r#"{"format":"pt"}"#, "7"), 28, "not the JSON of a safetensors file"),
        (TWO.replace("[2,3],", "[2,3],\"shape\":[2,3],"), 28, r#"describes tensor "b" wrongly: duplicate field"#),
        (format!("{TWO}{{}}"), 28, "not the JSON of a safetensors file: trailing characters"),
        ("[]".to_owned(), 0, "not the JSON of a safetensors file"),
        (String::new(), 0, "not the JSON of a safetensors file"),
        (r#"{"a":"#.to_owned(), 0, r#"describes tensor "a" wrongly: EOF"#),
    ];
    for (header, data, wanted) in cases {
        let error = plan_of(&file(&header, data)).unwrap_err();
        assert_eq!(error.code(), crate::ErrorCode::ModelLoadFailed, "{header}");
        let message = error.to_string();
        assert!(message.contains(wanted), "{header}\n{message}\n{wanted}");
        assert!(message.len() < 1000 && !message.contains('\n'), "{message:?}");
    }
    let ends_first =
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}}"#;
    let message = plan_of(&file(ends_first, 2)).unwrap_err().to_string();
    assert!(message.contains("tensor \"b\" ends at byte 1, before it starts at 2"), "{message}");
}

#[test]
fn lengths_that_lie_are_refused_before_anything_is_allocated() {
    // covers: VAL-3
    for (claim, wanted) in
        [(1u64 << 63, "claims a header of 9223372036854775808 bytes and has 2 left"), (3, "and has 2 left")]
    {
        let mut bytes = claim.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        let message = plan_of(&bytes).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
    for short in 0..8 {
        let message = plan_of(&[0; 8][..short]).unwrap_err().to_string();
        assert!(message.contains("too short for a safetensors file"), "{message}");
    }
    // A file whose own length agrees, as a sparse file's may: the bound of the format still holds.
    let message = plan(&mut &(MAX_HEADER_BYTES + 1).to_le_bytes()[..], 1 << 40).unwrap_err().to_string();
    assert!(message.contains("at most 100000000 are allowed"), "{message}");
    // A file that shrinks while its header is read.
    let message = plan(&mut &file("{}", 0)[..9], 10).unwrap_err().to_string();
    assert!(message.contains("shrank"), "{message}");
    let message = plan_of(&[&2u64.to_le_bytes()[..], b"\xff\xff"].concat()).unwrap_err().to_string();
    assert!(message.contains("not UTF-8 at byte 0"), "{message}");
}

#[test]
fn foreign_text_in_messages_is_bounded_and_escaped() {
    // covers: VAL-3 AUD-6
    let hostile = "\\u001b[31m".repeat(5000);
    let entry = r#"{"dtype":"U8","shape":[2],"data_offsets":[0,1]}"#;
    let dtype = format!(r#"{{"{hostile}":{{"dtype":"{hostile}","shape":[1],"data_offsets":[0,1]}}}}"#);
    for header in [format!(r#"{{"{hostile}":{entry}}}"#), dtype, format!(r#"{{"{hostile}":1,"{hostile}":2}}"#)] {
        let message = plan_of(&file(&header, 1)).unwrap_err().to_string();
        assert!(message.len() < 2000 && !message.contains('\u{1b}'), "{message:?}");
    }
}

/// An entry of four floats with one more field.
fn with_field(field: &str) -> Vec<u8> {
    file(&format!(r#"{{"a":{{"dtype":"F32","shape":[4],"data_offsets":[0,16],{field}}}}}"#), 16)
}

/// Lists in lists, so many levels deep.
fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn what_the_reference_refuses_is_refused_also_where_nobody_reads() {
    // covers: VAL-3
    let reference = |bytes: &[u8]| safetensors::SafeTensors::deserialize(bytes).map(drop).map_err(|e| e.to_string());
    for (field, reason) in [
        (r#""x":1e999"#.to_owned(), "number out of range"),
        (r#""x":{"y":[-1e999]}"#.to_owned(), "number out of range"),
        (r#""x":"\ud800""#.to_owned(), "escape"),
        (r#""x":"\udc00\ud800""#.to_owned(), "escape"),
        (r#""x":{"\ud800":1}"#.to_owned(), "escape"),
        (r#""\ud800":1"#.to_owned(), "escape"),
        (format!(r#""x":{}"#, nested(126)), "recursion limit exceeded"),
        (format!(r#""x":{}"#, nested(100_000)), "recursion limit exceeded"),
        (format!(r#""x":{}1{}"#, r#"{"y":"#.repeat(126), "}".repeat(126)), "recursion limit exceeded"),
    ] {
        let bytes = with_field(&field);
        let message = plan_of(&bytes).unwrap_err().to_string();
        assert!(message.contains(r#"describes tensor "a" wrongly"#) && message.contains(reason), "{message}");
        assert!(reference(&bytes).unwrap_err().contains(reason), "{field}");
    }
    let offsets =
        |offsets: &str| file(&format!(r#"{{"a":{{"dtype":"F32","shape":[4],"data_offsets":{offsets}}}}}"#), 16);
    for wrong in ["[0,16,16]", "[0]", "[]", "[0,16,null]", "{}", "16"] {
        let message = plan_of(&offsets(wrong)).unwrap_err().to_string();
        assert!(message.contains("two offsets, where the tensor starts and where it ends"), "{message}");
        reference(&offsets(wrong)).unwrap_err();
    }
    // The honest twins.
    for field in [
        r#""x":1e308,"x":-0"#.to_owned(),
        r#""x":{"y":["\ud83d\ude00",null,true,18446744073709551616,0.5,-1]}"#.to_owned(),
        format!(r#""x":{}"#, nested(125)),
    ] {
        assert_eq!(plan_of(&with_field(&field)).unwrap().tensors[0].bytes, 16, "{field}");
        reference(&with_field(&field)).unwrap();
    }
    // The crate's derived decoder takes more than the format has.
    for odd in [r#"["F32",[4],[0,16]]"#, r#"{"dtype":{"F32":null},"shape":[4],"data_offsets":[0,16]}"#] {
        let bytes = file(&format!(r#"{{"a":{odd}}}"#), 16);
        reference(&bytes).unwrap();
        let message = plan_of(&bytes).unwrap_err().to_string();
        assert!(message.contains("expected an object with") || message.contains("expected the name"), "{message}");
    }
}

#[test]
fn many_dimensions_and_many_tensors_are_read_at_once() {
    // covers: VAL-3
    let began = std::time::Instant::now();
    let shape = vec!["1"; 320_000].join(",");
    let many = format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#);
    assert_eq!(plan_of(&file(&many, 1)).unwrap().tensors[0].shape.len(), 320_000);
    let message = plan_of(&file(&many, 2)).unwrap_err().to_string();
    assert!(message.len() < 1000, "{message}");
    let message = plan_of(&file(&many.replace("[0,1]", "[0,2]"), 2)).unwrap_err().to_string();
    assert!(message.contains("takes 8 bits") && message.len() < 1000, "{message}");
    let tensor = |at: usize| format!(r#""t{at}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#, at + 1);
    let tensors = format!("{{{}}}", (0..100_000).map(tensor).collect::<Vec<_>>().join(","));
    assert_eq!(plan_of(&file(&tensors, 100_000)).unwrap().tensors.len(), 100_000);
    assert!(began.elapsed().as_secs() < 60, "not a matter of squares: {:?}", began.elapsed());
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    // covers: VAL-3
    assert!(room_for(1 << 20).unwrap().capacity() >= 1 << 20);
    for bytes in [u64::MAX, 1 << 62] {
        let message = room_for(bytes).unwrap_err().to_string();
        assert!(message.contains("bytes of memory, more than there are"), "{message}");
    }
}

fn any_header() -> impl Strategy<Value = (String, usize)> {
    let tensor =
        ("[a-c]{1,2}", 0u64..4, 0u64..4, prop::sample::select(vec![("U8", 1), ("F16", 2), ("F32", 4), ("I64", 8)]));
    prop::collection::vec(tensor, 0..5).prop_map(|tensors| {
        let mut end = 0;
        let entries: Vec<String> = tensors
            .iter()
            .map(|(name, rows, columns, (dtype, size))| {
                let start = end;
                end += rows * columns * size;
                format!(r#""{name}":{{"dtype":"{dtype}","shape":[{rows},{columns}],"data_offsets":[{start},{end}]}}"#)
            })
            .collect();
        (format!("{{{}}}", entries.join(",")), usize::try_from(end).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn mutated_headers_never_panic_and_accepted_ones_are_consistent(
        (header, data) in any_header(), surplus in prop::sample::select(vec![0usize, 0, 0, 1]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 0..3),
    ) {
        // covers: VAL-3
        let mut bytes = file(&header, data + surplus);
        for (at, kind, with) in edits {
            let at = at.index((header.len() + 8).min(bytes.len()));
            match kind {
                0 => bytes[at] = with,
                1 => bytes[at] = b"0123456789[]{},\""[usize::from(with) % 16],
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, with),
            }
        }
        if let Ok(plan) = plan_of(&bytes) {
            let (_, theirs) = safetensors::SafeTensors::read_metadata(&bytes).expect("the crate accepts what we accept");
            prop_assert_eq!(theirs.tensors().len(), plan.tensors.len());
            prop_assert_eq!(plan.tensors.iter().map(|t| t.bytes).sum::<u64>(), plan.data_bytes);
            for tensor in &plan.tensors {
                let info = theirs.info(&tensor.name).expect("both know it");
                prop_assert_eq!(info.dtype.to_string(), tensor.dtype.as_str());
                prop_assert_eq!((info.data_offsets.1 - info.data_offsets.0) as u64, tensor.bytes);
            }
        }
    }

    #[test]
    fn unmutated_headers_are_accepted_unless_a_name_repeats((header, data) in any_header()) {
        // covers: VAL-3
        let names: Vec<&str> = header.split("\":{\"dtype").filter_map(|part| part.rsplit('"').next()).collect();
        let names = &names[..names.len() - 1];
        let repeats = names.iter().enumerate().any(|(at, name)| names[..at].contains(name));
        match plan_of(&file(&header, data)) {
            Ok(_) => prop_assert!(!repeats, "{}", header),
            Err(error) => prop_assert!(repeats && error.to_string().contains("twice"), "{} {}", header, error),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        // covers: VAL-3
        let _ = plan_of(&bytes);
    }
}

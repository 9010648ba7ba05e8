use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use std::time::{Duration, UNIX_EPOCH};
use vram_residency::{DeviceKind, ErrorCode, Origin, RefusalReason, SealedShard, VramError};

use crate::{assert_presentable, reference};

/// Bytes are a seal exactly when the format says so, and then mean what it says; whatever is accepted is the only spelling of
/// itself; whatever is refused is refused as malformed.
pub fn seal(data: &[u8]) {
    judge(data);
    let assembled = assemble(data);
    assert!(!data.is_empty() || reference::seal(&assembled).is_some(), "the seal that others are made of is none");
    judge(&assembled);
}

/// Bytes that are nearly a seal: what the input holds, in the places of fields, so that lengths fit without luck. The empty
/// input is a good one.
fn assemble(data: &[u8]) -> Vec<u8> {
    let mut input = data.iter().copied();
    let mut next = || input.next().unwrap_or(0);
    let mut bytes = b"vram-residency/seal\0\x01\0".to_vec();
    bytes.push(2 ^ (next() % 4));
    bytes.extend([5; 16 + 4 + 16 + 4 + 8]); // device, ordinal, epoch, slot, generation
    // Worker, shard and model reference: half of them long.
    for least in [1, 1, 0] {
        let length = u16::from(least ^ next()) * if next() % 2 == 0 { 1 } else { 2 };
        bytes.extend(length.to_le_bytes());
        bytes.extend((0..length).map(|at| if at < 2 { b'n' ^ next() } else { b'n' }));
    }
    let (index, count) = (u32::from(next()), u32::from(next()));
    bytes.extend([if count == 0 { 0 } else { 6 }; 16]);
    bytes.extend([index.to_le_bytes(), count.to_le_bytes()].concat());
    bytes.extend([7; 32]); // layout digest
    bytes.extend(u64::from(1 ^ next()).to_le_bytes());
    bytes.extend((1024_u32.rotate_left(next().into()) | u32::from(next() == 1)).to_le_bytes());
    let salt = next();
    bytes.extend([salt, 0]);
    bytes.extend(std::iter::repeat_n(8, salt.into()));
    bytes.extend([9; 32]); // digest
    bytes.extend([1 ^ (next() % 4), next() % 4]);
    bytes.extend([10; 8 + 32]); // time and tag
    bytes.extend(std::iter::repeat_n(11, usize::from(next() == 1)));
    bytes
}

fn judge(data: &[u8]) {
    let (seal, wanted) = match (SealedShard::from_bytes(data), reference::seal(data)) {
        (Ok(seal), Some(wanted)) => (seal, wanted),
        (Err(error), None) => return assert_refused(&error),
        (Ok(_), None) => panic!("accepted, but by the format no seal: {}", hex::encode(data)),
        (Err(error), Some(wanted)) => panic!("refused ({error}), but by the format a seal: {wanted:?}"),
    };
    assert_eq!(seal.to_bytes(), data);
    assert_eq!(shown(&seal), wanted);
    // No byte too few or too many.
    for other in [&data[..data.len() - 1], &data[1..], &[data, &[0]].concat(), &[&[0], data].concat()] {
        assert_refused(&SealedShard::from_bytes(other).unwrap_err());
    }
    let text = serde_json::to_string(&seal).unwrap();
    assert_eq!(text, format!("\"{}\"", hex::encode(data)));
    assert_eq!(serde_json::from_str::<SealedShard>(&text).unwrap().to_bytes(), data);
    let tag = hex::encode(&data[data.len() - 32..]);
    assert!(!format!("{seal:?}").contains(&tag));
}

/// A text is a seal exactly when it is lower-case hexadecimal of one.
pub fn seal_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let hexadecimal =
        text.len() <= 4096 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let wanted = hexadecimal.then(|| hex::decode(text).ok()).flatten().filter(|bytes| reference::seal(bytes).is_some());
    let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
    match (SealedShard::deserialize(deserializer), wanted) {
        (Ok(seal), Some(bytes)) => {
            assert_eq!(seal.to_bytes(), bytes);
            assert_eq!(serde_json::to_value(&seal).unwrap(), text);
        }
        (Err(error), None) => assert_presentable(&error.to_string()),
        (Ok(_), None) => panic!("accepted: {text}"),
        (Err(error), Some(_)) => panic!("refused ({error}): {text}"),
    }
}

/// A seal's claims, as the library shows them.
fn shown(seal: &SealedShard) -> reference::Seal {
    let device = seal.device();
    reference::Seal {
        cuda: device.kind == DeviceKind::Cuda,
        uuid: *device.uuid.as_bytes(),
        ordinal: device.ordinal,
        worker: seal.worker().to_string(),
        shard: seal.id().to_string(),
        model_ref: seal.model_ref().map(ToString::to_string),
        part: seal.part().map(|(set, index, count)| (*set.as_bytes(), index, count)),
        layout_digest: seal.layout_digest(),
        byte_len: seal.byte_len(),
        block_size: seal.block_size(),
        salt: seal.salt().to_vec(),
        digest: *seal.digest().as_bytes(),
        expected: seal.origin() == Origin::Expected,
        adopted: seal.is_adopted(),
        sealed_at: nanos(seal.sealed_at().duration_since(UNIX_EPOCH).unwrap()),
    }
}

fn nanos(since: Duration) -> u64 {
    since.as_nanos().try_into().unwrap()
}

fn assert_refused(error: &VramError) {
    assert!(matches!(error, VramError::SealRefused { reason: RefusalReason::Malformed }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::SealVerificationFailed);
    assert_presentable(&error.to_string());
}

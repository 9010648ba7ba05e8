mod vectors;

use proptest::prelude::*;

use super::message::Malformed;
use super::*;
use crate::keys::WorkerSecret;
use crate::types::{DeviceKind, DeviceUuid};

fn key_of(secret: &[u8], salt: [u8; 32], kind: DeviceKind, uuid: [u8; 16]) -> SealKey {
    SealKey::derive(&WorkerSecret::from_bytes(secret).unwrap(), &salt, kind, &DeviceUuid::from_bytes(uuid)).unwrap()
}

fn key() -> SealKey {
    key_of(&[7; 32], [8; 32], DeviceKind::Mock, [1; 16])
}

fn small() -> SealMessage {
    SealMessage {
        device_kind: DeviceKind::Mock,
        device_uuid: DeviceUuid::from_bytes([1; 16]),
        ordinal: 0,
        epoch: [2; 16],
        slot: 0,
        generation: 1,
        worker: WorkerId::new("w").unwrap(),
        shard: ShardId::new("s").unwrap(),
        model_ref: None,
        set: None,
        layout_digest: [3; 32],
        byte_len: 1,
        block_size: 4096,
        salt: Vec::new(),
        digest: Digest::from_bytes([4; 32]),
        origin: Origin::Measured,
        adopted: false,
        sealed_at: 0,
    }
}

fn large() -> SealMessage {
    SealMessage {
        device_kind: DeviceKind::Cuda,
        device_uuid: DeviceUuid::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap())),
        ordinal: 7,
        epoch: [0xee; 16],
        slot: u32::MAX,
        generation: u64::MAX,
        worker: WorkerId::new("w".repeat(256)).unwrap(),
        shard: ShardId::new("s".repeat(256)).unwrap(),
        model_ref: Some(ModelRef::new("m".repeat(256)).unwrap()),
        set: Some(SetPart { set: SetId::from_bytes([0xaa; 16]), index: 2, count: 3 }),
        layout_digest: [0xbb; 32],
        byte_len: u64::MAX,
        block_size: 65536,
        salt: vec![0xcc; 32],
        digest: Digest::from_bytes([0xdd; 32]),
        origin: Origin::Expected,
        adopted: true,
        sealed_at: 1_700_000_000_123_456_789,
    }
}

fn identity() -> Identity {
    let message = small();
    Identity {
        worker: message.worker,
        epoch: message.epoch,
        kind: message.device_kind,
        uuid: message.device_uuid,
        ordinal: message.ordinal,
    }
}

fn any_name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,3}(\\.?[A-Za-z0-9_-]){0,60}"
}

prop_compose! {
    fn any_message()(
        numbers in any::<(bool, [u8; 16], u32, [u8; 16], u32, bool, bool, u64)>(),
        (generation, byte_len, block) in (1_u64.., 1_u64.., 10_u32..=16),
        names in (any_name(), any_name(), proptest::option::of(any_name())),
        set in proptest::option::of((any::<[u8; 16]>(), any::<u32>(), 1..=u32::MAX)),
        layout_digest in any::<[u8; 32]>(),
        digest in any::<[u8; 32]>(),
        salt in proptest::collection::vec(any::<u8>(), 0..=32),
    ) -> SealMessage {
        let (cuda, uuid, ordinal, epoch, slot, expected, adopted, sealed_at) = numbers;
        SealMessage {
            device_kind: if cuda { DeviceKind::Cuda } else { DeviceKind::Mock },
            device_uuid: DeviceUuid::from_bytes(uuid),
            ordinal,
            epoch,
            slot,
            generation,
            worker: WorkerId::new(names.0).unwrap(),
            shard: ShardId::new(names.1).unwrap(),
            model_ref: names.2.map(|name| ModelRef::new(name).unwrap()),
            set: set.map(|(id, index, count)| SetPart {
                set: SetId::from_bytes(id),
                index: index.checked_rem(count).unwrap(),
                count,
            }),
            layout_digest,
            byte_len,
            block_size: 1 << block,
            salt,
            digest: Digest::from_bytes(digest),
            origin: if expected { Origin::Expected } else { Origin::Measured },
            adopted,
            sealed_at,
        }
    }
}

/// Whether the seal in these bytes is honoured: it is one, and its tag verifies.
fn honoured(bytes: &[u8]) -> bool {
    SealedShard::from_bytes(bytes).is_ok_and(|seal| seal.tag_verifies(&key()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn messages_survive_the_round_trip(message in any_message()) {
        // covers: SEAL-3
        let bytes = message.encode().unwrap();
        prop_assert!(bytes.len().saturating_add(Tag::BYTES) <= MAX_SEAL_BYTES);
        prop_assert_eq!(SealMessage::decode(&bytes).unwrap(), message.clone());
        let seal = SealedShard::sign(&key(), message.clone()).unwrap();
        let again = SealedShard::from_bytes(&seal.to_bytes()).unwrap();
        prop_assert!(again.tag_verifies(&key()));
        prop_assert_eq!(again.message(), &message);
        prop_assert_eq!(again.message_bytes(), bytes);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        // covers: SEAL-3
        prop_assert!(SealMessage::decode(&bytes).is_err());
        prop_assert!(SealedShard::from_bytes(&bytes).is_err());
    }

    #[test]
    fn what_a_mutation_leaves_decodable_is_canonical_and_refused(
        message in any_message(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        // covers: SEAL-2 SEAL-3 SEAL-4
        let sealed = SealedShard::sign(&key(), message).unwrap().to_bytes();
        let mut bytes = sealed.clone();
        for (place, value, edit) in edits {
            match edit {
                0 => { let at = place.index(bytes.len()); bytes[at] = value; }
                1 => { bytes.remove(place.index(bytes.len())); }
                _ => bytes.insert(place.index(bytes.len().saturating_add(1)), value),
            }
        }
        if let Ok(seal) = SealedShard::from_bytes(&bytes) {
            prop_assert_eq!(seal.message().encode().unwrap(), seal.message_bytes());
            prop_assert_eq!(seal.to_bytes(), bytes.clone());
        }
        prop_assert_eq!(honoured(&bytes), bytes == sealed);
    }
}

#[test]
fn every_flipped_bit_every_cut_and_every_extension_is_refused() {
    // covers: SEAL-2 SEAL-4
    for message in [small(), large()] {
        let bytes = SealedShard::sign(&key(), message).unwrap().to_bytes();
        assert!(honoured(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!honoured(&flipped), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(!honoured(&bytes[..length]), "cut to {length}");
        }
        assert!(!honoured(&[bytes.as_slice(), &[0]].concat()));
        assert!(!honoured(&[bytes.as_slice(), &[0; 4096]].concat()));
    }
}

#[test]
fn invalid_messages_are_neither_written_nor_read() {
    // covers: SEAL-3
    let part = |index, count| Some(SetPart { set: SetId::from_bytes([1; 16]), index, count });
    let unwritable = [
        ("generation", SealMessage { generation: 0, ..small() }),
        ("part_index", SealMessage { set: part(3, 3), ..small() }),
        ("part_index", SealMessage { set: part(0, 0), ..small() }),
        ("byte_len", SealMessage { byte_len: 0, ..small() }),
        ("block_size", SealMessage { block_size: 0, ..small() }),
        ("block_size", SealMessage { block_size: 512, ..small() }),
        ("block_size", SealMessage { block_size: 5000, ..small() }),
        ("block_size", SealMessage { block_size: 131_072, ..small() }),
        ("salt", SealMessage { salt: vec![0; 33], ..small() }),
    ];
    for (field, message) in unwritable {
        assert_eq!(message.encode().unwrap_err(), Malformed { field });
    }

    // The small message has one-byte names and no salt, so its fields lie at fixed offsets.
    let good = small().encode().unwrap();
    SealMessage::decode(&good).unwrap();
    for (field, at, value) in [
        ("domain", 0, b'x'),
        ("version", 20, 2),
        ("device_kind", 22, 0),
        ("device_kind", 22, 3),
        ("generation", 63, 0),
        ("worker", 71, 0),
        ("worker", 73, b'/'),
        ("worker", 73, 0xff),
        ("shard", 76, b'.'),
        ("model_ref", 77, 0xff),
        ("part_count", 79, 1),
        ("part_count", 95, 1),
        ("block_size", 144, 1),
        ("salt", 147, 33),
        ("origin", 181, 0),
        ("origin", 181, 3),
        ("adopted", 182, 2),
    ] {
        let mut bytes = good.clone();
        assert_ne!(bytes[at], value, "{field}");
        bytes[at] = value;
        if field == "salt" {
            bytes.splice(149..149, [0; 33]);
        }
        assert_eq!(SealMessage::decode(&bytes).unwrap_err(), Malformed { field }, "byte {at}");
    }
    assert_eq!(SealMessage::decode(&[good.as_slice(), &[0]].concat()).unwrap_err(), Malformed { field: "end" });
    assert_eq!(SealMessage::decode(&good[..good.len() - 1]).unwrap_err(), Malformed { field: "sealed_at" });
}

#[test]
fn the_largest_seal_fits() {
    // covers: SEAL-3
    assert!(SealedShard::sign(&key(), large()).unwrap().to_bytes().len() <= MAX_SEAL_BYTES);
}

#[test]
fn a_failed_tag_is_explained_by_the_first_foreign_claim() {
    // covers: SEAL-4
    let claim = |message| SealedShard::sign(&key(), message).unwrap().claim(&identity());
    let (other_worker, other_epoch) = (WorkerId::new("v").unwrap(), [9; 16]);
    let device = RefusalReason::ClaimsOtherDevice;
    assert_eq!(claim(small()), RefusalReason::Forged);
    assert_eq!(claim(SealMessage { ordinal: 1, ..small() }), device);
    assert_eq!(claim(SealMessage { device_kind: DeviceKind::Cuda, ..small() }), device);
    assert_eq!(claim(SealMessage { device_uuid: DeviceUuid::from_bytes([9; 16]), ..small() }), device);
    assert_eq!(claim(large()), device);
    let foreign = SealMessage { epoch: other_epoch, worker: other_worker, ..small() };
    assert_eq!(claim(foreign), RefusalReason::ClaimsOtherWorker);
    assert_eq!(claim(SealMessage { epoch: other_epoch, ..small() }), RefusalReason::ClaimsOtherEpoch);
}

#[test]
fn a_seal_says_what_it_claims_and_hides_its_tag() {
    // covers: SEAL-9
    let seal = SealedShard::sign(&key(), large()).unwrap();
    assert_eq!((seal.id(), seal.worker()), (&large().shard, &large().worker));
    assert_eq!(seal.model_ref(), large().model_ref.as_ref());
    assert_eq!(seal.part(), Some((SetId::from_bytes([0xaa; 16]), 2, 3)));
    assert_eq!((seal.digest(), seal.layout_digest()), (Digest::from_bytes([0xdd; 32]), [0xbb; 32]));
    assert_eq!((seal.byte_len(), seal.block_size(), seal.salt()), (u64::MAX, 65536, [0xcc; 32].as_slice()));
    assert_eq!((seal.device().kind, seal.device().ordinal), (DeviceKind::Cuda, 7));
    assert_eq!((seal.origin(), seal.is_adopted()), (Origin::Expected, true));
    assert_eq!(clock::unix_nanos(seal.sealed_at()), 1_700_000_000_123_456_789);
    let tag = &seal.to_bytes()[seal.message_bytes().len()..];
    let (shown, listed) = (format!("{seal:?}"), format!("{tag:?}"));
    assert!(!shown.contains(&hex::encode(tag)) && !shown.contains(listed.trim_matches(['[', ']'])), "{shown}");
}

#[test]
fn serde_has_one_spelling() {
    // covers: SEAL-3
    let seal = SealedShard::sign(&key(), small()).unwrap();
    let json = serde_json::to_string(&seal).unwrap();
    assert_eq!(json, format!("\"{}\"", hex::encode(seal.to_bytes())));
    let again: SealedShard = serde_json::from_str(&json).unwrap();
    assert!(again.tag_verifies(&key()));
    for bad in
        [json.to_uppercase(), json.replacen("76", "7", 1), "\"\"".to_owned(), format!("\"{}\"", "ab".repeat(5000))]
    {
        assert!(serde_json::from_str::<SealedShard>(&bad).is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<SealedShard>("[1,2]").is_err());
    // Text that is too long is not even decoded: that would have said what the bytes are not.
    let long = serde_json::from_str::<SealedShard>(&format!("\"{}\"", "ab".repeat(MAX_SEAL_BYTES + 1))).unwrap_err();
    assert!(long.to_string().starts_with("not a seal"), "{long}");
}

//! What a key is derived from, and what its tags bind.

use super::*;

fn enrolment() -> Enrolment {
    Enrolment {
        device_kind: DeviceKind::Mock,
        device_uuid: DeviceUuid::from_bytes([3; 16]),
        epoch: [4; 16],
        slot: 5,
        generation: 6,
        number: 9,
    }
}

fn key(secret: u8, salt: u8, enrolment: &Enrolment) -> KeyedKey {
    KeyedKey::derive(&WorkerSecret::from_bytes(&[secret; 32]).unwrap(), &[salt; 32], enrolment).unwrap()
}

#[test]
fn a_key_is_derived_as_the_specification_says() {
    // covers: KEY-2
    let spec = include_str!("../../../.specs/35-keyed-check.md");
    let value = |name: &str| {
        let line = spec.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        hex::decode(line.unwrap()).unwrap()
    };
    assert_eq!((value("secret"), value("salt")), (vec![7; 32], vec![1; 32]));
    assert_eq!(enrolment().info(), value("info"));
    let key = key(7, 1, &enrolment());
    let (levels, tag) = value("seed").split_first_chunk::<32>().map(|(a, b)| (*a, b.to_vec())).unwrap();
    let levels = LevelKeys::new(Box::new(Zeroizing::new(levels)));
    assert!(*key.levels().level(0) == *levels.level(0));
    assert_eq!(**key.tag, *[tag, vec![0; 32]].concat());
}

#[test]
fn a_key_of_anything_else_does_not_verify() {
    // covers: KEY-2
    let ours = enrolment();
    let tag = key(7, 1, &ours).sign(5000, &[8; 16]);
    let verifies = |key: KeyedKey| key.verify(5000, &[8; 16], &tag);
    assert!(verifies(key(7, 1, &ours)));
    assert!(!verifies(key(8, 1, &ours)) && !verifies(key(7, 2, &ours)));
    for other in [
        Enrolment { device_kind: DeviceKind::Cuda, ..enrolment() },
        Enrolment { device_uuid: DeviceUuid::from_bytes([2; 16]), ..enrolment() },
        Enrolment { epoch: [5; 16], ..enrolment() },
        Enrolment { slot: 6, ..enrolment() },
        Enrolment { generation: 5, ..enrolment() },
        Enrolment { number: 10, ..enrolment() },
    ] {
        assert!(!verifies(key(7, 1, &other)), "{other:?}");
    }
}

#[test]
fn the_references_tags_verify_and_no_others() {
    // covers: KEY-4
    let mut key = key(7, 1, &enrolment());
    for (byte, value) in key.tag.iter_mut().zip(0x20..0x40) {
        *byte = value;
    }
    for line in include_str!("../../../tests/data/keyed_vectors.txt").lines().filter(|line| !line.starts_with('#')) {
        let [bytes, _, top, tag] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let (bytes, top): (u64, Output) = (bytes.parse().unwrap(), hex::decode(top).unwrap().try_into().unwrap());
        let right: [u8; 32] = hex::decode(tag).unwrap().try_into().unwrap();
        let [mut other, mut wrong] = [top, top];
        other[15] ^= 1;
        wrong[0] ^= 0x80;
        assert!(key.verify(bytes, &top, &Tag::from_bytes(right)), "{line}");
        assert_eq!(key.sign(bytes, &top).as_bytes(), &right);
        assert!(
            !key.verify(bytes, &other, &Tag::from_bytes(right)) && !key.verify(bytes, &wrong, &Tag::from_bytes(right))
        );
        assert!(!key.verify(bytes ^ 1, &top, &Tag::from_bytes(right)), "{line}");
        assert!(!key.verify(bytes, &top, &key.sign(bytes, &other)));
    }
}

#[test]
fn the_key_is_zeroed_on_drop() {
    // covers: KEY-3
    fn zeroes<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    zeroes(&*key(7, 1, &enrolment()).tag);
}

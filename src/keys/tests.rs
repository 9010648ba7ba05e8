use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};

use sha2::Digest as _;

use super::*;

const UUID: DeviceUuid = DeviceUuid::from_bytes([3; 16]);

fn secret() -> WorkerSecret {
    WorkerSecret::from_bytes(&[7; 32]).unwrap()
}

fn key() -> SealKey {
    SealKey::derive(&secret(), &[1; 32], DeviceKind::Mock, &UUID).unwrap()
}

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

#[test]
fn rfc_4231_hmac() {
    let cases = cases("rfc4231.txt");
    assert_eq!(cases.len(), 7);
    for case in cases {
        let mac = || Hmac::<Sha256>::new_from_slice(&case["key"]).unwrap().chain_update(&case["data"]);
        let tag = &case["hmac"];
        // Case 5 of the RFC is truncated to 128 bits.
        mac().verify_truncated_left(tag).unwrap();
        assert!(mac().verify_truncated_left(&twin(tag)).is_err());
        if let (true, Ok(tag)) = (case["key"].len() <= BLOCK_BYTES, <[u8; 32]>::try_from(tag.clone())) {
            // The same through our own code, which pads the key itself.
            let mut own = SealKey(Box::new(Zeroizing::new([0; BLOCK_BYTES])));
            own.0[..case["key"].len()].copy_from_slice(&case["key"]);
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
    let cases = cases("rfc5869.txt");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(&case["salt"]), &case["ikm"]);
        assert_eq!(prk.as_slice(), case["prk"]);
        let mut okm = vec![0; case["okm"].len()];
        hkdf.expand(&case["info"], &mut okm).unwrap();
        assert_eq!(okm, case["okm"]);
        Hkdf::<Sha256>::new(Some(&case["salt"]), &twin(&case["ikm"])).expand(&case["info"], &mut okm).unwrap();
        assert_ne!(okm, case["okm"]);
    }
}

#[test]
fn nist_sha_256() {
    let cases = cases("nist_sha256.txt");
    assert!(cases.len() >= 5);
    for case in cases {
        assert_eq!(Sha256::digest(&case["msg"]).as_slice(), case["md"]);
        let longer = [case["msg"].as_slice(), &[0]].concat();
        assert_ne!(Sha256::digest(longer).as_slice(), case["md"]);
    }
}

#[test]
fn a_key_verifies_only_what_it_signed() {
    // covers: KEY-2
    let tag = key().sign(b"message");
    assert!(key().verify(b"message", &tag));
    assert!(!key().verify(b"messagf", &tag));
    assert!(!key().verify(b"message\0", &tag));
}

#[test]
fn a_key_of_another_purpose_device_manager_or_worker_does_not_verify() {
    // covers: KEY-2
    let tag = key().sign(b"message");
    let derive = |purpose, secret: &WorkerSecret, salt, kind, uuid: [u8; 16]| {
        SealKey::derive_for(purpose, secret, &[salt; 32], kind, &DeviceUuid::from_bytes(uuid)).unwrap()
    };
    let (seal, mock, ours) = (Purpose::Seal, DeviceKind::Mock, secret());
    let other = WorkerSecret::from_bytes(&[8; 32]).unwrap();
    assert!(derive(seal, &ours, 1, mock, [3; 16]).verify(b"message", &tag));
    assert!(!derive(Purpose::Other, &ours, 1, mock, [3; 16]).verify(b"message", &tag));
    assert!(!derive(seal, &other, 1, mock, [3; 16]).verify(b"message", &tag));
    assert!(!derive(seal, &ours, 2, mock, [3; 16]).verify(b"message", &tag));
    assert!(!derive(seal, &ours, 1, DeviceKind::Cuda, [3; 16]).verify(b"message", &tag));
    assert!(!derive(seal, &ours, 1, mock, [4; 16]).verify(b"message", &tag));
}

#[test]
fn a_derived_key_is_32_bytes_and_padding() {
    let key = key();
    assert!(key.0[..32].iter().any(|&byte| byte != 0));
    assert_eq!(key.0[32..], [0; 32]);
}

#[test]
fn nothing_secret_is_shown_and_all_of_it_is_zeroed_on_drop() {
    // covers: KEY-3
    let shown = format!("{:?} {:?} {:?}", secret(), key(), key().sign(b"message"));
    assert_eq!(shown, "WorkerSecret(..) SealKey(..) Tag(..)");
    fn zeroes<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    zeroes(&secret().bytes);
    zeroes(&*key().0);
}

#[test]
fn secrets_have_a_length() {
    // covers: KEY-1
    for good in [32, 33, 4096] {
        WorkerSecret::from_bytes(&vec![1; good]).unwrap();
    }
    for bad in [0, 1, 31, 4097] {
        let error = WorkerSecret::from_bytes(&vec![1; bad]).unwrap_err();
        assert_eq!(error.code().as_str(), "CONFIG_ERROR");
    }
    let (one, two) = (WorkerSecret::random().unwrap(), WorkerSecret::random().unwrap());
    assert_ne!(one.bytes, two.bytes);
}

#[test]
fn files_are_judged() {
    // covers: KEY-1
    use SecretFileMode::{Mounted, Strict};
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, bytes: usize, mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![9; bytes]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let good = place("good", 32, 0o600);
    assert_eq!(*WorkerSecret::from_file(&good).unwrap().bytes, vec![9; 32].into_boxed_slice());
    let link = folder.path().join("link");
    symlink(&good, &link).unwrap();
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());

    for (path, strict, mounted) in [
        (good, true, true),
        (place("owner-read", 4096, 0o400), true, true),
        (place("group-read", 32, 0o440), false, true),
        (place("world-read", 32, 0o444), false, true),
        (place("group-write", 32, 0o620), false, false),
        (place("world-write", 32, 0o602), false, false),
        (place("short", 31, 0o600), false, false),
        (place("long", 4097, 0o600), false, false),
        (link, false, true),
        (fifo, false, false),
        (folder.path().to_owned(), false, false),
        (folder.path().join("missing"), false, false),
    ] {
        for (mode, allowed) in [(Strict, strict), (Mounted, mounted)] {
            let read = WorkerSecret::from_file_with(&path, mode);
            assert_eq!(read.is_ok(), allowed, "{path:?} {mode:?}: {read:?}");
            if let Err(error) = read {
                assert_eq!(error.code().as_str(), "CONFIG_ERROR");
                let shown = format!("{error} {error:?}");
                let name = path.file_name().unwrap().to_str().unwrap();
                let parent = folder.path().to_str().unwrap();
                assert!(!shown.contains(parent) && !shown.contains(&format!("/{name}")), "{shown}");
            }
        }
    }
}

#[test]
fn credentials_have_plain_names_and_an_absolute_folder() {
    // covers: KEY-1
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seal-secret");
    std::fs::write(&path, [9; 32]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
    let here = || Some(folder.path().as_os_str().to_owned());
    WorkerSecret::from_credential(here(), "seal-secret").unwrap();
    for name in ["", ".", "..", "../seal-secret", "a/b", "/etc/passwd", "seal-secret\0", &"x".repeat(256), "missing"] {
        assert!(WorkerSecret::from_credential(here(), name).is_err(), "{name:?}");
    }
    assert!(WorkerSecret::from_credential(None, "seal-secret").is_err());
    assert!(WorkerSecret::from_credential(Some("relative".into()), "seal-secret").is_err());
}

mod timing;
mod vectors;

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const UUID: DeviceUuid = DeviceUuid::from_bytes([3; 16]);

fn secret() -> WorkerSecret {
    WorkerSecret::from_bytes(&[7; 32]).unwrap()
}

fn key() -> SealKey {
    SealKey::derive(&secret(), &[1; 32], DeviceKind::Mock, &UUID).unwrap()
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
    // What the other crates' hashes hold of a key while they work, by their feature `zeroize`: an HMAC is two of these.
    zeroes(&<Sha256 as sha2::Digest>::new());
}

#[test]
fn tags_and_keys_have_no_equality() {
    // covers: KEY-3
    trait Answer {
        const EQUATABLE: bool = false;
    }
    impl<T> Answer for T {}
    struct Ask<T>(std::marker::PhantomData<T>);
    #[allow(dead_code, reason = "used where the type can be compared")]
    impl<T: PartialEq> Ask<T> {
        const EQUATABLE: bool = true;
    }
    // An associated constant of the type itself hides the trait's, if its condition holds.
    const { assert!(Ask::<[u8; 32]>::EQUATABLE, "the question can be answered with yes") };
    const { assert!(!Ask::<Tag>::EQUATABLE, "only Tag::is compares tags") };
    const { assert!(!Ask::<SealKey>::EQUATABLE && !Ask::<WorkerSecret>::EQUATABLE) };
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
    assert_eq!(WorkerSecret::from_file(&good).unwrap().origin(), SecretOrigin::Stored);
    assert_eq!(secret().origin(), SecretOrigin::Process);
    let link = folder.path().join("link");
    symlink(&good, &link).unwrap();
    let to_itself = folder.path().join("to-itself");
    symlink(&to_itself, &to_itself).unwrap();
    for (path, mode, is_told) in [(&link, Strict, true), (&to_itself, Strict, true), (&to_itself, Mounted, false)] {
        let refused = WorkerSecret::from_file_with(path, mode).unwrap_err().to_string();
        assert_eq!(refused.contains("is not a regular file but a symbolic link"), is_told, "{refused}");
    }
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
fn a_pipe_that_takes_the_files_place_is_not_waited_for() {
    // covers: KEY-1
    let folder = tempfile::tempdir().unwrap();
    let [file, pipe, new, target] = ["file", "pipe", "new", "target"].map(|name| folder.path().join(name));
    std::fs::write(&file, [9; 32]).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(std::process::Command::new("mkfifo").arg("-m600").arg(&pipe).status().unwrap().success());
    let place = |what: &std::path::Path| {
        std::fs::hard_link(what, &new).unwrap();
        std::fs::rename(&new, &target).unwrap();
        // Two names of one file are left as they are.
        let _ = std::fs::remove_file(&new);
    };
    place(&file);
    let (read, answers) = std::sync::mpsc::channel();
    let path = target.clone();
    std::thread::spawn(move || {
        for mode in [SecretFileMode::Strict, SecretFileMode::Mounted] {
            for _ in 0..10_000 {
                let taken = WorkerSecret::from_file_with(&path, mode);
                assert!(taken.is_ok() || taken.unwrap_err().to_string().contains("is not a regular file"));
            }
        }
        read.send(()).unwrap();
    });
    let began = std::time::Instant::now();
    while answers.try_recv().is_err() {
        assert!(began.elapsed().as_secs() < 60, "opening waits for the pipe's writer");
        place(&pipe);
        place(&file);
    }
}

#[test]
fn a_file_whose_bytes_do_not_come_is_refused() {
    // covers: KEY-1
    // A regular file of this process's user; nothing is mapped at its beginning.
    let refused = WorkerSecret::from_file("/proc/self/mem").unwrap_err().to_string();
    assert!(refused.contains("cannot be read"), "{refused}");
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
    let refused = |directory, name: &str| WorkerSecret::from_credential(directory, name).unwrap_err().to_string();
    // By their names alone: these files can be read.
    for name in [".hidden", "two words", "colon:"] {
        std::fs::copy(&path, folder.path().join(name)).unwrap();
    }
    let long = "x".repeat(256);
    for name in [
        "",
        ".",
        "..",
        ".hidden",
        "two words",
        "colon:",
        "../seal-secret",
        "a/b",
        "/etc/passwd",
        "seal-secret\0",
        &long,
    ] {
        assert!(refused(here(), name).contains("credential name"), "{name:?}");
    }
    for name in ["missing", &long[1..], "A-z_0.9"] {
        assert!(refused(here(), name).contains("cannot be read"), "{name:?}");
    }
    assert!(refused(None, "seal-secret").contains("not set"));
    assert!(refused(Some("relative".into()), "seal-secret").contains("not an absolute path"));
}

/// Whether the file at `$VRAM_RESIDENCY_OWN_SECRET` is taken by a process of the user it belongs to; the next test asks.
#[test]
#[ignore = "the next test starts it, as another user"]
fn own_file_of_another_user() {
    WorkerSecret::from_file(std::env::var_os("VRAM_RESIDENCY_OWN_SECRET").unwrap()).unwrap();
}

#[test]
fn a_secret_belongs_to_root_or_to_the_user_of_the_process() {
    // covers: KEY-1
    use std::os::unix::fs::{MetadataExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    const OTHER: u32 = 54_321;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, [9; 32]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    WorkerSecret::from_file(&path).unwrap();
    if path.metadata().unwrap().uid() != 0 {
        return; // Only root can give a file away, or be somebody else.
    }
    chown(&path, Some(OTHER), None).unwrap();
    WorkerSecret::from_file_mounted(&path).unwrap();
    let refused = WorkerSecret::from_file(&path).unwrap_err().to_string();
    assert!(refused.contains("belongs to another user"), "{refused}");
    // That user's own process takes it. This program may lie where that user may not go: a process always finds its own.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut own = std::process::Command::new("/proc/self/exe");
    own.args(["--exact", "keys::tests::own_file_of_another_user", "--include-ignored"]).uid(OTHER).current_dir("/");
    let run = own.env("VRAM_RESIDENCY_OWN_SECRET", &path).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&run.stderr));
}

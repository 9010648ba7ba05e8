//! Sources that are not what they said: they are refused by name, and leave nothing behind.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use support::{Rig, noise, spec, vouching};
use vram_residency::{ErrorCode, LayoutKind, ManagerState, ShardSource, TreeParams, VramError, digest_bytes};

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    path
}

/// Tries to seal and wants it refused with nothing left: neither memory, nor ledger, nor the name.
#[track_caller]
fn refused(rig: &Rig, source: ShardSource<'_>, names: &[&str]) -> VramError {
    let used = rig.manager.used_vram();
    let error = rig.manager.seal_model(spec("bad"), source).unwrap_err();
    let message = error.to_string();
    for name in names {
        assert!(message.contains(name), "{name:?} is not in {message:?}");
    }
    assert_eq!(rig.manager.used_vram(), used);
    rig.assert_recount();
    assert_eq!(rig.manager.state(), ManagerState::Ready, "{message}");
    let after = rig.seal("bad", &noise(2000, 77));
    rig.manager.verify_sealed(&after).unwrap();
    rig.manager.release(&after).unwrap();
    assert_eq!(rig.config.stats().unwiped_bytes_freed, 0);
    error
}

#[track_caller]
fn load_failed(rig: &Rig, source: ShardSource<'_>, names: &[&str]) {
    let error = refused(rig, source, names);
    assert_eq!(error.code(), ErrorCode::ModelLoadFailed, "{error:?}");
}

/// Calls `then` once when `after` bytes have been read.
struct Meanwhile<R, F> {
    inner: R,
    after: usize,
    then: Option<F>,
}

impl<R: Read, F: FnOnce()> Read for Meanwhile<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.after == 0
            && let Some(then) = self.then.take()
        {
            then();
        }
        let most = if self.then.is_some() { buffer.len().min(self.after) } else { buffer.len() };
        let bytes = self.inner.read(&mut buffer[..most])?;
        self.after -= self.after.min(bytes);
        Ok(bytes)
    }
}

#[test]
fn files_bytes_and_readers_of_the_same_bytes_are_the_same_shard() {
    // covers: SEAL-6 DIG-1
    let rig = Rig::new();
    let folder = temp();
    for (length, seed) in [(1, 1), (1023, 2), (1024, 3), (1025, 4), (300_001, 5)] {
        let bytes = noise(length, seed);
        let path = write(folder.path(), &format!("model-{length}.bin"), &bytes);
        let wanted = digest_bytes(rig.manager.tree_params(), &bytes);
        for source in [
            ShardSource::bytes(&bytes),
            ShardSource::file(&path).unwrap(),
            ShardSource::reader(length as u64, &bytes[..]),
            ShardSource::reader(length as u64, Dribble(&bytes)),
        ] {
            let shard = rig.manager.seal_model(spec("same"), source).unwrap();
            assert_eq!((shard.digest(), shard.byte_len()), (wanted, length as u64));
            rig.manager.verify_sealed(&shard).unwrap();
            rig.manager.release(&shard).unwrap();
        }
    }
    rig.close_clean();
}

/// Gives one to seven bytes at a time.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1 + self.0.len() % 7);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn files_that_cannot_be_a_model_are_refused_by_name() {
    // covers: SEAL-6 VAL-2
    let rig = Rig::new();
    let folder = temp();
    let missing = ShardSource::file(folder.path().join("nowhere.bin")).unwrap_err();
    assert_eq!(missing.code(), ErrorCode::ModelLoadFailed);
    assert!(missing.to_string().contains("nowhere.bin") && missing.to_string().contains("no such file"), "{missing}");
    let directory = ShardSource::file(folder.path()).unwrap_err();
    assert_eq!(directory.code(), ErrorCode::ModelLoadFailed);
    assert!(directory.to_string().contains("directory"), "{directory}");
    for text in [missing.to_string(), directory.to_string()] {
        assert!(text.len() < 600 && !text.contains('\n'), "{text}");
    }
    let empty = write(folder.path(), "empty.bin", b"");
    let error = refused(&rig, ShardSource::file(&empty).unwrap(), &["shard length", "empty.bin"]);
    assert_eq!(error.code(), ErrorCode::InvalidParams);
    let error = refused(&rig, ShardSource::bytes(&[]), &["shard length", "0 bytes"]);
    assert_eq!(error.code(), ErrorCode::InvalidParams);
    let error = refused(&rig, ShardSource::reader(0, io::empty()), &["shard length"]);
    assert_eq!(error.code(), ErrorCode::InvalidParams);
    // The twin: one byte is enough.
    let one = write(folder.path(), "one.bin", b"1");
    rig.manager.seal_model(spec("one"), ShardSource::file(&one).unwrap()).unwrap();
    rig.close_clean();
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_refused() {
    // covers: SEAL-6
    let rig = Rig::new();
    let folder = temp();
    let bytes = noise(300_000, 1);
    // Before the read: the length was taken when it was opened.
    for left in [0, 1, 65_536, 299_999] {
        let path = write(folder.path(), "shrinks.bin", &bytes);
        let source = ShardSource::file(&path).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
        load_failed(&rig, source, &["shrinks.bin", "early"]);
    }
    // In the middle of it, through a reader over the same file.
    let path = write(folder.path(), "shrinks.bin", &bytes);
    let shrink = || OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    let reader = Meanwhile { inner: File::open(&path).unwrap(), after: 70_000, then: Some(shrink) };
    load_failed(&rig, ShardSource::reader(300_000, reader), &["the reader", "early"]);
    rig.close_clean();
}

#[test]
fn a_file_that_grows_or_is_written_to_while_it_is_read_is_refused() {
    // covers: SEAL-6
    let rig = Rig::new();
    let folder = temp();
    let bytes = noise(200_000, 1);
    let path = write(folder.path(), "grows.bin", &bytes);
    let source = ShardSource::file(&path).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    load_failed(&rig, source, &["grows.bin", "more bytes"]);
    let grow = || OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    let reader = Meanwhile { inner: File::open(&path).unwrap(), after: 1000, then: Some(grow) };
    load_failed(&rig, ShardSource::reader(length, reader), &["the reader", "more bytes"]);
    // Written to without a change of length: the time tells.
    let source = ShardSource::file(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
    load_failed(&rig, source, &["grows.bin", "written to"]);
    // The twin: left alone it is sealed.
    let bytes = std::fs::read(&path).unwrap();
    let shard = rig.manager.seal_model(spec("alone"), ShardSource::file(&path).unwrap()).unwrap();
    assert_eq!(shard.digest(), digest_bytes(rig.manager.tree_params(), &bytes));
    rig.close_clean();
}

#[test]
fn a_file_that_another_thread_keeps_changing_is_sealed_as_read_or_not_at_all() {
    // covers: SEAL-6 SEAL-1
    let rig = Rig::new();
    let folder = temp();
    let path = write(folder.path(), "busy.bin", &noise(200_000, 1));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = OpenOptions::new().write(true).open(&path).unwrap();
            let mut length = 200_000;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                length = 400_000 - length - (length % 2);
                file.set_len(length).unwrap();
                file.write_all(b"x").unwrap();
            }
        });
        let (mut sealed, mut refused) = (0, 0);
        for _ in 0..100 {
            // Digest in VRAM and digest of what was read agree, or nothing is sealed: never a mixture.
            match rig.manager.seal_model(spec("busy"), ShardSource::file(&path).unwrap()) {
                Ok(shard) => {
                    sealed += 1;
                    rig.manager.verify_sealed(&shard).unwrap();
                    rig.manager.release(&shard).unwrap();
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.code(), ErrorCode::ModelLoadFailed, "{error:?}");
                }
            }
            assert_eq!(rig.manager.used_vram(), 0);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        println!("{sealed} sealed, {refused} refused");
        assert!(refused > 0, "a file that changes all the time is noticed sometimes");
    });
    assert_eq!(rig.manager.state(), ManagerState::Ready);
    rig.close_clean();
}

#[test]
fn readers_longer_or_shorter_than_said_are_refused() {
    // covers: SEAL-6
    let rig = Rig::new();
    let bytes = noise(70_000, 1);
    for said in [1, 69_999] {
        load_failed(&rig, ShardSource::reader(said, &bytes[..]), &["the reader", &said.to_string(), "more bytes"]);
    }
    for said in [70_001, 140_000, 5_000_000] {
        load_failed(&rig, ShardSource::reader(said, &bytes[..]), &["the reader", &said.to_string(), "early"]);
    }
    // More than the device has, and more than any device has, without a byte read.
    let large = refused(&rig, ShardSource::reader(1 << 40, NeverRead), &[]);
    assert!(matches!(large, VramError::OutOfMemory { needed, .. } if needed >= 1 << 40), "{large:?}");
    let larger = refused(&rig, ShardSource::reader(u64::MAX, NeverRead), &["shard length"]);
    assert_eq!(larger.code(), ErrorCode::InvalidParams, "{larger:?}");
    rig.manager.seal_model(spec("right"), ShardSource::reader(70_000, &bytes[..])).unwrap();
    rig.close_clean();
}

struct NeverRead;

impl Read for NeverRead {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("a source that has no room is not read");
    }
}

/// Fails, once it has given `0` bytes.
struct Fails(usize, io::ErrorKind);

impl Read for Fails {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::new(self.1, "the cable is out"));
        }
        let bytes = buffer.len().min(self.0);
        self.0 -= bytes;
        buffer[..bytes].fill(0xa5);
        Ok(bytes)
    }
}

#[test]
fn a_reader_that_fails_is_refused_with_its_own_words() {
    // covers: SEAL-6 ERR-2
    let rig = Rig::new();
    for good in [0, 1, 65_536, 99_999] {
        let source = ShardSource::reader(100_000, Fails(good, io::ErrorKind::BrokenPipe));
        load_failed(&rig, source, &["the reader", "the cable is out"]);
    }
    // It gives all its bytes and fails when asked whether there are more.
    let source = ShardSource::reader(100_000, Fails(100_000, io::ErrorKind::BrokenPipe));
    load_failed(&rig, source, &["the reader", "the cable is out"]);
    let error = refused(&rig, ShardSource::reader(9, Fails(3, io::ErrorKind::TimedOut)), &[]);
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.unwrap().kind(), io::ErrorKind::TimedOut, "the cause is kept");
    rig.close_clean();
}

/// Claims to have read more than there was room for.
struct Boasts;

impl Read for Boasts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(buffer.len() + 1)
    }
}

#[test]
fn a_reader_that_boasts_is_refused() {
    // covers: SEAL-6 ERR-1
    let rig = Rig::new();
    load_failed(&rig, ShardSource::reader(100, Boasts), &["the reader", "more bytes"]);
    rig.close_clean();
}

#[test]
fn a_digest_that_is_not_the_expected_one_is_refused_and_wiped() {
    // covers: SEAL-1 SEAL-9
    let rig = Rig::new();
    let (bytes, mut other) = (noise(50_000, 1), noise(50_000, 1));
    other[49_999] ^= 1;
    let vouched = digest_bytes(rig.manager.tree_params(), &bytes);
    let used = rig.manager.used_vram();
    let error = rig
        .manager
        .seal_model(spec("x").expect(vouching::file(rig.manager.tree_params(), vouched)), ShardSource::bytes(&other))
        .unwrap_err();
    assert!(matches!(&error, VramError::DigestMismatch { expected, .. } if *expected == vouched), "{error:?}");
    assert_eq!((error.code(), rig.manager.used_vram()), (ErrorCode::DigestMismatch, used));
    rig.assert_recount();
    let shard = rig
        .manager
        .seal_model(spec("x").expect(vouching::file(rig.manager.tree_params(), vouched)), ShardSource::bytes(&bytes))
        .unwrap();
    assert_eq!(shard.origin(), vram_residency::Origin::Expected);
    assert_eq!(rig.seal("y", &bytes).origin(), vram_residency::Origin::Measured);
    rig.close_clean();
}

#[test]
fn a_name_in_use_is_refused_before_anything_is_read() {
    // covers: VAL-1 SEAL-6
    let rig = Rig::new();
    let shard = rig.seal("taken", &noise(100, 1));
    let error = rig.manager.seal_model(spec("taken"), ShardSource::reader(10, NeverRead)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidParams);
    assert!(error.to_string().contains("taken"), "{error}");
    rig.manager.verify_sealed(&shard).unwrap();
    rig.manager.release(&shard).unwrap();
    rig.seal("taken", &noise(100, 2));
    rig.close_clean();
}

#[test]
fn an_image_is_read_once_whole_and_unchanged_or_not_confirmed() {
    // covers: DIG-1 SEAL-6
    let (folder, params) = (temp(), TreeParams::default());
    let bytes = noise(10_000, 6);
    let path = write(folder.path(), "model.bin", &bytes);
    let open = || ShardSource::file(&path).unwrap().into_image(&params).unwrap();
    let mut image = open();
    assert_eq!((image.layout().kind(), image.layout().byte_len()), (LayoutKind::File, 10_000));
    let shown = format!("{image:?}");
    assert!(shown.contains("model.bin") && shown.len() < 300, "{shown}");
    let mut read = Vec::new();
    image.read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    image.finish().unwrap();
    // Left before its end; longer than it was; written to.
    let mut early = open();
    early.read_exact(&mut [0; 9_999]).unwrap();
    assert_eq!(early.finish().unwrap_err().code(), ErrorCode::Internal);
    let append = || OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let mut longer = open();
    append();
    longer.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(longer.finish().unwrap_err().code(), ErrorCode::ModelLoadFailed);
    // Shorter: the read says so, with the error of the library inside.
    let mut shorter = open();
    File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = shorter.read_to_end(&mut Vec::new()).unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<VramError>()).unwrap();
    assert_eq!(inner.code(), ErrorCode::ModelLoadFailed, "{inner}");
}

#[test]
fn a_source_shows_its_name_and_length_and_no_bytes() {
    // covers: AUD-6
    let (folder, secret) = (temp(), b"never to be shown");
    let path = write(folder.path(), "weights.bin", secret);
    let shown = [format!("{:?}", ShardSource::file(&path).unwrap()), format!("{:?}", ShardSource::bytes(secret))];
    assert!(shown[0].contains("weights.bin"), "{}", shown[0]);
    for text in &shown {
        assert!(text.contains("17") && !text.contains("never") && !text.contains(&format!("{:?}", b'n')), "{text}");
    }
    let error = ShardSource::safetensors(&path).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelLoadFailed);
    assert!(error.to_string().contains("weights.bin"), "{error}");
}

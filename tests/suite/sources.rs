//! Sources that are not what they said, sealed: they are refused by name, and leave nothing behind. How each is read is decided in
//! the library's own tests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};

use crate::*;

/// Tries to seal and wants it refused with nothing left: neither memory, nor ledger, nor the name.
#[track_caller]
fn refused(rig: &Rig, source: ShardSource<'_>, code: ErrorCode, words: &[&str]) {
    let error = rig.manager.seal_model(spec("bad"), source).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.code(), code, "{error:?}");
    words.iter().for_each(|word| assert!(message.contains(word), "{word:?} is not in {message:?}"));
    assert_eq!((rig.manager.used_vram(), rig.manager.state()), (0, ManagerState::Ready), "{message}");
    rig.assert_recount();
    let after = rig.seal("bad", &noise(2000, 77));
    rig.manager.verify_sealed(&after).unwrap();
    rig.manager.release(&after).unwrap();
    assert_eq!(rig.config.stats().unwiped_bytes_freed, 0);
}

#[test]
fn sources_that_change_fail_or_boast_leave_nothing_behind() {
    // covers: SEAL-6 VAL-2 SEAL-1 ERR-1 ERR-2
    let (rig, failed, wrong) = (Rig::new(), ErrorCode::ModelLoadFailed, ErrorCode::InvalidParams);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    let bytes = noise(300_000, 1);
    let opened = |change: &dyn Fn(File)| {
        fs::write(&path, &bytes).unwrap();
        let source = ShardSource::file(&path).unwrap();
        change(OpenOptions::new().append(true).open(&path).unwrap());
        source
    };
    for left in [0, 1, 65_536, 299_999] {
        refused(&rig, opened(&|file| file.set_len(left).unwrap()), failed, &["model.bin", "early"]);
    }
    refused(&rig, opened(&|mut file| file.write_all(b"x").unwrap()), failed, &["model.bin", "more bytes"]);
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    refused(&rig, opened(&|file| file.set_modified(later).unwrap()), failed, &["model.bin", "written to"]);
    for said in [1, 299_999] {
        let source = ShardSource::reader(said, &bytes[..]);
        refused(&rig, source, failed, &["the reader", &said.to_string(), "more bytes"]);
    }
    for said in [300_001, 5_000_000] {
        refused(&rig, ShardSource::reader(said, &bytes[..]), failed, &["the reader", &said.to_string(), "early"]);
    }
    for good in [0, 1, 65_536, 99_999, 100_000] {
        // The last one fails when it is asked whether there is more.
        let reader = reads(move |at, room| match good - at {
            0 => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the cable is out")),
            left => Ok(fill(room, left, 0xa5)),
        });
        refused(&rig, ShardSource::reader(100_000, reader), failed, &["the reader", "the cable is out"]);
    }
    let boasts = reads(|_, room: &mut [u8]| Ok(room.len() + 1));
    refused(&rig, ShardSource::reader(100, boasts), failed, &["the reader", "more bytes"]);
    // What is empty, too large for the device or for any device, or has a name that is taken is refused unread.
    fs::write(&path, b"").unwrap();
    refused(&rig, ShardSource::file(&path).unwrap(), wrong, &["shard length", "model.bin"]);
    refused(&rig, ShardSource::bytes(&[]), wrong, &["shard length", "0 bytes"]);
    refused(&rig, ShardSource::reader(1 << 40, never()), ErrorCode::VramOom, &[]);
    refused(&rig, ShardSource::reader(u64::MAX, never()), wrong, &["shard length"]);
    let taken = rig.seal("taken", &noise(100, 1));
    let error = rig.manager.seal_model(spec("taken"), ShardSource::reader(10, never())).unwrap_err();
    assert!(error.code() == wrong && error.to_string().contains("taken"), "{error}");
    rig.manager.release(&taken).unwrap();
    // The twins: one byte is enough, and what is left alone is sealed.
    fs::write(&path, b"1").unwrap();
    rig.manager.seal_model(spec("one"), ShardSource::file(&path).unwrap()).unwrap();
    rig.manager.seal_model(spec("right"), ShardSource::reader(300_000, &bytes[..])).unwrap();
    rig.close_clean();
}

#[test]
fn a_file_that_another_thread_keeps_changing_is_sealed_as_read_or_not_at_all() {
    // covers: SEAL-6 SEAL-1
    let rig = Rig::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), noise(200_000, 1)).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = OpenOptions::new().write(true).open(file.path()).unwrap();
            for length in [199_999, 200_000].into_iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                file.set_len(length).unwrap();
                file.write_all(b"x").unwrap();
            }
        });
        // Digest in VRAM and digest of what was read agree, or nothing is sealed: never a mixture.
        for _ in 0..100 {
            match rig.manager.seal_model(spec("busy"), ShardSource::file(file.path()).unwrap()) {
                Ok(shard) => {
                    rig.manager.verify_sealed(&shard).unwrap();
                    rig.manager.release(&shard).unwrap();
                }
                Err(error) => {
                    assert!(
                        matches!(error.code(), ErrorCode::ModelLoadFailed | ErrorCode::DigestMismatch),
                        "{error:?}"
                    );
                }
            }
            assert_eq!(rig.manager.used_vram(), 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(rig.count("vram_seal_failed") > 0, "a file that changes all the time is noticed sometimes");
    rig.close_clean();
}

#[test]
fn a_digest_that_is_not_the_expected_one_is_refused_and_wiped() {
    // covers: SEAL-1 SEAL-9
    let rig = Rig::new();
    let bytes = noise(50_000, 1);
    let other = [&bytes[..49_999], &[bytes[49_999] ^ 1]].concat();
    let error = rig.manager.seal_model(rig.vouched("x", &bytes), ShardSource::bytes(&other)).unwrap_err();
    let vouched = digest_bytes(rig.manager.tree_params(), &bytes);
    assert!(matches!(&error, VramError::DigestMismatch { expected, .. } if *expected == vouched), "{error:?}");
    assert_eq!((error.code(), rig.manager.used_vram()), (ErrorCode::DigestMismatch, 0));
    rig.assert_recount();
    let shard = rig.manager.seal_model(rig.vouched("x", &bytes), ShardSource::bytes(&bytes)).unwrap();
    assert_eq!([shard.origin(), rig.seal("y", &bytes).origin()], [Origin::Expected, Origin::Measured]);
    rig.close_clean();
}

#[test]
fn an_image_is_read_once_whole_and_unchanged_or_not_confirmed() {
    // covers: DIG-1 SEAL-6 AUD-6
    let params = TreeParams::default();
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = (folder.path().join("model.bin"), noise(10_000, 6));
    fs::write(&path, &bytes).unwrap();
    let open = || ShardSource::file(&path).unwrap().into_image(&params).unwrap();
    let mut image = open();
    assert_eq!((image.layout().kind(), image.layout().byte_len()), (LayoutKind::File, 10_000));
    // What is shown of it, and of sources, has name and length and no bytes.
    let shown = format!("{image:?} {:?}", ShardSource::file(&path).unwrap());
    assert!(shown.matches("model.bin").count() == 2 && shown.len() < 600, "{shown}");
    let shown = format!("{:?}", ShardSource::bytes(b"never to be shown"));
    assert!(shown.contains("17") && !shown.contains("never") && !shown.contains("110"), "{shown}");
    let mut read = Vec::new();
    image.read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    image.finish().unwrap();
    // Left before its end; longer than it was; written to.
    let mut early = open();
    early.read_exact(&mut [0; 9_999]).unwrap();
    assert_eq!(early.finish().unwrap_err().code(), ErrorCode::Internal);
    let mut longer = open();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
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
fn staging_is_two_buffers_of_16_mib_however_large_the_source_and_is_wiped() {
    // covers: RES-1
    const BUFFER: usize = 16 << 20;
    /// What a check brings back: its result and an entry of 32 bytes for each 512 KiB.
    const CHECK: u64 = 16 << 10;
    let config = MockConfig::new().capacity_bytes(128 << 20);
    let built = VramManager::builder(WorkerId::new("suite").unwrap(), WorkerSecret::random().unwrap())
        .device(DeviceSelector::Mock(config.clone()))
        .policy(Policy::development());
    let manager = built.build().unwrap();
    for source_bytes in [(64 << 20) + 12_345, 5000] {
        let (mut buffer, mut least, mut most) = (0, u64::MAX, 0);
        let watches = reads(|at, room| {
            let staged = config.stats().live_host_bytes;
            (buffer, least, most) = (buffer.max(room.len()), least.min(staged), most.max(staged));
            Ok(fill(room, source_bytes - at, at as u8 | 1))
        });
        let shard = manager.seal_model(spec("large"), ShardSource::reader(source_bytes as u64, watches)).unwrap();
        assert!(buffer <= BUFFER, "{buffer} bytes were to be read at once");
        assert!(least > 0 && most <= 2 * BUFFER as u64 + CHECK, "{least} to {most} bytes were staged");
        if source_bytes > BUFFER {
            assert!(most >= 2 * BUFFER as u64, "{most} bytes: the default is two buffers of 16 MiB");
        }
        manager.execute(&shard, |_| ()).unwrap();
        manager.release(&shard).unwrap();
        // What is kept for the next upload are the two buffers.
        assert!(config.stats().live_host_bytes <= 2 * BUFFER as u64 + CHECK);
    }
    drop(manager);
    assert_clean(&config.stats());
}

#[test]
fn while_one_source_does_not_go_on_all_else_does() {
    // covers: CON-1
    let rig = Rig::new();
    let manager = &*rig.manager;
    let (used, gone) = rig.two();
    // Half of it is on the device already: there are several buffers of it.
    let (slow, (reached, is_reached), (go_on, goes_on)) = (noise(400_000, 3), mpsc::channel(), mpsc::channel());
    let slow = &slow;
    let stuck = reads(move |at, room| {
        if at == 200_000 {
            reached.send(()).unwrap();
            goes_on.recv_timeout(Duration::from_secs(30)).map_err(io::Error::other)?;
        }
        let end = if at < 200_000 { 200_000 } else { 400_000 };
        (&slow[at..end]).read(room)
    });
    thread::scope(|scope| {
        let sealing = scope.spawn(move || manager.seal_model(spec("slow"), ShardSource::reader(400_000, stuck)));
        is_reached.recv_timeout(Duration::from_secs(30)).unwrap();
        let room = manager.used_vram();
        assert_eq!((manager.available_vram(), manager.state()), (manager.total_vram() - room, ManagerState::Ready));
        manager.verify_sealed(&used).unwrap();
        let guards = manager.begin_all(&[&used, &gone], ExecuteOptions::default()).unwrap();
        guards[0].read_at(0, &mut [0; 3000]).unwrap();
        guards.into_iter().for_each(|guard| drop(guard.finish().unwrap()));
        let renewed = manager.reseal(&used).unwrap();
        manager.release(&gone).unwrap();
        manager.release_by_id(renewed.id()).unwrap();
        manager.allocate_scratch(Purpose::Activations, 5000).unwrap().release().unwrap();
        manager.enforce_vram_only_policy().unwrap();
        assert!(manager.used_vram() < room && manager.memory_info().unwrap().total > 0);
        // None of this waited for the source: it still waits to be let go on.
        assert!(!sealing.is_finished());
        go_on.send(()).unwrap();
        assert_eq!(sealing.join().unwrap().unwrap().digest(), digest_bytes(manager.tree_params(), slow));
    });
    rig.close_clean();
}

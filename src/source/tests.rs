//! Sources that keep still, and sources that do not.

use std::fs;
use std::io::Write;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::digest::layout::LayoutKind;
use crate::{ErrorCode, digest_bytes};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

fn message(result: Result<impl Sized, VramError>) -> String {
    let Err(error) = result else { panic!("accepted") };
    assert_eq!(error.code(), ErrorCode::ModelLoadFailed, "{error}");
    error.to_string()
}

fn whole(path: &Path) -> Result<ShardSource<'static>, VramError> {
    ShardSource::file(path)
}

fn by_tensor(path: &Path) -> Result<ShardSource<'static>, VramError> {
    ShardSource::safetensors(path)
}

/// The whole image, read with buffers of `buffer` bytes.
fn drain(mut opened: Opened<'_>, buffer: usize) -> Result<Vec<u8>, VramError> {
    let (mut image, mut room) = (Vec::new(), vec![0xee; buffer]);
    loop {
        let bytes = opened.read(&mut room)?;
        image.extend_from_slice(&room[..bytes]);
        if bytes < buffer {
            break;
        }
    }
    assert_eq!(image.len() as u64, opened.image_bytes());
    opened.finish().map(|()| image)
}

/// A file in a folder that goes with the test.
fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// A safetensors file of byte tensors with these lengths, and its image by hand.
fn model(lens: &[usize], block: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut entries, mut data, mut image) = (Vec::new(), Vec::new(), Vec::new());
    for (at, &len) in lens.iter().enumerate() {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + at * 13 + 1) as u8 | 1).collect();
        let (start, end) = (data.len(), data.len() + len);
        entries.push(format!(r#""t{at}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{start},{end}]}}"#));
        if len > 0 {
            image.resize(image.len().next_multiple_of(block), 0);
            image.extend_from_slice(&bytes);
        }
        data.extend_from_slice(&bytes);
    }
    let header = format!("{{{}}}", entries.join(","));
    ([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat(), image)
}

#[test]
fn every_kind_of_source_gives_one_digest() {
    // covers: SEAL-6 DIG-3
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 31) as u8).collect();
    let (_folder, path) = written(&bytes);
    let params = TreeParams::new(1024, b"salt").unwrap();
    let expected = digest_bytes(&params, &bytes);
    for source in [
        ShardSource::bytes(&bytes),
        ShardSource::reader(100_000, &bytes[..]),
        ShardSource::reader(100_000, Halting(&bytes, false)),
        ShardSource::file(&path).unwrap(),
    ] {
        let found = digest_source(source, &params, NonZeroUsize::new(2).unwrap()).unwrap();
        assert_eq!((found.digest, found.byte_len, found.layout.kind()), (expected, 100_000, LayoutKind::File));
    }
}

/// Yields one byte at a time, and is interrupted before each.
struct Halting<'a>(&'a [u8], bool);

impl Read for Halting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut buffer[..1]) }
    }
}

#[test]
fn empty_sources_have_a_digest_and_cannot_be_sealed() {
    // covers: VAL-2 DIG-1
    let (_folder, path) = written(b"");
    let (_other, hollow) = written(&model(&[0, 0], 4096).0);
    let params = TreeParams::default();
    for source in [|| Ok(ShardSource::bytes(b"")), || Ok(ShardSource::reader(0, io::empty()))]
        as [fn() -> Result<ShardSource<'static>, VramError>; 2]
    {
        assert_eq!(digest_source(source().unwrap(), &params, ONE).unwrap().digest, digest_bytes(&params, b""));
        let error = source().unwrap().open_for_sealing(&params).err().unwrap();
        assert_eq!(error.code(), ErrorCode::InvalidParams);
        assert!(error.to_string().starts_with("shard length is 0 bytes"), "{error}");
    }
    for source in [ShardSource::file(&path), ShardSource::safetensors(&hollow)] {
        let error = source.unwrap().open_for_sealing(&params).err().unwrap();
        assert_eq!(error.code(), ErrorCode::InvalidParams, "{error}");
    }
    assert!(message(ShardSource::safetensors(&path)).contains("too short"));
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    // covers: SEAL-6
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let missing = folder.path().join("missing\n");
    for open in [whole, by_tensor] {
        assert!(message(open(folder.path())).contains("it is a directory"));
        assert!(message(open(&fifo)).contains("no regular file"));
        assert!(message(open(Path::new("/dev/zero"))).contains("\"/dev/zero\": it is no regular file"));
        let text = message(open(&missing));
        assert!(text.contains("missing\\n\": there is no such file") && !text.contains('\n'), "{text}");
    }
    let long = format!("/{}", "x/".repeat(1000));
    assert!(message(ShardSource::file(long)).len() < 600);
}

#[test]
fn sources_that_change_are_refused() {
    // covers: SEAL-6
    let params = TreeParams::default();
    let digest = |source| digest_source(source, &params, ONE);
    assert!(message(digest(ShardSource::reader(10, &b"123456789"[..]))).contains("ended 1 bytes early"));
    assert!(message(digest(ShardSource::reader(8, &b"123456789"[..]))).contains("has more bytes than that"));
    assert!(message(digest(ShardSource::reader(0, &b"1"[..]))).contains("has more bytes than that"));
    assert!(
        message(digest(ShardSource::reader(u64::MAX, &b"1"[..]))).contains("ended 18446744073709551614 bytes early")
    );

    let bytes = model(&[5000, 0, 70], 4096).0;
    for open in [whole, by_tensor] {
        let change = |change: &dyn Fn(&File)| {
            let (_folder, path) = written(&bytes);
            let source = open(&path).unwrap();
            change(&fs::OpenOptions::new().append(true).open(&path).unwrap());
            message(digest(source))
        };
        let text = change(&|file| file.set_len(bytes.len() as u64 - 1).unwrap());
        assert!(text.contains("ended 1 bytes early") && text.contains("model.safetensors"), "{text}");
        assert!(change(&|mut file| file.write_all(b"x").unwrap()).contains("has more bytes"));
        let later = SystemTime::now() + std::time::Duration::from_secs(9);
        assert!(change(&|file| file.set_modified(later).unwrap()).contains("was written to meanwhile"));
        // The tampered twin's twin: a file that keeps still is accepted.
        let (_folder, path) = written(&bytes);
        digest(open(&path).unwrap()).unwrap();
    }

    // It shrinks behind the reader's back, after its bytes were read.
    let (_folder, path) = written(&bytes);
    let mut opened = ShardSource::file(&path).unwrap().open(&params).unwrap();
    assert_eq!(opened.read(&mut vec![0; bytes.len()]).unwrap(), bytes.len());
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap();
    assert!(message(opened.finish()).contains("has 3 bytes now"));
}

#[test]
fn failing_and_lying_readers_are_errors() {
    // covers: SEAL-6
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("the cable is out"))?;
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    struct Lying;
    impl Read for Lying {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            Ok(buffer.len() + 1)
        }
    }
    let params = TreeParams::default();
    for threads in [1, 2] {
        let threads = NonZeroUsize::new(threads).unwrap();
        let error = digest_source(ShardSource::reader(20 << 20, Failing(1)), &params, threads).unwrap_err();
        assert!(
            error.to_string().contains("the cable is out") && std::error::Error::source(&error).is_some(),
            "{error}"
        );
        assert!(message(digest_source(ShardSource::reader(100, Lying), &params, threads)).contains("more bytes than"));
    }
    // Failing only when asked whether there is more.
    assert!(message(digest_source(ShardSource::reader(4096, Failing(1)), &params, ONE)).contains("the cable is out"));
    let opened = ShardSource::bytes(b"abc").open(&params).unwrap();
    assert_eq!(opened.finish().unwrap_err().code(), ErrorCode::Internal);
}

#[test]
fn layouts_have_digests_of_their_own() {
    // covers: DIG-3
    let params = TreeParams::default();
    let info = |name: &str, shape: &[u64]| crate::TensorInfo {
        name: name.to_owned(),
        dtype: "U8".to_owned(),
        shape: shape.to_vec(),
        offset: 0,
        bytes: shape.iter().product(),
    };
    let tensors = |infos: &[crate::TensorInfo]| Layout::of_tensors(&params, infos.to_vec()).unwrap();
    let base = tensors(&[info("a", &[5000]), info("none", &[0]), info("b", &[3])]);
    let offsets: Vec<u64> = base.tensors().iter().map(|t| t.offset).collect();
    assert_eq!((offsets, base.byte_len()), (vec![0, 5000, 8192], 8195));
    let name = |at| base.tensor_at(at).map(|t| t.name.as_str());
    assert_eq!(
        [name(0), name(4999), name(5000), name(8191), name(8192), name(8194), name(8195)],
        [Some("a"), Some("a"), None, None, Some("b"), Some("b"), None]
    );
    assert_eq!(base.tensor_in(4999, 5000).unwrap().name, "a");
    assert_eq!(base.tensor_in(5000, 4000).unwrap().name, "b");
    assert_eq!((base.tensor_in(5000, 3192), base.tensor_in(u64::MAX, u64::MAX)), (None, None));
    let mut digests = vec![
        base.digest(),
        tensors(&[info("a", &[5000]), info("b", &[3])]).digest(),
        tensors(&[info("a", &[50, 100]), info("none", &[0]), info("b", &[3])]).digest(),
        tensors(&[info("b", &[5000]), info("none", &[0]), info("a", &[3])]).digest(),
        tensors(&[]).digest(),
        Layout::of_file(&params, 8195).digest(),
        Layout::of_file(&params, 0).digest(),
        Layout::of_file(&TreeParams::new(8192, b"").unwrap(), 8195).digest(),
    ];
    assert_eq!(base.digest(), base.clone().digest());
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 8);
    let huge = Layout::of_tensors(&params, vec![info("a", &[u64::MAX]), info("b", &[1])]).unwrap_err();
    assert!(huge.to_string().starts_with("shard length"), "{huge}");
    assert_eq!(Layout::of_regions(&params, &[u64::MAX]).unwrap().byte_len(), u64::MAX);
    assert_eq!(Layout::of_regions(&params, &[1, 2]).unwrap().tensor_at(4097).unwrap().name, "region 1");
}

#[test]
fn what_is_taken_for_a_model_is_called_what_it_is() {
    // covers: VAL-3
    const POINTER: &[u8] =
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 90868376\n";
    for (bytes, wanted) in [
        (
            POINTER,
            "it is a git-lfs pointer, which stands for the model and is not it; fetch the model with `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page"),
        (b"\xef\xbb\xbf\n  <HTML lang=en>", "it is a web page"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "it is a web page"),
        (b"PK\x03\x04\x00\x00\x08\x08\x00\x00", "it is a zip archive, as PyTorch"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j", "it is a Python pickle"),
        (b"GGUF\x03\0\0\0\x23\x01\0\0", "it is a GGUF file"),
        (b"{\"weight_map\": {}}", "it is JSON text"),
        (b"", "it is 0 bytes long"),
        (b"\x80\x05\x95\x11\0\0\0\0", "it is a Python pickle"),
        (b"Access to model x/y is restricted.\n", "it is plain text"),
        (b"weights\0weights", "claims a header"),
    ] {
        let (_folder, path) = written(bytes);
        let text = message(by_tensor(&path));
        assert!(text.contains(&format!("model.safetensors\": {wanted}")) || text.contains(wanted), "{text}");
        // Its digest is that of any file.
        let params = TreeParams::default();
        assert_eq!(digest_source(whole(&path).unwrap(), &params, ONE).unwrap().digest, digest_bytes(&params, bytes));
    }
    // A header that happens to be as long as a pickle's first bytes say.
    let honest = format!("{{}}{}", " ".repeat(0x280 - 2));
    let (_folder, path) = written(&[&0x280u64.to_le_bytes()[..], honest.as_bytes()].concat());
    by_tensor(&path).unwrap();

    // As a file it would be sealed; nobody means to.
    let params = TreeParams::default();
    let (_folder, path) = written(POINTER);
    for refused in
        [whole(&path).unwrap().open_for_sealing(&params).map(drop), whole(&path).unwrap().into_image(&params).map(drop)]
    {
        assert!(message(refused).contains("git lfs pull"));
    }
    let near = [b"V", &POINTER[1..]].concat();
    let (_folder, path) = written(&near);
    assert_eq!(drain(whole(&path).unwrap().open_for_sealing(&params).unwrap(), 50).unwrap(), near);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_tensors_layout_equals_the_materialised_image(
        lens in prop::collection::vec(prop_oneof![Just(0usize), Just(1024), 1usize..3000], 0..6), buffer in 1usize..5000,
    ) {
        // covers: DIG-3
        let params = TreeParams::new(1024, b"").unwrap();
        let (file, image) = model(&lens, 1024);
        let (_folder, path) = written(&file);
        prop_assert_eq!(&drain(ShardSource::safetensors(&path).unwrap().open(&params).unwrap(), buffer).unwrap(), &image);
        let found = digest_source(ShardSource::safetensors(&path).unwrap(), &params, ONE).unwrap();
        prop_assert_eq!((found.digest, found.byte_len), (digest_bytes(&params, &image), image.len() as u64));
        prop_assert_eq!(found.layout.tensors().len(), lens.len());
        for tensor in found.layout.tensors() {
            prop_assert!(tensor.bytes == 0 || tensor.offset % 1024 == 0);
            prop_assert!(tensor.offset + tensor.bytes <= found.byte_len);
        }
        for step in 0..40 {
            let (offset, bytes) = (step * found.byte_len / 32, step % 7 * 300 + 1);
            let meets = |t: &&crate::TensorInfo| t.bytes > 0 && t.offset < offset + bytes && offset < t.offset + t.bytes;
            prop_assert_eq!(found.layout.tensor_in(offset, bytes), found.layout.tensors().iter().find(meets));
        }
        let whole = drain(ShardSource::file(&path).unwrap().open(&params).unwrap(), buffer).unwrap();
        prop_assert_eq!(whole, file);
    }
}

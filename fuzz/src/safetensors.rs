use std::cell::RefCell;
use std::io::Read;
use std::path::Path;

use safetensors::SafeTensors;
use tempfile::NamedTempFile;
use vram_residency::{ErrorCode, LayoutKind, ShardSource, TreeParams, VramError};

use crate::assert_presentable;

thread_local! {
    /// The file that the input becomes; in memory where there is such a place.
    static FILE: RefCell<NamedTempFile> = RefCell::new({
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { NamedTempFile::new_in(memory) } else { NamedTempFile::new() }.unwrap()
    });
}

/// What a function says about a file of these bytes.
pub(crate) fn in_file<T>(bytes: &[u8], ask: impl FnOnce(&Path) -> T) -> T {
    FILE.with_borrow_mut(|at| {
        std::fs::write(at.path(), bytes).unwrap();
        ask(at.path())
    })
}

/// A file that is accepted holds its tensors one after the other, wholly; the image has them at block-aligned offsets in the
/// same order, zeros between them, their bytes unchanged. The `safetensors` crate agrees on what is in it, and on what is not
/// a model.
pub fn safetensors(data: &[u8]) {
    // The first byte chooses the block size, which is no part of the file.
    let Some((&choice, file)) = data.split_first() else { return };
    let params = TreeParams::new(1024 << (choice % 7), b"").unwrap();
    let opened = in_file(file, |path| ShardSource::safetensors(path));
    match (opened, SafeTensors::deserialize(file)) {
        (Ok(source), Ok(wanted)) => check(source, &params, file, &wanted),
        (Ok(_), Err(error)) => panic!("accepted, but the other reader says: {error}"),
        (Err(error), other) => {
            assert!(matches!(error, VramError::ModelLoad { .. }), "{error:?}");
            assert_eq!(error.code(), ErrorCode::ModelLoadFailed);
            assert_presentable(&error.to_string());
            // What is refused by us alone is the other target's subject.
            let listed = [" twice", "an object with", "the name of a type"];
            let message = error.to_string();
            assert!(
                other.is_err() || listed.iter().any(|part| message.contains(part)),
                "refused by us alone: {message}"
            );
        }
    }
}

fn check(source: ShardSource<'_>, params: &TreeParams, file: &[u8], wanted: &SafeTensors<'_>) {
    let mut reader = source.into_image(params).unwrap();
    let layout = reader.layout().clone();
    assert_eq!((layout.kind(), layout.block_size()), (LayoutKind::Tensors, params.block_size()));
    // Every byte behind the header belongs to exactly one tensor.
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap());
    let data: u64 = layout.tensors().iter().map(|tensor| tensor.bytes).sum();
    assert_eq!(header + data, file.len() as u64);
    assert_eq!(layout.tensors().len(), wanted.len());
    let mut image = Vec::new();
    reader.read_to_end(&mut image).unwrap();
    reader.finish().unwrap();
    assert_eq!(image.len() as u64, layout.byte_len());

    let block = u64::from(params.block_size());
    let (mut end, mut at) = (0_u64, usize::try_from(header).unwrap());
    for tensor in layout.tensors() {
        let start = if tensor.bytes == 0 { end } else { end.next_multiple_of(block) };
        assert_eq!(tensor.offset, start, "{tensor:?}");
        assert!(image[end as usize..start as usize].iter().all(|&byte| byte == 0), "the gap before {tensor:?}");
        end = start + tensor.bytes;
        let bytes = &image[start as usize..end as usize];
        assert_eq!(bytes, &file[at..at + bytes.len()], "file order: {tensor:?}");
        at += bytes.len();
        let other = wanted.tensor(&tensor.name).unwrap();
        assert_eq!(bytes, other.data(), "{tensor:?}");
        assert_eq!(tensor.dtype, other.dtype().to_string());
        assert!(tensor.shape.iter().copied().eq(other.shape().iter().map(|&dimension| dimension as u64)));
        if tensor.bytes > 0 {
            assert_eq!(layout.tensor_at(start), Some(tensor));
            assert_eq!(layout.tensor_at(end - 1), Some(tensor));
        }
    }
    assert_eq!(end, layout.byte_len(), "the image ends with its last tensor");
    assert_eq!(layout.tensor_at(end), None);
}

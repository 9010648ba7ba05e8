//! What digests are compared with: copies, and the way that needs no kernel, which is to copy everything back and hash it there.

use sha2::{Digest as _, Sha256};

use crate::table::{Table, times};
use crate::world::{World, size};

pub fn measure(world: &World, table: &mut Table) {
    let raw = world.raw();
    let (bytes, piece) = if world.options.tiny { (2 << 20, 256 << 10) } else { (4_u64 << 30, 64 << 20) };
    let (Some(from), Some(to)) = (world.random(bytes, 1), world.random(bytes, 2)) else {
        table.leave_out(format!("copies of {}: not so much is free", size(bytes)));
        return;
    };
    let (stream, share) = (raw.stream(), world.share(10));
    let within = times(25, share, || {
        raw.copy(stream, to.address(0), from.address(0), bytes as usize).unwrap();
        raw.synchronize(stream).unwrap();
    });
    table.add(format!("copy {} within the device (read and written)", size(bytes)), 2 * bytes, within);
    let counter = raw.alloc(256);
    let read = times(25, share, || {
        world.kernels.scan(stream, from.address(0), bytes, 1, counter).unwrap();
        raw.synchronize(stream).unwrap();
    });
    table.add(format!("read {} by a kernel that does nothing else", size(bytes)), bytes, read);
    raw.free(counter);

    let Ok(mut pinned) = raw.pinned(2 * piece) else {
        table.leave_out("copies to the host: no pinned memory");
        return;
    };
    let pieces = bytes as usize / piece;
    let down = times(15, share, || {
        for at in 0..pieces {
            pinned.copy_to_host(stream, from.address(at * piece), at % 2 * piece, piece).unwrap();
        }
        raw.synchronize(stream).unwrap();
    });
    table.add(format!("copy {} to the host, pinned", size(bytes)), bytes, down);
    let up = times(15, share, || {
        for at in 0..pieces {
            pinned.copy_to_device(stream, to.address(at * piece), at % 2 * piece, piece).unwrap();
        }
        raw.synchronize(stream).unwrap();
    });
    table.add(format!("copy {} to the device, pinned", size(bytes)), bytes, up);

    // One piece is copied while the one before it is hashed.
    let pieces = pieces.min(16);
    let hashed = (pieces * piece) as u64;
    let back = times(3, share, || {
        let mut hash = Sha256::new();
        pinned.copy_to_host(stream, from.address(0), 0, piece).unwrap();
        for at in 0..pieces {
            raw.synchronize(stream).unwrap();
            if at + 1 < pieces {
                pinned.copy_to_host(stream, from.address((at + 1) * piece), (at + 1) % 2 * piece, piece).unwrap();
            }
            hash.update(pinned.bytes(at % 2 * piece, piece));
        }
        std::hint::black_box(hash.finalize());
    });
    table.add(format!("copy {} to the host and hash it there, one stream", size(hashed)), hashed, back);
    raw.destroy_stream(stream);
}

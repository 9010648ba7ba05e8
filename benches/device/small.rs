//! The fixed cost of an execution, and of sealing what the host has.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use vram_residency::{Expectation, ShardId, ShardSource, ShardSpec, TreeParams, digest_bytes};

use crate::table::{Table, times};
use crate::world::{World, size};

pub fn measure(world: &World, table: &mut Table) {
    fixed_cost(world, table);
    if !world.options.sanitized {
        sealing(world, table);
    }
}

fn spec(name: &str) -> ShardSpec {
    ShardSpec::new(ShardId::new(name).unwrap())
}

fn fixed_cost(world: &World, table: &mut Table) {
    let manager = world.manager(4096);
    let shard = manager.seal_model(spec("one-block"), ShardSource::bytes(&[7; 4096])).unwrap();
    let (rounds, share) = (if world.options.tiny { 20 } else { 500 }, world.share(8));
    let digest = times(rounds, share, || {
        std::hint::black_box(manager.compute_vram_digest(&shard).unwrap());
    });
    let executed = times(rounds, share, || {
        manager.execute(&shard, |verified| std::hint::black_box(verified.byte_len())).map(drop).unwrap();
    });
    table.add("digest of one block", 0, digest);
    table.add("verify and execute, one block", 0, executed);
    let beyond = executed.seconds() - digest.seconds();
    table.share(beyond * 1e6, "µs beyond the digest");
    if world.is_gpu() {
        table.wanted("at most 60 µs beyond the digest", beyond <= 60e-6);
    }
    let key = Hmac::<Sha256>::new_from_slice(&[3; 32]).unwrap();
    let signed = times(rounds, share, || {
        let mut mac = key.clone();
        mac.update(std::hint::black_box(&[9; 256]));
        std::hint::black_box(mac.finalize());
    });
    table.add("one HMAC of 256 bytes, for comparison", 0, signed);
    manager.release(&shard).unwrap();
}

/// Sealing bytes whose digest is known, beside copying them from pinned memory.
fn sealing(world: &World, table: &mut Table) {
    let raw = world.raw();
    let bytes: usize = if world.options.tiny { 1 << 20 } else { 2 << 30 };
    if raw.memory_info().0 < 3 * bytes as u64 || world.left().is_zero() {
        table.leave_out(format!("seal {}: no room, or no time left", size(bytes as u64)));
        return;
    }
    let mut state = 1_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let source: Vec<u8> = (0..bytes / 8).flat_map(|_| word()).collect();
    let params = TreeParams::default();
    let digest = digest_bytes(&params, &source);
    let manager = world.manager(params.block_size());
    let share = world.share(4);
    let mut waited = std::time::Duration::ZERO;
    let mut rounds = 0_u32;
    let sealed = times(5, share, || {
        let shard = manager
            .seal_model(
                spec("known").expect(Expectation::FsVerityWith { digest, params: params.clone() }),
                ShardSource::bytes(&source),
            )
            .unwrap();
        // The release is not part of it.
        let began = std::time::Instant::now();
        manager.release(&shard).unwrap();
        waited += began.elapsed();
        rounds += 1;
    });
    let released = waited / rounds;
    let seal = sealed.seconds() - released.as_secs_f64();

    let Ok(mut pinned) = raw.pinned(bytes.min(64 << 20)) else {
        table.leave_out("a pinned copy beside sealing: no pinned memory");
        return;
    };
    let (target, stream) = (raw.alloc(bytes), raw.stream());
    let copied = times(5, share, || {
        for at in (0..bytes).step_by(pinned.len()) {
            let piece = pinned.len().min(bytes - at);
            pinned.copy_to_device(stream, target + at as u64, 0, piece).unwrap();
        }
        raw.synchronize(stream).unwrap();
    });
    raw.destroy_stream(stream);
    raw.free(target);
    table.add(format!("seal {} with a known digest, and release", size(bytes as u64)), bytes as u64, sealed);
    table.share(copied.seconds() / seal, "× the pinned copy's speed, without the release");
    if world.is_gpu() {
        table.wanted("at least 0.9 × the pinned copy's speed", copied.seconds() / seal >= 0.9);
    }
    table.add(format!("copy {} from pinned memory", size(bytes as u64)), bytes as u64, copied);
}

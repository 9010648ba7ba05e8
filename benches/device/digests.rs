//! Digests on the device: by size and block size, and of many tensors beside one image of as many bytes.

use std::sync::Arc;

use vram_residency::{ExecuteOptions, SealedShard};

use crate::limit::{self, Sampler};
use crate::table::{Table, times};
use crate::world::{World, size};

const TENSORS: u64 = 200;

pub fn measure(world: &World, table: &mut Table) {
    let tiny = world.options.tiny;
    let sizes: &[u64] = if tiny {
        &[1 << 20, 4 << 20]
    } else {
        &[1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30, 4 << 30, 16 << 30, 64 << 30, 120 << 30]
    };
    for &block in &[4096, 1024, 65536] {
        let manager = world.manager(block);
        for &bytes in sizes {
            let what = format!("verify {}, blocks of {}", size(bytes), size(u64::from(block)));
            if bytes > world.options.most || (block != 4096 && bytes > 4 << 30) {
                continue;
            }
            if world.left().is_zero() {
                table.leave_out(format!("{what}: no time left"));
                continue;
            }
            let Some(memory) = world.random(bytes, bytes) else {
                table.leave_out(format!("{what}: not so much is free"));
                continue;
            };
            let shard = world.adopt(&manager, "image", &Arc::new(memory), &[(0, bytes)]);
            let sampler = Sampler::start(world.is_gpu() && bytes >= 4 << 30, world.ordinal());
            let found = times(25, world.share(8), || drop(manager.verify_sealed(&shard).unwrap()));
            let sampled = sampler.stop();
            table.add(what, bytes, found);
            let clock = sampled.or_else(|| limit::clock(world.raw()));
            let most = clock.and_then(|clock| limit::bytes_per_second(world.raw(), clock, block, world.options.plain));
            if let Some(most) = most.filter(|_| world.is_gpu()) {
                table.share(
                    bytes as f64 / found.seconds() / most,
                    if sampled.is_some() {
                        "of the integer pipe at the clock of the run"
                    } else {
                        "of the integer pipe at the highest clock"
                    },
                );
            }
            if world.is_gpu() && block == 4096 {
                match bytes >> 20 {
                    1 => drop(table.wanted("at most 120 µs", found.seconds() <= 120e-6)),
                    16 => drop(table.wanted("at least 90 GB/s", bytes as f64 / found.seconds() >= 90e9)),
                    4096.. => drop(table.wanted("at least 700 GB/s", bytes as f64 / found.seconds() >= 700e9)),
                    _ => {}
                }
            }
            manager.release(&shard).unwrap();
        }
    }
    batch(world, table);
}

/// 200 tensors of 0.5 to 5 MiB, as regions of one shard and as shards of one batch, beside one image of the same bytes.
fn batch(world: &World, table: &mut Table) {
    let manager = world.manager(4096);
    let unit = if world.options.tiny { 4096 } else { 512 << 10 };
    let count = if world.options.tiny { 20 } else { TENSORS };
    let mut parts = Vec::new();
    let mut all = 0;
    for tensor in 0..count {
        let bytes = unit * (1 + tensor * 7 % 10);
        parts.push((all, bytes));
        all += bytes;
    }
    let Some(memory) = world.random(all, 9) else {
        table.leave_out(format!("a batch of {count} tensors: not so much is free"));
        return;
    };
    let memory = Arc::new(memory);
    let share = world.share(6);
    let shard = world.adopt(&manager, "image", &memory, &[(0, all)]);
    let one = times(25, share, || drop(manager.verify_sealed(&shard).unwrap()));
    table.add(format!("one image of {}", size(all)), all, one);
    manager.release(&shard).unwrap();

    let shard = world.adopt(&manager, "regions", &memory, &parts);
    let regions = times(25, share, || drop(manager.verify_sealed(&shard).unwrap()));
    let ratio = regions.seconds() / one.seconds();
    table.add(format!("{count} regions of one shard"), all, regions).share(ratio, "× one image");
    if world.is_gpu() {
        table.wanted("at most 1.5 × one image", ratio <= 1.5);
    }
    manager.release(&shard).unwrap();

    let shards: Vec<SealedShard> = parts
        .iter()
        .enumerate()
        .map(|(at, part)| world.adopt(&manager, &format!("t{at}"), &memory, std::slice::from_ref(part)))
        .collect();
    let borrowed: Vec<&SealedShard> = shards.iter().collect();
    let batch = times(25, share, || {
        for guard in manager.begin_all(&borrowed, ExecuteOptions::default()).unwrap() {
            guard.finish().unwrap();
        }
    });
    let ratio = batch.seconds() / one.seconds();
    table.add(format!("{count} shards in one batch"), all, batch).share(ratio, "× one image");
    if world.is_gpu() {
        table.wanted("at most 1.5 × one image", ratio <= 1.5);
    }
    shards.iter().for_each(|shard| drop(manager.release(shard).unwrap()));
}

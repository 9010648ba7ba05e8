/*
 * The two lowest levels of an fs-verity tree over an image in device memory, and the kernel that signs a launch off.
 *
 * Each hash is a chain of block_size / 64 + 1 compressions that no two threads can share, so one thread hashes one block, and
 * a level lasts at least as long as one chain. Nothing is shared between threads: no shared memory, no barriers.
 */
#include "common.cuh"

/*
 * The 64 bytes at `data + at` as little-endian words, of a block with `have` real bytes; what lies past them is zero. Reads no
 * byte outside of data[0 .. have]. Every thread of a region takes the same branch but at a block's ends. `aligned`, a constant:
 * `data` is a multiple of 16.
 */
VRAM_DEVICE_FN void vram_load_step(uint32_t next[16], const uint8_t *data, uint32_t at, uint32_t have,
                                   uint32_t aligned)
{
    const uint32_t skew = aligned != 0 ? 0u : vram_low_word(data) & 3u;
    const uint8_t *from = data + at;
    if (at + 64u <= have && (aligned != 0 || (vram_low_word(data) & 15u) == 0)) {
        VRAM_UNROLL
        for (uint32_t i = 0; i < 4; i++) {
            const uint4 four = ((const uint4 *)(const void *)from)[i];
            next[4 * i] = four.x;
            next[4 * i + 1] = four.y;
            next[4 * i + 2] = four.z;
            next[4 * i + 3] = four.w;
        }
    } else if (aligned == 0 && at + 64u <= have && (skew == 0 || (at != 0 && at + 68u - skew <= have))) {
        /* Whole words, shifted together where the region lies askew. */
        const vram_word *words = (const vram_word *)(const void *)(from - skew);
        uint32_t low = words[0];
        VRAM_UNROLL
        for (uint32_t i = 0; i < 16; i++) {
            const uint32_t high = i < 15 || skew != 0 ? words[i + 1] : 0u;
            next[i] = (uint32_t)((((uint64_t)high << 32) | low) >> (8u * skew));
            low = high;
        }
    } else {
        VRAM_UNROLL
        for (uint32_t i = 0; i < 16; i++) {
            next[i] = 0;
        }
        /* Byte by byte, rare and slow: in a loop that shifts the words through, to keep code and registers few. */
        VRAM_NO_UNROLL
        for (uint32_t i = at; i < at + 64u; i += 4) {
            VRAM_UNROLL
            for (uint32_t j = 0; j < 15; j++) {
                next[j] = next[j + 1];
            }
            next[15] = 0;
            VRAM_UNROLL
            for (uint32_t j = 0; j < 4; j++) {
                next[15] |= (i + j < have ? (uint32_t)data[i + j] : 0u) << (8u * j);
            }
        }
    }
}

/*
 * The hash of one block: `have` real bytes at `data`, virtually zero-padded to `block_size`, after the salt block in `start`.
 * The compression stands here once, in the loop, so that it fits the instruction cache; the next 64 bytes are on their way
 * while it runs. The padding block goes through it like any other.
 */
VRAM_DEVICE_FN void vram_hash_block(const uint32_t start[8], const uint8_t *data, uint32_t have, uint32_t block_size,
                                    uint32_t message_bits, uint32_t one, uint32_t aligned, uint32_t state[8])
{
    uint32_t w[16];
    uint32_t next[16];
    VRAM_UNROLL
    for (uint32_t i = 0; i < 8; i++) {
        state[i] = start[i];
    }
    vram_load_step(next, data, 0, have, aligned);
    VRAM_NO_UNROLL
    for (uint32_t at = 64; at <= block_size + 64u; at += 64) {
        if (at <= block_size) {
            VRAM_UNROLL
            for (uint32_t i = 0; i < 16; i++) {
                w[i] = vram_swap(next[i]);
            }
        } else {
            w[0] = 0x80000000u;
            VRAM_UNROLL
            for (uint32_t i = 1; i < 15; i++) {
                w[i] = 0;
            }
            w[15] = message_bits;
        }
        if (at < block_size) {
            vram_load_step(next, data, at, have, aligned);
        }
        vram_sha256_rounds(state, w, one);
    }
}

/* Stores a hash, 16-byte aligned. */
VRAM_DEVICE_FN void vram_store_hash(uint8_t *out, const uint32_t state[8])
{
    VRAM_UNROLL
    for (uint32_t i = 0; i < 2; i++) {
        uint4 four;
        four.x = vram_swap(state[4 * i]);
        four.y = vram_swap(state[4 * i + 1]);
        four.z = vram_swap(state[4 * i + 2]);
        four.w = vram_swap(state[4 * i + 3]);
        ((uint4 *)(void *)out)[i] = four;
    }
}

/*
 * vram_verity_leaves: the leaf hashes of one chunk of the image.
 *
 * Grid: ceil(block_count / 128). Block: 128 threads. Shared memory: none. At most 64 registers, so that 1,024 threads of a
 * multiprocessor hash at a time.
 * Each thread owns one block of the image and one 32-byte hash; it looks its region up by bisection. A block that no region
 * holds is not hashed and not counted, so a wrong table of regions shows in `covered`.
 * Limit: the integer pipe (about 950 of its instructions for each 64 bytes); memory is read once, at a sixth of its
 * bandwidth. Below some 100,000 blocks: the latency of one chain.
 */
VRAM_KERNEL void __launch_bounds__(VRAM_LEAVES_THREADS, 8) vram_verity_leaves(const __grid_constant__ vram_leaves_args args)
{
    const uint64_t at = vram_thread();
    uint64_t hashed = 0;
    if (at < args.block_count && args.region_count != 0) {
        const uint64_t block = args.first_block + at;
        const vram_region region =
            vram_find_region((const vram_region *)vram_at(args.regions), args.region_count, block);
        const uint64_t offset = (block - region.first_block) * args.block_size;
        if (block >= region.first_block && offset < region.bytes) {
            const uint64_t left = region.bytes - offset;
            uint32_t state[8];
            vram_hash_block(args.start, (const uint8_t *)vram_at(region.ptr + offset),
                            left < args.block_size ? (uint32_t)left : args.block_size, args.block_size,
                            args.message_bits, args.one, 0, state);
            vram_store_hash((uint8_t *)vram_at(args.hashes + vram_thread() * VRAM_HASH_BYTES), state);
            hashed = 1;
        }
    }
    vram_tally(&vram_counters_at(args.counters)->covered, hashed);
}

/*
 * vram_verity_nodes: the table entries over one chunk's leaf hashes.
 *
 * Grid: ceil(entries / 32). Block: 32 threads, to spread few threads over many multiprocessors. Shared memory: none.
 * Each thread owns one block of leaf hashes (the last one zero-padded) and one 32-byte entry. With `single`, the one leaf
 * hash is the entry. The bounds say twice the threads, so that 64 registers are the limit on every architecture.
 * Limit: the latency of one chain; there are block_size / 32 times fewer nodes than leaves.
 */
VRAM_KERNEL void __launch_bounds__(2 * VRAM_NODES_THREADS, 16) vram_verity_nodes(const __grid_constant__ vram_nodes_args args)
{
    const uint64_t at = vram_thread();
    const uint64_t bytes = args.leaf_count * VRAM_HASH_BYTES;
    const uint64_t offset = at * args.block_size;
    uint64_t written = 0;
    if (offset < bytes) {
        const uint8_t *data = (const uint8_t *)vram_at(args.hashes + offset);
        uint8_t *out = (uint8_t *)vram_at(args.table + at * VRAM_HASH_BYTES);
        if (args.single != 0) {
            ((uint4 *)(void *)out)[0] = ((const uint4 *)(const void *)data)[0];
            ((uint4 *)(void *)out)[1] = ((const uint4 *)(const void *)data)[1];
        } else {
            const uint64_t left = bytes - offset;
            uint32_t state[8];
            vram_hash_block(args.start, data, left < args.block_size ? (uint32_t)left : args.block_size,
                            args.block_size, args.message_bits, args.one, 1, state);
            vram_store_hash(out, state);
        }
        written = 1;
    }
    vram_tally(&vram_counters_at(args.counters)->found, written);
}

/*
 * vram_finish: the result of a launch, once everything before it on the stream is done.
 *
 * Grid: 1. Block: 1 thread, which owns the result. Shared memory: none. Limit: the latency of a launch.
 * Counters are read before the result is written: they may be two of its words.
 */
VRAM_KERNEL void __launch_bounds__(VRAM_FINISH_THREADS) vram_finish(const __grid_constant__ vram_finish_args args)
{
    if (vram_thread() == 0) {
        const vram_counters counted = *vram_counters_at(args.counters);
        vram_result *result = (vram_result *)vram_at(args.result);
        result->nonce = args.nonce;
        result->covered = counted.covered;
        result->found = counted.found;
        result->reserved = 0;
    }
}

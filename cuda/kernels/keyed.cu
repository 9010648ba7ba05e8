/*
 * The keyed hash of an image, level after level: NH with two passes over blocks of 4,096 bytes. Source: RFC 4418 (NH), Crowley
 * and Biggers, "Adiantum" (pairs that lie two words apart, passes whose keys lie four words apart).
 */
#include "common.cuh"

/* A 512-byte row of a block: 16 bytes for each lane. No row has bytes of two regions, for those begin at multiples of 1,024. */
#define VRAM_KEYED_ROW 512u
#define VRAM_KEYED_ROWS (VRAM_KEYED_BLOCK_BYTES / VRAM_KEYED_ROW)

/* Adds what four words come to, with the eight words of key from theirs on. */
VRAM_DEVICE_FN void vram_keyed_add(uint64_t sums[2], uint4 m, const uint4 *key)
{
    const uint4 k = key[0];
    const uint4 next = key[1];
    sums[0] += (uint64_t)(m.x + k.x) * (m.z + k.z) + (uint64_t)(m.y + k.y) * (m.w + k.w);
    sums[1] += (uint64_t)(m.x + next.x) * (m.z + next.z) + (uint64_t)(m.y + next.y) * (m.w + next.w);
}

/* Whether a region holds all of these bytes, the first of them `from` bytes behind its own first, or, wrapped around, ahead of it. */
VRAM_DEVICE_FN uint32_t vram_holds(const vram_region *region, uint64_t from, uint64_t bytes)
{
    return from <= region->bytes && bytes <= region->bytes - from ? 1u : 0u;
}

/*
 * The region that a block of the image is in; of what the level below left, all. One structure that is overwritten: with a choice
 * between two, nvcc 13.0 does not come to an end.
 */
VRAM_DEVICE_FN vram_region vram_keyed_region(uint64_t regions, uint64_t count, uint64_t bytes, uint64_t block)
{
    vram_region region = {regions, bytes, 0};
    if (count != 0) {
        region = vram_find_region((const vram_region *)vram_at(regions), count, block);
    }
    return region;
}

/*
 * The 16 bytes that begin `from` bytes behind a region's first; what the region does not hold is zero, and is not read. Adds to
 * `read` what was.
 */
VRAM_DEVICE_FN uint4 vram_keyed_load(const vram_region *region, uint64_t from, uint32_t *read)
{
    uint32_t word[4] = {0, 0, 0, 0};
    const uint32_t have = vram_holds(region, from, 16) != 0 ? 16u
                          : from < region->bytes            ? (uint32_t)(region->bytes - from)
                                                            : 0u;
    const uint8_t *data = (const uint8_t *)vram_at(region->ptr + from);
    const uint32_t skew = vram_low_word(data) & 3u;
    *read += have;
    if (have == 16 && (skew == 0 || (from != 0 && vram_holds(region, from, 20u - skew) != 0))) {
        /* Whole words, shifted together where the region lies askew. */
        const vram_word *words = (const vram_word *)(const void *)(data - skew);
        uint32_t low = words[0];
        VRAM_UNROLL
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t high = i < 3 || skew != 0 ? words[i + 1] : 0u;
            word[i] = (uint32_t)((((uint64_t)high << 32) | low) >> (8u * skew));
            low = high;
        }
    } else {
        /* Byte by byte, rare and slow: from the last, in a loop that shifts all words, to keep code and registers few. */
        VRAM_NO_UNROLL
        for (uint32_t i = 16; i-- > 0;) {
            VRAM_UNROLL
            for (uint32_t j = 3; j > 0; j--) {
                word[j] = (word[j] << 8) | (word[j - 1] >> 24);
            }
            word[0] = (word[0] << 8) | (i < have ? (uint32_t)data[i] : 0u);
        }
    }
    const uint4 four = {word[0], word[1], word[2], word[3]};
    return four;
}

/*
 * vram_keyed_level: the two sums of each block of one level.
 *
 * Grid: ceil(block_count / (share * 4)). Block: 128 threads. Shared memory: none. At most 64 registers.
 * Each warp owns `share` blocks that lie one after the other; each lane owns every 32nd 16 bytes of them. Regions are looked up by
 * bisection: once for all whole blocks of an aligned one, else for each row. What no region holds is hashed as zeros, as padding
 * is; `covered` says what was really read.
 * Limit: memory bandwidth, if nothing else is in the way. A block of an aligned region is 246 instructions on sm_90, 176 of them
 * integer: 22 for each 16 bytes, where 64 lanes in each of 132 multiprocessors, at 1.95 GHz, allow for 12 TB/s (10 TB/s if the four
 * wide multiply-adds count twice); 48 bytes through the first-level cache, two thirds of them key, for 11 TB/s. An H200 reads
 * 4.8 TB/s. Skewed regions: one row is under way at a time, which is slower.
 */
VRAM_KERNEL void __launch_bounds__(VRAM_KEYED_THREADS, 8) vram_keyed_level(const __grid_constant__ vram_keyed_args args)
{
    const uint32_t lane = threadIdx.x % 32u;
    const uint4 *key = (const uint4 *)vram_at(args.key) + lane;
    const uint64_t begin = vram_thread() / 32u * args.share;
    const uint64_t left = begin < args.block_count ? args.block_count - begin : 0;
    const uint32_t blocks = left < args.share ? (uint32_t)left : args.share;
    /* So many of them lie whole in one region, in aligned words; and where the image's first byte would lie with it. */
    uint32_t held = 0;
    uint64_t base = 0;
    uint32_t read = 0;
    uint32_t hashed = 0;

    VRAM_NO_UNROLL
    for (; hashed < blocks; hashed++) {
        const uint64_t at = begin + hashed;
        const uint64_t first = (args.first_block + at) * VRAM_KEYED_BLOCK_BYTES;
        uint64_t sums[2] = {0, 0};
        if (hashed >= held) {
            const vram_region region =
                vram_keyed_region(args.regions, args.region_count, args.bytes, first >> args.block_shift);
            base = region.ptr - (region.first_block << args.block_shift);
            const uint64_t from = base + first - region.ptr;
            const uint64_t whole =
                from < region.bytes && (region.ptr & 15u) == 0 ? (region.bytes - from) / VRAM_KEYED_BLOCK_BYTES : 0;
            held = whole < blocks - hashed ? hashed + (uint32_t)whole : blocks;
        }
        if (hashed < held) {
            const uint4 *words = (const uint4 *)vram_at(base + first) + lane;
            VRAM_UNROLL_BY_2
            for (uint32_t row = 0; row < VRAM_KEYED_ROWS; row++) {
                vram_keyed_add(sums, words[32 * row], key + 32 * row);
            }
            read += VRAM_KEYED_BLOCK_BYTES / 32u;
        } else {
            VRAM_NO_UNROLL
            for (uint32_t row = 0; row < VRAM_KEYED_ROWS; row++) {
                const uint64_t place = first + row * VRAM_KEYED_ROW;
                const vram_region region =
                    vram_keyed_region(args.regions, args.region_count, args.bytes, place >> args.block_shift);
                const uint64_t from = place + 16 * lane - (region.first_block << args.block_shift);
                vram_keyed_add(sums, vram_keyed_load(&region, from, &read), key + 32 * row);
            }
        }
        uint64_t *out = (uint64_t *)vram_at(args.sums + at * VRAM_KEYED_SUMS_BYTES);
        vram_tally(&out[0], sums[0]);
        vram_tally(&out[1], sums[1]);
    }
    vram_tally(&vram_counters_at(args.counters)->covered, read);
    vram_tally(&vram_counters_at(args.counters)->found, lane == 0 ? hashed : 0u);
}

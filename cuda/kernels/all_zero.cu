/* The proof that a wipe happened: every byte is read, and those that are not zero are counted. */
#include "common.cuh"

/* Bytes of a word that are not zero: the top bit of each byte of `any` says so. */
VRAM_DEVICE_FN uint32_t vram_nonzero_bytes(uint32_t word)
{
    const uint32_t any = ((word & 0x7f7f7f7fu) + 0x7f7f7f7fu) | word;
    return vram_bits(any & 0x80808080u);
}

VRAM_DEVICE_FN uint32_t vram_nonzero_in(uint4 four)
{
    /* After a wipe nearly always. */
    if ((four.x | four.y | four.z | four.w) == 0) {
        return 0;
    }
    return vram_nonzero_bytes(four.x) + vram_nonzero_bytes(four.y) + vram_nonzero_bytes(four.z) +
           vram_nonzero_bytes(four.w);
}

/*
 * vram_count_nonzero: bytes read, and bytes that are not zero, of one span of any alignment.
 *
 * Grid: any (see vram_kernels.h). Block: 256 threads. Shared memory: none.
 * Each thread owns every n-th 16-byte word of the aligned middle, n being the threads of the grid, and every n-th byte of
 * the up to 15 bytes before and after it. It counts what it has read; `covered` is the sum of that, not the length asked for.
 * Limit: memory bandwidth; four loads are under way in each thread.
 */
VRAM_KERNEL void __launch_bounds__(VRAM_COUNT_THREADS) vram_count_nonzero(const __grid_constant__ vram_count_args args)
{
    const uint64_t threads = (uint64_t)gridDim.x * blockDim.x;
    const uint64_t ahead = (16u - (args.ptr & 15u)) & 15u;
    const uint64_t head = ahead < args.bytes ? ahead : args.bytes;
    const uint64_t vectors = (args.bytes - head) / 16u;
    const uint64_t tail = args.bytes - head - 16u * vectors;
    const uint4 *middle = (const uint4 *)vram_at(args.ptr + head);
    uint64_t covered = 0;
    uint64_t found = 0;
    uint64_t at = vram_thread();

    /* The edges. */
    for (uint64_t edge = at; edge < head + tail; edge += threads) {
        const uint8_t *byte = (const uint8_t *)vram_at(args.ptr + (edge < head ? edge : edge + 16u * vectors));
        covered += 1;
        found += *byte != 0 ? 1u : 0u;
    }

    /* The middle, four words at a time, then one by one. */
    VRAM_NO_UNROLL
    for (; at + 3 * threads < vectors; at += 4 * threads) {
        const uint4 a = middle[at];
        const uint4 b = middle[at + threads];
        const uint4 c = middle[at + 2 * threads];
        const uint4 d = middle[at + 3 * threads];
        covered += 64;
        found += vram_nonzero_in(a) + vram_nonzero_in(b) + vram_nonzero_in(c) + vram_nonzero_in(d);
    }
    VRAM_NO_UNROLL
    for (; at < vectors; at += threads) {
        covered += 16;
        found += vram_nonzero_in(middle[at]);
    }

    vram_tally(&vram_counters_at(args.counters)->covered, covered);
    vram_tally(&vram_counters_at(args.counters)->found, found);
}

/*
 * What engines and attackers run in the suites: a matrix-vector product over weights where they lie, and writes that nobody
 * asked for. Never part of the library.
 */
#include "engine.h"

#include "../kernels/common.cuh"

/*
 * engine_matvec: y = weights · x, row by row, in float32.
 *
 * Grid: at least `rows` threads. Block: 128 threads. Shared memory: none. Each thread owns a row, and sums it from left to
 * right with fused multiply-adds, so that the host gets the same bits.
 */
VRAM_KERNEL void __launch_bounds__(ENGINE_THREADS) engine_matvec(const __grid_constant__ engine_matvec_args args)
{
    const uint64_t row = vram_thread();
    if (row >= args.rows) {
        return;
    }
    const float *weights = (const float *)vram_at(args.weights) + row * args.columns;
    const float *x = (const float *)vram_at(args.x);
    float sum = 0.0f;
    for (uint64_t i = 0; i < args.columns; i++) {
        sum = fmaf(weights[i], x[i], sum);
    }
    ((float *)vram_at(args.y))[row] = sum;
}

/* engine_flip: changes one bit of one byte. Grid: 1. Block: 128 threads, of which the first works. */
VRAM_KERNEL void __launch_bounds__(ENGINE_THREADS) engine_flip(const __grid_constant__ engine_flip_args args)
{
    if (vram_thread() == 0) {
        uint8_t *byte = (uint8_t *)vram_at(args.address);
        *byte = (uint8_t)(*byte ^ (1u << args.bit));
    }
}

/* engine_spin: keeps its stream busy for so long. Grid: 1. Block: 128 threads. On the host, where streams are late anyway, nothing. */
VRAM_KERNEL void __launch_bounds__(ENGINE_THREADS) engine_spin(const __grid_constant__ engine_spin_args args)
{
#if defined(__CUDACC__)
    uint64_t began, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(began));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - began < args.nanoseconds);
#else
    (void)args;
#endif
}

/* How often a value stands in 16 bytes. */
VRAM_DEVICE_FN uint64_t engine_matches(uint4 four, uint32_t low, uint32_t high)
{
    return (four.x == low && four.y == high ? 1u : 0u) + (four.z == low && four.w == high ? 1u : 0u);
}

/*
 * engine_scan: counts the places, multiples of 8, at which 8 bytes stand. It reads everything once and does next to nothing with
 * it, so it also is what a bandwidth-bound engine is like.
 *
 * Grid: any. Block: 128 threads. Shared memory: none. Each thread owns every n-th 16 bytes, n being the threads of the grid.
 * Limit: memory bandwidth; four loads are under way in each thread.
 */
VRAM_KERNEL void __launch_bounds__(ENGINE_THREADS) engine_scan(const __grid_constant__ engine_scan_args args)
{
    const uint64_t threads = (uint64_t)gridDim.x * blockDim.x;
    const uint4 *all = (const uint4 *)vram_at(args.address);
    const uint32_t low = (uint32_t)args.value, high = (uint32_t)(args.value >> 32);
    uint64_t found = 0;
    uint64_t i = vram_thread();
    VRAM_NO_UNROLL
    for (; i + 3 * threads < args.vectors; i += 4 * threads) {
        const uint4 a = all[i];
        const uint4 b = all[i + threads];
        const uint4 c = all[i + 2 * threads];
        const uint4 d = all[i + 3 * threads];
        found += engine_matches(a, low, high) + engine_matches(b, low, high) + engine_matches(c, low, high) +
                 engine_matches(d, low, high);
    }
    VRAM_NO_UNROLL
    for (; i < args.vectors; i += threads) {
        found += engine_matches(all[i], low, high);
    }
    vram_tally((uint64_t *)vram_at(args.counter), found);
}

/* One step of SplitMix64. */
VRAM_DEVICE_FN uint64_t engine_mix(uint64_t word)
{
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebull;
    return word ^ (word >> 31);
}

/*
 * engine_random: fills memory with numbers that depend on the seed and the place, or with one number over and over.
 *
 * Grid: any. Block: 128 threads. Shared memory: none. Each thread owns every n-th 16 bytes, n being the threads of the grid.
 */
VRAM_KERNEL void __launch_bounds__(ENGINE_THREADS) engine_random(const __grid_constant__ engine_random_args args)
{
    const uint64_t threads = (uint64_t)gridDim.x * blockDim.x;
    uint4 *all = (uint4 *)vram_at(args.address);
    for (uint64_t i = vram_thread(); i < args.vectors; i += threads) {
        const uint64_t at = args.seed + 2 * i * 0x9e3779b97f4a7c15ull;
        const uint64_t a = args.repeat != 0 ? args.repeat : engine_mix(at);
        const uint64_t b = args.repeat != 0 ? args.repeat : engine_mix(at + 0x9e3779b97f4a7c15ull);
        uint4 four;
        four.x = (uint32_t)a;
        four.y = (uint32_t)(a >> 32);
        four.z = (uint32_t)b;
        four.w = (uint32_t)(b >> 32);
        all[i] = four;
    }
}

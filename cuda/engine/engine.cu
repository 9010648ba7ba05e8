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

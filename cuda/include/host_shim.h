/*
 * Kernels on the CPU: what a host compiler needs to compile the kernels' bodies as C11 (or C++) functions.
 *
 * A launch is a loop over the grid, one thread after the other (VRAM_RUNS). That is faithful because
 * no kernel here uses shared memory, barriers or values of other threads, but for sums into counters. For tests only.
 */
#ifndef VRAM_HOST_SHIM_H
#define VRAM_HOST_SHIM_H

#include <stdint.h>

#define VRAM_KERNEL static
#define VRAM_DEVICE_FN static inline
#define VRAM_UNROLL
#define VRAM_NO_UNROLL
#define VRAM_UNROLL_BY_2
#define __launch_bounds__(...)
#define __grid_constant__

#if defined(__cplusplus)
#define VRAM_THREAD_LOCAL thread_local
#else
#define VRAM_THREAD_LOCAL _Thread_local
#endif

typedef struct vram_dim3 {
    uint32_t x;
} vram_dim3;

static VRAM_THREAD_LOCAL vram_dim3 threadIdx;
static VRAM_THREAD_LOCAL vram_dim3 blockIdx;
static VRAM_THREAD_LOCAL vram_dim3 blockDim;
static VRAM_THREAD_LOCAL vram_dim3 gridDim;

/* Device memory has no declared type: these may alias whatever the host put there. */
typedef struct __attribute__((may_alias, aligned(16))) uint4 {
    uint32_t x, y, z, w;
} uint4;
typedef uint32_t __attribute__((may_alias)) vram_word;

static inline uint32_t vram_swap(uint32_t word)
{
    return __builtin_bswap32(word);
}

static inline uint32_t vram_bits(uint32_t word)
{
    return (uint32_t)__builtin_popcount(word);
}

/* Makes run_KERNEL, which runs a kernel's body to its end: thread after thread, the last first when `backwards`. */
#define VRAM_RUNS(kernel, args_type) \
    static void run_##kernel(const void *args, uint32_t grid, uint32_t block, uint32_t backwards) \
    { \
        gridDim.x = grid; \
        blockDim.x = block; \
        for (uint32_t i = 0; i < grid; i++) { \
            blockIdx.x = backwards != 0 ? grid - 1 - i : i; \
            for (uint32_t j = 0; j < block; j++) { \
                threadIdx.x = backwards != 0 ? block - 1 - j : j; \
                kernel(*(const args_type *)args); \
            } \
        } \
    }

/* Adds to a counter that other threads add to. */
static inline void vram_tally(uint64_t *counter, uint64_t value)
{
    __atomic_fetch_add(counter, value, __ATOMIC_RELAXED);
}

#endif

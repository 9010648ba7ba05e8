/*
 * Kernels on the CPU: what a host compiler needs to compile the kernels' bodies as C11 (or C++) functions.
 *
 * A launch is a loop over the grid, one thread after the other (cuda/kernels/tests/host_kernels.c). That is faithful because
 * no kernel here uses shared memory, barriers or values of other threads, but for sums into counters. For tests only.
 */
#ifndef VRAM_HOST_SHIM_H
#define VRAM_HOST_SHIM_H

#include <stdint.h>

#define VRAM_KERNEL static
#define VRAM_DEVICE_FN static inline
#define VRAM_UNROLL
#define VRAM_NO_UNROLL
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

/* Adds to a counter that other threads add to. */
static inline void vram_tally(uint64_t *counter, uint64_t value)
{
    __atomic_fetch_add(counter, value, __ATOMIC_RELAXED);
}

#endif

/*
 * What the kernels share: the few primitives that differ between a GPU and the host (where the kernels' bodies are compiled
 * for tests), and the addressing of device memory.
 */
#ifndef VRAM_RESIDENCY_COMMON_CUH
#define VRAM_RESIDENCY_COMMON_CUH

#include "../include/vram_kernels.h"
#include "sha256.cuh"

#if defined(__CUDACC__)

#define VRAM_KERNEL extern "C" __global__
#define VRAM_DEVICE_FN static __device__ __forceinline__
#define VRAM_UNROLL _Pragma("unroll")
#define VRAM_NO_UNROLL _Pragma("unroll 1")
#define VRAM_UNROLL_BY_2 _Pragma("unroll 2")

typedef uint32_t vram_word;

VRAM_DEVICE_FN uint32_t vram_swap(uint32_t word)
{
    return __byte_perm(word, 0, 0x0123);
}

VRAM_DEVICE_FN uint32_t vram_bits(uint32_t word)
{
    return (uint32_t)__popc(word);
}

/*
 * Adds to a counter that other threads add to: one atomic operation for each warp. All 32 threads of the warp must come here
 * together. Integer sums do not depend on the order, so the result is deterministic.
 */
VRAM_DEVICE_FN void vram_tally(uint64_t *counter, uint64_t value)
{
    VRAM_UNROLL
    for (uint32_t lanes = 16; lanes != 0; lanes /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, lanes);
    }
    if (threadIdx.x % 32u == 0 && value != 0) {
        atomicAdd((unsigned long long *)counter, (unsigned long long)value);
    }
}

#else
#include "../include/host_shim.h"
#endif

/* This thread's number in the grid. */
VRAM_DEVICE_FN uint64_t vram_thread(void)
{
    return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* The low half of an address. Hidden from the compiler, which would else keep a second 64-bit copy of it in registers. */
VRAM_DEVICE_FN uint32_t vram_low_word(const void *pointer)
{
#if defined(__CUDACC__)
    uint32_t low;
    asm("cvt.u32.u64 %0, %1;" : "=r"(low) : "l"(pointer));
    return low;
#else
    return (uint32_t)((uintptr_t)pointer & 0xffffffffu);
#endif
}

/* The memory at a device address. Tells the compiler that it is global memory, so that no access has to ask. */
VRAM_DEVICE_FN void *vram_at(uint64_t address)
{
#if defined(__CUDACC__)
    return __cvta_global_to_generic((size_t)address);
#else
    return (void *)(uintptr_t)address;
#endif
}

VRAM_DEVICE_FN vram_counters *vram_counters_at(uint64_t address)
{
    return (vram_counters *)vram_at(address);
}

/* The last region that begins at or before `block`. */
VRAM_DEVICE_FN vram_region vram_find_region(const vram_region *regions, uint64_t count, uint64_t block)
{
    uint64_t low = 0;
    uint64_t high = count;
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (regions[middle].first_block <= block) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return regions[low];
}

#endif

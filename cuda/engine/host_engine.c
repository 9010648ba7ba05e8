/* The engine's kernels as host functions, for the mock. */
#include <math.h>
#include <stddef.h>

#include "engine.cu"

#include "../include/vram_mock.h"

VRAM_RUNS(engine_matvec, engine_matvec_args)
VRAM_RUNS(engine_flip, engine_flip_args)
VRAM_RUNS(engine_spin, engine_spin_args)
VRAM_RUNS(engine_scan, engine_scan_args)
VRAM_RUNS(engine_random, engine_random_args)

#define NONE VRAM_MOCK_NO_WORD
/* Which words of the arguments are addresses, and how much memory each means: {word, writes, unit, by which words, alignment}. */
#define KERNEL(name, count, ...) \
    {#name, sizeof(name##_args), ENGINE_THREADS, count, 0, {__VA_ARGS__}, run_##name}

static const vram_mock_kernel KERNELS[] = {
    KERNEL(engine_matvec, 3, {0, 0, 4, {3, 4}, 4}, {1, 0, 4, {4, NONE}, 4}, {2, 1, 4, {3, NONE}, 4}),
    KERNEL(engine_flip, 1, {0, 1, 1, {NONE, NONE}, 1}),
    KERNEL(engine_spin, 0, {0, 0, 0, {NONE, NONE}, 1}),
    KERNEL(engine_scan, 2, {0, 0, 16, {1, NONE}, 16}, {3, 1, 8, {NONE, NONE}, 8}),
    KERNEL(engine_random, 1, {0, 1, 16, {1, NONE}, 16}),
};

void vram_harness_add_kernels(void);

void vram_harness_add_kernels(void)
{
    vram_mock_add_kernels(KERNELS, sizeof KERNELS / sizeof *KERNELS);
}

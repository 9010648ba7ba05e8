/* The engine's kernels as host functions, by name, for the stand-in. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "engine.cu"
#include "host_engine.h"

static void run_matvec(const void *args)
{
    engine_matvec(*(const engine_matvec_args *)args);
}

static void run_flip(const void *args)
{
    engine_flip(*(const engine_flip_args *)args);
}

static void run_spin(const void *args)
{
    engine_spin(*(const engine_spin_args *)args);
}

static void run_scan(const void *args)
{
    engine_scan(*(const engine_scan_args *)args);
}

static void run_random(const void *args)
{
    engine_random(*(const engine_random_args *)args);
}

static const struct kernel {
    const char *name;
    void (*run)(const void *args);
    uint64_t args_bytes;
} KERNELS[] = {
    {ENGINE_MATVEC, run_matvec, sizeof(engine_matvec_args)},
    {ENGINE_FLIP, run_flip, sizeof(engine_flip_args)},
    {ENGINE_SPIN, run_spin, sizeof(engine_spin_args)},
    {ENGINE_SCAN, run_scan, sizeof(engine_scan_args)},
    {ENGINE_RANDOM, run_random, sizeof(engine_random_args)},
};

static const struct kernel *find(const char *name)
{
    for (size_t i = 0; i < sizeof KERNELS / sizeof KERNELS[0]; i++) {
        if (strcmp(KERNELS[i].name, name) == 0) {
            return &KERNELS[i];
        }
    }
    return NULL;
}

uint64_t engine_host_args_bytes(const char *name)
{
    const struct kernel *found = find(name);
    return found == NULL ? 0 : found->args_bytes;
}

uint32_t engine_host_launch(const char *name, const void *args, uint32_t grid, uint32_t block)
{
    const struct kernel *found = find(name);
    if (found == NULL || args == NULL || grid == 0 || block != ENGINE_THREADS) {
        return 1;
    }
    gridDim.x = grid;
    blockDim.x = block;
    for (uint32_t i = 0; i < grid; i++) {
        blockIdx.x = i;
        for (uint32_t j = 0; j < block; j++) {
            threadIdx.x = j;
            found->run(args);
        }
    }
    return 0;
}

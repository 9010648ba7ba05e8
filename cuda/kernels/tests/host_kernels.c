/* The kernels' bodies as host functions, by name. See vram_host_kernels.h. */

/* What the GPU runs, where the build does not say otherwise: the twin with multiply-adds. */
#ifndef VRAM_SHA256_MAD
#define VRAM_SHA256_MAD 1
#endif
#include "../vram_kernels.cu"

#include "../../include/vram_host_kernels.h"

#include <stddef.h>
#include <string.h>

static void run_leaves(const void *args)
{
    vram_verity_leaves(*(const vram_leaves_args *)args);
}

static void run_nodes(const void *args)
{
    vram_verity_nodes(*(const vram_nodes_args *)args);
}

static void run_finish(const void *args)
{
    vram_finish(*(const vram_finish_args *)args);
}

static void run_count(const void *args)
{
    vram_count_nonzero(*(const vram_count_args *)args);
}

typedef struct kernel {
    const char *name;
    void (*run)(const void *args);
    uint64_t args_bytes;
    uint32_t threads;
} kernel;

static const kernel KERNELS[] = {
    {VRAM_LEAVES, run_leaves, sizeof(vram_leaves_args), VRAM_LEAVES_THREADS},
    {VRAM_NODES, run_nodes, sizeof(vram_nodes_args), VRAM_NODES_THREADS},
    {VRAM_FINISH, run_finish, sizeof(vram_finish_args), VRAM_FINISH_THREADS},
    {VRAM_COUNT_NONZERO, run_count, sizeof(vram_count_args), VRAM_COUNT_THREADS},
};

static const kernel *find(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof KERNELS / sizeof KERNELS[0]; i++) {
        if (strcmp(KERNELS[i].name, name) == 0) {
            return &KERNELS[i];
        }
    }
    return NULL;
}

uint64_t vram_host_args_bytes(const char *name)
{
    const kernel *found = find(name);
    return found == NULL ? 0 : found->args_bytes;
}

uint32_t vram_host_launch(const char *name, const void *args, uint32_t grid, uint32_t block, uint32_t backwards)
{
    const kernel *found = find(name);
    if (found == NULL) {
        return VRAM_HOST_NOT_FOUND;
    }
    if (args == NULL || grid == 0 || block != found->threads) {
        return VRAM_HOST_INVALID_VALUE;
    }
    gridDim.x = grid;
    blockDim.x = block;
    for (uint32_t i = 0; i < grid; i++) {
        blockIdx.x = backwards != 0 ? grid - 1 - i : i;
        for (uint32_t j = 0; j < block; j++) {
            threadIdx.x = backwards != 0 ? block - 1 - j : j;
            found->run(args);
        }
    }
    return VRAM_HOST_OK;
}

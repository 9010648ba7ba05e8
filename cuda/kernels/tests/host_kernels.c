/* The kernels' bodies as host functions, by name. See vram_host_kernels.h. */

/* What the GPU runs, where the build does not say otherwise: the twin with multiply-adds. */
#ifndef VRAM_SHA256_MAD
#define VRAM_SHA256_MAD 1
#endif
#include "../vram_kernels.cu"

#include "../../include/vram_host_kernels.h"

#include <stddef.h>
#include <string.h>

VRAM_RUNS(vram_verity_leaves, vram_leaves_args)
VRAM_RUNS(vram_verity_nodes, vram_nodes_args)
VRAM_RUNS(vram_finish, vram_finish_args)
VRAM_RUNS(vram_count_nonzero, vram_count_args)
VRAM_RUNS(vram_keyed_level, vram_keyed_args)

const vram_mock_kernel vram_host_kernels[VRAM_HOST_KERNELS] = {
    {.name = VRAM_LEAVES, .args_bytes = sizeof(vram_leaves_args), .threads = VRAM_LEAVES_THREADS, .run = run_vram_verity_leaves},
    {.name = VRAM_NODES, .args_bytes = sizeof(vram_nodes_args), .threads = VRAM_NODES_THREADS, .run = run_vram_verity_nodes},
    {.name = VRAM_FINISH, .args_bytes = sizeof(vram_finish_args), .threads = VRAM_FINISH_THREADS, .run = run_vram_finish},
    {.name = VRAM_COUNT_NONZERO, .args_bytes = sizeof(vram_count_args), .threads = VRAM_COUNT_THREADS,
     .run = run_vram_count_nonzero},
    {.name = VRAM_KEYED, .args_bytes = sizeof(vram_keyed_args), .threads = VRAM_KEYED_THREADS, .run = run_vram_keyed_level},
};

uint32_t vram_host_launch(const char *name, const void *args, uint64_t args_bytes, uint32_t grid, uint32_t block,
                          uint32_t backwards)
{
    for (uint32_t i = 0; i < VRAM_HOST_KERNELS; i++) {
        const vram_mock_kernel *found = &vram_host_kernels[i];
        if (strcmp(found->name, name) == 0) {
            if (args == NULL || args_bytes != found->args_bytes || grid == 0 || block != found->threads) {
                return VRAM_HOST_INVALID_VALUE;
            }
            found->run(args, grid, block, backwards);
            return VRAM_HOST_OK;
        }
    }
    return VRAM_HOST_NOT_FOUND;
}

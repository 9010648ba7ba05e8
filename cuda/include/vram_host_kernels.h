/*
 * The kernels' bodies, compiled for the host: what the mock launches. For tests only.
 *
 * Addresses in the arguments are host addresses. Calls may be made from any thread. Nothing is checked but the shape of a
 * launch: as on a GPU, a wrong address is undefined behaviour.
 */
#ifndef VRAM_HOST_KERNELS_H
#define VRAM_HOST_KERNELS_H

#include "vram_mock.h"

/* Statuses, as CUDA numbers them. */
#define VRAM_HOST_OK 0u
#define VRAM_HOST_INVALID_VALUE 1u
#define VRAM_HOST_NOT_FOUND 500u

/* In the order of the numbers below. Their uses are the mock's own knowledge. */
enum { VRAM_HOST_LEAVES, VRAM_HOST_NODES, VRAM_HOST_FINISH, VRAM_HOST_COUNT, VRAM_HOST_KEYED, VRAM_HOST_KERNELS };
extern const vram_mock_kernel vram_host_kernels[VRAM_HOST_KERNELS];

/*
 * Runs a kernel to its end: `grid` thread blocks of `block` threads, one after the other, the last first when `backwards`.
 * NOT_FOUND: no kernel has this name. INVALID_VALUE: no arguments or another structure, an empty grid, or another block than the
 * kernel is made for.
 */
uint32_t vram_host_launch(const char *name, const void *args, uint64_t args_bytes, uint32_t grid, uint32_t block,
                          uint32_t backwards);

#endif

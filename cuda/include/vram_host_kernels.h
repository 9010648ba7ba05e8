/*
 * The kernels' bodies, compiled for the host: what the mock launches. For tests only.
 *
 * Addresses in the arguments are host addresses. Calls may be made from any thread. Nothing is checked but the shape of a
 * launch: as on a GPU, a wrong address is undefined behaviour.
 */
#ifndef VRAM_HOST_KERNELS_H
#define VRAM_HOST_KERNELS_H

#include <stdint.h>

/* Statuses, as CUDA numbers them. */
#define VRAM_HOST_OK 0u
#define VRAM_HOST_INVALID_VALUE 1u
#define VRAM_HOST_NOT_FOUND 500u

#if defined(__cplusplus)
extern "C" {
#endif

/* Bytes of the structure that a kernel takes; 0 when there is no kernel of this name. */
uint64_t vram_host_args_bytes(const char *name);
/*
 * Runs a kernel to its end: `grid` thread blocks of `block` threads, one after the other, the last first when `backwards`.
 * NOT_FOUND: no kernel has this name. INVALID_VALUE: no arguments, an empty grid, or another block than the kernel is made for.
 */
uint32_t vram_host_launch(const char *name, const void *args, uint32_t grid, uint32_t block, uint32_t backwards);

#if defined(__cplusplus)
}
#endif

#endif

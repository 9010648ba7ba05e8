/* The engine's kernels, compiled for the host: what the stand-in launches besides the library's own. */
#ifndef VRAM_RESIDENCY_HOST_ENGINE_H
#define VRAM_RESIDENCY_HOST_ENGINE_H

#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* Bytes of the structure that a kernel takes; 0 when there is no kernel of this name. */
uint64_t engine_host_args_bytes(const char *name);
/* Runs a kernel to its end, one thread after the other; 0, or 1 when name or launch are wrong. */
uint32_t engine_host_launch(const char *name, const void *args, uint32_t grid, uint32_t block);

#if defined(__cplusplus)
}
#endif

#endif

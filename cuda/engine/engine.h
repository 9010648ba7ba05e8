/* The kernels that engines and attackers run in the suites. One structure by value each. */
#ifndef VRAM_RESIDENCY_ENGINE_H
#define VRAM_RESIDENCY_ENGINE_H

#include <stdint.h>

/* Threads of a block, of each of them. */
#define ENGINE_THREADS 128

#define ENGINE_MATVEC "engine_matvec"
#define ENGINE_FLIP "engine_flip"
#define ENGINE_SPIN "engine_spin"

typedef struct engine_matvec_args {
    uint64_t weights; /* rows × columns float32, row by row */
    uint64_t x;       /* columns float32 */
    uint64_t y;       /* rows float32 */
    uint64_t rows;
    uint64_t columns;
} engine_matvec_args;

typedef struct engine_flip_args {
    uint64_t address;
    uint64_t bit; /* 0 to 7 */
} engine_flip_args;

typedef struct engine_spin_args {
    uint64_t nanoseconds;
} engine_spin_args;

#endif

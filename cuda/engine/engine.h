/* The kernels that engines and attackers run in the suites. One structure by value each. */
#ifndef VRAM_RESIDENCY_ENGINE_H
#define VRAM_RESIDENCY_ENGINE_H

#include <stdint.h>

/* Threads of a block, of each of them. */
#define ENGINE_THREADS 128

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

typedef struct engine_scan_args {
    uint64_t address; /* a multiple of 16 */
    uint64_t vectors; /* of 16 bytes */
    uint64_t value;   /* 8 bytes to look for, at multiples of 8 */
    uint64_t counter; /* 8 bytes, to which what was found is added */
} engine_scan_args;

typedef struct engine_random_args {
    uint64_t address; /* a multiple of 16 */
    uint64_t vectors; /* of 16 bytes */
    uint64_t seed;
    uint64_t repeat; /* 0: random bytes; else these 8 bytes over and over */
} engine_random_args;

#endif

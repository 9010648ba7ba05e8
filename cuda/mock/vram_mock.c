/*
 * The mock device as one translation unit, so that only what vram_mock.h declares is visible to a linker.
 *
 * machine.c      machines, devices, tables, entering and leaving a call
 * faults.c       faults to order, counters
 * memory.c       allocations, address checks, residency, access
 * sparse.c       large allocations that are mostly zeros
 * host.c         host buffers
 * kernels.c      what the digest and the zero proof compute
 * stream.c       queues, events, and the order in which operations run
 * operations.c   enqueuing operations and running them
 */
#include "internal.h"

#include "machine.c"

#include "faults.c"

#include "memory.c"

#include "sparse.c"

#include "host.c"

#include "kernels.c"

#include "operations.c"

#include "stream.c"

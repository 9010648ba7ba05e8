/*
 * The mock under sanitizers: an engine's life over the driver's functions, alone and on many threads, and what must be refused.
 * What the functions mean is for the driver's own tests and the device suite. Prints what failed; exits 1 if anything did.
 */
// covers: DEV-1
#include "../../include/vram_kernels.h"
#include "../../include/vram_mock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRANULE 4096u
#define THREADS 4

static int failures;

static void expect(bool truth, const char *what, int line)
{
    if (!truth) {
        __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
        fprintf(stderr, "FAILED: %s (line %d)\n", what, line);
    }
}
#define EXPECT(truth) expect((truth), #truth, __LINE__)

/* Calls a function of the API by its name, with these types of its parameters. */
#define CU(name, parameters, ...) (((uint32_t (*) parameters)found(#name))(__VA_ARGS__))
typedef void (*any)(void);

static any found(const char *name)
{
    void *at = vram_mock_function(name);
    any call = NULL;
    if (at == NULL) {
        exit(2);
    }
    memcpy(&call, &at, sizeof call);
    return call;
}

typedef struct location { uint32_t kind; int32_t id; } location;
typedef struct properties {
    uint32_t kind, handle_types;
    location where;
    void *win32;
    uint8_t flags[8];
} properties;
typedef struct access_desc { location where; uint32_t flags; } access_desc;

/* Not a hash: enough to tell blocks apart. */
static void hasher(const uint32_t start[8], uint32_t salted, const uint8_t *data, uint64_t blocks, uint32_t size, uint8_t *out)
{
    for (uint64_t i = 0; i < 32 * blocks; i++) {
        out[i] = (uint8_t)(start[i % 8] + salted + data[i / 32 * size + i % 32]);
    }
}

/* Mapped memory of `bytes` bytes; 0 when there is no room. */
static uint64_t map(uint64_t bytes, uint64_t *handle)
{
    uint64_t at = 0;
    const properties wanted = {.kind = 1, .where = {1, 0}};
    const access_desc both = {{1, 0}, 3};
    if (CU(cuMemCreate, (uint64_t *, size_t, const properties *, uint64_t), handle, bytes, &wanted, 0) != 0) {
        return 0;
    }
    EXPECT(CU(cuMemAddressReserve, (uint64_t *, size_t, size_t, uint64_t, uint64_t), &at, bytes, 0, 0, 0) == 0);
    EXPECT(CU(cuMemMap, (uint64_t, size_t, size_t, uint64_t, uint64_t), at, bytes, 0, *handle, 0) == 0);
    EXPECT(CU(cuMemSetAccess, (uint64_t, size_t, const access_desc *, size_t), at, bytes, &both, 1) == 0);
    return at;
}

static void unmap(uint64_t at, uint64_t bytes, uint64_t handle)
{
    EXPECT(CU(cuMemUnmap, (uint64_t, size_t), at, bytes) == 0);
    EXPECT(CU(cuMemAddressFree, (uint64_t, size_t), at, bytes) == 0);
    EXPECT(CU(cuMemRelease, (uint64_t), handle) == 0);
}

static void launch(uint64_t module, const char *name, uint32_t grid, uint32_t threads, void *args, uint64_t stream)
{
    uint64_t function = 0;
    void *parameters[1] = {args};
    EXPECT(CU(cuModuleGetFunction, (uint64_t *, uint64_t, const char *), &function, module, name) == 0);
    EXPECT(CU(cuLaunchKernel,
              (uint64_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint64_t, void **, void **),
              function, grid, 1, 1, threads, 1, 1, 0, stream, parameters, NULL) == 0);
}

/* Uploads, counts, reads back; on a stream of its own. */
static void *live(void *of)
{
    static const _Alignas(16) char IMAGE[16] = "\177ELF";
    const uint64_t bytes = 8 * GRANULE;
    uint64_t context = 0, stream = 0, module = 0, handle = 0, event = 0;
    uint8_t *host = NULL;
    vram_mock_enter(of);
    EXPECT(CU(cuDevicePrimaryCtxRetain, (uint64_t *, int32_t), &context, 0) == 0);
    EXPECT(CU(cuCtxPushCurrent_v2, (uint64_t), context) == 0);
    EXPECT(CU(cuStreamCreate, (uint64_t *, uint32_t), &stream, 1) == 0);
    EXPECT(CU(cuEventCreate, (uint64_t *, uint32_t), &event, 2) == 0);
    EXPECT(CU(cuModuleLoadData, (uint64_t *, const void *), &module, IMAGE) == 0);
    EXPECT(CU(cuMemHostAlloc, (void **, size_t, uint32_t), (void **)&host, GRANULE, 1) == 0);
    const uint64_t at = map(bytes, &handle);
    for (int round = 0; at != 0 && round < 20; round++) {
        memset(host, 7, GRANULE);
        EXPECT(CU(cuMemsetD8Async, (uint64_t, uint8_t, size_t, uint64_t), at, 0, bytes, stream) == 0);
        EXPECT(CU(cuMemcpyHtoDAsync_v2, (uint64_t, const void *, size_t, uint64_t), at + 3, host, 4000, stream) == 0);
        const uint64_t result = at + 4 * GRANULE;
        vram_count_args count = {at, GRANULE, result + 8};
        vram_finish_args finish = {result, result + 8, 99};
        launch(module, VRAM_COUNT_NONZERO, 1, VRAM_COUNT_THREADS, &count, stream);
        launch(module, VRAM_FINISH, 1, VRAM_FINISH_THREADS, &finish, stream);
        EXPECT(CU(cuMemcpyDtoHAsync_v2, (void *, uint64_t, size_t, uint64_t), host, result, 32, stream) == 0);
        EXPECT(CU(cuEventRecord, (uint64_t, uint64_t), event, stream) == 0);
        EXPECT(CU(cuEventSynchronize, (uint64_t), event) == 0);
        const vram_result expected = {99, GRANULE, 4000, 0};
        EXPECT(memcmp(host, &expected, sizeof expected) == 0);
        EXPECT(CU(cuStreamSynchronize, (uint64_t), stream) == 0);
        EXPECT(vram_mock_flip(of, at + 5, 2) == 0 && vram_mock_look(of, at + 5, host, 1) == 0 && host[0] == 3);
    }
    if (at != 0) {
        EXPECT(CU(cuMemsetD8Async, (uint64_t, uint8_t, size_t, uint64_t), at, 0, bytes, stream) == 0);
        EXPECT(CU(cuStreamSynchronize, (uint64_t), stream) == 0);
        unmap(at, bytes, handle);
    }
    memset(host, 0, GRANULE);
    EXPECT(CU(cuMemFreeHost, (void *), host) == 0);
    EXPECT(CU(cuModuleUnload, (uint64_t), module) == 0);
    EXPECT(CU(cuEventDestroy_v2, (uint64_t), event) == 0);
    EXPECT(CU(cuStreamDestroy_v2, (uint64_t), stream) == 0);
    EXPECT(CU(cuCtxPopCurrent_v2, (uint64_t *), &context) == 0);
    EXPECT(CU(cuDevicePrimaryCtxRelease_v2, (int32_t), 0) == 0);
    return NULL;
}

static void clean(vram_mock_machine *machine)
{
    vram_mock_stats stats;
    EXPECT(vram_mock_stats_of_device(machine, 0, &stats) == 0);
    EXPECT(stats.live_bytes == 0 && stats.live_streams == 0 && stats.live_events + stats.live_marks == 0 && stats.live_host_buffers == 0);
    EXPECT(stats.pending_operations == 0 && stats.violations == 0 && stats.reservations == 0 && stats.modules == 0);
    EXPECT(stats.unwiped_device_bytes == 0 && stats.unwiped_host_bytes == 0 && stats.retained == 0);
}

int main(void)
{
    static const uint8_t SEED[16] = {1};
    for (uint64_t kind = 0; kind < 8; kind++) {
        vram_mock_machine *machine = vram_mock_machine_new(2, SEED, hasher, NULL);
        vram_mock_set(machine, VRAM_MOCK_GRANULARITY, GRANULE);
        vram_mock_set(machine, VRAM_MOCK_BODIES, kind & 1);
        vram_mock_set(machine, VRAM_MOCK_SPARSE, (kind >> 1) & 1);
        vram_mock_set(machine, VRAM_MOCK_LATE, (kind >> 2) & 1);
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            EXPECT(pthread_create(&threads[i], NULL, live, machine) == 0);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        clean(machine);
        /* What must be refused, whatever is asked. */
        uint64_t out = 0;
        uint8_t byte = 0;
        vram_mock_enter(machine);
        EXPECT(CU(cuMemAlloc_v2, (uint64_t *, size_t), &out, 64) == 201); /* no context */
        EXPECT(vram_mock_look(machine, (uint64_t)(uintptr_t)&byte, &byte, 1) == 1 && vram_mock_flip(machine, 0, 0) == 1);
        const vram_mock_fault senseless = {.kind = VRAM_MOCK_HALF, .call = VRAM_MOCK_ALLOC, .nth = 1, .times = 1};
        EXPECT(vram_mock_order(machine, 0, &senseless) == 1 && vram_mock_order(machine, 7, &senseless) == 1);
        EXPECT(vram_mock_function("cuNoSuchFunction") == NULL && vram_mock_number("cuNoSuchFunction") == 0);
        /* What is left goes with the machine. */
        uint64_t context = 0, stream = 0, handle = 0;
        EXPECT(CU(cuDevicePrimaryCtxRetain, (uint64_t *, int32_t), &context, 0) == 0);
        EXPECT(CU(cuCtxPushCurrent_v2, (uint64_t), context) == 0);
        EXPECT(CU(cuStreamCreate, (uint64_t *, uint32_t), &stream, 1) == 0);
        const uint64_t at = map(GRANULE, &handle);
        EXPECT(CU(cuMemsetD8Async, (uint64_t, uint8_t, size_t, uint64_t), at, 9, GRANULE, stream) == 0);
        EXPECT(vram_mock_register(machine, 0, (uint64_t)(uintptr_t)&byte, 1, 0) == 0);
        EXPECT(vram_mock_flip(machine, (uint64_t)(uintptr_t)&byte, 0) == VRAM_MOCK_READ_ONLY && byte == 0);
        EXPECT(CU(cuCtxPopCurrent_v2, (uint64_t *), &context) == 0);
        vram_mock_machine_drop(machine);
    }
    puts(failures == 0 ? "mock: all as it should be" : "mock: see above");
    return failures == 0 ? 0 : 1;
}

/*
 * Exercises the mock through its C interface alone, for the sanitizers: memory, streams, faults, kernels, threads. What the
 * calls mean is tested from Rust (src/driver/mock/tests.rs); here the point is that no path reads, writes, leaks or races.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "../../include/vram_mock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned passed;
static unsigned failed;

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            return 1;                                                             \
        }                                                                         \
    } while (0)
#define OK(call) CHECK((call) == VRAM_MOCK_OK)

static vram_mock_machine *machine(uint64_t capacity, uint32_t late, uint32_t poison)
{
    const vram_mock_config config = {VRAM_MOCK_ABI_VERSION, 2, capacity, 256, late, poison, 1, 0, {1, 2, 3}};
    vram_mock_machine *made = NULL;
    return vram_mock_create(&config, &made) == VRAM_MOCK_OK ? made : NULL;
}

static vram_mock_fault order(uint32_t kind, uint32_t call)
{
    return (vram_mock_fault){kind, call, VRAM_MOCK_LAUNCH_FAILED, 0, 1, 1, 1};
}

static int memory_comes_and_goes(void)
{
    vram_mock_machine *m = machine(64 << 20, 1, 1);
    uint64_t at[300];
    uint64_t extra = 0;
    vram_mock_stats stats;
    CHECK(m != NULL);
    for (uint64_t i = 0; i < 300; i++) {
        OK(vram_mock_alloc(m, 0, 256 * (1 + i), &at[i]));
    }
    CHECK(vram_mock_alloc(m, 0, 64 << 20, &extra) == VRAM_MOCK_OUT_OF_MEMORY);
    CHECK(vram_mock_alloc(m, 0, 100, &extra) == VRAM_MOCK_INVALID_VALUE);
    CHECK(vram_mock_alloc(m, 2, 256, &extra) == VRAM_MOCK_INVALID_DEVICE);
    for (uint64_t i = 0; i < 300; i += 2) {
        OK(vram_mock_free(m, 0, at[i]));
        CHECK(vram_mock_free(m, 0, at[i]) == VRAM_MOCK_INVALID_VALUE);
    }
    OK(vram_mock_stats_of(m, 0, &stats));
    CHECK(stats.live_allocations == 150 && stats.unwiped_device_bytes > 0);
    /* The rest is freed with the machine. */
    vram_mock_destroy(m);
    vram_mock_destroy(NULL);
    return 0;
}

static int edges_are_respected(void)
{
    vram_mock_machine *m = machine(1 << 20, 1, 0);
    uint64_t small = 0, stream = 0, host = 0;
    uint8_t byte = 0;
    CHECK(m != NULL);
    OK(vram_mock_alloc(m, 0, 256, &small));
    OK(vram_mock_host_alloc(m, 0, 256, &host));
    OK(vram_mock_stream_create(m, 0, &stream));
    OK(vram_mock_fill(m, 0, stream, (vram_mock_span){small, 256}, 1));
    CHECK(vram_mock_fill(m, 0, stream, (vram_mock_span){small, 257}, 1) == VRAM_MOCK_INVALID_VALUE);
    CHECK(vram_mock_fill(m, 0, stream, (vram_mock_span){small - 1, 2}, 1) == VRAM_MOCK_INVALID_VALUE);
    CHECK(vram_mock_fill(m, 0, stream, (vram_mock_span){UINT64_MAX, UINT64_MAX}, 1) == VRAM_MOCK_INVALID_VALUE);
    OK(vram_mock_copy_to_host(m, 0, stream, host, small, 256));
    CHECK(vram_mock_copy_to_host(m, 0, stream, host + 1, small, 256) == VRAM_MOCK_INVALID_VALUE);
    CHECK(vram_mock_copy_to_device(m, 1, stream, small, host, 1) == VRAM_MOCK_INVALID_VALUE);
    CHECK(vram_mock_peek(m, 0, small + 256, &byte, 1) == VRAM_MOCK_INVALID_VALUE);
    CHECK(vram_mock_flip_bit(m, 0, small + 256, 0) == VRAM_MOCK_INVALID_VALUE);
    OK(vram_mock_stream_synchronize(m, 0, stream));
    CHECK(((const uint8_t *)(uintptr_t)host)[255] == 1);
    OK(vram_mock_host_free(m, 0, host));
    CHECK(vram_mock_host_free(m, 0, host) == VRAM_MOCK_INVALID_VALUE);
    vram_mock_destroy(m);
    return 0;
}

static int queued_work_outlives_nothing(void)
{
    vram_mock_machine *m = machine(16 << 20, 1, 1);
    uint64_t at = 0, again = 0, stream = 0, other = 0, host = 0, event = 0;
    uint8_t first = 0;
    CHECK(m != NULL);
    OK(vram_mock_stream_create(m, 0, &stream));
    OK(vram_mock_stream_create(m, 0, &other));
    OK(vram_mock_event_create(m, 0, &event));
    OK(vram_mock_host_alloc(m, 0, 8192, &host));
    for (uint64_t bytes = 256; bytes <= 8192; bytes *= 32) {
        OK(vram_mock_alloc(m, 0, bytes, &at));
        OK(vram_mock_fill(m, 0, stream, (vram_mock_span){at, bytes}, 1));
        OK(vram_mock_copy_to_device(m, 0, stream, at, host, bytes));
        OK(vram_mock_free(m, 0, at));
        OK(vram_mock_alloc(m, 0, bytes, &again));
        CHECK(vram_mock_stream_synchronize(m, 0, stream) == VRAM_MOCK_INVALID_VALUE);
        OK(vram_mock_stream_synchronize(m, 0, stream));
        OK(vram_mock_peek(m, 0, again, &first, 1));
        CHECK(first == 0xA5);
    }
    /* A host buffer freed with copies queued; a stream destroyed with waits queued; a machine with all of it. */
    OK(vram_mock_copy_to_host(m, 0, other, host, again, 4096));
    OK(vram_mock_event_record(m, 0, event, other));
    OK(vram_mock_event_wait(m, 0, stream, event));
    OK(vram_mock_host_free(m, 0, host));
    OK(vram_mock_fill(m, 0, other, (vram_mock_span){again, 256}, 1));
    OK(vram_mock_event_record(m, 0, event, other));
    OK(vram_mock_event_wait(m, 0, stream, event));
    OK(vram_mock_event_destroy(m, 0, event));
    OK(vram_mock_stream_destroy(m, 0, stream));
    OK(vram_mock_fill(m, 0, other, (vram_mock_span){again, 256}, 2));
    vram_mock_destroy(m);
    return 0;
}

static int digest_once(vram_mock_machine *m, uint64_t bytes, uint32_t block_size, uint64_t scratch_bytes)
{
    uint64_t image = 0, table = 0, scratch = 0, result = 0, stream = 0;
    const uint64_t blocks = (bytes + block_size - 1) / block_size;
    const uint64_t arity = block_size / 32;
    const uint64_t entries = 2 * blocks == 1 ? 1 : (2 * blocks + arity - 1) / arity;
    uint8_t word[32];
    OK(vram_mock_stream_create(m, 1, &stream));
    OK(vram_mock_alloc(m, 1, (2 * bytes + 256) & ~255ull, &image));
    OK(vram_mock_alloc(m, 1, (entries * 32 + 255) & ~255ull, &table));
    OK(vram_mock_alloc(m, 1, scratch_bytes, &scratch));
    OK(vram_mock_alloc(m, 1, 256, &result));
    /* Two regions that touch, at an odd address. The array lies on the heap, freed before the kernel runs. */
    vram_mock_span *regions = malloc(2 * sizeof *regions);
    CHECK(regions != NULL);
    regions[0] = (vram_mock_span){image + 1, bytes};
    regions[1] = (vram_mock_span){image + 1 + bytes, bytes};
    const vram_mock_digest_job job = {regions,           2,  block_size, 3, {1, 2, 3}, {scratch, scratch_bytes}, {table, entries * 32},
                                      result, 42};
    const vram_mock_status status = vram_mock_digest(m, 1, stream, &job);
    free(regions);
    OK(status);
    OK(vram_mock_stream_synchronize(m, 1, stream));
    OK(vram_mock_peek(m, 1, result, word, 32));
    /* Silent: some ordered faults are meant to end here. */
    if (word[0] != 42) {
        return 1;
    }
    OK(vram_mock_count_nonzero(m, 1, stream, (vram_mock_span){image, bytes}, result, 7));
    OK(vram_mock_stream_destroy(m, 1, stream));
    OK(vram_mock_free(m, 1, image));
    OK(vram_mock_free(m, 1, table));
    OK(vram_mock_free(m, 1, scratch));
    OK(vram_mock_free(m, 1, result));
    return 0;
}

static int kernels_stay_in_their_ranges(void)
{
    vram_mock_machine *m = machine(64 << 20, 1, 1);
    CHECK(m != NULL);
    for (uint32_t block_size = 1024; block_size <= 65536; block_size *= 4) {
        const uint64_t lengths[] = {1, 63, 64, 100, block_size - 1, block_size, block_size + 1, 33ull * block_size + 7};
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            CHECK(digest_once(m, lengths[i], block_size, block_size) == 0);
            CHECK(digest_once(m, lengths[i], block_size, 4ull * block_size) == 0);
        }
    }
    CHECK(digest_once(m, (5 << 20) + 1, 4096, 1 << 20) == 0);
    vram_mock_destroy(m);
    return 0;
}

static int faults_leave_nothing_behind(void)
{
    for (uint32_t late = 0; late < 2; late++) {
        vram_mock_machine *m = machine(64 << 20, late, 1);
        CHECK(m != NULL);
        for (uint32_t kind = VRAM_MOCK_FAULT_SKIP; kind <= VRAM_MOCK_FAULT_DIGEST_REPLAYED; kind++) {
            vram_mock_fault made = order(kind, VRAM_MOCK_CALL_DIGEST);
            if (kind != VRAM_MOCK_FAULT_HALF) {
                OK(vram_mock_order_fault(m, 1, &made));
            } else {
                CHECK(vram_mock_order_fault(m, 1, &made) == VRAM_MOCK_INVALID_VALUE);
            }
            /* Whether it says 42 depends on the fault; that it stays in range does not. */
            (void)digest_once(m, 10000, 1024, 1024);
            CHECK(digest_once(m, 5000, 1024, 1024) == 0);
        }
        vram_mock_fault never = order(VRAM_MOCK_FAULT_FAIL, VRAM_MOCK_CALL_ANY);
        never.nth = UINT64_MAX;
        OK(vram_mock_order_fault(m, 1, &never));
        OK(vram_mock_order_fault(m, 1, &never));
        vram_mock_stats stats;
        OK(vram_mock_stats_of(m, 1, &stats));
        CHECK(stats.unmet_faults == 2);
        OK(vram_mock_clear_faults(m, 1));
        OK(vram_mock_stats_of(m, 1, &stats));
        CHECK(stats.unmet_faults == 0);
        OK(vram_mock_order_fault(m, 1, &never));

        uint64_t stream = 0, at = 0, host = 0;
        OK(vram_mock_stream_create(m, 0, &stream));
        OK(vram_mock_alloc(m, 0, 4096, &at));
        OK(vram_mock_host_alloc(m, 0, 4096, &host));
        OK(vram_mock_copy_to_host(m, 0, stream, host, at, 4096));
        const vram_mock_fault dead = order(VRAM_MOCK_FAULT_STICKY, VRAM_MOCK_CALL_ANY);
        OK(vram_mock_order_fault(m, 0, &dead));
        CHECK(vram_mock_free(m, 0, at) == VRAM_MOCK_LAUNCH_FAILED);
        CHECK(vram_mock_host_free(m, 0, host) == VRAM_MOCK_LAUNCH_FAILED);
        vram_mock_destroy(m);
    }
    return 0;
}

static int foreign_memory_is_only_borrowed(void)
{
    vram_mock_machine *m = machine(1 << 20, 1, 1);
    uint64_t stream = 0;
    uint8_t *memory = calloc(1, 1000);
    const uint64_t at = (uint64_t)(uintptr_t)memory;
    CHECK(m != NULL && memory != NULL);
    OK(vram_mock_stream_create(m, 0, &stream));
    OK(vram_mock_register_foreign(m, 0, (vram_mock_span){at, 1000}, 1));
    CHECK(vram_mock_register_foreign(m, 0, (vram_mock_span){at + 999, 1}, 1) == VRAM_MOCK_INVALID_VALUE);
    CHECK(vram_mock_register_foreign(m, 0, (vram_mock_span){at - 8, 9}, 1) == VRAM_MOCK_INVALID_VALUE);
    OK(vram_mock_fill(m, 0, stream, (vram_mock_span){at, 1000}, 1));
    OK(vram_mock_stream_synchronize(m, 0, stream));
    OK(vram_mock_fill(m, 0, stream, (vram_mock_span){at, 1000}, 2));
    OK(vram_mock_unregister_foreign(m, 0, at));
    CHECK(memory[999] == 1);
    free(memory);
    CHECK(vram_mock_stream_synchronize(m, 0, stream) == VRAM_MOCK_INVALID_VALUE);
    vram_mock_destroy(m);
    return 0;
}

/* A constant of the program, of which a write would be the end: everything that can write is tried. */
static int memory_registered_read_only_is_never_written(void)
{
    static const uint8_t constant[8192] = {7};
    const vram_mock_span all = {(uint64_t)(uintptr_t)constant, sizeof constant};
    vram_mock_machine *m = machine(1 << 20, 1, 1);
    const vram_mock_fault corrupt = order(VRAM_MOCK_FAULT_CORRUPT, VRAM_MOCK_CALL_PROTECT);
    uint64_t stream = 0, result = 0, host = 0;
    uint32_t confirmed = 1;
    CHECK(m != NULL);
    OK(vram_mock_stream_create(m, 0, &stream));
    OK(vram_mock_alloc(m, 0, 256, &result));
    OK(vram_mock_host_alloc(m, 0, 8192, &host));
    OK(vram_mock_register_foreign(m, 0, all, 0));
    CHECK(vram_mock_flip_bit(m, 0, all.ptr, 0) == VRAM_MOCK_READ_ONLY);
    CHECK(vram_mock_fill(m, 0, stream, all, 0) == VRAM_MOCK_READ_ONLY);
    CHECK(vram_mock_copy_to_device(m, 0, stream, all.ptr, host, 1) == VRAM_MOCK_READ_ONLY);
    CHECK(vram_mock_count_nonzero(m, 0, stream, (vram_mock_span){result, 256}, all.ptr, 1) == VRAM_MOCK_READ_ONLY);
    OK(vram_mock_protect(m, 0, all, 0, &confirmed));
    OK(vram_mock_order_fault(m, 0, &corrupt));
    OK(vram_mock_protect(m, 0, all, 1, &confirmed));
    CHECK(confirmed == 0 && vram_mock_fill(m, 0, stream, all, 0) == VRAM_MOCK_READ_ONLY);
    OK(vram_mock_copy_to_host(m, 0, stream, host, all.ptr, 8192));
    OK(vram_mock_count_nonzero(m, 0, stream, all, result, 1));
    OK(vram_mock_stream_synchronize(m, 0, stream));
    CHECK(((const uint8_t *)(uintptr_t)host)[0] == 7);
    OK(vram_mock_unregister_foreign(m, 0, all.ptr));
    vram_mock_destroy(m);
    return 0;
}

typedef struct shared {
    vram_mock_machine *machine;
    int result;
} shared;

static int use_device(vram_mock_machine *m)
{
    for (int round = 0; round < 60; round++) {
        uint64_t stream = 0, other = 0, event = 0, at = 0, host = 0, free_bytes = 0, total = 0;
        vram_mock_stats stats;
        OK(vram_mock_stream_create(m, 0, &stream));
        OK(vram_mock_stream_create(m, 0, &other));
        OK(vram_mock_event_create(m, 0, &event));
        OK(vram_mock_alloc(m, 0, 8192, &at));
        OK(vram_mock_host_alloc(m, 0, 8192, &host));
        memset((void *)(uintptr_t)host, round, 8192);
        OK(vram_mock_copy_to_device(m, 0, stream, at, host, 8192));
        OK(vram_mock_event_record(m, 0, event, stream));
        OK(vram_mock_event_wait(m, 0, other, event));
        OK(vram_mock_fill(m, 0, other, (vram_mock_span){at, 4096}, 0));
        OK(vram_mock_event_record(m, 0, event, other));
        (void)vram_mock_event_query(m, 0, event);
        OK(vram_mock_event_synchronize(m, 0, event));
        OK(vram_mock_copy_to_host(m, 0, other, host, at, 8192));
        OK(vram_mock_memory_info(m, 0, &free_bytes, &total));
        OK(vram_mock_stats_of(m, 0, &stats));
        OK(vram_mock_host_wait(m, 0, host));
        CHECK(((const uint8_t *)(uintptr_t)host)[0] == 0 && ((const uint8_t *)(uintptr_t)host)[8191] == round);
        OK(vram_mock_host_free(m, 0, host));
        OK(vram_mock_free(m, 0, at));
        OK(vram_mock_event_destroy(m, 0, event));
        OK(vram_mock_stream_destroy(m, 0, stream));
        OK(vram_mock_stream_destroy(m, 0, other));
    }
    return digest_once(m, (5 << 20) + 3, 4096, 1 << 20);
}

static void *use_device_in_thread(void *argument)
{
    shared *with = argument;
    with->result = use_device(with->machine);
    return NULL;
}

static int threads_do_not_race(void)
{
    enum { THREADS = 4 };
    vram_mock_machine *m = machine(256 << 20, 1, 1);
    pthread_t threads[THREADS];
    shared with[THREADS];
    CHECK(m != NULL);
    for (int i = 0; i < THREADS; i++) {
        with[i] = (shared){m, 1};
        CHECK(pthread_create(&threads[i], NULL, use_device_in_thread, &with[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(with[i].result == 0);
    }
    vram_mock_stats stats;
    OK(vram_mock_stats_of(m, 0, &stats));
    CHECK(stats.live_allocations == 0 && stats.live_streams == 0 && stats.live_host_buffers == 0);
    vram_mock_destroy(m);
    return 0;
}

static void run(const char *name, int (*test)(void))
{
    const int bad = test();
    printf("%s %s\n", bad == 0 ? "ok    " : "FAILED", name);
    passed += bad == 0 ? 1 : 0;
    failed += bad == 0 ? 0 : 1;
}

int main(void)
{
    run("memory_comes_and_goes", memory_comes_and_goes);
    run("edges_are_respected", edges_are_respected);
    run("queued_work_outlives_nothing", queued_work_outlives_nothing);
    run("kernels_stay_in_their_ranges", kernels_stay_in_their_ranges);
    run("faults_leave_nothing_behind", faults_leave_nothing_behind);
    run("foreign_memory_is_only_borrowed", foreign_memory_is_only_borrowed);
    run("memory_registered_read_only_is_never_written", memory_registered_read_only_is_never_written);
    run("threads_do_not_race", threads_do_not_race);
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}

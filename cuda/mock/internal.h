/* What the parts of the mock share. Every function here is static: vram_mock.c includes all parts. */
#ifndef VRAM_MOCK_INTERNAL_H
#define VRAM_MOCK_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "../include/vram_mock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kernels/sha256.cuh"

#define POISON_FRESH 0xA5
#define POISON_FREED 0xDF
#define RESULT_BYTES 32u
#define HASH_BYTES 32u
/* Unanswered polls of an event after which each further one runs an operation of its stream. */
#define PATIENT_POLLS 64u

typedef vram_mock_status status;
typedef vram_mock_span span;

/* Values by ascending key; grows as needed. */
typedef struct table {
    struct entry {
        uint64_t key;
        void *value;
    } *at;
    size_t len;
    size_t cap;
} table;

typedef struct allocation {
    uint64_t id; /* never reused, unlike addresses */
    uint64_t base;
    uint64_t bytes;
    bool foreign;
    bool mapped;
    bool read_only;
    /* Without poison, memory never written is zero: only this part is looked at when it is freed. */
    uint64_t written_from;
    uint64_t written_to;
    /* Of a sparse device: for each chunk, whether it was written since it was last zero. */
    uint8_t *touched;
} allocation;

typedef struct host_buffer {
    uint64_t base;
    uint64_t bytes;
} host_buffer;

/* A checked stretch of device memory: the allocation is looked up again, by id, when the operation runs. */
typedef struct range {
    uint64_t ptr;
    uint64_t bytes;
    uint64_t id;
} range;

/* What an ordered fault does to one call. */
typedef struct hit {
    uint32_t kind;
    uint64_t value;
} hit;

typedef struct op {
    struct op *next;
    uint64_t position; /* the how-manieth of its stream, from 1 */
    uint32_t call;     /* VRAM_MOCK_CALL_ANY: wait for `stream` to reach `until` */
    hit hit;
    uint64_t stream;
    uint64_t until;
    range device; /* of a copy, fill or count */
    uint64_t host;
    uint64_t host_buffer;
    uint8_t value;
    uint64_t nonce;
    range result;
    range scratch;
    range table;
    range *regions;
    uint64_t region_count;
    uint32_t block_size;
    uint32_t salt_bytes;
    uint8_t salt[VRAM_VERITY_MAX_SALT];
} op;

typedef struct stream {
    uint64_t id;
    op *head;
    op *tail;
    uint64_t enqueued;
    uint64_t done;
    status error; /* of an operation that ran; reported once */
    /* Among the streams that hold work. */
    struct stream *next_busy;
    struct stream *last_busy;
} stream;

typedef struct event {
    uint64_t stream; /* 0: never recorded, so passed */
    uint64_t position;
    uint32_t polls;
} event;

typedef struct fault {
    struct fault *next;
    vram_mock_fault order;
    bool met;
} fault;

typedef struct device {
    pthread_mutex_t lock; /* over all below */
    const vram_mock_machine *machine;
    uint32_t ordinal;
    uint64_t used;
    uint64_t next_id;
    status sticky;
    table allocations; /* by base */
    table hosts;       /* by base */
    table streams;     /* by id */
    stream *busy;      /* those that hold work */
    table events;      /* by id */
    fault *faults;
    vram_mock_stats stats;
    /* The previous digest launch, for the faults that repeat it. */
    uint8_t last_result[RESULT_BYTES];
    uint8_t *last_table;
    uint64_t last_table_bytes;
    bool has_last;
} device;

struct vram_mock_machine {
    vram_mock_config config;
    device *devices;
};

static inline uint8_t *address(uint64_t ptr)
{
    return (uint8_t *)(uintptr_t)ptr;
}

static inline uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* machine.c */
static bool table_put(table *in, uint64_t key, void *value);
static void *table_find(const table *in, uint64_t key);
static size_t table_after(const table *in, uint64_t key);
static void *table_take(table *in, uint64_t key);
static status enter(vram_mock_machine *machine, uint32_t ordinal, uint32_t call, device **out, hit *what);
static status leave(device *on, uint32_t call, status result);

/* faults.c */
static status faults_meet(device *on, uint32_t call, hit *what);
static void faults_clear(device *on);

/* memory.c */
static allocation *allocation_of(const device *on, uint64_t ptr, uint64_t bytes);
static status resolve(const device *on, uint64_t ptr, uint64_t bytes, bool writes, range *out);
static allocation *still_there(const device *on, const range *of);
static void memory_drop(device *on);
static uint64_t page_bytes(void);
static uint64_t nonzero(const uint8_t *at, uint64_t bytes);

/* sparse.c */
static bool blank(const allocation *in, uint64_t ptr, uint64_t bytes);
static void written(allocation *in, uint64_t ptr, uint64_t bytes);
static bool make_sparse(allocation *in);
static uint64_t nonzero_in(const allocation *in, uint64_t ptr, uint64_t bytes);
static void fill_in(allocation *in, uint64_t ptr, uint8_t value, uint64_t bytes);
static void copy_in(allocation *in, uint64_t ptr, const uint8_t *from, uint64_t bytes);
static void poison_fresh(allocation *in);

/* host.c */
static host_buffer *host_of(const device *on, uint64_t ptr, uint64_t bytes);

/* kernels.c */
static uint64_t block_count(uint64_t bytes, uint32_t block_size);
static uint64_t entry_count(uint64_t leaves, uint32_t block_size);
static void digest_table(const device *on, const op *job, uint64_t leaves);

/* operations.c */
static status op_run(device *on, op *what);
static void op_drop(op *what);

/* stream.c */
static status enqueue(device *on, uint64_t stream_id, const op *what);
static void streams_purge(device *on);
static void streams_drop(device *on);
static void run_buffer(device *on, uint64_t host_base, status *result);

#endif

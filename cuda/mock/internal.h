/* What the parts of the mock share. Every function here is static: machine.c includes all parts. */
#ifndef VRAM_MOCK_INTERNAL_H
#define VRAM_MOCK_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "../include/vram_host_kernels.h"
#include "../include/vram_kernels.h"
#include "../include/vram_mock.h"
#include "functions.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint32_t status;

/* CUresult, where the mock gives it. */
enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
    MISALIGNED_ADDRESS = 716, READ_ONLY = VRAM_MOCK_READ_ONLY, CAPTURE_INVALIDATED = 901
};

/* What is mapped may be read, or written too. */
#define READS 1u
#define WRITES 3u
#define POISON 0xA5
/* Device addresses begin where no host has any. */
#define FIRST_ADDRESS ((uint64_t)1 << 56)
/* Unanswered polls of an event after which each further one runs an operation of its stream. */
#define PATIENT_POLLS 64u
#define MOST_CONTEXTS 64u
#define MOST_ARGS 96u

/* Structures of cuda.h. */
typedef struct location { uint32_t kind; int32_t id; } location;
typedef struct properties {
    uint32_t kind, handle_types;
    location where;
    void *win32;
    uint8_t flags[8];
} properties;
typedef struct access_desc { location where; uint32_t flags; } access_desc;

/* Values by ascending key; grows as needed. */
typedef struct table {
    struct entry {
        uint64_t key;
        void *value;
    } *at;
    size_t len;
    size_t cap;
} table;

/* Physical memory. */
typedef struct memory {
    uint64_t handle; /* 0: not of the virtual-memory API */
    uint64_t bytes;
    uint8_t *at;
    properties made;
    uint32_t references;
    uint32_t mappings;
    bool foreign; /* somebody else's */
    bool pages;   /* from mmap */
    bool poisoned;
    /* What was written since it was made, and, of a sparse device, which chunks were since they were last zero. */
    uint64_t written_from;
    uint64_t written_to;
    uint8_t *touched;
} memory;

/* Addresses: reserved, an engine's own allocation, or registered host memory. */
typedef struct place {
    uint64_t base;
    uint64_t bytes;
    uint64_t id; /* never reused, unlike addresses */
    uint32_t ordinal;
    bool reserved;
    bool managed;
    memory *of; /* NULL: nothing is mapped */
    uint32_t access;
    uint32_t claimed; /* what is said of the access */
} place;

typedef struct host_buffer {
    uint64_t base;
    uint64_t bytes;
    uint64_t id;
} host_buffer;

/* Memory that an operation uses; looked up again, by id, when it runs. */
typedef struct range {
    uint64_t ptr;
    uint64_t bytes;
    uint64_t id;
} range;

/* What an ordered fault does to one call. */
typedef struct hit {
    uint32_t kind;
    uint32_t code;
    uint64_t value;
} hit;

/* What a whole digest or count would say of itself. */
typedef struct claim {
    uint64_t covered;
    uint64_t found;
    uint64_t table;
} claim;

typedef struct loaded {
    const vram_mock_kernel *runs;
    uint64_t module;
} loaded;

enum op_kind { WAIT, COPY_UP, COPY_DOWN, COPY_ACROSS, FILL, LAUNCH };

typedef struct op {
    struct op *next;
    uint64_t position; /* the how-manieth of its stream, from 1 */
    enum op_kind kind;
    uint32_t counts; /* the operation that has run with it, or VRAM_MOCK_ANY */
    hit hit;
    uint64_t stream; /* of a wait: for this stream to reach `until` */
    uint64_t until;
    uint32_t use_count;
    range uses[4]; /* of a copy or fill: the target, or the device's side, first */
    uint64_t host;
    uint64_t host_id;
    uint8_t value;
    const vram_mock_kernel *runs;
    uint32_t grid;
    uint32_t block;
    claim claim;
    _Alignas(16) uint8_t args[MOST_ARGS];
} op;

typedef struct stream {
    uint64_t id;
    uint32_t ordinal;
    op *head;
    op *tail;
    uint64_t enqueued;
    uint64_t done;
    status error; /* of an operation that ran; reported once */
    uint32_t capture; /* as cuStreamIsCapturing says it: 1 active, 2 invalidated */
    /* Among the streams that hold work. */
    struct stream *next_busy;
    struct stream *last_busy;
} stream;

typedef struct event {
    uint32_t ordinal;
    bool mark;
    uint64_t stream; /* 0: never recorded, so passed */
    uint64_t position;
    uint32_t polls;
} event;

typedef struct fault {
    struct fault *next;
    uint32_t ordinal;
    vram_mock_fault order;
    bool met;
} fault;

typedef struct device {
    uint32_t ordinal;
    uint64_t used;
    uint64_t retained;
    status sticky;
    uint64_t unwiped_device_bytes;
    uint64_t unwiped_host_bytes;
    uint64_t runs[VRAM_MOCK_OPERATIONS];
    /* The previous digest, for the faults that repeat it. */
    vram_result last_result;
    uint8_t *last_table;
    uint64_t last_table_bytes;
} device;

struct vram_mock_machine {
    pthread_mutex_t lock; /* over all below */
    vram_mock_hasher hasher;
    vram_mock_keyed_hasher keyed; /* NULL: the kernel's body */
    uint64_t settings[VRAM_MOCK_SETTINGS];
    uint8_t seed[16];
    uint32_t device_count;
    device *devices;
    uint64_t next_id;
    table places;    /* by address */
    table memories;  /* by handle */
    table hosts;     /* by address */
    table streams;   /* by handle; 0's are at LEGACY + ordinal */
    table events;    /* by handle */
    table modules;   /* by handle */
    table functions; /* by handle */
    table contexts;  /* created ones, by handle */
    stream *busy;    /* those that hold work */
    uint64_t captures; /* that a call in another mode than RELAXED ends */
    fault *faults;
    uint64_t violations;
    uint64_t *calls; /* by function */
    uint32_t *trace;
    uint64_t traced;
    uint64_t trace_room;
};
typedef vram_mock_machine machine;

#define LEGACY ((uint64_t)1 << 40)

/* One call of the API. */
typedef struct api_call {
    machine *in;
    device *on; /* of the current context, where the function needs one */
    uint32_t operation;
    hit what;
} api_call;

/* What this thread is doing. */
typedef struct doing {
    uint32_t depth;
    uint32_t operation;
    hit hit;
    claim claim;
} doing;
static _Thread_local doing step;
#define RELAXED 2u
static _Thread_local uint32_t capture_mode; /* 0 global, 1 of the thread, RELAXED */

static inline uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What is used before it is defined. */
static status begin(api_call *c, uint32_t function);
static status end(const api_call *c, status result);
static uint64_t setting(const machine *in, uint32_t which);
static void violation(machine *in, const char *what);
static void captures_end(machine *in);
static device *current(const machine *in);
static status faults_meet(machine *in, const device *on, uint32_t function, uint32_t operation, hit *what);
static bool in_use(const machine *in, uint64_t ptr, uint64_t bytes);
static void streams_purge(machine *in, uint32_t ordinal);
static void streams_drop(machine *in);
static void memory_drop(machine *in);
static status op_run(machine *in, device *on, op *what);
static status launch_run(machine *in, device *on, op *what);
static status translate(machine *in, device *on, uint64_t *ptr, uint64_t bytes, bool writes, uint64_t alignment, memory **of);
static void body(const machine *in, const op *what, const void *args, uint64_t grid);
static status run_keyed(machine *in, device *on, const op *what);

#endif

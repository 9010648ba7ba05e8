/*
 * The mock as one translation unit, so that only what vram_mock.h declares is visible to a linker. Here: machines, devices and
 * contexts, the tables that hold everything, and the two ends of each call.
 *
 * faults.c       faults to order
 * sparse.c       reading and writing physical memory
 * memory.c       the virtual-memory API, engines' allocations, host buffers, registered memory
 * answers.c      what is said of addresses
 * stream.c       queues, events, and the order in which operations run
 * operations.c   copies and fills
 * launch.c       modules, kernels, and the faults of digests
 */
#include "internal.h"

static _Thread_local machine *speaking_to;
static _Thread_local uint64_t contexts[MOST_CONTEXTS];
static _Thread_local uint64_t context_count;

static const struct {
    const char *name;
    uint32_t operation;
    enum needs needs;
} FUNCTIONS[] = {
#define X(name, operation, needs) {#name, VRAM_MOCK_##operation, needs},
    VRAM_MOCK_FUNCTIONS(X)
#undef X
};
#define FUNCTION_COUNT (sizeof FUNCTIONS / sizeof *FUNCTIONS)

/* The index of the first entry whose key is greater than `key`. */
static size_t table_after(const table *in, uint64_t key)
{
    size_t low = 0;
    size_t high = in->len;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (in->at[middle].key <= key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void *table_find(const table *in, uint64_t key)
{
    const size_t after = table_after(in, key);
    return after != 0 && in->at[after - 1].key == key ? in->at[after - 1].value : NULL;
}

/* False when the host has no memory; the table is then unchanged. The key must be new. */
static bool table_put(table *in, uint64_t key, void *value)
{
    if (in->len == in->cap) {
        const size_t cap = in->cap == 0 ? 16 : in->cap * 2;
        struct entry *at = realloc(in->at, cap * sizeof *at);
        if (at == NULL) {
            return false;
        }
        in->at = at;
        in->cap = cap;
    }
    const size_t after = table_after(in, key);
    memmove(in->at + after + 1, in->at + after, (in->len - after) * sizeof *in->at);
    in->at[after].key = key;
    in->at[after].value = value;
    in->len++;
    return true;
}

static void *table_take(table *in, uint64_t key)
{
    const size_t after = table_after(in, key);
    if (after == 0 || in->at[after - 1].key != key) {
        return NULL;
    }
    void *value = in->at[after - 1].value;
    memmove(in->at + after - 1, in->at + after, (in->len - after) * sizeof *in->at);
    in->len--;
    return value;
}

static void table_drop(table *in)
{
    for (size_t i = 0; i < in->len; i++) {
        free(in->at[i].value);
    }
    free(in->at);
}

/* Makes a zeroed object of `bytes` bytes with a fresh handle in a table; NULL when the host has no memory. */
static void *make(machine *in, table *of, size_t bytes, uint64_t *handle)
{
    void *made = calloc(1, bytes);
    if (made == NULL || !table_put(of, in->next_id, made)) {
        free(made);
        return NULL;
    }
    *handle = in->next_id++;
    return made;
}

static uint64_t setting(const machine *in, uint32_t which)
{
    return in->settings[which];
}

static void violation(machine *in, const char *what)
{
    fprintf(stderr, "mock device: %s\n", what);
    in->violations++;
}

/* A context besides the primary one. The handle of a primary context is the address of its device. */
typedef struct context {
    uint64_t ordinal;
} context;

static uint64_t primary(const device *on)
{
    return (uint64_t)(uintptr_t)on;
}

/* The device of this thread's current context, if it is one of the machine's. */
static device *current(const machine *in)
{
    if (context_count == 0) {
        return NULL;
    }
    const uint64_t top = contexts[context_count - 1];
    const context *made = table_find(&in->contexts, top);
    if (made != NULL) {
        return &in->devices[made->ordinal];
    }
    const uint64_t first = (uint64_t)(uintptr_t)in->devices;
    const uint64_t offset = top - first;
    if (top < first || offset % sizeof(device) != 0 || offset / sizeof(device) >= in->device_count) {
        return NULL;
    }
    device *on = &in->devices[offset / sizeof(device)];
    return on->retained != 0 ? on : NULL;
}

static void note(machine *in, uint32_t function)
{
    in->calls[function - VRAM_MOCK_OPERATIONS]++;
    if (setting(in, VRAM_MOCK_TRACED) == 0) {
        return;
    }
    if (in->traced == in->trace_room) {
        const uint64_t room = in->trace_room == 0 ? 1024 : 2 * in->trace_room;
        uint32_t *trace = realloc(in->trace, room * sizeof *trace);
        if (trace == NULL) {
            return;
        }
        in->trace = trace;
        in->trace_room = room;
    }
    in->trace[in->traced++] = function;
}

/* Holds the lock only on success. */
static status begin(api_call *c, uint32_t function)
{
    machine *in = speaking_to;
    if (in == NULL) {
        return NOT_INITIALIZED;
    }
    pthread_mutex_lock(&in->lock);
    note(in, function);
    const enum needs needs = FUNCTIONS[function - VRAM_MOCK_OPERATIONS].needs;
    const uint32_t operation = FUNCTIONS[function - VRAM_MOCK_OPERATIONS].operation;
    *c = (api_call){in, needs == NOTHING ? NULL : current(in), step.depth != 0 ? VRAM_MOCK_PART : operation, {0, 0, 0}};
    status result = OK;
    if (needs != NOTHING && c->on == NULL) {
        violation(in, FUNCTIONS[function - VRAM_MOCK_OPERATIONS].name);
        result = INVALID_CONTEXT;
    } else if (c->on != NULL && c->on->sticky != OK) {
        result = needs == CONTEXT_DEAD_OR_ALIVE ? OK : c->on->sticky;
    } else {
        result = faults_meet(in, c->on, function, c->operation, &c->what);
    }
    if (result != OK) {
        pthread_mutex_unlock(&in->lock);
    } else if (c->what.kind == 0) {
        c->what = step.hit;
    }
    return result;
}

/* Counts a call that succeeded (queued operations count when they run) and unlocks. */
static status end(const api_call *c, status result)
{
    const uint32_t operation = c->operation;
    const bool queued = operation >= VRAM_MOCK_COPY_TO_DEVICE && operation <= VRAM_MOCK_COUNT_NONZERO;
    if (result == OK && operation != VRAM_MOCK_ANY && operation != VRAM_MOCK_PART && !queued && c->on != NULL) {
        c->on->runs[operation]++;
    }
    pthread_mutex_unlock(&c->in->lock);
    return result;
}

vram_mock_machine *vram_mock_machine_new(uint32_t devices, const uint8_t seed[16], vram_mock_hasher hasher)
{
    static const uint64_t DEFAULTS[VRAM_MOCK_SETTINGS] = {
        [VRAM_MOCK_CAPACITY] = (uint64_t)1 << 30, [VRAM_MOCK_GRANULARITY] = 256, [VRAM_MOCK_POISON] = 1,
        [VRAM_MOCK_LATE] = 1, [VRAM_MOCK_VERSION] = 13000, [VRAM_MOCK_MAJOR] = 9, [VRAM_MOCK_VIRTUAL_MEMORY] = 1,
    };
    machine *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return NULL;
    }
    made->devices = calloc(devices, sizeof *made->devices);
    made->calls = calloc(FUNCTION_COUNT, sizeof *made->calls);
    if (made->devices == NULL || made->calls == NULL || pthread_mutex_init(&made->lock, NULL) != 0) {
        free(made->devices);
        free(made->calls);
        free(made);
        return NULL;
    }
    memcpy(made->settings, DEFAULTS, sizeof DEFAULTS);
    memcpy(made->seed, seed, sizeof made->seed);
    made->settings[VRAM_MOCK_DEVICES] = devices;
    made->device_count = devices;
    made->hasher = hasher;
    made->next_id = 0x10000;
    for (uint32_t i = 0; i < devices; i++) {
        made->devices[i].ordinal = i;
    }
    return made;
}

void vram_mock_machine_drop(vram_mock_machine *in)
{
    if (in == NULL) {
        return;
    }
    streams_drop(in);
    memory_drop(in);
    for (uint32_t i = 0; i < in->device_count; i++) {
        free(in->devices[i].last_table);
    }
    while (in->faults != NULL) {
        fault *next = in->faults->next;
        free(in->faults);
        in->faults = next;
    }
    table_drop(&in->events);
    table_drop(&in->modules);
    table_drop(&in->functions);
    table_drop(&in->contexts);
    pthread_mutex_destroy(&in->lock);
    free(in->trace);
    free(in->calls);
    free(in->devices);
    free(in);
}

void vram_mock_enter(vram_mock_machine *in)
{
    speaking_to = in;
}

uint32_t vram_mock_number(const char *name)
{
    for (uint32_t i = 0; i < FUNCTION_COUNT; i++) {
        if (strcmp(FUNCTIONS[i].name, name) == 0) {
            return VRAM_MOCK_OPERATIONS + i;
        }
    }
    return 0;
}

uint32_t vram_mock_step(uint32_t operation)
{
    machine *in = speaking_to;
    if (step.depth == 0) {
        step = (doing){.operation = operation};
        if (operation != VRAM_MOCK_PART) {
            pthread_mutex_lock(&in->lock);
            const device *on = current(in);
            status result = on == NULL ? INVALID_CONTEXT : on->sticky;
            if (result == OK) {
                result = faults_meet(in, on, VRAM_MOCK_ANY, operation, &step.hit);
            }
            pthread_mutex_unlock(&in->lock);
            if (result != OK) {
                return result;
            }
        }
    }
    step.depth++;
    return OK;
}

void vram_mock_unstep(void)
{
    if (--step.depth == 0) {
        step = (doing){0};
    }
}

void vram_mock_set(vram_mock_machine *in, uint32_t which, uint64_t value)
{
    if (which < VRAM_MOCK_SETTINGS) {
        pthread_mutex_lock(&in->lock);
        in->settings[which] = value;
        pthread_mutex_unlock(&in->lock);
    }
}

uint64_t vram_mock_calls(vram_mock_machine *in, uint32_t function)
{
    const uint32_t at = function - VRAM_MOCK_OPERATIONS;
    pthread_mutex_lock(&in->lock);
    const uint64_t calls = at < FUNCTION_COUNT ? in->calls[at] : 0;
    pthread_mutex_unlock(&in->lock);
    return calls;
}

uint64_t vram_mock_trace(vram_mock_machine *in, uint32_t *out, uint64_t room)
{
    pthread_mutex_lock(&in->lock);
    const uint64_t count = in->traced;
    if (count != 0) {
        memcpy(out, in->trace, least(count, room) * sizeof *out);
    }
    in->traced = 0;
    pthread_mutex_unlock(&in->lock);
    return count;
}

uint64_t vram_mock_contexts(uint64_t *top)
{
    *top = context_count == 0 ? 0 : contexts[context_count - 1];
    return context_count;
}

uint32_t vram_mock_stats_of_device(vram_mock_machine *in, uint32_t ordinal, vram_mock_stats *out)
{
    if (ordinal >= in->device_count) {
        return INVALID_DEVICE;
    }
    pthread_mutex_lock(&in->lock);
    const device *on = &in->devices[ordinal];
    *out = (vram_mock_stats){
        .unwiped_device_bytes = on->unwiped_device_bytes,
        .unwiped_host_bytes = on->unwiped_host_bytes,
        .retained = on->retained,
    };
    memcpy(out->runs, on->runs, sizeof out->runs);
    /* What belongs to no device is the first one's. */
    if (ordinal == 0) {
        out->modules = in->modules.len;
        out->violations = in->violations;
        out->live_host_buffers = in->hosts.len;
    }
    for (size_t i = 0; i < in->memories.len; i++) {
        const memory *of = in->memories.at[i].value;
        const bool here = of->made.where.id == (int32_t)ordinal;
        out->live_allocations += here ? 1 : 0;
        out->live_bytes += here ? of->bytes : 0;
    }
    for (size_t i = 0; i < in->places.len; i++) {
        const place *at = in->places.at[i].value;
        out->reservations += at->reserved && at->ordinal == ordinal ? 1 : 0;
        out->live_foreign += at->of != NULL && at->of->foreign && at->ordinal == ordinal ? 1 : 0;
    }
    for (size_t i = 0; i < in->streams.len; i++) {
        const stream *of = in->streams.at[i].value;
        out->live_streams += of->ordinal == ordinal && of->id < LEGACY ? 1 : 0;
        out->pending_operations += of->ordinal == ordinal ? of->enqueued - of->done : 0;
    }
    for (size_t i = 0; i < in->events.len; i++) {
        out->live_events += ((const event *)in->events.at[i].value)->ordinal == ordinal ? 1 : 0;
    }
    for (const fault *of = in->faults; of != NULL; of = of->next) {
        out->unmet_faults += of->ordinal == ordinal && !of->met ? 1 : 0;
    }
    for (size_t i = 0; ordinal == 0 && i < in->hosts.len; i++) {
        out->live_host_bytes += ((const host_buffer *)in->hosts.at[i].value)->bytes;
    }
    pthread_mutex_unlock(&in->lock);
    return OK;
}

static status vram_mock_cuInit(uint32_t flags)
{
    BEGIN(cuInit);
    END(flags == 0 ? OK : INVALID_VALUE);
}

static status vram_mock_cuDriverGetVersion(int32_t *out)
{
    BEGIN(cuDriverGetVersion);
    *out = (int32_t)setting(in, VRAM_MOCK_VERSION);
    END(OK);
}

static status vram_mock_cuDeviceGetCount(int32_t *out)
{
    BEGIN(cuDeviceGetCount);
    *out = (int32_t)setting(in, VRAM_MOCK_DEVICES);
    END(OK);
}

static device *device_of(const machine *in, int32_t ordinal)
{
    const bool there = ordinal >= 0 && (uint32_t)ordinal < in->device_count &&
                       (uint64_t)ordinal < setting(in, VRAM_MOCK_DEVICES);
    return there ? &in->devices[ordinal] : NULL;
}

static status vram_mock_cuDeviceGet(int32_t *out, int32_t ordinal)
{
    BEGIN(cuDeviceGet);
    *out = ordinal;
    END(device_of(in, ordinal) == NULL ? INVALID_DEVICE : OK);
}

static status vram_mock_cuDeviceGetName(char *out, int32_t room, int32_t ordinal)
{
    BEGIN(cuDeviceGetName);
    if (device_of(in, ordinal) == NULL) {
        END(INVALID_DEVICE);
    }
    snprintf(out, (size_t)room, "mock device");
    END(OK);
}

static status vram_mock_cuDeviceGetUuid_v2(uint8_t *out, int32_t ordinal)
{
    BEGIN(cuDeviceGetUuid_v2);
    if (device_of(in, ordinal) == NULL) {
        END(INVALID_DEVICE);
    }
    memcpy(out, in->seed, sizeof in->seed);
    for (uint32_t i = 0; i < 4; i++) {
        out[i] = (uint8_t)(out[i] ^ (uint8_t)((uint32_t)ordinal >> (8 * i)));
    }
    END(OK);
}

static status vram_mock_cuDeviceTotalMem_v2(size_t *out, int32_t ordinal)
{
    BEGIN(cuDeviceTotalMem_v2);
    *out = setting(in, VRAM_MOCK_CAPACITY);
    END(device_of(in, ordinal) == NULL ? INVALID_DEVICE : OK);
}

static status vram_mock_cuDeviceGetAttribute(int32_t *out, uint32_t attribute, int32_t ordinal)
{
    BEGIN(cuDeviceGetAttribute);
    if (device_of(in, ordinal) == NULL) {
        END(INVALID_DEVICE);
    }
    switch (attribute) {
    case 13: /* clock, kHz */
        *out = 1000000;
        END(OK);
    case 16: /* multiprocessors */
        *out = 2;
        END(OK);
    case 32: /* ECC */
        *out = 0;
        END(OK);
    case 38: /* bytes of level 2 cache */
        *out = 1 << 20;
        END(OK);
    case 75:
        *out = (int32_t)setting(in, VRAM_MOCK_MAJOR);
        END(OK);
    case 76:
        *out = (int32_t)setting(in, VRAM_MOCK_MINOR);
        END(OK);
    case 102:
        *out = (int32_t)setting(in, VRAM_MOCK_VIRTUAL_MEMORY);
        END(OK);
    default:
        END(INVALID_VALUE);
    }
}

static status vram_mock_cuDevicePrimaryCtxRetain(uint64_t *out, int32_t ordinal)
{
    BEGIN(cuDevicePrimaryCtxRetain);
    device *of = device_of(in, ordinal);
    if (of == NULL) {
        END(INVALID_DEVICE);
    }
    of->retained++;
    *out = primary(of);
    END(OK);
}

static status vram_mock_cuDevicePrimaryCtxRelease_v2(int32_t ordinal)
{
    BEGIN(cuDevicePrimaryCtxRelease_v2);
    device *of = device_of(in, ordinal);
    if (of == NULL || of->retained == 0) {
        END(INVALID_CONTEXT);
    }
    of->retained--;
    END(OK);
}

/* A context that is in use by somebody else is not reset here. */
static status vram_mock_cuDevicePrimaryCtxReset_v2(int32_t ordinal)
{
    BEGIN(cuDevicePrimaryCtxReset_v2);
    const device *of = device_of(in, ordinal);
    END(of == NULL ? INVALID_DEVICE : of->sticky);
}

static status push(uint64_t handle)
{
    if (context_count == MOST_CONTEXTS) {
        return INVALID_VALUE;
    }
    contexts[context_count++] = handle;
    return OK;
}

static status vram_mock_cuCtxCreate_v2(uint64_t *out, uint32_t flags, int32_t ordinal)
{
    BEGIN(cuCtxCreate_v2);
    context *made = flags != 0 || device_of(in, ordinal) == NULL ? NULL : make(in, &in->contexts, sizeof(context), out);
    if (made == NULL) {
        END(INVALID_VALUE);
    }
    made->ordinal = (uint64_t)ordinal;
    END(push(*out));
}

static status vram_mock_cuCtxDestroy_v2(uint64_t handle)
{
    BEGIN(cuCtxDestroy_v2);
    context *gone = table_take(&in->contexts, handle);
    free(gone);
    END(gone == NULL ? INVALID_CONTEXT : OK);
}

static status vram_mock_cuCtxPushCurrent_v2(uint64_t handle)
{
    BEGIN(cuCtxPushCurrent_v2);
    END(push(handle));
}

static status vram_mock_cuCtxPopCurrent_v2(uint64_t *out)
{
    BEGIN(cuCtxPopCurrent_v2);
    if (context_count == 0) {
        END(INVALID_CONTEXT);
    }
    *out = contexts[--context_count];
    END(OK);
}

static status vram_mock_cuCtxGetStreamPriorityRange(int32_t *lowest, int32_t *greatest)
{
    BEGIN(cuCtxGetStreamPriorityRange);
    *lowest = 0;
    *greatest = -5;
    END(OK);
}

#include "faults.c"

#include "sparse.c"

#include "memory.c"

#include "answers.c"

#include "stream.c"

#include "operations.c"

#include "launch.c"

void *vram_mock_function(const char *name)
{
    /* A pointer to a function is one to an object on every system with dlsym (POSIX), but not in C. */
    typedef void (*any)(void);
    static const any POINTERS[] = {
#define X(name, operation, needs) (any)vram_mock_##name,
        VRAM_MOCK_FUNCTIONS(X)
#undef X
    };
    const uint32_t number = vram_mock_number(name);
    void *found = NULL;
    if (number != 0) {
        memcpy(&found, &POINTERS[number - VRAM_MOCK_OPERATIONS], sizeof found);
    }
    return found;
}

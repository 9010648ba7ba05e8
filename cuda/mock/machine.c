/*
 * The mock as one translation unit, so that only what vram_mock.h declares is visible to a linker. Here: machines, and the two ends
 * of each call.
 *
 * table.c        the tables that hold everything
 * context.c      the driver, its devices, and contexts
 * faults.c       faults to order
 * sparse.c       reading and writing physical memory
 * memory.c       the virtual-memory API
 * engine.c       engines' allocations and kernels, host buffers, registered memory
 * answers.c      what is said of addresses
 * stream.c       queues, events, and the order in which operations run
 * operations.c   copies and fills
 * launch.c       modules, kernels, and the faults of digests
 * keyed.c        keyed hashes
 */
#include "internal.h"

static _Thread_local machine *speaking_to;
static _Thread_local uint64_t contexts[MOST_CONTEXTS];
static _Thread_local uint64_t context_count;

#include "table.c"

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

static uint64_t setting(const machine *in, uint32_t which)
{
    return in->settings[which];
}

static void violation(machine *in, const char *what)
{
    fprintf(stderr, "mock device: %s\n", what);
    in->violations++;
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
    if (in->captures != 0 && capture_mode != RELAXED && needs != NOTHING &&
        (function < NUMBER_cuStreamIsCapturing || function > NUMBER_cuGraphDestroy)) {
        captures_end(in);
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

vram_mock_machine *vram_mock_machine_new(uint32_t devices, const uint8_t seed[16], vram_mock_hasher hasher,
                                         vram_mock_keyed_hasher keyed)
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
    made->keyed = keyed;
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
        const event *of = in->events.at[i].value;
        *(of->mark ? &out->live_marks : &out->live_events) += of->ordinal == ordinal ? 1 : 0;
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

#include "context.c"

#include "faults.c"

#include "sparse.c"

#include "memory.c"

#include "engine.c"

#include "answers.c"

#include "stream.c"

#include "operations.c"

#include "launch.c"

#include "keyed.c"

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

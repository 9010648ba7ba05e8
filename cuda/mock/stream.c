/*
 * Streams and events. A stream is a queue; an event is a position in one. Running a stream up to a position first runs the
 * streams that its operations wait for. Waits only look back in time, so they never form a circle.
 */
#include "internal.h"

/* A stream to be run up to a position. */
typedef struct goal {
    uint64_t stream;
    uint64_t position;
} goal;

static bool reached(const machine *in, uint64_t stream_id, uint64_t position)
{
    const stream *of = table_find(&in->streams, stream_id);
    return of == NULL || of->done >= position;
}

static void finish_head(machine *in, stream *of)
{
    op *head = of->head;
    of->head = head->next;
    of->done = head->position;
    free(head);
    if (of->head != NULL) {
        return;
    }
    of->tail = NULL;
    if (of->last_busy == NULL) {
        in->busy = of->next_busy;
    } else {
        of->last_busy->next_busy = of->next_busy;
    }
    if (of->next_busy != NULL) {
        of->next_busy->last_busy = of->last_busy;
    }
}

/*
 * Runs streams until `first` is reached, or at most `steps` operations. A stack of goals instead of recursion: a chain of
 * waits may be of any length. On a dead context nothing runs; events pass all the same, so that nobody waits for ever.
 */
static status run_to(machine *in, goal first, uint64_t steps)
{
    size_t depth = 0;
    size_t cap = 16;
    goal *goals = malloc(cap * sizeof *goals);
    if (goals == NULL) {
        return OUT_OF_MEMORY;
    }
    goals[depth++] = first;
    while (depth > 0 && steps > 0) {
        const goal now = goals[depth - 1];
        if (reached(in, now.stream, now.position)) {
            depth--;
            continue;
        }
        stream *of = table_find(&in->streams, now.stream);
        device *on = &in->devices[of->ordinal];
        op *head = of->head;
        if (head->kind == WAIT && !reached(in, head->stream, head->until)) {
            if (depth == cap) {
                goal *more = realloc(goals, 2 * cap * sizeof *goals);
                if (more == NULL) {
                    free(goals);
                    return OUT_OF_MEMORY;
                }
                goals = more;
                cap *= 2;
            }
            goals[depth++] = (goal){head->stream, head->until};
            continue;
        }
        if (head->kind != WAIT && on->sticky == OK) {
            const status result = op_run(in, on, head);
            of->error = of->error != OK ? of->error : result;
        }
        finish_head(in, of);
        steps--;
    }
    free(goals);
    return OK;
}

/* Runs a stream up to a position; then its error, which is reported once, or that of the device, which is for good. */
static status wait_for(machine *in, goal until)
{
    const status result = run_to(in, until, UINT64_MAX);
    stream *of = table_find(&in->streams, until.stream);
    if (result != OK || of == NULL) {
        return result;
    }
    const status error = of->error, dead = in->devices[of->ordinal].sticky;
    of->error = OK;
    return dead != OK ? dead : error;
}

static status run_all(machine *in, stream *of)
{
    return wait_for(in, (goal){of->id, of->enqueued});
}

/* The stream of a handle, on the device; NULL when there is none. */
static stream *stream_of(machine *in, const device *on, uint64_t handle)
{
    const uint64_t id = handle == 0 ? LEGACY + on->ordinal : handle;
    stream *of = table_find(&in->streams, id);
    if (of == NULL && handle == 0) {
        of = calloc(1, sizeof *of);
        if (of != NULL && !table_put(&in->streams, id, of)) {
            free(of);
            of = NULL;
        } else if (of != NULL) {
            of->id = id;
            of->ordinal = on->ordinal;
        }
    }
    return of != NULL && of->ordinal == on->ordinal ? of : NULL;
}

static status enqueue(machine *in, stream *to, const op *what)
{
    op *made = aligned_alloc(_Alignof(op), sizeof *made);
    if (made == NULL) {
        return OUT_OF_MEMORY;
    }
    *made = *what;
    made->next = NULL;
    made->position = ++to->enqueued;
    if (to->tail != NULL) {
        to->tail->next = made;
    } else {
        to->head = made;
        to->last_busy = NULL;
        to->next_busy = in->busy;
        if (in->busy != NULL) {
            in->busy->last_busy = to;
        }
        in->busy = to;
    }
    to->tail = made;
    if (setting(in, VRAM_MOCK_LATE) == 0) {
        /* Without memory for a goal stack it stays queued and runs with the next wait. */
        (void)run_to(in, (goal){to->id, to->enqueued}, UINT64_MAX);
    }
    return OK;
}

/* Whether anything queued is known to use the memory, of the device or of the host. */
static bool in_use(const machine *in, uint64_t ptr, uint64_t bytes)
{
    for (const stream *of = in->busy; of != NULL; of = of->next_busy) {
        for (const op *at = of->head; at != NULL; at = at->next) {
            for (uint32_t i = 0; i < at->use_count; i++) {
                if (at->uses[i].ptr < ptr + bytes && ptr < at->uses[i].ptr + at->uses[i].bytes) {
                    return true;
                }
            }
            if (at->host >= ptr && at->host - ptr < bytes) {
                return true;
            }
        }
    }
    return false;
}

/* Forgets every queued operation of a device. */
static void streams_purge(machine *in, uint32_t ordinal)
{
    for (stream *of = in->busy; of != NULL;) {
        stream *next = of->next_busy;
        while (of->ordinal == ordinal && of->head != NULL) {
            finish_head(in, of);
        }
        of = next;
    }
}

static void streams_drop(machine *in)
{
    for (uint32_t i = 0; i < in->device_count; i++) {
        streams_purge(in, i);
    }
    table_drop(&in->streams);
}

static status stream_create(const api_call *c, uint64_t *out)
{
    stream *made = make(c->in, &c->in->streams, sizeof(stream), out);
    if (made == NULL) {
        return OUT_OF_MEMORY;
    }
    made->id = *out;
    made->ordinal = c->on->ordinal;
    return OK;
}

static status vram_mock_cuStreamCreate(uint64_t *out, uint32_t flags)
{
    BEGIN(cuStreamCreate);
    if (flags != 1) {
        violation(in, "a stream that synchronises with the default one");
    }
    END(stream_create(&here, out));
}

static status vram_mock_cuStreamCreateWithPriority(uint64_t *out, uint32_t flags, int32_t priority)
{
    BEGIN(cuStreamCreateWithPriority);
    END(flags != 1 || priority > 0 || priority < -5 ? INVALID_VALUE : stream_create(&here, out));
}

static status vram_mock_cuStreamDestroy_v2(uint64_t handle)
{
    BEGIN(cuStreamDestroy_v2);
    stream *of = handle == 0 ? NULL : stream_of(in, on, handle);
    if (of == NULL) {
        END(INVALID_HANDLE);
    }
    const status result = run_all(in, of);
    while (of->head != NULL) {
        finish_head(in, of);
    }
    free(table_take(&in->streams, handle));
    END(result);
}

static status vram_mock_cuStreamSynchronize(uint64_t handle)
{
    BEGIN(cuStreamSynchronize);
    stream *of = stream_of(in, on, handle);
    END(of == NULL ? INVALID_HANDLE : run_all(in, of));
}

static status vram_mock_cuStreamQuery(uint64_t handle)
{
    BEGIN(cuStreamQuery);
    const stream *of = stream_of(in, on, handle);
    END(of == NULL ? INVALID_HANDLE : of->head != NULL ? NOT_READY : OK);
}

/* Captures. What is enqueued meanwhile runs nowhere: a make-believe engine enqueues nothing. */
static void captures_end(machine *in)
{
    for (size_t i = 0; i < in->streams.len; i++) {
        stream *of = in->streams.at[i].value;
        of->capture = of->capture == 1 ? 2 : of->capture;
    }
}

static status vram_mock_cuStreamIsCapturing(uint64_t handle, uint32_t *out)
{
    BEGIN(cuStreamIsCapturing);
    const stream *of = stream_of(in, on, handle);
    *out = of == NULL ? 0 : of->capture;
    END(of == NULL ? INVALID_HANDLE : OK);
}

static status vram_mock_cuStreamBeginCapture_v2(uint64_t handle, uint32_t mode)
{
    BEGIN(cuStreamBeginCapture_v2);
    stream *of = handle == 0 ? NULL : stream_of(in, on, handle);
    if (of == NULL || mode != 0 || of->capture != 0) {
        END(of == NULL ? INVALID_HANDLE : INVALID_VALUE);
    }
    of->capture = 1;
    in->captures++;
    END(OK);
}

static status vram_mock_cuStreamEndCapture(uint64_t handle, uint64_t *graph)
{
    BEGIN(cuStreamEndCapture);
    stream *of = stream_of(in, on, handle);
    if (of == NULL || of->capture == 0) {
        END(of == NULL ? INVALID_HANDLE : INVALID_VALUE);
    }
    const status result = of->capture == 1 ? OK : CAPTURE_INVALIDATED;
    *graph = result == OK ? 1 : 0;
    of->capture = 0;
    in->captures--;
    END(result);
}

static status vram_mock_cuGraphDestroy(uint64_t graph)
{
    BEGIN(cuGraphDestroy);
    END(graph == 1 ? OK : INVALID_VALUE);
}

static status vram_mock_cuThreadExchangeStreamCaptureMode(uint32_t *mode)
{
    BEGIN(cuThreadExchangeStreamCaptureMode);
    const uint32_t before = capture_mode;
    if (*mode > RELAXED) {
        END(INVALID_VALUE);
    }
    capture_mode = *mode;
    *mode = before;
    END(OK);
}

static status vram_mock_cuEventCreate(uint64_t *out, uint32_t flags)
{
    BEGIN(cuEventCreate);
    if (flags != 2) {
        violation(in, "an event with a clock");
    }
    event *made = make(in, &in->events, sizeof(event), out);
    if (made == NULL) {
        END(OUT_OF_MEMORY);
    }
    made->ordinal = on->ordinal;
    made->mark = here.operation == VRAM_MOCK_PART;
    END(OK);
}

static status vram_mock_cuEventDestroy_v2(uint64_t handle)
{
    BEGIN(cuEventDestroy_v2);
    event *gone = table_take(&in->events, handle);
    free(gone);
    END(gone == NULL ? INVALID_HANDLE : OK);
}

static status vram_mock_cuEventRecord(uint64_t handle, uint64_t stream_handle)
{
    BEGIN(cuEventRecord);
    event *at = table_find(&in->events, handle);
    const stream *of = stream_of(in, on, stream_handle);
    if (at == NULL || of == NULL) {
        END(INVALID_HANDLE);
    }
    if (of->capture != 0) {
        violation(in, "an event in a graph");
    }
    *at = (event){at->ordinal, at->mark, of->id, of->enqueued, 0};
    END(OK);
}

static status vram_mock_cuStreamWaitEvent(uint64_t stream_handle, uint64_t handle, uint32_t flags)
{
    BEGIN(cuStreamWaitEvent);
    const event *at = table_find(&in->events, handle);
    stream *to = stream_of(in, on, stream_handle);
    if (at == NULL || to == NULL || flags != 0) {
        END(INVALID_HANDLE);
    }
    /* The event as it is recorded now: recording it again later does not move this wait. */
    const op wait = {.kind = WAIT, .stream = at->stream, .until = at->position};
    END(enqueue(in, to, &wait));
}

static status vram_mock_cuEventSynchronize(uint64_t handle)
{
    BEGIN(cuEventSynchronize);
    const event *at = table_find(&in->events, handle);
    END(at == NULL ? INVALID_HANDLE : wait_for(in, (goal){at->stream, at->position}));
}

static status vram_mock_cuEventQuery(uint64_t handle)
{
    BEGIN(cuEventQuery);
    event *at = table_find(&in->events, handle);
    if (at == NULL) {
        END(INVALID_HANDLE);
    }
    status result = OK;
    if (!reached(in, at->stream, at->position) && ++at->polls > PATIENT_POLLS) {
        result = run_to(in, (goal){at->stream, at->position}, 1);
    }
    END(result == OK && !reached(in, at->stream, at->position) ? NOT_READY : result);
}

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

static bool reached(const device *on, uint64_t stream_id, uint64_t position)
{
    const stream *of = table_find(&on->streams, stream_id);
    return of == NULL || of->done >= position;
}

static void make_busy(device *on, stream *of)
{
    of->last_busy = NULL;
    of->next_busy = on->busy;
    if (on->busy != NULL) {
        on->busy->last_busy = of;
    }
    on->busy = of;
}

static void make_idle(device *on, stream *of)
{
    if (of->last_busy == NULL) {
        on->busy = of->next_busy;
    } else {
        of->last_busy->next_busy = of->next_busy;
    }
    if (of->next_busy != NULL) {
        of->next_busy->last_busy = of->last_busy;
    }
}

static void finish_head(device *on, stream *of)
{
    op *head = of->head;
    of->head = head->next;
    if (of->head == NULL) {
        of->tail = NULL;
        make_idle(on, of);
    }
    of->done = head->position;
    op_drop(head);
}

/*
 * Runs streams until `first` is reached, or at most `steps` operations. A stack of goals instead of recursion: a chain of
 * waits may be of any length.
 */
static status run_to(device *on, goal first, uint64_t steps)
{
    size_t depth = 0;
    size_t cap = 16;
    goal *goals = malloc(cap * sizeof *goals);
    if (goals == NULL) {
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    goals[depth++] = first;
    while (depth > 0 && steps > 0) {
        const goal now = goals[depth - 1];
        if (reached(on, now.stream, now.position)) {
            depth--;
            continue;
        }
        stream *of = table_find(&on->streams, now.stream);
        op *head = of->head;
        if (head->call != VRAM_MOCK_CALL_ANY) {
            const status result = op_run(on, head);
            of->error = of->error != VRAM_MOCK_OK ? of->error : result;
        } else if (!reached(on, head->stream, head->until)) {
            if (depth == cap) {
                goal *more = realloc(goals, 2 * cap * sizeof *goals);
                if (more == NULL) {
                    free(goals);
                    return VRAM_MOCK_OUT_OF_MEMORY;
                }
                goals = more;
                cap *= 2;
            }
            goals[depth++] = (goal){head->stream, head->until};
            continue;
        }
        finish_head(on, of);
        steps--;
    }
    free(goals);
    return VRAM_MOCK_OK;
}

/* Takes the error of a stream, so that it is reported once. */
static status take_error(const device *on, uint64_t stream_id)
{
    stream *of = table_find(&on->streams, stream_id);
    const status error = of == NULL ? VRAM_MOCK_OK : of->error;
    if (of != NULL) {
        of->error = VRAM_MOCK_OK;
    }
    return error;
}

static status wait_for(device *on, goal until)
{
    const status result = run_to(on, until, UINT64_MAX);
    return result != VRAM_MOCK_OK ? result : take_error(on, until.stream);
}

/* Queues a copy of `what`, and takes over its regions, only on success. */
static status enqueue(device *on, uint64_t stream_id, const op *what)
{
    stream *to = table_find(&on->streams, stream_id);
    if (to == NULL) {
        return VRAM_MOCK_INVALID_HANDLE;
    }
    op *made = malloc(sizeof *made);
    if (made == NULL) {
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    *made = *what;
    made->next = NULL;
    made->position = ++to->enqueued;
    if (to->tail == NULL) {
        to->head = made;
        make_busy(on, to);
    } else {
        to->tail->next = made;
    }
    to->tail = made;
    if (on->machine->config.late_streams == 0) {
        /* Without memory for a goal stack it stays queued and runs with the next wait. */
        (void)run_to(on, (goal){stream_id, to->enqueued}, UINT64_MAX);
    }
    return VRAM_MOCK_OK;
}

/* A stream that holds work on the host buffer, up to the last such work; position 0 when there is none. */
static goal work_on(const device *on, uint64_t host_base)
{
    for (const stream *of = on->busy; of != NULL; of = of->next_busy) {
        uint64_t last = 0;
        for (const op *at = of->head; at != NULL; at = at->next) {
            last = at->host_buffer == host_base && at->host_buffer != 0 ? at->position : last;
        }
        if (last != 0) {
            return (goal){of->id, last};
        }
    }
    return (goal){0, 0};
}

/*
 * Runs every stream far enough that nothing uses the host buffer; stores the first error when asked for it. Streams that
 * hold no work are not looked at, however many there are; which do changes with every run.
 */
static void run_buffer(device *on, uint64_t host_base, status *result)
{
    for (goal next = work_on(on, host_base); next.position != 0; next = work_on(on, host_base)) {
        status error = run_to(on, next, UINT64_MAX);
        if (error != VRAM_MOCK_OK) {
            /* No memory to order things: forget them, so that the promise about the buffer holds. */
            streams_purge(on);
        }
        if (result != NULL) {
            error = error != VRAM_MOCK_OK ? error : take_error(on, next.stream);
            *result = *result != VRAM_MOCK_OK ? *result : error;
        }
    }
}

/* Forgets every queued operation of the device. */
static void streams_purge(device *on)
{
    while (on->busy != NULL) {
        finish_head(on, on->busy);
    }
}

static void streams_drop(device *on)
{
    streams_purge(on);
    for (size_t i = 0; i < on->streams.len; i++) {
        free(on->streams.at[i].value);
    }
    for (size_t i = 0; i < on->events.len; i++) {
        free(on->events.at[i].value);
    }
    free(on->streams.at);
    free(on->events.at);
}

/* Makes a zeroed object of `bytes` bytes with a fresh id in a table. */
static status make(device *on, table *in, size_t bytes, uint64_t *id, void **out)
{
    void *made = calloc(1, bytes);
    if (made == NULL || !table_put(in, on->next_id, made)) {
        free(made);
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    *id = on->next_id++;
    *out = made;
    return VRAM_MOCK_OK;
}

status vram_mock_stream_create(vram_mock_machine *machine, uint32_t ordinal, uint64_t *out)
{
    device *on = NULL;
    hit what;
    void *made = NULL;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_STREAM, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    result = make(on, &on->streams, sizeof(stream), out, &made);
    if (result == VRAM_MOCK_OK) {
        ((stream *)made)->id = *out;
    }
    return leave(on, VRAM_MOCK_CALL_STREAM, result);
}

status vram_mock_stream_destroy(vram_mock_machine *machine, uint32_t ordinal, uint64_t id)
{
    device *on = NULL;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_ANY, &on, NULL);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    const stream *of = table_find(&on->streams, id);
    if (of == NULL) {
        return leave(on, VRAM_MOCK_CALL_ANY, VRAM_MOCK_INVALID_HANDLE);
    }
    result = wait_for(on, (goal){id, of->enqueued});
    stream *gone = table_take(&on->streams, id);
    while (gone->head != NULL) {
        finish_head(on, gone);
    }
    free(gone);
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}

status vram_mock_stream_synchronize(vram_mock_machine *machine, uint32_t ordinal, uint64_t id)
{
    device *on = NULL;
    hit what;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_SYNCHRONIZE, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    const stream *of = table_find(&on->streams, id);
    result = of == NULL ? VRAM_MOCK_INVALID_HANDLE : wait_for(on, (goal){id, of->enqueued});
    return leave(on, VRAM_MOCK_CALL_SYNCHRONIZE, result);
}

status vram_mock_event_create(vram_mock_machine *machine, uint32_t ordinal, uint64_t *out)
{
    device *on = NULL;
    hit what;
    void *made = NULL;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_EVENT, &on, &what);
    return result != VRAM_MOCK_OK
               ? result
               : leave(on, VRAM_MOCK_CALL_EVENT, make(on, &on->events, sizeof(event), out, &made));
}

status vram_mock_event_destroy(vram_mock_machine *machine, uint32_t ordinal, uint64_t id)
{
    device *on = NULL;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_ANY, &on, NULL);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    event *gone = table_take(&on->events, id);
    free(gone);
    return leave(on, VRAM_MOCK_CALL_ANY, gone == NULL ? VRAM_MOCK_INVALID_HANDLE : VRAM_MOCK_OK);
}

status vram_mock_event_record(vram_mock_machine *machine, uint32_t ordinal, uint64_t id, uint64_t stream_id)
{
    device *on = NULL;
    hit what;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_EVENT, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    event *at = table_find(&on->events, id);
    const stream *of = table_find(&on->streams, stream_id);
    if (at == NULL || of == NULL) {
        return leave(on, VRAM_MOCK_CALL_EVENT, VRAM_MOCK_INVALID_HANDLE);
    }
    *at = (event){stream_id, of->enqueued, 0};
    return leave(on, VRAM_MOCK_CALL_EVENT, VRAM_MOCK_OK);
}

status vram_mock_event_wait(vram_mock_machine *machine, uint32_t ordinal, uint64_t stream_id, uint64_t id)
{
    device *on = NULL;
    hit what;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_EVENT, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    const event *at = table_find(&on->events, id);
    if (at == NULL) {
        return leave(on, VRAM_MOCK_CALL_EVENT, VRAM_MOCK_INVALID_HANDLE);
    }
    /* The event as it is recorded now: recording it again later does not move this wait. */
    const op wait = {.call = VRAM_MOCK_CALL_ANY, .stream = at->stream, .until = at->position};
    return leave(on, VRAM_MOCK_CALL_EVENT, enqueue(on, stream_id, &wait));
}

status vram_mock_event_synchronize(vram_mock_machine *machine, uint32_t ordinal, uint64_t id)
{
    device *on = NULL;
    hit what;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_SYNCHRONIZE, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    const event *at = table_find(&on->events, id);
    result = at == NULL ? VRAM_MOCK_INVALID_HANDLE : wait_for(on, (goal){at->stream, at->position});
    return leave(on, VRAM_MOCK_CALL_SYNCHRONIZE, result);
}

status vram_mock_event_query(vram_mock_machine *machine, uint32_t ordinal, uint64_t id)
{
    device *on = NULL;
    hit what;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_EVENT, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    event *at = table_find(&on->events, id);
    if (at == NULL) {
        return leave(on, VRAM_MOCK_CALL_EVENT, VRAM_MOCK_INVALID_HANDLE);
    }
    if (!reached(on, at->stream, at->position)) {
        if (at->polls < PATIENT_POLLS) {
            at->polls++;
        } else {
            result = run_to(on, (goal){at->stream, at->position}, 1);
        }
    }
    if (result == VRAM_MOCK_OK && !reached(on, at->stream, at->position)) {
        result = VRAM_MOCK_NOT_READY;
    }
    return leave(on, VRAM_MOCK_CALL_EVENT, result);
}

/*
 * Operations: checked and queued here, then checked again and run here. Between the two, memory may have been freed,
 * allocated anew at the same address, or made read-only.
 */
#include "internal.h"

static void op_drop(op *what)
{
    free(what->regions);
    free(what);
}

static status may_use(const device *on, const range *of, bool writes)
{
    const allocation *in = still_there(on, of);
    if (in == NULL) {
        return VRAM_MOCK_INVALID_VALUE;
    }
    return writes && in->read_only ? VRAM_MOCK_READ_ONLY : VRAM_MOCK_OK;
}

static status check_op(const device *on, const op *what)
{
    status result = VRAM_MOCK_OK;
    switch (what->call) {
    case VRAM_MOCK_CALL_COPY_TO_DEVICE:
    case VRAM_MOCK_CALL_FILL:
        return may_use(on, &what->device, true);
    case VRAM_MOCK_CALL_COPY_TO_HOST:
        return may_use(on, &what->device, false);
    case VRAM_MOCK_CALL_COUNT_NONZERO:
        result = may_use(on, &what->device, false);
        return result != VRAM_MOCK_OK ? result : may_use(on, &what->result, true);
    default:
        for (uint64_t i = 0; i < what->region_count && result == VRAM_MOCK_OK; i++) {
            result = may_use(on, &what->regions[i], false);
        }
        result = result != VRAM_MOCK_OK ? result : may_use(on, &what->scratch, true);
        result = result != VRAM_MOCK_OK ? result : may_use(on, &what->table, true);
        return result != VRAM_MOCK_OK ? result : may_use(on, &what->result, true);
    }
}

/* A launch result, as little-endian words. */
static void put_result(const op *what, uint64_t nonce, uint64_t covered, uint64_t found)
{
    const uint64_t words[4] = {nonce, covered, found, 0};
    for (uint32_t i = 0; i < RESULT_BYTES; i++) {
        address(what->result.ptr)[i] = (uint8_t)((words[i / 8] >> (8 * (i % 8))) & 0xff);
    }
}

static uint64_t leaves_of(const op *what)
{
    uint64_t leaves = 0;
    for (uint64_t i = 0; i < what->region_count; i++) {
        leaves += block_count(what->regions[i].bytes, what->block_size);
    }
    return leaves;
}

/* Keeps what the launch left behind, for the faults that repeat it. Without memory for it, they repeat nothing. */
static void remember(device *on, const op *what)
{
    uint8_t *copy = realloc(on->last_table, what->table.bytes);
    on->has_last = copy != NULL;
    if (copy != NULL) {
        on->last_table = copy;
        on->last_table_bytes = what->table.bytes;
        memcpy(copy, address(what->table.ptr), what->table.bytes);
        memcpy(on->last_result, address(what->result.ptr), RESULT_BYTES);
    }
}

static void run_digest(device *on, const op *what)
{
    const uint64_t leaves = leaves_of(what);
    const uint64_t entries = entry_count(leaves, what->block_size);
    switch (what->hit.kind) {
    case VRAM_MOCK_FAULT_SKIP:
        return;
    case VRAM_MOCK_FAULT_DIGEST_SHORT:
    case VRAM_MOCK_FAULT_DIGEST_SHORT_LIES:
        digest_table(on, what, leaves / 2);
        if (what->hit.kind == VRAM_MOCK_FAULT_DIGEST_SHORT) {
            put_result(what, what->nonce, leaves / 2, entry_count(leaves / 2, what->block_size));
        } else {
            put_result(what, what->nonce, leaves, entries);
        }
        return;
    case VRAM_MOCK_FAULT_DIGEST_STALE:
    case VRAM_MOCK_FAULT_DIGEST_REPLAYED:
        if (on->has_last) {
            memcpy(address(what->table.ptr), on->last_table, least(what->table.bytes, on->last_table_bytes));
        }
        if (what->hit.kind == VRAM_MOCK_FAULT_DIGEST_REPLAYED) {
            put_result(what, what->nonce, leaves, entries);
        } else if (on->has_last) {
            memcpy(address(what->result.ptr), on->last_result, RESULT_BYTES);
        }
        return;
    default:
        digest_table(on, what, leaves);
        put_result(what, what->nonce, leaves, entries);
        remember(on, what);
    }
}

static void run_copy(const device *on, const op *what)
{
    const uint64_t bytes = what->device.bytes;
    const bool down = what->call == VRAM_MOCK_CALL_COPY_TO_HOST;
    uint8_t *to = address(down ? what->host : what->device.ptr);
    const uint8_t *from = address(down ? what->device.ptr : what->host);
    if (bytes == 0 || what->hit.kind == VRAM_MOCK_FAULT_SKIP) {
        return;
    }
    allocation *in = down ? NULL : still_there(on, &what->device);
    if (in == NULL) {
        memcpy(to, from, bytes);
    } else {
        copy_in(in, what->device.ptr, from, bytes);
    }
    if (what->hit.kind == VRAM_MOCK_FAULT_CORRUPT) {
        const uint64_t byte = (what->hit.value / 8) % bytes;
        if (in != NULL) {
            written(in, what->device.ptr + byte, 1);
        }
        to[byte] = (uint8_t)(to[byte] ^ (1u << (what->hit.value % 8)));
    }
}

static void run_fill(const device *on, const op *what)
{
    allocation *in = still_there(on, &what->device);
    if (in != NULL && what->hit.kind != VRAM_MOCK_FAULT_SKIP) {
        const uint64_t bytes = what->hit.kind == VRAM_MOCK_FAULT_HALF ? what->device.bytes / 2 : what->device.bytes;
        fill_in(in, what->device.ptr, what->value, bytes);
    }
}

static void run_count(const device *on, const op *what)
{
    const allocation *in = still_there(on, &what->device);
    if (in != NULL && what->hit.kind != VRAM_MOCK_FAULT_SKIP) {
        const bool blind = what->hit.kind == VRAM_MOCK_FAULT_COUNT_ZERO;
        put_result(what, what->nonce, what->device.bytes,
                   blind ? 0 : nonzero_in(in, what->device.ptr, what->device.bytes));
    }
}

static void mark(const device *on, const range *of)
{
    allocation *in = still_there(on, of);
    if (in != NULL) {
        written(in, of->ptr, of->bytes);
    }
}

static status op_run(device *on, op *what)
{
    const status result = check_op(on, what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    switch (what->call) {
    case VRAM_MOCK_CALL_COPY_TO_DEVICE:
    case VRAM_MOCK_CALL_COPY_TO_HOST:
        run_copy(on, what);
        break;
    case VRAM_MOCK_CALL_FILL:
        run_fill(on, what);
        break;
    case VRAM_MOCK_CALL_COUNT_NONZERO:
        mark(on, &what->result);
        run_count(on, what);
        break;
    default:
        mark(on, &what->scratch);
        mark(on, &what->table);
        mark(on, &what->result);
        run_digest(on, what);
    }
    on->stats.runs[what->call]++;
    return VRAM_MOCK_OK;
}

static status copy(vram_mock_machine *machine, uint32_t ordinal, uint64_t stream_id, uint32_t call, uint64_t ptr,
                   uint64_t host, uint64_t bytes)
{
    device *on = NULL;
    op what = {.call = call, .host = host};
    status result = enter(machine, ordinal, call, &on, &what.hit);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    const host_buffer *in = host_of(on, host, bytes);
    result = resolve(on, ptr, bytes, call == VRAM_MOCK_CALL_COPY_TO_DEVICE, &what.device);
    if (in == NULL) {
        result = VRAM_MOCK_INVALID_VALUE;
    } else if (result == VRAM_MOCK_OK) {
        what.host_buffer = in->base;
        result = enqueue(on, stream_id, &what);
    }
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}

status vram_mock_copy_to_device(vram_mock_machine *machine, uint32_t ordinal, uint64_t stream_id, uint64_t to,
                                uint64_t host, uint64_t bytes)
{
    return copy(machine, ordinal, stream_id, VRAM_MOCK_CALL_COPY_TO_DEVICE, to, host, bytes);
}

status vram_mock_copy_to_host(vram_mock_machine *machine, uint32_t ordinal, uint64_t stream_id, uint64_t host,
                              uint64_t from, uint64_t bytes)
{
    return copy(machine, ordinal, stream_id, VRAM_MOCK_CALL_COPY_TO_HOST, from, host, bytes);
}

status vram_mock_fill(vram_mock_machine *machine, uint32_t ordinal, uint64_t stream_id, span over, uint32_t value)
{
    device *on = NULL;
    op what = {.call = VRAM_MOCK_CALL_FILL, .value = (uint8_t)(value & 0xff)};
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_FILL, &on, &what.hit);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    result = resolve(on, over.ptr, over.bytes, true, &what.device);
    if (result == VRAM_MOCK_OK) {
        result = enqueue(on, stream_id, &what);
    }
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}

static bool apart(const range *a, const range *b)
{
    return a->ptr + a->bytes <= b->ptr || b->ptr + b->bytes <= a->ptr;
}

status vram_mock_count_nonzero(vram_mock_machine *machine, uint32_t ordinal, uint64_t stream_id, span over,
                               uint64_t result_ptr, uint64_t nonce)
{
    device *on = NULL;
    op what = {.call = VRAM_MOCK_CALL_COUNT_NONZERO, .nonce = nonce};
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_COUNT_NONZERO, &on, &what.hit);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    result = resolve(on, over.ptr, over.bytes, false, &what.device);
    if (result == VRAM_MOCK_OK) {
        result = resolve(on, result_ptr, RESULT_BYTES, true, &what.result);
    }
    if (result == VRAM_MOCK_OK) {
        result = apart(&what.device, &what.result) ? enqueue(on, stream_id, &what) : VRAM_MOCK_INVALID_VALUE;
    }
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}

/* Fills in and checks the ranges of a digest. Outputs that overlap each other or the image are refused. */
static status digest_ranges(const device *on, const vram_mock_digest_job *job, op *what)
{
    uint64_t leaves = 0;
    status result = resolve(on, job->scratch.ptr, job->scratch.bytes, true, &what->scratch);
    result = result != VRAM_MOCK_OK ? result : resolve(on, job->table.ptr, job->table.bytes, true, &what->table);
    result = result != VRAM_MOCK_OK ? result : resolve(on, job->result, RESULT_BYTES, true, &what->result);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    bool fits = apart(&what->scratch, &what->table) && apart(&what->scratch, &what->result) &&
                apart(&what->table, &what->result);
    for (uint64_t i = 0; i < job->region_count; i++) {
        range *region = &what->regions[i];
        if (job->regions[i].bytes == 0 ||
            resolve(on, job->regions[i].ptr, job->regions[i].bytes, false, region) != VRAM_MOCK_OK) {
            return VRAM_MOCK_INVALID_VALUE;
        }
        fits = fits && apart(region, &what->scratch) && apart(region, &what->table) && apart(region, &what->result);
        leaves += block_count(region->bytes, job->block_size);
    }
    const bool whole = what->scratch.bytes / HASH_BYTES >= leaves;
    const bool chunked = what->scratch.bytes >= job->block_size && what->scratch.bytes % job->block_size == 0;
    const uint64_t entries = entry_count(leaves, job->block_size);
    fits = fits && (whole || chunked) && what->table.bytes == entries * HASH_BYTES;
    return fits ? VRAM_MOCK_OK : VRAM_MOCK_INVALID_VALUE;
}

status vram_mock_digest(vram_mock_machine *machine, uint32_t ordinal, uint64_t stream_id, const vram_mock_digest_job *job)
{
    device *on = NULL;
    op what = {.call = VRAM_MOCK_CALL_DIGEST};
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_DIGEST, &on, &what.hit);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    if (job == NULL || job->regions == NULL || job->region_count == 0 ||
        job->region_count > SIZE_MAX / sizeof(range) || job->block_size < 1024 || job->block_size > 65536 ||
        (job->block_size & (job->block_size - 1)) != 0 || job->salt_bytes > VRAM_VERITY_MAX_SALT) {
        return leave(on, VRAM_MOCK_CALL_ANY, VRAM_MOCK_INVALID_VALUE);
    }
    what.block_size = job->block_size;
    what.salt_bytes = job->salt_bytes;
    memcpy(what.salt, job->salt, job->salt_bytes);
    what.nonce = job->nonce;
    what.region_count = job->region_count;
    what.regions = malloc((size_t)job->region_count * sizeof(range));
    if (what.regions == NULL) {
        return leave(on, VRAM_MOCK_CALL_ANY, VRAM_MOCK_OUT_OF_MEMORY);
    }
    result = digest_ranges(on, job, &what);
    if (result == VRAM_MOCK_OK) {
        /* On failure the queue has not taken the regions. */
        result = enqueue(on, stream_id, &what);
    }
    if (result != VRAM_MOCK_OK) {
        free(what.regions);
    }
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}

/*
 * Copies and fills: checked and queued here, then checked again and run here. Between the two, memory may have been freed,
 * allocated anew at the same address, or made read-only.
 */
#include "internal.h"

/* Checks a range and notes that the operation uses it. */
static status uses(machine *in, device *on, op *what, uint64_t ptr, uint64_t bytes, bool writes)
{
    place *at = NULL;
    range *of = &what->uses[what->use_count];
    *of = (range){ptr, bytes, 0};
    const status result = use(in, on, of, writes, true, &at);
    if (result == OK) {
        of->id = at->id;
        what->use_count++;
    }
    return result;
}

static status enqueue_on(const api_call *c, uint64_t stream_handle, op *what, status checked)
{
    stream *to = stream_of(c->in, c->on, stream_handle);
    if (to == NULL) {
        return INVALID_HANDLE;
    }
    what->hit = c->what;
    what->counts = c->operation == VRAM_MOCK_PART ? VRAM_MOCK_ANY : c->operation;
    return checked != OK ? checked : enqueue(c->in, to, what);
}

static status copy(const api_call *c, enum op_kind kind, uint64_t stream_handle, uint64_t ptr, uint64_t host, uint64_t bytes)
{
    op what = {.kind = kind, .host = host};
    const host_buffer *at = host_of(c->in, host, bytes);
    const status result = uses(c->in, c->on, &what, ptr, bytes, kind == COPY_UP);
    what.host_id = at == NULL ? 0 : at->id;
    return enqueue_on(c, stream_handle, &what, at == NULL ? INVALID_VALUE : result);
}

static status vram_mock_cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream_handle)
{
    BEGIN(cuMemcpyHtoDAsync_v2);
    END(copy(&here, COPY_UP, stream_handle, to, from, bytes));
}

static status vram_mock_cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream_handle)
{
    BEGIN(cuMemcpyDtoHAsync_v2);
    END(copy(&here, COPY_DOWN, stream_handle, from, to, bytes));
}

static status vram_mock_cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream_handle)
{
    BEGIN(cuMemcpyDtoDAsync_v2);
    op what = {.kind = COPY_ACROSS};
    status result = uses(in, on, &what, to, bytes, true);
    result = result != OK ? result : uses(in, on, &what, from, bytes, false);
    END(enqueue_on(&here, stream_handle, &what, result));
}

static status vram_mock_cuMemsetD8Async(uint64_t ptr, uint8_t value, size_t bytes, uint64_t stream_handle)
{
    BEGIN(cuMemsetD8Async);
    op what = {.kind = FILL, .value = value};
    const status result = uses(in, on, &what, ptr, bytes, true);
    END(enqueue_on(&here, stream_handle, &what, result));
}

/* Copies that an engine waits for, from and to any memory of the host. */
static status copy_now(const api_call *c, uint64_t ptr, uint64_t bytes, const uint8_t *from, uint8_t *to)
{
    op what = {0};
    const status result = uses(c->in, c->on, &what, ptr, bytes, from != NULL);
    place *at = place_of(c->in, ptr, bytes);
    if (result != OK || (at->access != WRITES && from != NULL)) {
        return INVALID_VALUE;
    }
    stream *legacy = stream_of(c->in, c->on, 0);
    const status ran = legacy == NULL ? OUT_OF_MEMORY : run_all(c->in, legacy);
    if (ran == OK && from != NULL) {
        copy_in(at->of, ptr - at->base, from, bytes);
    } else if (ran == OK) {
        memcpy(to, at->of->at + (ptr - at->base), bytes);
    }
    return ran;
}

static status vram_mock_cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes)
{
    BEGIN(cuMemcpyHtoD_v2);
    END(bytes == 0 ? OK : copy_now(&here, to, bytes, from, NULL));
}

static status vram_mock_cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes)
{
    BEGIN(cuMemcpyDtoH_v2);
    END(bytes == 0 ? OK : copy_now(&here, from, bytes, NULL, to));
}

/* Flips bit `value` of so many bytes. */
static void corrupt(const hit *what, uint8_t *at, uint64_t bytes)
{
    if (what->kind == VRAM_MOCK_CORRUPT && bytes != 0) {
        const uint64_t byte = (what->value / 8) % bytes;
        at[byte] = (uint8_t)(at[byte] ^ (1u << (what->value % 8)));
    }
}

static status op_run(machine *in, device *on, op *what)
{
    place *at[2] = {NULL, NULL};
    const bool skipped = what->hit.kind == VRAM_MOCK_SKIP;
    for (uint32_t i = 0; what->kind != LAUNCH && i < what->use_count; i++) {
        const status result = use(in, on, &what->uses[i], i == 0 && what->kind != COPY_DOWN, false, &at[i]);
        if (result != OK) {
            return result;
        }
    }
    const uint64_t bytes = what->uses[0].bytes;
    const uint64_t offset = at[0] == NULL ? 0 : what->uses[0].ptr - at[0]->base;
    if (what->kind == COPY_UP || what->kind == COPY_DOWN) {
        const host_buffer *host = host_of(in, what->host, bytes);
        if (host == NULL || host->id != what->host_id) {
            return INVALID_VALUE;
        }
    }
    uint8_t *host = (uint8_t *)(uintptr_t)what->host;
    status result = OK;
    switch (what->kind) {
    case COPY_UP:
        if (!skipped && bytes != 0) {
            copy_in(at[0]->of, offset, host, bytes);
            if (what->hit.kind == VRAM_MOCK_CORRUPT) {
                written(at[0]->of, offset + (what->hit.value / 8) % bytes, 1);
                corrupt(&what->hit, at[0]->of->at + offset, bytes);
            }
        }
        break;
    case COPY_DOWN:
        if (!skipped && bytes != 0) {
            memcpy(host, at[0]->of->at + offset, bytes);
            corrupt(&what->hit, host, bytes);
        }
        break;
    case COPY_ACROSS:
        if (bytes != 0) {
            copy_in(at[0]->of, offset, at[1]->of->at + (what->uses[1].ptr - at[1]->base), bytes);
        }
        break;
    case FILL:
        if (!skipped) {
            fill_in(at[0]->of, offset, what->value, what->hit.kind == VRAM_MOCK_HALF ? bytes / 2 : bytes);
        }
        break;
    default:
        result = launch_run(in, on, what);
    }
    if (result == OK && what->counts != VRAM_MOCK_ANY) {
        on->runs[what->counts]++;
    }
    return result;
}

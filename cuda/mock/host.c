/* Host buffers: the only host memory that copies read and write. */
#include "internal.h"

static host_buffer *host_of(const device *on, uint64_t ptr, uint64_t bytes)
{
    const size_t after = table_after(&on->hosts, ptr);
    if (after == 0) {
        return NULL;
    }
    host_buffer *in = on->hosts.at[after - 1].value;
    const uint64_t offset = ptr - in->base;
    return offset <= in->bytes && bytes <= in->bytes - offset ? in : NULL;
}

status vram_mock_host_alloc(vram_mock_machine *machine, uint32_t ordinal, uint64_t bytes, uint64_t *out)
{
    device *on = NULL;
    hit what;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_HOST_ALLOC, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    if (bytes == 0 || bytes > UINT64_MAX / 2) {
        return leave(on, VRAM_MOCK_CALL_HOST_ALLOC, VRAM_MOCK_INVALID_VALUE);
    }
    const uint64_t page = page_bytes();
    host_buffer *made = calloc(1, sizeof *made);
    uint8_t *at = made == NULL ? NULL : aligned_alloc(page, (bytes + page - 1) & ~(page - 1));
    if (at == NULL || !table_put(&on->hosts, (uint64_t)(uintptr_t)at, made)) {
        free(at);
        free(made);
        return leave(on, VRAM_MOCK_CALL_HOST_ALLOC, VRAM_MOCK_OUT_OF_MEMORY);
    }
    memset(at, 0, bytes);
    *made = (host_buffer){(uint64_t)(uintptr_t)at, bytes};
    *out = made->base;
    return leave(on, VRAM_MOCK_CALL_HOST_ALLOC, VRAM_MOCK_OK);
}

status vram_mock_host_wait(vram_mock_machine *machine, uint32_t ordinal, uint64_t ptr)
{
    device *on = NULL;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_ANY, &on, NULL);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    if (table_find(&on->hosts, ptr) == NULL) {
        result = VRAM_MOCK_INVALID_VALUE;
    } else {
        run_buffer(on, ptr, &result);
    }
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}

status vram_mock_host_free(vram_mock_machine *machine, uint32_t ordinal, uint64_t ptr)
{
    if (machine == NULL || ordinal >= machine->config.devices) {
        return VRAM_MOCK_INVALID_DEVICE;
    }
    device *on = &machine->devices[ordinal];
    pthread_mutex_lock(&on->lock);
    /* The errors of copies that still ran stay on their streams: nobody reads the result of freeing. */
    run_buffer(on, ptr, NULL);
    host_buffer *in = table_take(&on->hosts, ptr);
    if (in == NULL) {
        return leave(on, VRAM_MOCK_CALL_ANY, VRAM_MOCK_INVALID_VALUE);
    }
    on->stats.unwiped_host_bytes += nonzero(address(in->base), in->bytes);
    free(address(in->base));
    free(in);
    return leave(on, VRAM_MOCK_CALL_ANY, on->sticky);
}

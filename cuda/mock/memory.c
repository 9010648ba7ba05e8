/* Allocations, address checks, residency and access. */
#include "internal.h"

static uint64_t page_bytes(void)
{
    const long page = sysconf(_SC_PAGESIZE);
    return page > 0 ? (uint64_t)page : 4096;
}

static uint64_t nonzero(const uint8_t *at, uint64_t bytes)
{
    uint64_t count = 0;
    uint64_t i = 0;
    /* Whole words first: nearly all of what is counted is zero. */
    for (; i + 8 <= bytes; i += 8) {
        uint64_t word;
        memcpy(&word, at + i, 8);
        if (word != 0) {
            for (uint64_t j = 0; j < 8; j++) {
                count += at[i + j] != 0 ? 1 : 0;
            }
        }
    }
    for (; i < bytes; i++) {
        count += at[i] != 0 ? 1 : 0;
    }
    return count;
}

/* The allocation that holds all of `bytes` bytes at `ptr`, or none. */
static allocation *allocation_of(const device *on, uint64_t ptr, uint64_t bytes)
{
    const size_t after = table_after(&on->allocations, ptr);
    if (after == 0) {
        return NULL;
    }
    allocation *in = on->allocations.at[after - 1].value;
    const uint64_t offset = ptr - in->base;
    return offset <= in->bytes && bytes <= in->bytes - offset ? in : NULL;
}

static status resolve(const device *on, uint64_t ptr, uint64_t bytes, bool writes, range *out)
{
    const allocation *in = allocation_of(on, ptr, bytes);
    if (in == NULL) {
        return VRAM_MOCK_INVALID_VALUE;
    }
    *out = (range){ptr, bytes, in->id};
    return writes && in->read_only ? VRAM_MOCK_READ_ONLY : VRAM_MOCK_OK;
}

/* The allocation of a range that was resolved earlier, unless it was freed since. */
static allocation *still_there(const device *on, const range *of)
{
    allocation *in = allocation_of(on, of->ptr, of->bytes);
    return in != NULL && in->id == of->id ? in : NULL;
}

/* Pages come from the kernel, unreserved and zero, so that a device larger than the host can be mocked. */
static uint8_t *memory_map(uint64_t bytes, uint64_t alignment)
{
    const uint64_t page = page_bytes();
    const uint64_t extra = alignment > page ? alignment : 0;
    if (bytes > UINT64_MAX / 2 - extra - page) {
        return NULL;
    }
    const uint64_t all = bytes + extra;
    void *raw = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        return NULL;
    }
    if (extra == 0) {
        return raw;
    }
    const uint64_t start = (uint64_t)(uintptr_t)raw;
    const uint64_t base = (start + alignment - 1) & ~(alignment - 1);
    const uint64_t end = (base + bytes + page - 1) & ~(page - 1);
    const uint64_t raw_end = (start + all + page - 1) & ~(page - 1);
    if (base > start) {
        munmap(raw, base - start);
    }
    if (raw_end > end) {
        munmap(address(end), raw_end - end);
    }
    return address(base);
}

static void allocation_drop(device *on, allocation *in)
{
    if (!in->foreign) {
        uint8_t *at = address(in->base);
        if (in->written_from < in->written_to) {
            const uint64_t bytes = in->written_to - in->written_from;
            on->stats.unwiped_device_bytes += nonzero_in(in, in->base + in->written_from, bytes);
            if (on->machine->config.poison != 0 && in->touched == NULL) {
                memset(at + in->written_from, POISON_FREED, bytes);
            }
        }
        if (in->mapped) {
            munmap(at, in->bytes);
        } else {
            free(at);
        }
        on->used -= in->bytes;
    }
    free(in->touched);
    free(in);
}

static void memory_drop(device *on)
{
    for (size_t i = 0; i < on->allocations.len; i++) {
        allocation_drop(on, on->allocations.at[i].value);
    }
    free(on->allocations.at);
    for (size_t i = 0; i < on->hosts.len; i++) {
        host_buffer *of = on->hosts.at[i].value;
        free(address(of->base));
        free(of);
    }
    free(on->hosts.at);
}

status vram_mock_memory_info(vram_mock_machine *machine, uint32_t ordinal, uint64_t *free_bytes, uint64_t *total_bytes)
{
    device *on = NULL;
    hit what;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_MEMORY_INFO, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    const uint64_t total = on->machine->config.capacity_bytes;
    *free_bytes = what.kind == VRAM_MOCK_FAULT_FREE_BYTES ? what.value : total - on->used;
    *total_bytes = total;
    return leave(on, VRAM_MOCK_CALL_MEMORY_INFO, VRAM_MOCK_OK);
}

static status alloc_on(device *on, uint64_t bytes, uint64_t *out)
{
    const vram_mock_config *config = &on->machine->config;
    if (bytes == 0 || (bytes & (config->granularity - 1)) != 0) {
        return VRAM_MOCK_INVALID_VALUE;
    }
    if (bytes > config->capacity_bytes - on->used) {
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    allocation *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    made->mapped = bytes >= page_bytes();
    uint8_t *at = made->mapped ? memory_map(bytes, config->granularity) : aligned_alloc(config->granularity, bytes);
    if (at == NULL) {
        free(made);
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    made->base = (uint64_t)(uintptr_t)at;
    made->bytes = bytes;
    made->id = on->next_id++;
    made->written_from = UINT64_MAX;
    on->used += bytes;
    if ((config->sparse != 0 && made->mapped && !make_sparse(made)) || !table_put(&on->allocations, made->base, made)) {
        allocation_drop(on, made);
        return VRAM_MOCK_OUT_OF_MEMORY;
    }
    if (config->poison != 0) {
        poison_fresh(made);
    } else if (!made->mapped) {
        fill_in(made, made->base, 0, bytes);
    }
    *out = made->base;
    return VRAM_MOCK_OK;
}

status vram_mock_alloc(vram_mock_machine *machine, uint32_t ordinal, uint64_t bytes, uint64_t *out)
{
    device *on = NULL;
    hit what;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_ALLOC, &on, &what);
    return result != VRAM_MOCK_OK ? result : leave(on, VRAM_MOCK_CALL_ALLOC, alloc_on(on, bytes, out));
}

static status free_on(device *on, uint64_t ptr, bool foreign)
{
    allocation *in = table_find(&on->allocations, ptr);
    if (in == NULL || in->foreign != foreign) {
        return VRAM_MOCK_INVALID_VALUE;
    }
    table_take(&on->allocations, ptr);
    allocation_drop(on, in);
    return VRAM_MOCK_OK;
}

status vram_mock_free(vram_mock_machine *machine, uint32_t ordinal, uint64_t ptr)
{
    device *on = NULL;
    hit what;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_FREE, &on, &what);
    return result != VRAM_MOCK_OK ? result : leave(on, VRAM_MOCK_CALL_FREE, free_on(on, ptr, false));
}

status vram_mock_register_foreign(vram_mock_machine *machine, uint32_t ordinal, span over, uint32_t writable)
{
    device *on = NULL;
    const uint64_t ptr = over.ptr;
    const uint64_t bytes = over.bytes;
    if (ptr == 0 || bytes == 0 || bytes > UINT64_MAX - ptr) {
        return VRAM_MOCK_INVALID_VALUE;
    }
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_ANY, &on, NULL);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    const size_t after = table_after(&on->allocations, ptr);
    const allocation *before = after == 0 ? NULL : on->allocations.at[after - 1].value;
    const bool overlaps = (before != NULL && ptr - before->base < before->bytes) ||
                          (after < on->allocations.len && on->allocations.at[after].key - ptr < bytes);
    allocation *made = overlaps ? NULL : calloc(1, sizeof *made);
    if (made == NULL) {
        return leave(on, VRAM_MOCK_CALL_ANY, overlaps ? VRAM_MOCK_INVALID_VALUE : VRAM_MOCK_OUT_OF_MEMORY);
    }
    made->id = on->next_id++;
    made->base = ptr;
    made->bytes = bytes;
    made->foreign = true;
    made->read_only = writable == 0;
    if (!table_put(&on->allocations, ptr, made)) {
        free(made);
        result = VRAM_MOCK_OUT_OF_MEMORY;
    }
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}

/* Works on a dead device too: the owner must be able to take the memory back. */
status vram_mock_unregister_foreign(vram_mock_machine *machine, uint32_t ordinal, uint64_t ptr)
{
    if (machine == NULL || ordinal >= machine->config.devices) {
        return VRAM_MOCK_INVALID_DEVICE;
    }
    device *on = &machine->devices[ordinal];
    pthread_mutex_lock(&on->lock);
    return leave(on, VRAM_MOCK_CALL_ANY, free_on(on, ptr, true));
}

status vram_mock_residency_of(vram_mock_machine *machine, uint32_t ordinal, uint64_t ptr, vram_mock_residency *out)
{
    device *on = NULL;
    hit what;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_RESIDENCY, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    const allocation *in = allocation_of(on, ptr, 1);
    if (in == NULL) {
        return leave(on, VRAM_MOCK_CALL_RESIDENCY, VRAM_MOCK_INVALID_VALUE);
    }
    *out = (vram_mock_residency){VRAM_MOCK_MEMORY_DEVICE, 0, 0, 1, ordinal, 0, {in->base, in->bytes}};
    switch (what.kind == VRAM_MOCK_FAULT_RESIDENCY ? (uint32_t)what.value : 0u) {
    case VRAM_MOCK_LIE_HOST:
        out->kind = VRAM_MOCK_MEMORY_HOST;
        break;
    case VRAM_MOCK_LIE_MANAGED:
        out->kind = VRAM_MOCK_MEMORY_MANAGED;
        break;
    case VRAM_MOCK_LIE_HOST_MAPPED:
        out->host_mapped = 1;
        break;
    case VRAM_MOCK_LIE_EXPORTABLE:
        out->exportable = 1;
        break;
    case VRAM_MOCK_LIE_ORDINAL:
        out->ordinal = ordinal + 1;
        break;
    case VRAM_MOCK_LIE_ZEROS:
        memset(out, 0, sizeof *out);
        break;
    case VRAM_MOCK_LIE_SHORT_RANGE:
        out->range.bytes -= 1;
        break;
    default:
        break;
    }
    return leave(on, VRAM_MOCK_CALL_RESIDENCY, VRAM_MOCK_OK);
}

/* A change at rest: no mapping stands in its way. What someone else never gave for writing is not ours to change. */
static status flip(allocation *in, uint64_t ptr, uint32_t bit)
{
    if (in->foreign && in->read_only) {
        return VRAM_MOCK_READ_ONLY;
    }
    *address(ptr) = (uint8_t)(*address(ptr) ^ (1u << bit));
    written(in, ptr, 1);
    return VRAM_MOCK_OK;
}

/* Foreign memory is not ours to map: its access never changes, and that is not confirmed. */
status vram_mock_protect(vram_mock_machine *machine, uint32_t ordinal, span over, uint32_t read_only, uint32_t *confirmed)
{
    device *on = NULL;
    hit what;
    const status result = enter(machine, ordinal, VRAM_MOCK_CALL_PROTECT, &on, &what);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    allocation *in = table_find(&on->allocations, over.ptr);
    if (in == NULL || in->bytes != over.bytes) {
        return leave(on, VRAM_MOCK_CALL_PROTECT, VRAM_MOCK_INVALID_VALUE);
    }
    if (read_only != 0 && on->machine->config.read_only == 0) {
        return leave(on, VRAM_MOCK_CALL_PROTECT, VRAM_MOCK_NOT_SUPPORTED);
    }
    if (what.kind == VRAM_MOCK_FAULT_CORRUPT) {
        (void)flip(in, in->base + (what.value / 8) % in->bytes, (uint32_t)(what.value % 8));
    }
    if (!in->foreign && what.kind != VRAM_MOCK_FAULT_SKIP) {
        in->read_only = read_only != 0;
    }
    *confirmed = !in->foreign && what.kind != VRAM_MOCK_FAULT_UNCONFIRMED ? 1 : 0;
    return leave(on, VRAM_MOCK_CALL_PROTECT, VRAM_MOCK_OK);
}

status vram_mock_flip_bit(vram_mock_machine *machine, uint32_t ordinal, uint64_t ptr, uint32_t bit)
{
    device *on = NULL;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_ANY, &on, NULL);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    allocation *in = allocation_of(on, ptr, 1);
    result = in == NULL || bit > 7 ? VRAM_MOCK_INVALID_VALUE : flip(in, ptr, bit);
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}

status vram_mock_peek(vram_mock_machine *machine, uint32_t ordinal, uint64_t ptr, uint8_t *out, uint64_t bytes)
{
    device *on = NULL;
    status result = enter(machine, ordinal, VRAM_MOCK_CALL_ANY, &on, NULL);
    if (result != VRAM_MOCK_OK) {
        return result;
    }
    if (allocation_of(on, ptr, bytes) == NULL) {
        result = VRAM_MOCK_INVALID_VALUE;
    } else if (bytes != 0) {
        memcpy(out, address(ptr), bytes);
    }
    return leave(on, VRAM_MOCK_CALL_ANY, result);
}
